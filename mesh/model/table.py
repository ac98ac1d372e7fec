"""What a data plane holds: virtual servers, their real servers, and the VIPs that are bound."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import NamedTuple

from mesh.model.persistent_map import PersistentMap
from mesh.model.service import (
    Address,
    Forwarding,
    Scheduler,
    SchedulerFlag,
    Transport,
)


class VirtualKey(NamedTuple):
    """What IPVS calls a virtual service: where clients connect to. A tuple, since tables are looked up by it."""

    address: Address
    port: int
    transport: Transport

    def __str__(self) -> str:
        host = f"[{self.address}]" if ":" in self.address else self.address
        return f"{self.transport}://{host}:{self.port}"


class RealKey(NamedTuple):
    """Where a real server is reached. A tuple, since tables are looked up by it."""

    address: Address
    port: int

    def __str__(self) -> str:
        return f"[{self.address}]:{self.port}" if ":" in self.address else f"{self.address}:{self.port}"


@dataclass(frozen=True, slots=True)
class RealServer:
    """The settings of a real server behind one virtual server."""

    weight: int = 1
    """0 takes no new connection."""
    forwarding: Forwarding = Forwarding.MASQUERADE
    upper_threshold: int = 0
    """Connections at which it takes no new one; 0: no limit."""
    lower_threshold: int = 0
    """Connections below which it takes new ones again; 0: three quarters of the upper threshold."""

    def __str__(self) -> str:
        words = [f"weight {self.weight}"]
        if self.forwarding is not Forwarding.MASQUERADE:
            words.append(f"forwarding {self.forwarding}")
        if self.upper_threshold or self.lower_threshold:
            words.append(f"thresholds {self.upper_threshold} and {self.lower_threshold}")
        return ", ".join(words)


@dataclass(frozen=True, slots=True)
class VirtualServer:
    """The settings of a virtual server, and the real servers behind it."""

    scheduler: Scheduler = Scheduler.WRR
    persistence: int = 0
    """Seconds; 0: none."""
    real_servers: Mapping[RealKey, RealServer] = field(default_factory=lambda: MappingProxyType({}))
    flags: frozenset[SchedulerFlag] = frozenset()


@dataclass(frozen=True, slots=True)
class Table:
    """The whole content of a data plane, as far as it is ours. Empty: nothing is balanced, no VIP is bound."""

    virtual_servers: Mapping[VirtualKey, VirtualServer] = field(default_factory=lambda: MappingProxyType({}))
    vips: frozenset[Address] = frozenset()
    """Addresses that this worker answers to."""

    def part(self, keys: Collection[VirtualKey]) -> "Table":
        """The same with these virtual servers alone, as far as they exist."""
        return Table({key: self.virtual_servers[key] for key in keys if key in self.virtual_servers}, self.vips)

    def changed(self, keys: Collection[VirtualKey], part: "Table") -> "Table":
        """The same with these virtual servers, and the VIPs, as the part has them."""
        gone: dict[VirtualKey, VirtualServer | None] = dict.fromkeys(keys)
        return Table(PersistentMap.of(self.virtual_servers).changed(gone | dict(part.virtual_servers)), part.vips)


@dataclass(frozen=True, slots=True)
class TrafficCounters:
    """What has gone through one virtual server since it was made."""

    connections: int = 0
    """Those that were opened, ever."""
    bytes_in: int = 0
    """From clients."""
    bytes_out: int = 0
    """To clients, as far as replies come back this way."""
