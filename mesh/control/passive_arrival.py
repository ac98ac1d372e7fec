"""Judges from connections of clients whether requests arrive, without sending any. Pure.

Two kinds of evidence speak against a pair of a service and a network:

* Connections that stay unanswered: their request or its reply is lost. A healthy endpoint answers within milliseconds,
  so connection tracking shows such a connection at two looks only if it gets no answer.
* Requests that come in and pass no filter of this host (nftables data plane): they are dropped in between. Connection
  tracking forgets those.

What a lost packet, a port scan or a flood leaves must not count: several connections of one client must be unanswered,
none of its network may be answered meanwhile, and only ports of services are looked at. UDP counts only where other
datagrams of the same virtual server were answered, since many protocols have no answers.
"""

from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from ipaddress import ip_address

from mesh.control.arrival import ArrivalCheck, ArrivalObservation, ArrivalPair
from mesh.control.planner import Plan
from mesh.control.service_plan import ServicePlan
from mesh.dataplane.client_flows import ClientFlow, FlowKey
from mesh.host.overlap import Network
from mesh.host.request_counts import RequestCounts
from mesh.model.eligibility import probe_of
from mesh.model.service import Address, Health, Transport
from mesh.model.table import VirtualKey

STALE_AFTER = 3.0
"""Seconds after which a connection counts as unanswered: a client repeats its request after 1 and 3 s."""
LEAST_CONNECTIONS = 3
"""Unanswered connections of a network at which it is suspected."""
LEAST_OF_ONE_CLIENT = 2
"""Connections among them that must be of one client: a scan or a flood has one of each."""
LEAST_REQUESTS = 3
"""Requests of one client to one port between two looks of which none is forwarded: a request and two repetitions."""
HOST, ELSEWHERE = "host", "elsewhere"
_UNANSWERED = "connections of clients stay without an answer, while an endpoint answers its probe"
_DROPPED = "a packet filter of this worker drops them before they are forwarded"


@dataclass(frozen=True, slots=True)
class ObservedService:
    """A service whose connections are looked at."""

    owner: str
    is_healthy: bool
    """Whether an endpoint answers its probe. Without a probe, silence may be the endpoint's own."""


@dataclass(frozen=True, slots=True)
class ClientNetworks:
    """The networks that clients may be in."""

    own: frozenset[Address]
    """The worker's own addresses, the VIPs included: connections of the host itself come from them."""
    networks: tuple[Network, ...]
    """The networks of this worker's containers."""

    def of(self, client: Address) -> str:
        """Return the network of a client, as in `ArrivalPair`."""
        if client in self.own:
            return HOST
        address = ip_address(client)
        inside = [network for network in self.networks if address in network]
        return str(max(inside, key=lambda network: network.prefixlen)) if inside else ELSEWHERE


def observed_services(planned: Plan) -> Mapping[VirtualKey, ObservedService]:
    """Return the virtual servers to look at, with their services: TCP and UDP, with an endpoint that takes traffic."""
    return {
        key: ObservedService(owner, _is_healthy(part))
        for owner, part in planned.parts.items()
        for key, server in part.served.items()
        if key.transport in (Transport.TCP, Transport.UDP) and any(s.weight for s in server.real_servers.values())
    }


def _is_healthy(part: ServicePlan) -> bool:
    """Return whether an endpoint of a service with a probe answers it now."""
    service = part.inputs.service
    return any(
        verdict is Health.HEALTHY and probe_of(service, endpoint) is not None
        for endpoint, verdict in zip(part.inputs.endpoints, part.inputs.verdicts, strict=True)
    )


