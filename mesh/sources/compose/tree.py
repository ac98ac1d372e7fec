"""The content of a compose file as a tree of values that know where they were written. Pure.

A tree is immutable, so an anchor that is used a thousand times is one value. Variables are replaced when a value is
read (`ComposeScalar.fill`), with those of the file that it was written in: the specification replaces variables before
it merges files.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

from mesh.model.codes import Code
from mesh.sources.compose.limits import ComposeBudget
from mesh.sources.compose.yaml_nodes import (
    YamlError,
    YamlMapping,
    YamlNode,
    YamlSequence,
    YamlWalker,
    scalar_text,
)

RESET, OVERRIDE = "!reset", "!override"
"""The tags of the compose specification: a value that is removed, and one that replaces instead of merging."""
_DEPTH_MAX = 200
"""Levels of a tree with its aliases followed. The text itself may have 100."""


@dataclass(frozen=True, slots=True)
class ComposeOrigin:
    """The file that values were written in."""

    filename: str
    """As messages name it."""
    directory: str
    """Relative paths in the file begin here."""
    variables: Mapping[str, str] = field(repr=False)
    """Name -> value. Values may be secrets."""
    budget: ComposeBudget = field(default_factory=ComposeBudget, repr=False, compare=False)
    """What the project of the file may still take of its bounds."""

    def where(self, line: int) -> str:
        """Return `FILE:LINE`."""
        return f"{self.filename}:{line}"


@dataclass(frozen=True, slots=True)
class ComposeScalar:
    """A single value."""

    origin: ComposeOrigin = field(repr=False)
    line: int
    text: str
    """As compose converts it to text, before variables are replaced; null is empty."""
    written: str
    """As it is written, without quotes."""
    is_null: bool = False
    tag: str = ""
    """A tag that begins with `!`, or empty."""

    def fill(self, budget: ComposeBudget | None = None) -> tuple[str, tuple[str, ...]]:
        """Return the text with its variables replaced, and the unset ones. Raises `InterpolationError`.

        It is taken from the budget of the project, unless another is given.
        """
        return (budget or self.origin.budget).fill(self.text, self.origin.variables)


@dataclass(frozen=True, slots=True)
class ComposeList:
    """A sequence of values."""

    origin: ComposeOrigin = field(repr=False)
    line: int
    items: "tuple[ComposeNode, ...]"
    tag: str = ""


@dataclass(frozen=True, slots=True)
class ComposeEntry:
    """The value of a key in a mapping."""

    origin: ComposeOrigin = field(repr=False)
    """The file of the key."""
    line: int
    """The line of the key."""
    value: "ComposeNode"

    @property
    def where(self) -> str:
        """`FILE:LINE` of the key."""
        return self.origin.where(self.line)


@dataclass(frozen=True, slots=True)
class ComposeMapping:
    """Values by key, with `<<` followed."""

    origin: ComposeOrigin = field(repr=False)
    line: int
    entries: Mapping[str, ComposeEntry]
    tag: str = ""


@dataclass(frozen=True, slots=True)
class ComposeLayers:
    """Several declarations of `KEY: VALUE` pairs, as mappings or lists, of which later ones win key by key."""

    layers: "tuple[ComposeMapping | ComposeList | ComposeScalar, ...]"
    """At least two."""

    @property
    def origin(self) -> ComposeOrigin:
        """The file of the last declaration."""
        return self.layers[-1].origin

    @property
    def line(self) -> int:
        """The line of the last declaration."""
        return self.layers[-1].line

    @property
    def tag(self) -> str:
        """None of its own."""
        return ""


ComposeNode = ComposeScalar | ComposeList | ComposeMapping | ComposeLayers


class ComposeTreeBuilder:
    """Makes trees of the YAML nodes of one text, within the budget of its project."""

    def __init__(self, origin: ComposeOrigin) -> None:
        self._origin = origin
        self._walk = YamlWalker(origin.budget)
        self._built: dict[int, ComposeNode] = {}
        """The trees of nodes with an anchor, by the identity of the node."""
        self._depth = 0

    def build(self, node: YamlNode) -> ComposeNode:
        """Return the tree of one node.

        Raises `YamlError`, also for an anchor that contains itself, and `ComposeTooLargeError`.
        """
        if node.is_anchored and id(node) in self._built:
            return self._built[id(node)]
        if self._depth > _DEPTH_MAX:
            reason = f"its aliases are nested more than {_DEPTH_MAX} levels deep"
            raise YamlError(Code.COMPOSE_NOT_YAML, node.line, 0, reason, "reduce the nesting")
        self._depth += 1
        built = self._build(node)
        self._depth -= 1
        if node.is_anchored:
            self._built[id(node)] = built
        return built

    def _build(self, node: YamlNode) -> ComposeNode:
        line, tag = node.line, node.tag if node.tag.startswith("!") else ""
        if isinstance(node, YamlMapping):
            entries = {
                key: ComposeEntry(self._origin, entry.line, self.build(entry.node))
                for key, entry in self._walk.entries(node).items()
            }
            return ComposeMapping(self._origin, line, entries, tag)
        if isinstance(node, YamlSequence):
            return ComposeList(self._origin, line, tuple(self.build(item) for item in self._walk.items(node)), tag)
        text = scalar_text(node)
        return ComposeScalar(self._origin, line, text, node.value, not text and not node.is_quoted, tag)
