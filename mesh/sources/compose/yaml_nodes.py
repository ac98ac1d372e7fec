"""Parses YAML text into a graph of nodes that know their line, and reads such nodes.

The code reads the graph instead of the values, since every message names the line. In the graph an alias is the same
node again, so anchors cost nothing until they are followed; `YamlWalker` follows them within a budget. The nodes are
made of the parser's events in one pass, which checks the depth and the number of values on its way: the composer of
PyYAML recurses on the C stack, and keeps two marks for each node, which take four times as much as the node.

Scalars become text as compose converts them (yaml.v3 of Go, then fmt.Sprint): `true` and numbers in their shortest
form, null as empty, quoted scalars as written.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from math import isfinite
from typing import TypeAlias

import yaml

from mesh.model.codes import Code
from mesh.model.errors import MeshError
from mesh.sources.compose.limits import DEFAULT_LIMITS, ComposeBudget, ComposeLimits

_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # libyaml is not in every build of PyYAML
_DEPTH_MAX = 100

_WORDS = {"true": "true", "True": "true", "TRUE": "true", "false": "false", "False": "false", "FALSE": "false"}
_WORDS |= dict.fromkeys(("", "~", "null", "Null", "NULL"), "")
_INTEGER = re.compile(r"[-+]?(0|[1-9][0-9]{0,18})", re.ASCII)
_RADIX = re.compile(r"([-+]?)0(?:x([0-9a-fA-F]{1,16})|o?([0-7]{1,21})|b([01]{1,64}))", re.ASCII)
_BASES = {2: 16, 3: 8, 4: 2}  # group of _RADIX -> base
_FLOAT = re.compile(r"[-+]?(\.[0-9]{1,300}|[0-9]{1,300}(\.[0-9]{0,300})?)([eE][-+]?[0-9]{1,3})?", re.ASCII)
_STRING = "tag:yaml.org,2002:str"
_MERGE = "tag:yaml.org,2002:merge"
_SHORT = 64
"""Characters of a text that is kept once, however often a file has it: keys are short and the same in each service."""


class YamlError(MeshError):
    """A text that is not YAML or uses an unsupported feature. `line` and `column` count from 1; column 0: unknown."""

    def __init__(self, code: Code, line: int, column: int, reason: str, remedy: str) -> None:
        super().__init__(code, f"{line}:{column}: {reason}; {remedy}")
        self.line = line
        self.column = column
        self.reason = reason
        self.remedy = remedy


@dataclass(slots=True, eq=False)
class YamlScalar:
    """A text."""

    line: int
    """Where it begins, counted from 1; of the other nodes, too."""
    tag: str
    """As it is written, in full; empty without one. That of a plain `<<` is the one of merge keys."""
    is_anchored: bool
    """Whether an alias may lead to it."""
    value: str
    """As it is written, without quotes."""
    is_quoted: bool = False
    """Whether it is in quotes, or a block."""


@dataclass(slots=True, eq=False)
class YamlSequence:
    """A list."""

    line: int
    tag: str
    is_anchored: bool
    items: "list[YamlNode]" = field(default_factory=list)


@dataclass(slots=True, eq=False)
class YamlMapping:
    """Keys with their values, as they are written."""

    line: int
    tag: str
    is_anchored: bool
    pairs: "list[tuple[YamlNode, YamlNode]]" = field(default_factory=list)


YamlNode: TypeAlias = YamlScalar | YamlSequence | YamlMapping


@dataclass(frozen=True, slots=True)
class YamlEntry:
    """The value of a key in a mapping."""

    line: int
    """Line of the key. For an entry that an anchor merges in, the line at the anchor."""
    node: YamlNode


@dataclass(frozen=True, slots=True)
class DuplicateKey:
    """A key that occurs twice in a mapping."""

    key: str
    first: int
    second: int


def load_graphs(text: str, limits: ComposeLimits = DEFAULT_LIMITS) -> list[YamlNode]:
    """Return the roots of the documents that are not empty, such as one after a last `---`. Raises `YamlError`."""
    if len(text) > limits.file_bytes:
        raise YamlError(
            Code.COMPOSE_NOT_YAML,
            1,
            0,
            f"the file is larger than {_shown_size(limits.file_bytes)}",
            "split it into several files, or raise [source.compose] file_bytes",
        )
    try:
        composer = _YamlComposer(limits.values)
        for event in yaml.parse(text, Loader=_LOADER):
            composer.take(event)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        reason = ", ".join(part for part in (error.context, error.problem) if part)
        line, column = (mark.line + 1, mark.column + 1) if mark else (1, 0)
        if "nesting depth" in (error.problem or ""):  # newer versions of libyaml read ahead and have their own limit
            raise _too_deep(line) from None
        raise YamlError(
            Code.COMPOSE_NOT_YAML, line, column, f"not YAML: {reason}", "correct the syntax there or just before"
        ) from None
    except yaml.reader.ReaderError as error:
        before = text[: error.position]
        line, column = before.count("\n") + 1, len(before) - before.rfind("\n")
        raise YamlError(
            Code.COMPOSE_NOT_YAML, line, column, f"not YAML: {error.reason}", "remove the character"
        ) from None
    except UnicodeEncodeError as error:
        line = text.count("\n", 0, error.start) + 1
        raise YamlError(
            Code.COMPOSE_NOT_YAML, line, 0, "not YAML: an unpaired surrogate", "remove the character"
        ) from None
    return [root for root in composer.roots if not (isinstance(root, YamlScalar) and not scalar_text(root))]


class _YamlComposer:
    """Makes the graphs of a text from its events, within a number of values."""

    def __init__(self, most: int) -> None:
        self.roots: list[YamlNode] = []
        self._most = self._left = most
        self._open: list[tuple[YamlSequence | YamlMapping, list[YamlNode]]] = []
        """The collections around the next node, outermost first, each with a key that waits for its value."""
        self._anchors: dict[str, YamlNode] = {}
        """Of this document."""
        self._texts: dict[str, str] = {}

    def take(self, event: yaml.Event) -> None:
        """Take the next event. Raises `YamlError`."""
        if isinstance(event, yaml.NodeEvent):
            line = event.start_mark.line + 1 if event.start_mark else 1
            self._left -= 1
            if self._left < 0:
                raise YamlError(
                    Code.COMPOSE_NOT_YAML,
                    line,
                    0,
                    f"it has more than {self._most} keys and values",
                    "split it into several files, or raise [source.compose] values",
                )
            node = self._node(event, line)
            self._place(node)
            if isinstance(event, yaml.CollectionStartEvent) and not isinstance(node, YamlScalar):
                self._open.append((node, []))
                if len(self._open) > _DEPTH_MAX:
                    raise _too_deep(line)
        elif isinstance(event, yaml.CollectionEndEvent):
            self._open.pop()
        elif isinstance(event, yaml.DocumentEndEvent):
            self._anchors = {}

    def _node(self, event: yaml.NodeEvent, line: int) -> YamlNode:
        anchor = event.anchor
        if isinstance(event, yaml.AliasEvent):
            if anchor not in self._anchors:
                raise _not_yaml(event, line, f"found undefined alias {anchor!r}")
            return self._anchors[anchor]
        if anchor in self._anchors:
            first = self._anchors[anchor].line
            raise _not_yaml(event, line, f"found duplicate anchor {anchor!r}, which is on line {first}, too")
        node = self._new_node(event, line, anchor is not None)
        if anchor is not None:
            self._anchors[anchor] = node
        return node

    def _new_node(self, event: yaml.NodeEvent, line: int, is_anchored: bool) -> YamlNode:
        if isinstance(event, yaml.MappingStartEvent):
            return YamlMapping(line, event.tag or "", is_anchored)
        if not isinstance(event, yaml.ScalarEvent):
            return YamlSequence(line, getattr(event, "tag", None) or "", is_anchored)
        value: str = event.value
        if len(value) <= _SHORT:
            value = self._texts.setdefault(value, value)
        tag: str = event.tag or (_MERGE if value == "<<" and not event.style else "")
        return YamlScalar(line, _STRING if tag == "!" else tag, is_anchored, value, bool(event.style))

    def _place(self, node: YamlNode) -> None:
        if not self._open:
            self.roots.append(node)
            return
        collection, key = self._open[-1]
        if isinstance(collection, YamlSequence):
            collection.items.append(node)
        elif key:
            collection.pairs.append((key.pop(), node))
        else:
            key.append(node)


def _not_yaml(event: yaml.NodeEvent, line: int, reason: str) -> YamlError:
    column = event.start_mark.column + 1 if event.start_mark else 0
    remedy = "correct the syntax there or just before"
    return YamlError(Code.COMPOSE_NOT_YAML, line, column, f"not YAML: {reason}", remedy)


def _shown_size(size: int) -> str:
    return f"{size >> 20} MiB" if size % (1 << 20) == 0 else f"{size} bytes"


def _too_deep(line: int) -> YamlError:
    reason = f"it is nested more than {_DEPTH_MAX} levels deep"
    return YamlError(Code.COMPOSE_NOT_YAML, line, 0, reason, "reduce the nesting")


def find_duplicate_keys(root: YamlNode) -> Iterator[DuplicateKey]:
    """Yield the keys that occur twice in any mapping of the graph."""
    seen, waiting = set(), [root]
    while waiting:
        node = waiting.pop()
        if isinstance(node, YamlScalar) or id(node) in seen:
            continue
        if node.is_anchored:
            seen.add(id(node))
        if isinstance(node, YamlSequence):
            waiting.extend(node.items)
        else:
            waiting.extend(value for _, value in node.pairs)
            yield from _twice(node)


def _twice(node: YamlMapping) -> Iterator[DuplicateKey]:
    first: dict[str, int] = {}
    for key, _ in node.pairs:
        if not isinstance(key, YamlScalar):
            continue
        if key.value in first:
            yield DuplicateKey(key.value, first[key.value], key.line)
        else:
            first[key.value] = key.line


class YamlWalker:
    """Reads mappings of one graph, with `<<` followed, within a budget of entries."""

    def __init__(self, budget: ComposeBudget | None = None) -> None:
        self._budget = budget or ComposeBudget()
        self._left = self._budget.limits.entries
        self._merging: set[int] = set()

    def entries(self, node: YamlMapping) -> dict[str, YamlEntry]:
        """Return the mapping with its merge keys resolved (yaml.org/type/merge.html): own keys win, then earlier ones.

        Raises `YamlError` for a key or a merge that cannot be read, and if aliases expand beyond the bound of the file;
        `ComposeTooLargeError` if the files of the project do together.
        """
        if id(node) in self._merging:
            raise YamlError(
                Code.COMPOSE_NOT_YAML,
                node.line,
                0,
                "the anchor merges itself",
                "remove the << that leads back to it",
            )
        if len(self._merging) > _DEPTH_MAX:
            raise YamlError(
                Code.COMPOSE_NOT_YAML,
                node.line,
                0,
                f"more than {_DEPTH_MAX} anchors merge one another",
                "merge fewer",
            )
        self._merging.add(id(node))
        own: dict[str, YamlEntry] = {}
        merged: dict[str, YamlEntry] = {}
        for key, value in node.pairs:
            self._spend(key)
            if key.tag == _MERGE:
                for source in self._sources(value):
                    for name, entry in self.entries(source).items():
                        self._spend(key)
                        merged.setdefault(name, entry)
            elif isinstance(key, YamlScalar):
                own[key.value] = YamlEntry(key.line, value)
            else:
                raise YamlError(
                    Code.COMPOSE_NOT_YAML,
                    key.line,
                    0,
                    "a key is not text",
                    "write a plain word in front of the colon",
                )
        self._merging.discard(id(node))
        return {**merged, **own}

    def items(self, node: YamlSequence) -> Iterator[YamlNode]:
        """Yield the items of a list. Raises `YamlError` like `entries`."""
        for item in node.items:
            self._spend(item)
            yield item

    def _sources(self, node: YamlNode) -> list[YamlMapping]:
        sources = node.items if isinstance(node, YamlSequence) else [node]
        mappings = [source for source in sources if isinstance(source, YamlMapping)]
        if len(mappings) != len(sources):
            raise YamlError(
                Code.COMPOSE_NOT_YAML,
                node.line,
                0,
                "<< merges a value that is not a mapping",
                "write an alias such as *defaults",
            )
        return mappings

    def _spend(self, node: YamlNode) -> None:
        self._budget.walk()
        self._left -= 1
        if self._left < 0:
            reason = f"aliases expand to more than {self._budget.limits.entries} entries"
            raise YamlError(
                Code.COMPOSE_NOT_YAML,
                node.line,
                0,
                reason,
                "write the entries without aliases, or raise [source.compose] values",
            )


def scalar_text(node: YamlScalar) -> str:
    """Return the scalar as the text that compose makes of it."""
    text = node.value
    if node.is_quoted or node.tag == _STRING:
        return text
    if text in _WORDS:
        return _WORDS[text]
    digits = text.replace("_", "")
    if _INTEGER.fullmatch(digits):
        return str(int(digits))
    if radix := _RADIX.fullmatch(digits):
        return str(int(radix[1] + radix[radix.lastindex or 2], _BASES[radix.lastindex or 2]))
    if _FLOAT.fullmatch(text) and isfinite(number := float(text)):
        return str(int(number)) if number.is_integer() and abs(number) < 1e21 else repr(number)
    return text
