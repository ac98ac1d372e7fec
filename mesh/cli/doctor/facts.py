"""The facts that `mesh.cli.doctor.collect` collects and `mesh.cli.doctor.rules` judges.

Those that the daemon watches too are in `mesh.host.facts`.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from mesh.host.certificates import CertificateFacts
from mesh.host.facts import HostFacts
from mesh.host.firewall.direct_access import DirectEndpoint
from mesh.host.firewall.facts import FirewallFacts
from mesh.model.codes import Code
from mesh.model.problem import Problem
from mesh.model.service import Name, Transport


class KernelModule(StrEnum):
    """Whether a kernel module can be used."""

    LOADED = "loaded"
    """The module is loaded or built in."""
    AVAILABLE = "available"
    """The kernel can load it."""
    ABSENT = "absent"
    """The module does not exist for this kernel."""
    UNKNOWN = "unknown"
    """No list of modules exists here, as in most containers."""


@dataclass(frozen=True, slots=True)
class ListeningSocket:
    """A socket that waits for clients."""

    transport: str
    """`tcp` or `udp`."""
    address: str
    """`0.0.0.0` or `::` for all addresses."""
    port: int
    program: str | None = None
    """The name of the program; None if only root can see it."""
    ours: bool = False
    """Whether the program is a vipmesh daemon."""


@dataclass(frozen=True, slots=True)
class KernelSetting:
    """The value of a kernel setting."""

    value: str | None
    """None if it cannot be read, or if this kernel does not have it."""
    writable: bool = False
    """Whether this process may set it."""


@dataclass(frozen=True, slots=True)
class DescribedEngine:
    """The container engine, as it describes itself."""

    name: str
    """`Podman 4.3.1`; a question mark for a version that it does not tell."""
    api: str
    """The version of its API that vipmesh uses: `1.41`."""
    is_podman: bool = False
    ahead: float | None = None
    """Seconds by which its clock is ahead of this host's, to within a second; negative: behind; None if not told."""


@dataclass(frozen=True, slots=True)
class CollectedOutput:
    """A running container whose standard output labels ask for."""

    container: str
    driver: str
    """The log driver: `json-file`."""
    rotates: bool
    """Whether the engine begins another file when one has a certain size."""
    files: int
    """How many files it keeps."""
    kept_seconds: float | None = None
    """The age of the oldest lines that it keeps; None if it has removed none so far, or if that cannot be seen."""


@dataclass(frozen=True, slots=True)
class DoctorFacts:
    """The facts of one host, those included that the daemon watches."""

    release: str
    """`uname -r`."""
    no_ipvs: str | None = None
    """Why IPVS cannot be programmed from here; None if it can, or if it was not checked."""
    no_nftables: str | None = None
    """Why nftables cannot balance here; None if it can, or if it was not checked."""
    nft: str | None = None
    """The path of the program nft; None if it is not installed."""
    modules: Mapping[str, KernelModule] = field(default_factory=dict)
    """The kernel modules that vipmesh can use."""
    sysctls: Mapping[str, KernelSetting] = field(default_factory=dict)
    """The kernel settings that the daemon sets or depends on."""
    capabilities: frozenset[str] = frozenset()
    """The effective capabilities, of those that the daemon may need: `CAP_NET_ADMIN`, `CAP_NET_BIND_SERVICE`."""
    root: bool = False
    """Whether this process runs as root."""
    listeners: tuple[ListeningSocket, ...] = ()
    """Every socket of this network namespace that waits for clients."""
    host: HostFacts = field(default_factory=HostFacts)
    """The facts that the daemon watches."""
    published: Mapping[tuple[Transport, int], Name] = field(default_factory=dict)
    """The published ports that labels of this worker ask for, with the service's name."""
    compose: tuple[Problem, ...] = ()
    """What this version finds wrong in the compose files of the settings."""
    no_compose: bool = False
    """Whether the compose files cannot be used at all."""
    direct: frozenset[DirectEndpoint] = frozenset()
    """Where other workers reach labelled containers at their own addresses; empty if they do not."""
    nameservers: tuple[str, ...] = ()
    """The name servers in /etc/resolv.conf."""
    docker_dns: tuple[str, ...] | None = None
    """`dns` in /etc/docker/daemon.json; None if it is not set."""
    clock: bool | None = None
    """Whether the clock is synchronised; None if that is unknown."""
    store: Mapping[str, str | None] = field(default_factory=dict)
    """Why the store's directory, or each member of etcd, cannot be used; None for one that can."""
    firewall: FirewallFacts | None = None
    """What the firewall does; None if it was not checked or cannot be read."""
    no_firewall: str | None = None
    """Why the firewall cannot be read; None if it can, or if it was not checked."""
    engine: str | None = None
    """Why the container engine cannot be used; None if it can, or if none is configured."""
    described_engine: DescribedEngine | None = None
    """The container engine; None if it cannot be used, or if none is configured."""
    swarm_certificate: CertificateFacts | None = None
    """The certificate by which the engine is part of its swarm; None if it is part of none, or on another host."""
    served_names: frozenset[str] = frozenset()
    """The routing names that a running daemon serves; empty if none runs."""
    cut_off: tuple[tuple[Code, str, str | None], ...] = ()
    """What a running daemon says of workers that are cut off: code, finding and remedy."""
    outputs: tuple[CollectedOutput, ...] = ()
    """What `vipmesh ship` collects of the engine's containers."""
    systemd: bool = True
    """Whether systemd runs this host: Podman runs health checks by its timers."""
