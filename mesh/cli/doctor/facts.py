"""The facts of a host: `mesh.cli.doctor.collect` collects them, `mesh.cli.doctor.rules` judges them."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum


class KernelModule(StrEnum):
    """What there is of a kernel module."""

    LOADED = "loaded"
    """Or built in."""
    AVAILABLE = "available"
    """The kernel can load it."""
    ABSENT = "absent"
    UNKNOWN = "unknown"
    """There is no list of modules here, as in most containers."""


@dataclass(frozen=True, slots=True)
class ListeningSocket:
    """A socket that waits for clients."""

    transport: str
    """`tcp` or `udp`."""
    address: str
    """`0.0.0.0` or `::` for all."""
    port: int
    program: str | None = None
    """Its name; None: it is not to be found out without being root."""
    ours: bool = False
    """Whether it is a daemon of ours."""


@dataclass(frozen=True, slots=True)
class KernelSetting:
    """A kernel setting."""

    value: str | None
    """None: it cannot be read, or this kernel does not have it."""
    writable: bool = False


@dataclass(frozen=True, slots=True)
class HostFacts:
    """The facts of one host."""

    release: str
    """`uname -r`."""
    no_ipvs: str | None = None
    """Why IPVS cannot be programmed from here; None: it can, or it was not looked at."""
    no_nftables: str | None = None
    nft: str | None = None
    """Where the program nft is; None: nowhere."""
    modules: Mapping[str, KernelModule] = field(default_factory=dict)
    sysctls: Mapping[str, KernelSetting] = field(default_factory=dict)
    """Those that the daemon sets, those it needs, and those that stand in its way."""
    capabilities: frozenset[str] = frozenset()
    """Those of `CAP_NET_ADMIN` and the like that are in effect."""
    root: bool = False
    listeners: tuple[ListeningSocket, ...] = ()
    overlaps: tuple[str, ...] = ()
    """What the VIP pool overlaps: `route 10.112.0.0/24 dev eth1`."""
    nameservers: tuple[str, ...] = ()
    """Of /etc/resolv.conf."""
    docker_dns: tuple[str, ...] | None = None
    """`dns` of /etc/docker/daemon.json; None: it has none."""
    clock: bool | None = None
    """Whether it is kept right; None: that is not to be found out."""
    store: Mapping[str, str | None] = field(default_factory=dict)
    """The store's directory, or each member of etcd -> why it cannot be used; None: it can."""
    engine: str | None = None
    """Why the container engine cannot be asked; None: it can, or none shall be."""
