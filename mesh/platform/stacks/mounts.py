"""Reads volumes, tmpfs mounts, configs and secrets of a service. Pure."""

import posixpath
from collections.abc import Mapping
from dataclasses import dataclass

from mesh.config.labels.values import quote_value
from mesh.model.codes import Code
from mesh.platform.fleet.protocol import FleetFile, FleetMount, FleetMountKind
from mesh.platform.stacks.values import (
    PlainValue,
    StackKeys,
    StackValueError,
    entry_value,
    parse_flag,
    parse_mapping,
    parse_pairs,
    parse_size,
    parse_text,
    parse_whole,
)
from mesh.sources.compose.tree import ComposeEntry, ComposeMapping

_PROPAGATIONS = frozenset({"private", "rprivate", "shared", "rshared", "slave", "rslave"})
_IGNORED_MODES = frozenset({"rw", "z", "Z", "cached", "delegated", "consistent", "copy"})
"""What a volume is anyway, and what changes labels of SELinux, for which the engine's services have no field."""
_OCTAL = 8


@dataclass(frozen=True, slots=True)
class StackResources:
    """What the top level of the files declares for all services."""

    project: str
    directory: str
    """The absolute path in which paths begin that are still relative."""
    entries: Mapping[str, ComposeEntry]
    """`volumes`, `configs` and `secrets`."""

    def declared(self, kind: str, name: str) -> PlainValue:
        """Return what is declared of a volume, config or secret; None for one that is not declared."""
        entry = self.entries.get(kind)
        if entry is None or not isinstance(entry.value, ComposeMapping):
            return None
        below = entry.value.entries.get(name)
        return None if below is None else entry_value(below) or {}


def read_mounts(keys: StackKeys, resources: StackResources) -> tuple[FleetMount, ...]:
    """Return all mounts of a service, in order of their targets."""
    found: dict[str, FleetMount] = {}
    for key, read in (("volumes", _volume), ("tmpfs", _tmpfs)):
        value = keys.get(key)
        for number, item in enumerate(value if isinstance(value, list) else [value]):
            if item in (None, ""):
                continue
            try:
                mount = read(item, resources, keys.directory(key, number))
            except StackValueError as error:
                keys.refuse(f"{key}[{number}]", error.reason, error.remedy, error.code)
                continue
            found[mount.target] = mount
    return tuple(found[target] for target in sorted(found))


def writes_data(mounts: tuple[FleetMount, ...]) -> FleetMount | None:
    """Return the first mount whose data outlives a container that writes to it; None if there is none."""
    kinds = (FleetMountKind.BIND, FleetMountKind.VOLUME)
    return next((mount for mount in mounts if mount.kind in kinds and mount.source and not mount.read_only), None)


def _volume(item: PlainValue, resources: StackResources, directory: str) -> FleetMount:
    if isinstance(item, dict):
        return _long_volume(item, resources, directory)
    text = parse_text(item)
    source, colon, rest = text.partition(":")
    if not colon:
        return FleetMount(FleetMountKind.VOLUME, _target(text))
    target, _, modes = rest.partition(":")
    options: dict[str, str] = {}
    read_only = False
    for mode in filter(None, modes.split(",")):
        if mode in _PROPAGATIONS:
            options["propagation"] = mode
        elif mode == "nocopy":
            options["nocopy"] = "true"
        elif mode == "ro":
            read_only = True
        elif mode not in _IGNORED_MODES:
            raise StackValueError(f"{quote_value(mode)} is not a mode of a mount", "write ro or rw")
    if source.startswith((".", "/", "~")):
        path = _path(source, resources, directory)
        return FleetMount(FleetMountKind.BIND, _target(target), path, read_only, options)
    name, declared = _named_volume(source, resources)
    return FleetMount(FleetMountKind.VOLUME, _target(target), name, read_only, {**declared, **options})


def _long_volume(item: dict[str, PlainValue], resources: StackResources, directory: str) -> FleetMount:
    kind = parse_text(item.get("type") or "volume")
    source = parse_text(item.get("source") or item.get("src") or "")
    target = _target(parse_text(item.get("target") or item.get("dst") or ""))
    read_only = parse_flag(item.get("read_only") or "false")
    below = item.get(kind)
    details = {} if below is None else parse_mapping(below)
    if details.get("subpath"):
        raise StackValueError("the engine's services have no field for subpath", "remove it", Code.STACK_KEY_REFUSED)
    options: dict[str, str] = {}
    if kind == FleetMountKind.BIND:
        if not source:
            raise StackValueError("the bind mount has no source", "write source: PATH")
        if details.get("propagation"):
            options["propagation"] = parse_text(details["propagation"])
        return FleetMount(FleetMountKind.BIND, target, _path(source, resources, directory), read_only, options)
    if kind == FleetMountKind.TMPFS:
        return FleetMount(FleetMountKind.TMPFS, target, "", read_only, _tmpfs_options(details))
    if kind != FleetMountKind.VOLUME:
        reason = f"the engine's services have no mounts of type {quote_value(kind)}"
        raise StackValueError(reason, "write volume, bind or tmpfs", Code.STACK_KEY_REFUSED)
    if details.get("nocopy") and parse_flag(details["nocopy"]):
        options["nocopy"] = "true"
    if not source:
        return FleetMount(FleetMountKind.VOLUME, target, "", read_only, options)
    name, declared = _named_volume(source, resources)
    return FleetMount(FleetMountKind.VOLUME, target, name, read_only, {**declared, **options})


