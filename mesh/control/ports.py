"""What the control loop needs of the parts that have no Protocol of their own.

Sources, stores and data planes have one implementation for each technology, and their Protocols beside them. The host
and the exchange with the cluster are one each; what the loop uses of them is here, so that a fake is as small as that.
"""

from collections.abc import AsyncIterator, Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from mesh.config.values import Network
from mesh.model.claims import Claims
from mesh.model.service import Address, EndpointKey
from mesh.model.table import RealKey
from mesh.model.view import ClusterView, HealthReport


class HostNetwork(Protocol):
    """The worker's own network, as far as the loop needs it."""

    def watch(self) -> AsyncIterator[frozenset[Address]]:
        """Yields the worker's addresses at once, and again whenever anything of its network has changed."""
        ...


class HostUpkeep(Protocol):
    """Something of the host that the data plane depends on: kernel settings, source NAT."""

    async def mend(self, addresses: frozenset[Address], claims: Claims) -> Sequence[str]:
        """Set up what is missing or was changed; what that was, a line each, empty if all was well.

        `addresses` are the worker's own. Raises `HostError` for what cannot be mended; the rest is.
        """
        ...


class PeerMembership(Protocol):
    """Which other workers there are."""

    @property
    def peer_addresses(self) -> Mapping[str, RealKey]:
        """Where each of them answers, by name; without those that do not listen."""
        ...

    @property
    def unleased(self) -> Collection[str]:
        """Those whose lease has ended and whose records are kept."""
        ...


class ClusterExchange(PeerMembership, Protocol):
    """What the loop needs of the exchange between the workers over the store."""

    def judge(self, said: Mapping[EndpointKey, HealthReport], /) -> None:
        """Tell the others what the probes say of everything that this worker probes."""
        ...

    def review(self) -> None:
        """Look again at which workers answer."""
        ...

    def formerly_kept(self) -> frozenset[EndpointKey]:
        """Own endpoints that a former process left in traffic although they failed; empty once `judge` was called."""
        ...

    async def run(self, see: Callable[[ClusterView], None], *, patient: bool) -> None:
        """Call `see` with each new view of the cluster, until cancelled."""
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
