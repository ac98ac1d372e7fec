"""Decides which endpoints of other workers are out of reach, by this worker's own pings. Pure.

A worker that loses its power leaves the store when its lease ends, seconds later; while the store is unreachable,
never. So the workers also ping one another, in rounds, and every worker decides for itself: what matters is whether its
own packets arrive. Traffic is taken away only on double evidence:

* The other worker has answered before and now misses `MISSES_BEFORE_LOST` rounds in a row. A refusal is a miss as well:
  the daemon is gone, and its endpoints are not probed any more. A host whose kernel accepts the connection is up: a
  daemon that is too busy to send its name costs its endpoints nothing while it has its lease.
* The endpoint, which is pinged from the first such miss on, misses as many. So a daemon that is restarted, or a
  firewall that blocks the port between the workers, costs nothing: the endpoints still answer.

The first answer of either brings the endpoint back.

A worker without a peer listener (`[peers] listen = "off"`, or an older version) cannot miss a ping. A representative
endpoint that has answered is pinged instead, its stand-in; from the stand-in's first miss on all endpoints of the
worker are pinged, until any answers. Nothing more follows before the lease ends; then the endpoints that have missed
`MISSES_BEFORE_LOST` rounds are lost at once.

The opposite case: a worker whose lease has ended (etcd was unavailable, or the path to it is cut) while it answers
pings is up, and its endpoints stay. Their health is no longer published, so other workers probe them in its place.

A worker that is cut off must not conclude that all others are gone. A worker is isolated while it reaches no majority
of the hosts whose turn it was in the last `ISOLATION_ROUNDS` rounds, itself included: other workers and members of the
store. Of many workers that is a sample, of few it is all of them; pings beside the turns, of hosts in doubt, do not
bias the sample. An isolated worker withholds nothing from a service that would be left without an endpoint; if
something that it reaches remains, that serves.
"""

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from ipaddress import ip_address
from typing import NamedTuple

from mesh.model.eligibility import declaration_of, first_container_port, probed_port, takes_traffic
from mesh.model.persistent_map import PersistentMap
from mesh.model.service import Address, DrainReason, Endpoint, EndpointKey, Service, Transport
from mesh.model.table import RealKey
from mesh.model.view import ClusterView, group_endpoints

MISSES_BEFORE_LOST = 3
"""Rounds in a row without an answer: one lost packet proves nothing."""
ISOLATION_ROUNDS = MISSES_BEFORE_LOST + 1
"""Rounds whose answers decide whether this worker is isolated: the rounds in which a row of misses has grown long
enough, and no earlier ones, in which its own network may still have worked.
"""
MAX_MUTE_ROUNDS = 10
"""Rounds in a row in which a worker may accept connections without sending its name: it may just be busy."""


class PingResult(StrEnum):
    """The result of one ping."""

    ANSWERED = "answered"
    REFUSED = "refused"
    """The host is up, and nothing listens."""
    SILENT = "no answer"
    MUTE = "connected, and nothing said"
    """The host and its kernel are up; the process that should send its name is slow or hangs."""


class PingTarget(NamedTuple):
    """The address at which an endpoint is pinged."""

    real: RealKey
    datagrams: bool
    """UDP only: a refused TCP connection proves that the host is up."""


@dataclass(frozen=True, slots=True)
class PingRound:
    """The results of one round. A target without a result was not pinged, or this worker was too busy to receive the
    answer.
    """

    workers: Mapping[str, PingResult] = field(default_factory=dict)
    hosts: Mapping[Address, PingResult] = field(default_factory=dict)
    """The best result of each other host whose turn it was, by address."""
    endpoints: Mapping[EndpointKey, PingResult] = field(default_factory=dict)
    again: Mapping[Address, PingResult] = field(default_factory=dict)
    """The results of hosts that were pinged although it was not their turn."""


class HostPing(NamedTuple):
    """The last ping of a host."""

    answer: PingResult
    """The newest result."""
    turn: int
    """The last round in which the host was pinged in its turn."""


