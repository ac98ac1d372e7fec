"""Merges declarations of compose files: several documents, several files, and a service with the one it extends. Pure.

Rules (compose specification, "Merge and override"): mappings are merged key by key, sequences are appended, other
values are replaced. Commands are replaced as a whole. Entries of ports, volumes, secrets, configs and devices that mean
the same resource replace one another. `!reset` removes what was there, `!override` replaces it. `x-endpoints` is
replaced as a whole, since a list of instances is either this one or that one.
"""

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from types import MappingProxyType

from mesh.sources.compose.interpolate import InterpolationError
from mesh.sources.compose.tree import (
    OVERRIDE,
    RESET,
    ComposeEntry,
    ComposeLayers,
    ComposeList,
    ComposeMapping,
    ComposeNode,
    ComposeScalar,
)

_PAIRS = frozenset(
    [
        "annotations",
        "build.args",
        "build.additional_contexts",
        "build.labels",
        "deploy.labels",
        "environment",
        "extra_hosts",
        "labels",
        "storage_opt",
        "sysctls",
    ]
)
"""Keys of a service whose value is `KEY: VALUE` pairs as a mapping or as a list. Paths begin in the service."""
_NAMES = frozenset({"depends_on", "networks", "models"})
"""Keys whose value is a list of names or a mapping of names to settings."""
_REPLACED = frozenset({"command", "entrypoint", "healthcheck.test", "x-endpoints"})
_ONE_OR_LIST = frozenset({"dns", "dns_opt", "dns_search", "env_file", "label_file", "tmpfs"})
"""Keys whose value is one text or a list of texts."""


def merge_nodes(base: ComposeNode, over: ComposeNode, path: str, conflicts: list[tuple[str, str]]) -> ComposeNode:
    """Return `over` merged into `base`, two values at `path`: keys joined by NUL, since names may have dots.

    The path of whole files is empty.

    A value that cannot be merged because it is of another kind than the one before is left out, and its path and
    `FILE:LINE` are added to `conflicts`. Raises `ComposeTooLargeError`.
    """
    if over.tag == OVERRIDE:
        return settle(over)
    special = _special_merge(_in_service(path))
    if special is not None:
        return special(base, over, path, conflicts)
    if isinstance(over, ComposeScalar) and over.is_null:
        return base
    if isinstance(base, ComposeMapping) and isinstance(over, ComposeMapping):
        return _merge_mappings(base, over, path, conflicts)
    if isinstance(base, ComposeList) and isinstance(over, ComposeList):
        return _append(base, over, path, conflicts)
    if isinstance(base, ComposeScalar) and (isinstance(over, ComposeScalar) or base.is_null):
        return settle(over)
    conflicts.append((path, over.origin.where(over.line)))
    return base


def settle(node: ComposeNode) -> ComposeNode:
    """Return the value without what `!reset` removes, as if it was merged into nothing."""
    if isinstance(node, ComposeMapping) and any(entry.value.tag == RESET for entry in node.entries.values()):
        kept = {key: entry for key, entry in node.entries.items() if entry.value.tag != RESET}
        return ComposeMapping(node.origin, node.line, MappingProxyType(kept))
    return node


def _in_service(path: str) -> str:
    """Return the path below a service, with dots; empty if it is not in a service."""
    parts = path.split("\0")
    return ".".join(parts[2:]) if len(parts) > 2 and parts[0] == "services" else ""


_Merge = Callable[[ComposeNode, ComposeNode, str, list[tuple[str, str]]], ComposeNode]


def _special_merge(key: str) -> _Merge | None:
    if key in _REPLACED:
        return _replace
    if key in _PAIRS:
        return _merge_pairs
    if key in _NAMES:
        return _merge_names
    if key in _ONE_OR_LIST:
        return _merge_lists
    return {"build": _merge_build, "logging": _merge_logging}.get(key)


def _replace(_base: ComposeNode, over: ComposeNode, _path: str, _conflicts: list[tuple[str, str]]) -> ComposeNode:
    return over


def _merge_pairs(base: ComposeNode, over: ComposeNode, _path: str, _conflicts: list[tuple[str, str]]) -> ComposeNode:
    layers: list[ComposeMapping | ComposeList | ComposeScalar] = []
    for node in (base, over):
        layers += node.layers if isinstance(node, ComposeLayers) else (node,)
    base.origin.budget.merge(len(layers))
    # Pairs stay as they are written: only the reader of a value may replace variables and report what is wrong.
    return ComposeLayers(tuple(layers))


def _merge_names(base: ComposeNode, over: ComposeNode, path: str, conflicts: list[tuple[str, str]]) -> ComposeNode:
    return _merge_mappings(_named(base), _named(over), path, conflicts)


def _named(node: ComposeNode) -> ComposeMapping:
    """Return a list of names as the mapping that it stands for."""
    if isinstance(node, ComposeMapping):
        return node
    items = node.items if isinstance(node, ComposeList) else ()
    names = {
        plain_text(item): ComposeEntry(item.origin, item.line, ComposeScalar(item.origin, item.line, "", "", True))
        for item in items
        if isinstance(item, ComposeScalar)
    }
    return ComposeMapping(node.origin, node.line, MappingProxyType(names))


def _merge_lists(base: ComposeNode, over: ComposeNode, path: str, conflicts: list[tuple[str, str]]) -> ComposeNode:
    return _append(_listed(base), _listed(over), path, conflicts)


def _listed(node: ComposeNode) -> ComposeList:
    if isinstance(node, ComposeList):
        return node
    is_empty = isinstance(node, ComposeScalar) and node.is_null
    return ComposeList(node.origin, node.line, () if is_empty else (node,))


