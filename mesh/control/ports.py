"""Protocols of the control loop for parts that have none of their own.

Sources, stores and data planes have one implementation for each technology, with a Protocol beside them. The host and
the exchange with the cluster have one implementation each; the methods that the loop uses are listed here, so that a
fake needs no more than these.
"""

from collections.abc import AsyncGenerator, AsyncIterator, Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from mesh.cluster.worker_directory import RegisteredWorker
from mesh.config.name_policy import EVERY_NAME, NamePolicy
from mesh.config.values import Network
from mesh.host.facts import HostFacts
from mesh.host.firewall.plan import FirewallDemand
from mesh.host.firewall.upkeep import FirewallReport
from mesh.host.hairpin import HairpinResult
from mesh.model.claims import ClaimLimits, Claims
from mesh.model.service import Address, Endpoint, EndpointKey
from mesh.model.table import RealKey
from mesh.model.view import ClusterView, HealthReport


class HostNetwork(Protocol):
    """The worker's own network, as far as the loop needs it."""

    def watch(self) -> AsyncIterator[frozenset[Address]]:
        """Yield the worker's addresses at once, and again after each change of its network."""
        ...

    async def all_addresses(self) -> frozenset[Address]:
        """Return every address at which others reach the host, also those on which nothing is published."""
        ...


class HostFactSource(Protocol):
    """The facts of the host that decide whether packets arrive."""

    def changes(self) -> AsyncGenerator[None, None]:
        """Yield at once, after each change of the network, and now and then without one."""
        ...

    async def read(self) -> HostFacts:
        """Return the facts now, without those of the engine. Raises `HostError` if the kernel cannot be asked."""
        ...


class HostUpkeep(Protocol):
    """A host setting that the data plane depends on, such as kernel settings or source NAT."""

    async def repair(self, addresses: frozenset[Address], claims: Claims) -> Sequence[str]:
        """Set up what is missing and repair what was changed; return one line for each, empty if there was nothing to
        do.

        `addresses` are the worker's own. Raises `HostError` for what cannot be repaired, after the rest is done.
        """
        ...


class EndpointUpkeep(Protocol):
    """A host setting that depends on the endpoints of this worker."""

    async def repair(self, endpoints: frozenset[Address]) -> HairpinResult:
        """Set up what is missing for endpoints at these addresses, repair what was changed and clear the rest.

        Raises `HostError` for what cannot be repaired, after the rest is done.
        """


class Firewall(Protocol):
    """The firewall of this host, as far as the loop needs it."""

    async def repair(self, demand: FirewallDemand) -> FirewallReport:
        """Open it for what this worker translates, or take the opening back if nothing needs it.

        A failure is one of the problems of the report; nothing is raised for it. It may take many seconds.
        """
        ...

    def changes(self) -> AsyncIterator[None]:
        """Yield whenever its rules may have changed; may end, and then only audits notice."""
        ...


class PeerMembership(Protocol):
    """The other workers of the cluster."""

    @property
    def peer_addresses(self) -> Mapping[str, RealKey]:
        """The address of each other worker's peer listener, by worker name; without workers that do not listen."""
        ...

    @property
    def admin_addresses(self) -> Mapping[str, RealKey]:
        """Where each other worker says that its admin API is, by worker name."""
        ...

    def admin_refusal(self, address: Address, /) -> str | None:
        """Why no other worker's admin API can be at this address; None if it can."""
        ...

    @property
    def unleased(self) -> Collection[str]:
        """Workers whose lease has ended and whose records are kept."""
        ...

    @property
    def registered(self) -> Mapping[str, RegisteredWorker]:
        """The workers that the store has, this one too, by name."""
        ...


class ClusterExchange(PeerMembership, Protocol):
    """The exchange between the workers over the store, as far as the loop needs it."""

    def judge(self, said: Mapping[EndpointKey, HealthReport], /) -> None:
        """Publish the health of every endpoint that this worker probes."""
        ...

    def review(self) -> None:
        """Check again which workers answer."""
        ...

    def formerly_kept(self) -> frozenset[EndpointKey]:
        """Own endpoints that a former process left in traffic although they failed; empty once `judge` was called."""
        ...

    def former_endpoints(self) -> Mapping[EndpointKey, Endpoint]:
        """The endpoints that a former process registered last, by key; empty if that is not known."""
        ...

    async def run(self, see: Callable[[ClusterView], None], *, patient: bool) -> None:
        """Call `see` with each new view of the cluster, until cancelled."""
        ...


@dataclass(frozen=True, slots=True)
class WorkerConfig:
    """The settings of the worker that the loop depends on."""

    worker: str
    domain: str
    pool: Network
    publish: range
    drain_timeout: float
    """Seconds that the connections of a removed endpoint have to finish."""
    probe_floor: int = 50
    """The percentage of a service's endpoints that stay in traffic when most fail at once."""
    resolver: Address | None = None
    """The address of the name server on the VIP interface; None if there is none."""
    listens: RealKey | None = None
    """The address of this worker's peer listener; None if it does not listen."""
    admin: RealKey | None = None
    """Where other workers ask its admin API; None if they cannot."""
    endpoint_networks: tuple[Network, ...] = ()
    """The only networks that endpoints of other workers may be in; empty for all."""
    names: NamePolicy = EVERY_NAME
    """Which routing names services may have."""
    claims: ClaimLimits = field(default_factory=ClaimLimits)
    """How long claims stay with holders that do not declare them."""
    hold: float = 0.0
    """Seconds that new connections wait while the engine restarts; 0: they are refused."""