@dataclass(frozen=True, slots=True)
class DetectorState:
    """The state of the detector after the rounds so far. Begins empty."""

    misses: Mapping[str, int] = field(default_factory=dict)
    """Rounds in a row that a worker has missed, for workers that have answered once."""
    endpoints: Mapping[EndpointKey, int] = field(default_factory=dict)
    """Rounds in a row that an endpoint has missed, for endpoints of workers in doubt."""
    mute_rounds: Mapping[str, int] = field(default_factory=dict)
    """Rounds in a row in which a worker did not send its name, for workers that have sent it once."""
    hosts: Mapping[Address, HostPing] = field(default_factory=dict)
    """Hosts whose turn it was within `ISOLATION_ROUNDS`."""
    rounds: int = 0
    """The number of rounds so far."""
    unleased: frozenset[str] = frozenset()
    """Workers that disappeared from the store."""
    stand_ins: Mapping[str, EndpointKey] = field(default_factory=dict)
    """The representative endpoint, which has answered, of each worker that does not listen."""
    suspects: frozenset[str] = frozenset()
    """Non-listening workers whose representative endpoint missed its last ping while no other endpoint replied."""

    @property
    def isolated(self) -> bool:
        """Whether this worker reaches no majority, itself included. A refusal counts as reached."""
        reached = sum(ping.answer is not PingResult.SILENT for ping in self.hosts.values())
        return 2 * (1 + reached) <= 1 + len(self.hosts)

    @property
    def doubtful(self) -> frozenset[str]:
        """Workers whose endpoints are pinged in the next round: they missed the last round, or are unleased."""
        return self.unleased | self.suspects | {worker for worker, missed in self.misses.items() if missed}

    @property
    def lost(self) -> frozenset[EndpointKey]:
        """Endpoints that are out of reach and whose health no worker publishes."""
        gone = self.unleased | {worker for worker, missed in self.misses.items() if missed >= MISSES_BEFORE_LOST}
        return frozenset(
            key for key, missed in self.endpoints.items() if missed >= MISSES_BEFORE_LOST and key[0] in gone
        )

    def answers(self, worker: str) -> bool:
        """Whether a worker has answered lately."""
        return (
            self.misses.get(worker, MISSES_BEFORE_LOST) < MISSES_BEFORE_LOST
            and self.mute_rounds.get(worker, 0) < MAX_MUTE_ROUNDS
        )


def observe_round(
    state: DetectorState,
    round_: PingRound,
    workers: Collection[str],
    unleased: Collection[str] = (),
    non_listening: Collection[str] = (),
) -> DetectorState:
    """The state after one more round. Workers that are in neither `workers` nor `non_listening` are forgotten.

    `unleased`: workers that disappeared from the store; `non_listening`: workers in the store without a peer listener.
    """
    misses = {worker: missed for worker, missed in state.misses.items() if worker in workers}
    mute_rounds = {worker: missed for worker, missed in state.mute_rounds.items() if worker in workers}
    for worker, answer in round_.workers.items():
        if answer is PingResult.ANSWERED:
            misses[worker] = 0
            mute_rounds.pop(worker, None)
        elif worker in misses:
            # The kernel of a mute host works: the row of misses begins again, and only `mute_rounds` grows.
            misses[worker] = 1 if answer is PingResult.MUTE else misses[worker] + 1
            mute_rounds[worker] = mute_rounds.get(worker, 0) + 1
    lost = frozenset(unleased)
    stand_ins, suspects = _stand_ins(state, round_, non_listening)
    doubtful = lost | suspects | {worker for worker, missed in misses.items() if missed}
    endpoints = {key: missed for key, missed in state.endpoints.items() if key[0] in doubtful}
    for key, answer in round_.endpoints.items():
        if key[0] in doubtful:
            endpoints[key] = 0 if answer is PingResult.ANSWERED else endpoints.get(key, 0) + 1
    hosts = {where: ping for where, ping in state.hosts.items() if ping.turn + ISOLATION_ROUNDS > state.rounds + 1}
    hosts |= {where: HostPing(answer, hosts[where].turn) for where, answer in round_.again.items() if where in hosts}
    hosts |= {where: HostPing(answer, state.rounds + 1) for where, answer in round_.hosts.items()}
    return DetectorState(misses, endpoints, mute_rounds, hosts, state.rounds + 1, lost, stand_ins, suspects)


def choose_stand_ins(
    state: DetectorState, view: ClusterView, non_listening: Collection[str], begin: int = 0
) -> dict[str, EndpointKey]:
    """The endpoint to ping in place of each worker that does not listen. While none has answered, the next one is
    chosen in each round. `begin` is the offset of the first choice, so that not all workers ping the same one.
    """
    found = {worker: key for worker, key in state.stand_ins.items() if worker in non_listening and key in view.by_key}
    if len(found) == len(non_listening):
        return found
    others: dict[str, list[EndpointKey]] = {}
    for endpoint in view.endpoints:
        if endpoint.worker in non_listening and endpoint.worker not in found and _means_one_host(endpoint.address):
            others.setdefault(endpoint.worker, []).append(endpoint.key)
    # None has answered yet: take another one in each round.
    return found | {worker: keys[(begin + state.rounds) % len(keys)] for worker, keys in others.items()}


