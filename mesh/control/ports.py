"""What the control loop asks of the parts that have no Protocol of their own, and the pictures it works from.

Sources, stores and data planes have one real implementation for each technology, and their Protocols beside them. The
prober and the host are one each; what the loop uses of them stands here, so that a fake is as small as that.
"""

from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from mesh.config.values import Network
from mesh.control.planner import Plan
from mesh.model.claims import Claims
from mesh.model.service import Address, Instance
from mesh.model.table import RealKey
from mesh.model.view import ClusterView


class HostNetwork(Protocol):
    """The worker's own network, as far as the loop needs it."""

    def watch(self) -> AsyncIterator[frozenset[Address]]:
        """Yields the worker's addresses at once, and again whenever anything of its network has changed."""
        ...


class HostUpkeep(Protocol):
    """Something of the host that the data plane stands on: kernel settings, source NAT."""

    async def mend(self, addresses: frozenset[Address], claims: Claims) -> Sequence[str]:
        """Set up what is missing or was changed; what that was, a line each, empty if all was well.

        `addresses` are the worker's own. Raises `HostError` for what cannot be mended; the rest is.
        """
        ...


@dataclass(frozen=True, slots=True)
class WorkerConfig:
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
class LoopState:
    """The newest of everything; each task replaces its own part as a whole."""

    instances: dict[int, tuple[Instance, ...]] = field(default_factory=dict)
    """By source. A source that has not answered yet is not there."""
    addresses: frozenset[Address] | None = None
    """The worker's own."""
    view: ClusterView | None = None
    plan: Plan | None = None
