"""The facts of a host that decide whether packets arrive. `mesh.host.fact_reader` reads them.

The daemon watches them, and `vipmesh doctor` looks at them once; `mesh.host.host_problems` judges them for both.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from mesh.host.certificates import CertificateFacts
from mesh.host.overlap import HostAddress, HostRoute, Network, PoolOverlap, find_overlaps
from mesh.model.engine_facts import EngineFacts
from mesh.model.service import Transport


@dataclass(frozen=True, slots=True)
class ConntrackRoom:
    """The size of the table of tracked connections."""

    count: int
    """Entries of this network namespace."""
    maximum: int
    """Entries at which new connections are dropped."""


@dataclass(frozen=True, slots=True)
class HostFacts:
    """The facts of one host. The default of each field stands for unknown, of which nothing is reported."""

    routes: tuple[HostRoute, ...] = ()
    """The routes of the pool's address family, without those of the table `local`."""
    addresses: tuple[HostAddress, ...] = ()
    """The addresses of the pool's address family."""
    local_ports: range = range(0)
    """Ports that the kernel takes for outgoing connections (`net.ipv4.ip_local_port_range`)."""
    reserved_ports: frozenset[int] = frozenset()
    """Ports that it leaves out (`net.ipv4.ip_local_reserved_ports`)."""
    listening: frozenset[tuple[Transport, int]] = frozenset()
    """Ports that programs of this host listen on."""
    rp_filter: Mapping[str, int] = field(default_factory=dict)
    """The mode of reverse path filtering that is in effect, by interface: 0 off, 1 strict, 2 loose."""
    bridge_filtering: bool | None = None
    """Whether bridged packets pass the firewall (`bridge-nf-call-iptables`); None if br_netfilter is not loaded."""
    conntrack: ConntrackRoom | None = None
    certificates: tuple[CertificateFacts, ...] = ()
    """The certificates that the daemon shows its clients."""
    engine: EngineFacts | None = None
    """The facts of the container engine; None if none is configured or none has answered yet."""

    readable_files: frozenset[Path] = frozenset()
    """Files with a secret that every user of the host may read."""

    def overlaps(self, pool: Network, own_interface: str) -> list[PoolOverlap]:
        """Return the addresses and routes of other interfaces that overlap the pool; empty if it is free."""
        return find_overlaps(pool, own_interface, self.addresses, self.routes)