def ping_targets(
    view: ClusterView, workers: Collection[str], endpoints: Iterable[EndpointKey] = ()
) -> dict[EndpointKey, PingTarget]:
    """The addresses at which to ping all endpoints of `workers` and the given `endpoints`: at the port of their probe,
    or else at the first container port.
    """
    services = {service.owner: service for service in view.services}
    asked = [endpoint for endpoint in view.endpoints if endpoint.worker in workers] if workers else []
    asked += [endpoint for key in endpoints if (endpoint := view.by_key.get(key)) is not None]
    return {e.key: _ping_target(service, e) for e in asked if (service := services.get(e.owner)) is not None}


def withhold_unreachable(view: ClusterView, lost: Collection[EndpointKey], *, isolated: bool) -> ClusterView:
    """The view in which lost endpoints take no new connections; the view itself if none is lost."""
    owners = {endpoint.owner for key in lost if (endpoint := view.by_key.get(key)) is not None}
    if isolated:
        owners -= _left_without(view, owners, lost)
    if not owners:
        return view

    def marked(endpoint: Endpoint) -> Endpoint:
        if endpoint.owner not in owners or endpoint.key not in lost:
            return endpoint
        return endpoint.with_state(endpoint.drain or DrainReason.UNREACHABLE, endpoint.health)

    groups = {owner: group_endpoints(map(marked, view.groups[owner].endpoints), view.health) for owner in owners}
    endpoints = tuple(map(marked, view.endpoints))
    by_key = PersistentMap.of(view.by_key).changed(
        {key: marked(view.by_key[key]) for key in lost if key in view.by_key}
    )
    return view.with_endpoints(endpoints, PersistentMap.of(view.groups).changed(groups), by_key)


def _stand_ins(
    state: DetectorState, round_: PingRound, non_listening: Collection[str]
) -> tuple[Mapping[str, EndpointKey], frozenset[str]]:
    """The representative endpoint of each worker that does not listen, and the workers whose representative misses."""
    answering: dict[str, set[EndpointKey]] = {}
    for key, answer in round_.endpoints.items():
        if key[0] in non_listening and answer is PingResult.ANSWERED:
            answering.setdefault(key[0], set()).add(key)
    chosen, suspects = {}, set()
    for worker in non_listening:
        before = state.stand_ins.get(worker)
        if there := answering.get(worker):
            chosen[worker] = before if before is not None and before in there else min(there)
        elif before is not None:
            chosen[worker] = before
            if worker in state.suspects or before in round_.endpoints:
                suspects.add(worker)
    return chosen, frozenset(suspects)


def _means_one_host(address: Address) -> bool:
    """Whether an address means the same host on each worker: neither loopback nor link-local."""
    parsed = ip_address(address)
    return not parsed.is_loopback and not parsed.is_link_local


def _left_without(view: ClusterView, owners: Collection[str], lost: Collection[EndpointKey]) -> set[str]:
    """The owners, among these, of services that only lost endpoints serve."""
    services = {service.owner: service for service in view.services}
    return {
        owner
        for owner in owners
        if owner not in services
        or not any(
            e.key not in lost and takes_traffic(services[owner], e, view.health) for e in view.groups[owner].endpoints
        )
    }


def _ping_target(service: Service, endpoint: Endpoint) -> PingTarget:
    service = declaration_of(service, endpoint)
    transports = _transports(service)
    port = service.probe.port if service.probe is not None else None
    if port is None:
        streams = [number for transport, number in transports if transport is Transport.TCP]
        port = streams[0] if streams else first_container_port(service)
    datagrams = service.probe is None and all(transport is not Transport.TCP for transport, _ in transports)
    probe = service.probe
    reached = endpoint.port_for(port) if probe is None else probed_port(service, probe.with_port(port), endpoint)
    return PingTarget(RealKey(endpoint.address, reached), datagrams)


def _transports(service: Service) -> Iterable[tuple[Transport, int]]:
    routed = [(route.transport, route.container_port) for route in service.routes]
    return [*routed, *((publish.transport, publish.container_port) for publish in service.publishes)]
