"""What a container sees as its files, and where the host has them, from the engine's inspection. Pure."""

from collections.abc import Mapping
from dataclasses import dataclass

from mesh.sources.docker.messages import DockerMessage

TMPFS = "tmpfs"
_OVERLAYS = ("overlay2", "overlay", "fuse-overlayfs")
"""Storage drivers whose `UpperDir` is a directory: https://docs.docker.com/engine/storage/drivers/overlayfs-driver/"""


class MountDetails(DockerMessage, frozen=True):
    """A mount of a container."""

    type: str = ""
    source: str = ""
    destination: str = ""


class StorageDriverDetails(DockerMessage, frozen=True):
    """Where the storage driver has the layers of a container. An engine with containerd's image store has none."""

    name: str = ""
    data: Mapping[str, object] | None = None
    """`UpperDir` and others, by the driver."""


@dataclass(frozen=True, slots=True)
class ContainerMount:
    """A mount of a container."""

    destination: str
    """The path inside of the container."""
    source: str
    """The path on the host; empty if the host has none."""
    kind: str
    """`volume`, `bind`, `tmpfs`."""


@dataclass(frozen=True, slots=True)
class ContainerFilesystem:
    """What a container sees as its files."""

    mounts: tuple[ContainerMount, ...] = ()
    upper: str = ""
    """The directory on the host that has the files of the writable layer; empty if the engine does not say it."""
    driver: str = ""
    """The storage driver, `overlay2`."""


def container_filesystem(
    mounts: list[MountDetails] | None, tmpfs: Mapping[str, str] | None, storage: StorageDriverDetails | None
) -> ContainerFilesystem:
    """Return what the inspection of a container says of its files. `tmpfs` are the options by destination of
    `--tmpfs`, which are not among the mounts.
    """
    found = [
        ContainerMount(path, _path_of(each.source), each.type)
        for each in mounts or ()
        if (path := _path_of(each.destination))
    ]
    found += [ContainerMount(path, "", TMPFS) for each in tmpfs or () if (path := _path_of(each))]
    if storage is None:
        return ContainerFilesystem(tuple(found))
    upper = (storage.data or {}).get("UpperDir") if storage.name in _OVERLAYS else None
    return ContainerFilesystem(tuple(found), _path_of(upper), storage.name)


def _path_of(value: object) -> str:
    """Return an absolute path that can be opened; empty for anything else."""
    if not isinstance(value, str) or not value.startswith("/") or "\0" in value:
        return ""
    try:
        value.encode("utf-8", "surrogateescape")  # as names of files are encoded
    except UnicodeEncodeError:
        return ""
    return value