def _merge_build(base: ComposeNode, over: ComposeNode, path: str, conflicts: list[tuple[str, str]]) -> ComposeNode:
    return _merge_mappings(_build(base), _build(over), path, conflicts)


def _build(node: ComposeNode) -> ComposeMapping:
    """Return `build: DIRECTORY` as the mapping that it stands for."""
    if isinstance(node, ComposeMapping):
        return node
    entries = {} if isinstance(node, ComposeScalar) and node.is_null else {"context": node}
    return ComposeMapping(
        node.origin, node.line, {key: ComposeEntry(node.origin, node.line, value) for key, value in entries.items()}
    )


def _merge_logging(base: ComposeNode, over: ComposeNode, path: str, conflicts: list[tuple[str, str]]) -> ComposeNode:
    """Options belong to one driver, so another driver begins with none."""
    if not isinstance(base, ComposeMapping) or not isinstance(over, ComposeMapping):
        return base if isinstance(over, ComposeScalar) and over.is_null else over
    drivers = [plain_text(node.entries["driver"].value) for node in (base, over) if "driver" in node.entries]
    if len(set(drivers)) > 1:
        return over
    return _merge_mappings(base, over, path, conflicts)


def _merge_mappings(
    base: ComposeMapping, over: ComposeMapping, path: str, conflicts: list[tuple[str, str]]
) -> ComposeMapping:
    base.origin.budget.merge(len(base.entries) + len(over.entries))
    merged = dict(base.entries)
    for key, entry in over.entries.items():
        if entry.value.tag == RESET:
            merged.pop(key, None)
        elif key not in merged or merged[key].value.tag == RESET:
            merged[key] = ComposeEntry(entry.origin, entry.line, settle(entry.value))
        else:
            below = f"{path}\0{key}" if path else key
            value = merge_nodes(merged[key].value, entry.value, below, conflicts)
            # A service is where it was first declared, and a value where it was last.
            place = merged[key] if isinstance(value, ComposeMapping) else entry
            merged[key] = ComposeEntry(place.origin, place.line, value)
    return ComposeMapping(base.origin, base.line, MappingProxyType(merged))


def _append(base: ComposeList, over: ComposeList, path: str, conflicts: list[tuple[str, str]]) -> ComposeList:
    base.origin.budget.merge(len(base.items) + len(over.items))
    identify = _IDENTITIES.get(_in_service(path), _no_identity)
    items: list[ComposeNode] = []
    positions: dict[str, int] = {}
    for item in (*base.items, *over.items):
        identity = identify(item)
        if identity is None:
            items.append(item)
        elif identity not in positions:
            positions[identity] = len(items)
            items.append(item)
        else:
            at = positions[identity]
            both = isinstance(items[at], ComposeMapping) and isinstance(item, ComposeMapping)
            items[at] = merge_nodes(items[at], item, f"{path}\0{at}", conflicts) if both else item
    return ComposeList(over.origin, over.line, tuple(items))


def plain_text(node: ComposeNode) -> str:
    """Return a single value with its variables replaced; empty if it has none or cannot be read."""
    with suppress(InterpolationError):
        if isinstance(node, ComposeScalar):
            return node.fill()[0]
    return ""


def _no_identity(_node: ComposeNode) -> str | None:
    return None


def _text(node: ComposeNode) -> str | None:
    return plain_text(node) or None


def _of_mapping(node: ComposeMapping, key: str, default: str = "") -> str:
    return plain_text(node.entries[key].value) if key in node.entries else default


def _port(node: ComposeNode) -> str | None:
    if isinstance(node, ComposeMapping):
        address, published, target = (_of_mapping(node, key) for key in ("host_ip", "published", "target"))
        return f"{address} {published} {target} {_of_mapping(node, 'protocol', 'tcp')}"
    text, _, protocol = plain_text(node).partition("/")
    outside, _, target = text.rpartition(":")
    address, _, published = outside.rpartition(":")
    return f"{address} {published} {target} {protocol or 'tcp'}" if text else None


def _mount(node: ComposeNode) -> str | None:
    if isinstance(node, ComposeMapping):
        return _of_mapping(node, "target") or None
    parts = plain_text(node).split(":")
    return parts[1 if len(parts) > 1 else 0] or None


def _granted(directory: str) -> Callable[[ComposeNode], str | None]:
    """Return the identity of an entry of `secrets` or `configs`: where the file is in the container."""

    def identify(node: ComposeNode) -> str | None:
        if isinstance(node, ComposeMapping):
            source = _of_mapping(node, "source")
            target = _of_mapping(node, "target", source)
        else:
            target = plain_text(node)
        if not target:
            return None
        return target if target.startswith("/") else f"{directory}/{target}"

    return identify


def _path(node: ComposeNode) -> str | None:
    return _of_mapping(node, "path") or None if isinstance(node, ComposeMapping) else _text(node)


_IDENTITIES: Mapping[str, Callable[[ComposeNode], str | None]] = {
    "configs": _granted(""),
    "devices": _mount,
    "env_file": _path,
    "label_file": _path,
    "ports": _port,
    "secrets": _granted("/run/secrets"),
    "volumes": _mount,
    **dict.fromkeys(("cap_add", "cap_drop", "device_cgroup_rules", "dns", "dns_opt", "dns_search", "expose"), _text),
    **dict.fromkeys(("external_links", "group_add", "links", "profiles", "security_opt", "tmpfs"), _text),
}
"""What makes two entries of a list the same resource."""


def merge_files(nodes: Sequence[ComposeNode], conflicts: list[tuple[str, str]]) -> ComposeNode:
    """Return whole documents or files merged in their order. There is at least one."""
    merged = nodes[0]
    for node in nodes[1:]:
        merged = merge_nodes(merged, node, "", conflicts)
    return merged
