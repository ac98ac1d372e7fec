"""The content of a data plane: virtual servers, their real servers, and the VIPs that are bound."""

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
    """Identifies a virtual server by where clients connect to. A tuple, since it is the key of tables."""

    address: Address
    port: int
    transport: Transport

    def __str__(self) -> str:
        host = f"[{self.address}]" if ":" in self.address else self.address
        return f"{self.transport}://{host}:{self.port}"


class RealKey(NamedTuple):
    """The address and port of a real server. A tuple, since it is the key of tables."""

    address: Address
    port: int

    def __str__(self) -> str:
        return f"[{self.address}]:{self.port}" if ":" in self.address else f"{self.address}:{self.port}"


@dataclass(frozen=True, slots=True)
class RealServer:
    """The settings of a real server behind one virtual server."""

    weight: int = 1
    """0: it gets no new connections."""
    forwarding: Forwarding = Forwarding.MASQUERADE
    upper_threshold: int = 0
    """The number of connections from which on it gets no new ones; 0: no limit."""
    lower_threshold: int = 0
    """Below this number of connections it gets new ones again; 0: three quarters of the upper threshold."""

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
    """Client affinity in seconds; 0: none."""
    real_servers: Mapping[RealKey, RealServer] = field(default_factory=lambda: MappingProxyType({}))
    flags: frozenset[SchedulerFlag] = frozenset()


@dataclass(frozen=True, slots=True)
class Table:
    """The content of a data plane, as far as vipmesh owns it. Empty: nothing is balanced, no VIP is bound."""

    virtual_servers: Mapping[VirtualKey, VirtualServer] = field(default_factory=lambda: MappingProxyType({}))
    vips: frozenset[Address] = frozenset()
    """VIPs that are bound on this worker."""

    def part(self, keys: Collection[VirtualKey]) -> "Table":
        """Return a table with these virtual servers alone, as far as they exist, and all VIPs."""
        return Table({key: self.virtual_servers[key] for key in keys if key in self.virtual_servers}, self.vips)

    def changed(self, keys: Collection[VirtualKey], part: "Table") -> "Table":
        """Return a table in which the virtual servers of `keys`, and the VIPs, are as in `part`.

        A key that `part` does not contain is removed.
        """
        gone: dict[VirtualKey, VirtualServer | None] = dict.fromkeys(keys)
        return Table(PersistentMap.of(self.virtual_servers).changed(gone | dict(part.virtual_servers)), part.vips)


@dataclass(frozen=True, slots=True)
class FailedConnections:
    """Connections to one real server that failed since it was added."""

    refused: int = 0
    unanswered: int = 0
    """No answer within the time that the data plane waits, or no way there."""
    reset: int = 0
    """By the real server, after it had accepted."""


@dataclass(frozen=True, slots=True)
class TrafficCounters:
    """Traffic through one virtual server or to one real server since it was created."""

    connections: int = 0
    """Connections opened since then, closed ones included."""
    bytes_in: int = 0
    """Bytes from clients."""
    bytes_out: int = 0
    """Bytes to clients, as far as replies return through this worker."""

    def __add__(self, other: "TrafficCounters") -> "TrafficCounters":
        return TrafficCounters(
            self.connections + other.connections, self.bytes_in + other.bytes_in, self.bytes_out + other.bytes_out
        )

    def __sub__(self, other: "TrafficCounters") -> "TrafficCounters":
        return TrafficCounters(
            self.connections - other.connections, self.bytes_in - other.bytes_in, self.bytes_out - other.bytes_out
        )

    def began_again(self, before: "TrafficCounters") -> bool:
        """Return whether a count is lower than before: then all of them began at 0 again."""
        return (
            self.connections < before.connections
            or self.bytes_in < before.bytes_in
            or self.bytes_out < before.bytes_out
        )
