"""Parses the text of one compose file into one tree in the form of today. Pure.

Several documents in one file are merged in their order, as several files are. A file without `services:` is read in the
old form, with services at the top level.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from mesh.config.labels.values import escape_unprintable, quote_value
from mesh.model.codes import Code
from mesh.model.problem import Problem, Severity
from mesh.sources.compose.keys import TOP_LEVEL_KEYS
from mesh.sources.compose.limits import ComposeProblems
from mesh.sources.compose.merge import merge_files
from mesh.sources.compose.tree import ComposeEntry, ComposeMapping, ComposeNode, ComposeOrigin, ComposeTreeBuilder
from mesh.sources.compose.yaml_nodes import YamlError, find_duplicate_keys, load_graphs

_OLD_FORM_SIGNS = frozenset({"image", "build", "extends", "labels", "x-endpoints"})
_RESOURCES = frozenset({"include", "networks", "volumes", "configs", "secrets", "models"})
"""Top-level keys of a file that may have no services of its own."""
_SERVICES_REMEDY = "write services: and below it the services"


@dataclass(frozen=True, slots=True)
class ComposeDocuments:
    """The content of one file."""

    tree: ComposeMapping
    """With the services below `services`."""
    broken: bool
    """Compose refuses the file."""


def read_documents(text: str, origin: ComposeOrigin, problems: ComposeProblems) -> ComposeDocuments:
    """Parse one file, and add its problems to `problems`. Raises `YamlError` and `ComposeTooLargeError`."""
    roots = load_graphs(text, origin.budget.limits)
    if not roots:
        raise YamlError(Code.COMPOSE_STRUCTURE, 1, 0, "it is empty", _SERVICES_REMEDY)
    broken = False
    for root in roots:
        # Compose refuses such a file, and a YAML parser would silently drop one of the two values.
        for twice in find_duplicate_keys(root):
            broken = True
            reason = f"the key {quote_value(twice.key)} is on line {twice.first} and again on line {twice.second}"
            problems.add(
                Problem(
                    Code.WRITTEN_TWICE,
                    Severity.ERROR,
                    "the file",
                    reason,
                    "keep one of them",
                    where=origin.where(twice.second),
                )
            )
    builder = ComposeTreeBuilder(origin)
    trees = [_in_the_form_of_today(builder.build(root), problems) for root in roots]
    conflicts: list[tuple[str, str]] = []
    tree = merge_files(trees, conflicts)
    if conflicts or not isinstance(tree, ComposeMapping):
        raise YamlError(Code.COMPOSE_STRUCTURE, 1, 0, "its documents differ in form", "write one document")
    if "services" not in tree.entries and not _RESOURCES & tree.entries.keys():
        raise YamlError(Code.COMPOSE_STRUCTURE, tree.line, 0, "it has no services", _SERVICES_REMEDY)
    return ComposeDocuments(tree, broken)


def _in_the_form_of_today(tree: ComposeNode, problems: ComposeProblems) -> ComposeMapping:
    if not isinstance(tree, ComposeMapping):
        raise YamlError(Code.COMPOSE_STRUCTURE, tree.line, 0, "it is not a mapping", _SERVICES_REMEDY)
    if "services" in tree.entries:
        entry = tree.entries["services"]
        if not isinstance(entry.value, ComposeMapping):
            remedy = "indent the services below it, or write services: {} for none"
            raise YamlError(Code.COMPOSE_STRUCTURE, entry.line, 0, "services is not a mapping", remedy)
        return tree
    services: dict[str, ComposeEntry] = {}
    others: dict[str, ComposeEntry] = {}
    for key, entry in tree.entries.items():
        if key in TOP_LEVEL_KEYS or key.startswith("x-"):
            others[key] = entry
        elif isinstance(entry.value, ComposeMapping) and _OLD_FORM_SIGNS & entry.value.entries.keys():
            services[key] = entry
        else:
            subject, remedy = f"key {escape_unprintable(key)}", "write services: if that is meant"
            problems.add(
                Problem(
                    Code.COMPOSE_STRUCTURE,
                    Severity.WARNING,
                    subject,
                    "it is not a service",
                    remedy,
                    where=entry.where,
                )
            )
    if services:
        below = ComposeMapping(tree.origin, tree.line, MappingProxyType(services))
        others["services"] = ComposeEntry(tree.origin, tree.line, below)
    return ComposeMapping(tree.origin, tree.line, MappingProxyType(others))


def with_services(tree: ComposeMapping, services: Mapping[str, ComposeEntry]) -> ComposeMapping:
    """Return the tree with other services."""
    below = ComposeMapping(tree.origin, tree.line, MappingProxyType(dict(services)))
    entry = ComposeEntry(tree.origin, tree.line, below)
    return ComposeMapping(tree.origin, tree.line, MappingProxyType({**tree.entries, "services": entry}))


def services_of(tree: ComposeMapping) -> Mapping[str, ComposeEntry]:
    """Return the services of a tree, by name, without what begins with `x-`."""
    if "services" not in tree.entries:
        return {}
    value = tree.entries["services"].value
    if not isinstance(value, ComposeMapping):
        return {}
    return {
        name: entry
        for name, entry in value.entries.items()
        if not name.startswith("x-") and entry.value.tag != "!reset"
    }
