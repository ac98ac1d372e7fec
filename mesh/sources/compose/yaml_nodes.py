"""Parses YAML text into a graph of nodes that know their line, and reads such nodes.

The code reads the graph instead of the values, since every message names the line. In the graph an alias is the same
node again, so anchors cost nothing until they are followed; `YamlWalker` follows them within a budget. The nesting
depth of the text is checked first: the C parser recurses on the C stack and would crash the process. So is the number
of values: each node takes some hundred bytes, however short its text is.

Scalars become text as compose converts them (yaml.v3 of Go, then fmt.Sprint): `true` and numbers in their shortest
form, null as empty, quoted scalars as written.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from math import isfinite

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
_RESOLVER = yaml.resolver.Resolver()


class YamlError(MeshError):
    """A text that is not YAML or uses an unsupported feature. `line` and `column` count from 1; column 0: unknown."""

    def __init__(self, code: Code, line: int, column: int, reason: str, remedy: str) -> None:
        super().__init__(code, f"{line}:{column}: {reason}; {remedy}")
        self.line = line
        self.column = column
        self.reason = reason
        self.remedy = remedy


@dataclass(frozen=True, slots=True)
class YamlEntry:
    """The value of a key in a mapping."""

    line: int
    """Line of the key. For an entry that an anchor merges in, the line at the anchor."""
    node: yaml.Node


@dataclass(frozen=True, slots=True)
class DuplicateKey:
    """A key that occurs twice in a mapping."""

    key: str
    first: int
    second: int


def load_graphs(text: str, limits: ComposeLimits = DEFAULT_LIMITS) -> list[yaml.Node]:
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
        _check_size(text, limits.values)
        roots = list(yaml.compose_all(text, Loader=_LOADER))
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
    return [root for root in roots if not (isinstance(root, yaml.ScalarNode) and not scalar_text(root))]


def _check_size(text: str, most: int) -> None:
    """Raise `YamlError` for a text that is nested too deeply or has more values than `most`."""
    depth = values = 0
    for event in yaml.parse(text, Loader=_LOADER):
        values += isinstance(event, yaml.NodeEvent)
        if isinstance(event, yaml.CollectionStartEvent):
            depth += 1
        elif isinstance(event, yaml.CollectionEndEvent):
            depth -= 1
        line = event.start_mark.line + 1 if event.start_mark else 1
        if depth > _DEPTH_MAX:
            raise _too_deep(line)
        if values > most:
            raise YamlError(
                Code.COMPOSE_NOT_YAML,
                line,
                0,
                f"it has more than {most} keys and values",
                "split it into several files, or raise [source.compose] values",
            )


def _shown_size(size: int) -> str:
    return f"{size >> 20} MiB" if size % (1 << 20) == 0 else f"{size} bytes"


def _too_deep(line: int) -> YamlError:
    reason = f"it is nested more than {_DEPTH_MAX} levels deep"
    return YamlError(Code.COMPOSE_NOT_YAML, line, 0, reason, "reduce the nesting")


def line_of(node: yaml.Node) -> int:
    """Return the line where the node begins, counted from 1."""
    return int(node.start_mark.line) + 1


def find_duplicate_keys(root: yaml.Node) -> Iterator[DuplicateKey]:
    """Yield the keys that occur twice in any mapping of the graph."""
    seen, waiting = set(), [root]
    while waiting:
        node = waiting.pop()
        if id(node) in seen:
            continue
        seen.add(id(node))
        if isinstance(node, yaml.SequenceNode):
            waiting.extend(node.value)
        elif isinstance(node, yaml.MappingNode):
            waiting.extend(value for _, value in node.value)
            yield from _twice(node)


def _twice(node: yaml.MappingNode) -> Iterator[DuplicateKey]:
    first: dict[str, int] = {}
    for key, _ in node.value:
        if not isinstance(key, yaml.ScalarNode):
            continue
        if key.value in first:
            yield DuplicateKey(key.value, first[key.value], line_of(key))
        else:
            first[key.value] = line_of(key)


class YamlWalker:
    """Reads mappings of one graph, with `<<` followed, within a budget of entries."""

    def __init__(self, budget: ComposeBudget | None = None) -> None:
        self._budget = budget or ComposeBudget()
        self._left = self._budget.limits.entries
        self._merging: set[int] = set()

    def entries(self, node: yaml.MappingNode) -> dict[str, YamlEntry]:
        """Return the mapping with its merge keys resolved (yaml.org/type/merge.html): own keys win, then earlier ones.

        Raises `YamlError` for a key or a merge that cannot be read, and if aliases expand beyond the bound of the file;
        `ComposeTooLargeError` if the files of the project do together.
        """
        if id(node) in self._merging:
            raise YamlError(
                Code.COMPOSE_NOT_YAML,
                line_of(node),
                0,
                "the anchor merges itself",
                "remove the << that leads back to it",
            )
        if len(self._merging) > _DEPTH_MAX:
            raise YamlError(
                Code.COMPOSE_NOT_YAML,
                line_of(node),
                0,
                f"more than {_DEPTH_MAX} anchors merge one another",
                "merge fewer",
            )
        self._merging.add(id(node))
        own: dict[str, YamlEntry] = {}
        merged: dict[str, YamlEntry] = {}
        for key, value in node.value:
            self._spend(key)
            if key.tag == _MERGE:
                for source in self._sources(value):
                    for name, entry in self.entries(source).items():
                        self._spend(key)
                        merged.setdefault(name, entry)
            elif isinstance(key, yaml.ScalarNode):
                own[key.value] = YamlEntry(line_of(key), value)
            else:
                raise YamlError(
                    Code.COMPOSE_NOT_YAML,
                    line_of(key),
                    0,
                    "a key is not text",
                    "write a plain word in front of the colon",
                )
        self._merging.discard(id(node))
        return {**merged, **own}

    def items(self, node: yaml.SequenceNode) -> Iterator[yaml.Node]:
        """Yield the items of a list. Raises `YamlError` like `entries`."""
        for item in node.value:
            self._spend(item)
            yield item

    def _sources(self, node: yaml.Node) -> list[yaml.MappingNode]:
        sources = node.value if isinstance(node, yaml.SequenceNode) else [node]
        mappings = [source for source in sources if isinstance(source, yaml.MappingNode)]
        if len(mappings) != len(sources):
            raise YamlError(
                Code.COMPOSE_NOT_YAML,
                line_of(node),
                0,
                "<< merges a value that is not a mapping",
                "write an alias such as *defaults",
            )
        return mappings

    def _spend(self, node: yaml.Node) -> None:
        self._budget.walk()
        self._left -= 1
        if self._left < 0:
            reason = f"aliases expand to more than {self._budget.limits.entries} entries"
            raise YamlError(
                Code.COMPOSE_NOT_YAML,
                line_of(node),
                0,
                reason,
                "write the entries without aliases, or raise [source.compose] values",
            )


def scalar_text(node: yaml.ScalarNode) -> str:
    """Return the scalar as the text that compose makes of it."""
    text: str = node.value
    if node.style or (node.tag == _STRING and _implicit_tag(text) != _STRING):  # quoted, a block, or with !!str
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


def _implicit_tag(text: str) -> str:
    return str(_RESOLVER.resolve(yaml.ScalarNode, text, (True, False)))  # type: ignore[no-untyped-call]