def _tmpfs(item: PlainValue, _resources: StackResources, _directory: str) -> FleetMount:
    target, _, text = parse_text(item).partition(":")
    written = {key: value for key, _, value in (part.partition("=") for part in text.split(",") if part)}
    details: dict[str, PlainValue] = {key: written[key] for key in ("size", "mode") if key in written}
    return FleetMount(
        FleetMountKind.TMPFS, _target(target), "", "ro" in written, _tmpfs_options(details, is_octal=True)
    )


def _tmpfs_options(details: Mapping[str, PlainValue], *, is_octal: bool = False) -> dict[str, str]:
    """Return size in bytes and mode in octal. A YAML number such as 0o1777 comes as decimal digits."""
    options: dict[str, str] = {}
    if details.get("size"):
        options["size"] = str(parse_size(details["size"]))
    if details.get("mode"):
        options["mode"] = f"{_mode(details['mode'], is_octal=is_octal):o}"
    return options


def _mode(value: PlainValue, *, is_octal: bool) -> int:
    text = parse_text(value)
    if not is_octal and not text.startswith("0"):
        return parse_whole(text, 0, 0o7777)
    try:
        mode = int(text.removeprefix("0o"), _OCTAL)
    except ValueError:
        mode = -1
    if not 0 <= mode <= 0o7777:
        raise StackValueError(f"{quote_value(text)} is not a mode", "write octal digits such as 0444")
    return mode


def _target(text: str) -> str:
    if not text.startswith("/"):
        raise StackValueError(f"{quote_value(text)} is not a path in the container", "write one that begins with /")
    return posixpath.normpath(text)


def _path(source: str, resources: StackResources, directory: str) -> str:
    if source.startswith("~"):
        raise StackValueError("the home directory differs between workers", "write the whole path")
    return posixpath.normpath(posixpath.join(resources.directory, directory, source))


def _named_volume(name: str, resources: StackResources) -> tuple[str, dict[str, str]]:
    """Return the engine's name of a volume, and how the engine makes it."""
    declared = resources.declared("volumes", name)
    known = {} if declared is None else parse_mapping(declared)
    own = known.get("name")
    if _is_external(known):
        return parse_text(own or _external_name(known) or name), {}
    options = {"driver": parse_text(known["driver"])} if known.get("driver") else {}
    for key, prefix in (("driver_opts", "driver_opts"), ("labels", "labels")):
        for option, text in parse_pairs(known.get(key) or {}).items():
            options[f"{prefix}.{option}"] = text
    return parse_text(own) if own else f"{resources.project}_{name}", options


def _is_external(known: Mapping[str, PlainValue]) -> bool:
    return known.get("external") not in (None, "false")


def _external_name(known: Mapping[str, PlainValue]) -> PlainValue:
    """Return the name in the old form: `external: {name: NAME}`."""
    external = known.get("external")
    return external.get("name") if isinstance(external, dict) else None


def read_files(keys: StackKeys, resources: StackResources) -> tuple[FleetFile, ...]:
    """Return the configs and secrets of a service that are in the engine. Others are refused."""
    found: dict[str, FleetFile] = {}
    for kind in ("configs", "secrets"):
        value = keys.get(kind)
        for number, item in enumerate(value if isinstance(value, list) else []):
            try:
                file = _file(kind, item, resources)
            except StackValueError as error:
                keys.refuse(f"{kind}[{number}]", error.reason, error.remedy, error.code)
                continue
            found[file.target] = file
    return tuple(found[target] for target in sorted(found))


def _file(kind: str, item: PlainValue, resources: StackResources) -> FleetFile:
    details: Mapping[str, PlainValue] = item if isinstance(item, dict) else {"source": parse_text(item)}
    source = parse_text(details.get("source") or "")
    declared = resources.declared(kind, source)
    singular = kind.removesuffix("s")
    if declared is None:
        remedy = f"write it below {kind} at the top level"
        raise StackValueError(f"the {singular} {quote_value(source)} is not declared", remedy, Code.STACK_FILE)
    known = parse_mapping(declared)
    if not _is_external(known):
        reason = f"the {singular} {quote_value(source)} is not in the engine: deploy does not create it from the file"
        remedy = f"create it with docker {singular} create, and write external: true"
        raise StackValueError(reason, remedy, Code.STACK_FILE)
    name = parse_text(known.get("name") or _external_name(known) or source)
    is_secret = kind == "secrets"
    target = parse_text(details.get("target") or source)
    if not target.startswith("/"):
        target = f"/run/secrets/{target}" if is_secret else f"/{target}"
    uid, gid = parse_text(details.get("uid") or "0"), parse_text(details.get("gid") or "0")
    mode = _mode(details["mode"], is_octal=False) if details.get("mode") else 0o444
    return FleetFile(name, posixpath.normpath(target), uid, gid, mode, is_secret)
