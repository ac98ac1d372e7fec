"""What the control loop asks of the parts that have no Protocol of their own, and the pictures it works from.

Sources, stores and data planes have one real implementation for each technology, and their Protocols beside them. The
prober and the host are one each; what the loop uses of them stands here, so that a fake is as small as that.
"""

from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from mesh.config.values import Network
from mesh.control.planner import Plan
from mesh.health.snapshot import Past
from mesh.health.state_machine import Verdict
from mesh.health.targets import Stats, Target
from mesh.model import Address, Claims, ClusterView, Health, Instance, RealKey


class Probes(Protocol):
    """The prober, as far as the loop needs it."""

    @property
    def stats(self) -> Stats:
        """What it has done so far."""
        ...

    def watch(self, targets: Mapping[str, Target]) -> None:
        """Probe exactly these endpoints."""
        ...

    def health(self) -> Mapping[str, Health]:
        """The verdict on each of them; one that has not answered yet is `STARTING`."""
        ...

    def held_back(self) -> frozenset[str]:
        """Of them, those that answer and are not believed yet, since they come and go."""
        ...

    def failing(self) -> frozenset[str]:
        """Of them, those that failed their last check, whatever their health is."""
        ...

    def history(self, key: str) -> Sequence[Verdict]:
        """What the last probes of one endpoint found, oldest first; empty if it was never asked."""
        ...

    def histories(self) -> Mapping[str, Past]:
        """The same of all of them, as it goes on."""
        ...


class Host(Protocol):
    """The worker's own network, as far as the loop needs it."""

    def watch(self) -> AsyncIterator[frozenset[Address]]:
        """Yields the worker's addresses at once, and again whenever anything of its network has changed."""
        ...


class Upkeep(Protocol):
    """Something of the host that the data plane stands on: kernel settings, source NAT."""

    async def mend(self, addresses: frozenset[Address], claims: Claims) -> Sequence[str]:
        """Set up what is missing or was changed; what that was, a line each, empty if all was well.

        `addresses` are the worker's own. Raises `HostError` for what cannot be mended; the rest is.
        """
        ...


@dataclass(frozen=True, slots=True)
class Site:
    """What the loop must know of its worker."""

    worker: str
    domain: str
    pool: Network
    publish: range
    drain_timeout: float
    """Seconds that the connections of a removed endpoint get to finish."""
    probe_floor: int = 50
    """Per cent of a service's endpoints that stay in traffic when most fail at once."""
    resolver: Address | None = None
    """Where the name server answers on the interface of the VIPs."""
    listens: RealKey | None = None
    """Where this worker answers the others."""


@dataclass(slots=True)
class Pictures:
    """The newest of everything; each task replaces its own part as a whole."""

    instances: dict[int, tuple[Instance, ...]] = field(default_factory=dict)
    """By source. A source that has not answered yet is not there."""
    addresses: frozenset[Address] | None = None
    """The worker's own."""
    view: ClusterView | None = None
    plan: Plan | None = None