class PassiveArrivalJudge:
    """Remembers what was unanswered and counted at the last look."""

    def __init__(self) -> None:
        self._at = 0.0
        self._since: dict[FlowKey, float] = {}
        """When each unanswered connection was seen first."""
        self._answered: dict[ArrivalPair, frozenset[FlowKey]] = {}
        """The answered connections of each suspected pair at the last look."""
        self._counts = RequestCounts({}, {})
        self._dropped: set[ArrivalPair] = set()
        """Pairs whose requests were dropped at the last look that showed any."""

    def note(self, flows: Iterable[ClientFlow], at: float) -> None:
        """Take note of the connections that are not established now. `at` is in seconds on a monotonic clock."""
        self._at = at
        self._since = {flow.key: self._since.get(flow.key, at) for flow in flows if not flow.is_answered}

    def suspects(
        self, services: Mapping[VirtualKey, ObservedService], networks: ClientNetworks
    ) -> frozenset[ArrivalPair]:
        """Return the pairs with enough unanswered connections. All connections to their services are to be read."""
        clients: defaultdict[ArrivalPair, Counter[Address]] = defaultdict(Counter)
        for key, since in self._since.items():
            service = services.get(key.virtual)
            if service is not None and service.is_healthy and self._at - since >= STALE_AFTER:
                clients[ArrivalPair(service.owner, networks.of(key.client))][key.client] += 1
        return frozenset(
            pair
            for pair, counted in clients.items()
            if counted.total() >= LEAST_CONNECTIONS and max(counted.values()) >= LEAST_OF_ONE_CLIENT
        )

    def observe(
        self,
        suspected: Sequence[ClientFlow],
        counts: RequestCounts | None,
        suspects: Collection[ArrivalPair],
        services: Mapping[VirtualKey, ObservedService],
        networks: ClientNetworks,
    ) -> Iterator[ArrivalObservation]:
        """Yield the observations that follow from what was noted and from this, at most one for each pair.

        `suspected` is all connections to the services of `suspects`: those of `suspects()` and pairs that fail already.
        `counts` is None if this data plane needs no counting.
        """
        dropped, passed = self._counted(counts, services, networks)
        answered: defaultdict[ArrivalPair, set[FlowKey]] = defaultdict(set)
        for flow in suspected:
            service = services.get(flow.key.virtual)
            if service is not None and flow.is_answered:
                answered[ArrivalPair(service.owner, networks.of(flow.key.client))].add(flow.key)
        answers = {flow.key.virtual for flow in suspected if flow.is_answered}
        stale = self.suspects(_answering(services, answers), networks)
        before, self._answered = self._answered, {pair: frozenset(answered[pair]) for pair in suspects}
        for pair in sorted({*suspects, *dropped, *self._dropped & passed}):
            if pair in dropped:
                yield _failed(pair, _DROPPED)
            elif pair in before and answered[pair] - before[pair]:
                yield ArrivalObservation(pair, ArrivalCheck.CONNTRACK, arrived=True)
            elif pair in stale and pair in before:
                yield _failed(pair, _UNANSWERED)
            elif pair in self._dropped & passed and pair not in stale:
                yield ArrivalObservation(pair, ArrivalCheck.CONNTRACK, arrived=True)
        self._dropped = (self._dropped - passed) | dropped

    def _counted(
        self, counts: RequestCounts | None, services: Mapping[VirtualKey, ObservedService], networks: ClientNetworks
    ) -> tuple[set[ArrivalPair], set[ArrivalPair]]:
        """Return the pairs whose requests were all dropped since the last look, and those of which one passed."""
        if counts is None:
            return set(), set()
        before, self._counts = self._counts, counts
        owners: defaultdict[tuple[Address, int], set[str]] = defaultdict(set)
        for key, service in services.items():
            owners[key.address, key.port].add(service.owner)
        dropped: set[ArrivalPair] = set()
        passed: set[ArrivalPair] = set()
        for (client, port), received in counts.received.items():
            new = _increase(received, before.received.get((client, port), 0))
            forwarded = _increase(counts.forwarded.get(client, 0), before.forwarded.get(client, 0))
            pairs = {ArrivalPair(owner, networks.of(client.client)) for owner in owners[client.vip, port]}
            if forwarded:
                passed |= pairs
            elif new >= LEAST_REQUESTS:
                dropped |= pairs
        # A filter that drops some clients of a network only is one of the operator's own.
        return dropped - passed, passed


def _failed(pair: ArrivalPair, reason: str) -> ArrivalObservation:
    return ArrivalObservation(pair, ArrivalCheck.CONNTRACK, arrived=False, reason=reason)


def _answering(
    services: Mapping[VirtualKey, ObservedService], answers: Collection[VirtualKey]
) -> Mapping[VirtualKey, ObservedService]:
    """Return the services without UDP servers of which no datagram was answered."""
    return {key: service for key, service in services.items() if key.transport is not Transport.UDP or key in answers}


def _increase(now: int, before: int) -> int:
    """Return how much a counter has risen; it begins at 0 again when its client was forgotten."""
    return now - before if now >= before else now
