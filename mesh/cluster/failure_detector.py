"""Which endpoints of other workers are out of reach, as this worker finds it out by itself. Pure.

A worker that loses its power leaves the store when its lease ends, seconds later; while the store is away, never. So
the workers ask one another as well, in rounds, and every worker decides for itself: what matters is whether its own
packets arrive. Traffic is taken away only on double evidence:

* the other worker has answered before and now misses `MISSES_BEFORE_LOST` rounds in a row. A refusal is a miss as well:
  its daemon is gone, and nobody judges its endpoints any more. A host whose kernel connects is there: a daemon that is
  too busy to say its name costs its endpoints nothing while it has its lease;
* the endpoint, which is asked from the first such miss on, misses as many. So a daemon that is restarted, or a firewall
  that shuts the port between the workers, costs nothing: the endpoints still answer.

The first answer of either brings the endpoint back.

A worker that does not listen for questions (`[peers] listen = "off"`, or an older version) cannot miss one. One of its
endpoints stands in for it, one that has answered; from its first miss on all of them are asked, until any answers. No
more than that follows before the lease ends; then those that have missed `MISSES_BEFORE_LOST` rounds are lost at that
instant.

It goes the other way round as well: a worker that the store has lost (its lease has ended: etcd stood still, or the way
there is cut) while it answers the others is there, and its endpoints stay. Nobody tells any more how they are, so they
are asked in its place.

Who is alone must not take that for everybody else's end. A worker is isolated while it reaches no majority of the hosts
whose turn it was in the last `ISOLATION_ROUNDS` rounds, itself included: other workers and members of the store. Of
many workers that is a sample, of few it is all of them; what is asked beside the turns, since it is in doubt, does not
bias it. It then takes nothing from a service that would be left without an endpoint; where something that it reaches
remains, that serves.
"""

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum
from ipaddress import ip_address
from typing import NamedTuple

from mesh.model.codes import Code
from mesh.model.eligibility import first_container_port, takes_traffic
from mesh.model.persistent_map import PersistentMap
from mesh.model.problem import Problem, Severity
from mesh.model.service import Address, DrainReason, Endpoint, EndpointKey, Service, Transport
from mesh.model.table import RealKey
from mesh.model.view import ClusterView, group_endpoints

MISSES_BEFORE_LOST = 3
"""Rounds in a row without an answer: one lost packet proves nothing."""
ISOLATION_ROUNDS = MISSES_BEFORE_LOST + 1
"""Rounds whose answers tell whether this worker is isolated: those in which a row of misses has grown long enough, and
no earlier one, in which its own network may still have worked."""
MAX_MUTE_ROUNDS = 10
"""Rounds in a row in which a worker did not say its name, although its host may be there: it may just be busy."""


class PingResult(StrEnum):
    """What came of one question."""

    ANSWERED = "answered"
    REFUSED = "refused"
    """The host is there, and nothing listens."""
    SILENT = "no answer"
    MUTE = "connected, and nothing said"
    """The host is there, and its kernel; the process that should say its name is slow, or hangs."""


class PingTarget(NamedTuple):
    """Where an endpoint is asked."""

    real: RealKey
    datagrams: bool
    """It has no port for connections: a refusal is all that can be had, and is an answer."""


@dataclass(frozen=True, slots=True)
class PingRound:
    """The answers of one round. Who is not there was not asked, or this worker was too busy to listen."""

    workers: Mapping[str, PingResult] = field(default_factory=dict)
    hosts: Mapping[Address, PingResult] = field(default_factory=dict)
    """Of every other host whose turn it was, by address; the best answer of each."""
    endpoints: Mapping[EndpointKey, PingResult] = field(default_factory=dict)
    again: Mapping[Address, PingResult] = field(default_factory=dict)
    """Of the hosts that were asked although it was not their turn."""


class HostPing(NamedTuple):
    """Of a host."""

    answer: PingResult
    """The newest."""
    turn: int
    """The round in which it was asked in its turn."""


@dataclass(frozen=True, slots=True)
class DetectorState:
    """What the rounds so far have shown. Begins empty."""

    misses: Mapping[str, int] = field(default_factory=dict)
    """Rounds in a row that a worker has missed; of those that have answered once."""
    endpoints: Mapping[EndpointKey, int] = field(default_factory=dict)
    """The same of the endpoints of workers that miss rounds."""
    unheard: Mapping[str, int] = field(default_factory=dict)
    """Rounds in a row in which a worker did not say its name; of those that did once."""
    hosts: Mapping[Address, HostPing] = field(default_factory=dict)
    """Those whose turn it was lately."""
    rounds: int = 0
    """So far."""
    unleased: frozenset[str] = frozenset()
    """Workers that the store has lost."""
    stand_ins: Mapping[str, EndpointKey] = field(default_factory=dict)
    """By worker that does not listen: an endpoint of it that has answered."""
    suspects: frozenset[str] = frozenset()
    """Those of them whose stand-in missed the last round that it was asked in, while no other endpoint answers."""

    @property
    def isolated(self) -> bool:
        """Whether this worker reaches no majority, itself included; refusals count as reached."""
        reached = sum(heard.answer is not PingResult.SILENT for heard in self.hosts.values())
        return 2 * (1 + reached) <= 1 + len(self.hosts)

    @property
    def doubtful(self) -> frozenset[str]:
        """Workers whose endpoints are to be asked in the next round: they missed the last one, or are unleased."""
        return self.unleased | self.suspects | {worker for worker, missed in self.misses.items() if missed}

    @property
    def lost(self) -> frozenset[EndpointKey]:
        """Endpoints that are out of reach, and nobody judges them."""
        gone = self.unleased | {worker for worker, missed in self.misses.items() if missed >= MISSES_BEFORE_LOST}
        return frozenset(
            key for key, missed in self.endpoints.items() if missed >= MISSES_BEFORE_LOST and key[0] in gone
        )

    def answers(self, worker: str) -> bool:
        """Whether it has answered lately."""
        return (
            self.misses.get(worker, MISSES_BEFORE_LOST) < MISSES_BEFORE_LOST
            and self.unheard.get(worker, 0) < MAX_MUTE_ROUNDS
        )


def observe_round(
    known: DetectorState,
    seen: PingRound,
    workers: Collection[str],
    unleased: Collection[str] = (),
    deaf: Collection[str] = (),
) -> DetectorState:
    """After one more round; of workers that are no longer among `workers` or `deaf` nothing is kept.

    `unleased`: those that the store has lost; `deaf`: those in the store that do not listen for questions.
    """
    misses = {worker: missed for worker, missed in known.misses.items() if worker in workers}
    unheard = {worker: missed for worker, missed in known.unheard.items() if worker in workers}
    for worker, answer in seen.workers.items():
        if answer is PingResult.ANSWERED:
            misses[worker] = 0
            unheard.pop(worker, None)
        elif worker in misses:
            misses[worker] = 1 if answer is PingResult.MUTE else misses[worker] + 1
            unheard[worker] = unheard.get(worker, 0) + 1
    lost = frozenset(unleased)
    stand_ins, suspects = _stand_ins(known, seen, deaf)
    doubtful = lost | suspects | {worker for worker, missed in misses.items() if missed}
    endpoints = {key: missed for key, missed in known.endpoints.items() if key[0] in doubtful}
    for key, answer in seen.endpoints.items():
        if key[0] in doubtful:
            endpoints[key] = 0 if answer is PingResult.ANSWERED else endpoints.get(key, 0) + 1
    hosts = {where: heard for where, heard in known.hosts.items() if heard.turn + ISOLATION_ROUNDS > known.rounds + 1}
    hosts |= {where: HostPing(answer, hosts[where].turn) for where, answer in seen.again.items() if where in hosts}
    hosts |= {where: HostPing(answer, known.rounds + 1) for where, answer in seen.hosts.items()}
    return DetectorState(misses, endpoints, unheard, hosts, known.rounds + 1, lost, stand_ins, suspects)


def choose_stand_ins(
    known: DetectorState, view: ClusterView, deaf: Collection[str], begin: int = 0
) -> dict[str, EndpointKey]:
    """Of each worker that does not listen the endpoint to ask in its place; while none has answered yet, the next one
    in each round. `begin` says with which, so that not all workers ask the same one.
    """
    found = {worker: key for worker, key in known.stand_ins.items() if worker in deaf and key in view.by_key}
    if len(found) == len(deaf):
        return found
    others: dict[str, list[EndpointKey]] = {}
    for endpoint in view.endpoints:
        if endpoint.worker in deaf and endpoint.worker not in found and _means_one_host(endpoint.address):
            others.setdefault(endpoint.worker, []).append(endpoint.key)
    return found | {worker: keys[(begin + known.rounds) % len(keys)] for worker, keys in others.items()}


def ping_targets(
    view: ClusterView, workers: Collection[str], endpoints: Iterable[EndpointKey] = ()
) -> dict[EndpointKey, PingTarget]:
    """Where to ask the endpoints of these workers, and these: at the port of their probe, else at the first one for
    clients."""
    services = {service.owner: service for service in view.services}
    asked = [endpoint for endpoint in view.endpoints if endpoint.worker in workers] if workers else []
    asked += [endpoint for key in endpoints if (endpoint := view.by_key.get(key)) is not None]
    return {e.key: _place(service, e) for e in asked if (service := services.get(e.owner)) is not None}


def withhold_unreachable(view: ClusterView, lost: Collection[EndpointKey], *, isolated: bool) -> ClusterView:
    """The view in which endpoints that are lost take no new connection; the view itself if there are none."""
    owners = {endpoint.owner for key in lost if (endpoint := view.by_key.get(key)) is not None}
    if isolated:
        owners -= _left_without(view, owners, lost)
    if not owners:
        return view

    def marked(endpoint: Endpoint) -> Endpoint:
        if endpoint.owner not in owners or endpoint.key not in lost:
            return endpoint
        return replace(endpoint, drain=endpoint.drain or DrainReason.UNREACHABLE)

    groups = {owner: group_endpoints(map(marked, view.groups[owner].endpoints), view.health) for owner in owners}
    endpoints = tuple(map(marked, view.endpoints))
    by_key = PersistentMap.of(view.by_key).changed(
        {key: marked(view.by_key[key]) for key in lost if key in view.by_key}
    )
    return view.with_endpoints(endpoints, PersistentMap.of(view.groups).changed(groups), by_key)


def peer_problems(known: DetectorState) -> list[Problem]:
    """What an operator is told."""
    found = []
    if known.lost and known.isolated:
        reason = "it reaches less than half of the other workers and of the store's members: it may be cut off itself"
        remedy = "see to its network; services without another endpoint keep those that it does not reach"
        found.append(Problem(Code.WORKER_ISOLATED, Severity.WARNING, "this worker", reason, remedy))
    for worker in sorted(known.unleased):
        if known.answers(worker):
            reason = "its lease in the store has ended, but it answers: its endpoints stay, and are asked from here"
            remedy = "see that it reaches the store"
            found.append(Problem(Code.LEASE_ENDED_WORKER_ANSWERS, Severity.WARNING, f"worker {worker}", reason, remedy))
    out_of_reach = {worker for worker, _ in known.lost if not known.answers(worker)}
    for worker in sorted(known.unleased - out_of_reach):
        if not known.answers(worker):
            reason = "its daemon is gone, and its endpoints answer: those with a probe serve for a minute more"
            remedy = "start its daemon again"
            found.append(Problem(Code.WORKER_DAEMON_GONE, Severity.WARNING, f"worker {worker}", reason, remedy))
    for worker in sorted(out_of_reach):
        reason = "it does not answer this worker, nor do endpoints of it, which get no new connection from here"
        remedy = "see that it runs and is connected; they are back with their first answer"
        found.append(Problem(Code.WORKER_UNREACHABLE, Severity.WARNING, f"worker {worker}", reason, remedy))
    return found


def _stand_ins(
    known: DetectorState, seen: PingRound, deaf: Collection[str]
) -> tuple[Mapping[str, EndpointKey], frozenset[str]]:
    """Which endpoint stands in for each, and whose is missing."""
    answering: dict[str, set[EndpointKey]] = {}
    for key, answer in seen.endpoints.items():
        if key[0] in deaf and answer is PingResult.ANSWERED:
            answering.setdefault(key[0], set()).add(key)
    chosen, suspects = {}, set()
    for worker in deaf:
        before = known.stand_ins.get(worker)
        if there := answering.get(worker):
            chosen[worker] = before if before is not None and before in there else min(there)
        elif before is not None:
            chosen[worker] = before
            if worker in known.suspects or before in seen.endpoints:
                suspects.add(worker)
    return chosen, frozenset(suspects)


def _means_one_host(address: Address) -> bool:
    """Not loopback or link-local ones, which mean another host on each worker."""
    parsed = ip_address(address)
    return not parsed.is_loopback and not parsed.is_link_local


def _left_without(view: ClusterView, owners: Collection[str], lost: Collection[EndpointKey]) -> set[str]:
    """Owners among these of services that only lost endpoints serve."""
    services = {service.owner: service for service in view.services}
    return {
        owner
        for owner in owners
        if owner not in services
        or not any(
            e.key not in lost and takes_traffic(services[owner], e, view.health) for e in view.groups[owner].endpoints
        )
    }


def _place(service: Service, endpoint: Endpoint) -> PingTarget:
    transports = _transports(service)
    port = service.probe.port if service.probe is not None else None
    if port is None:
        streams = [number for transport, number in transports if transport is Transport.TCP]
        port = streams[0] if streams else first_container_port(service)
    datagrams = service.probe is None and all(transport is not Transport.TCP for transport, _ in transports)
    return PingTarget(RealKey(endpoint.address, endpoint.port_for(port)), datagrams)


def _transports(service: Service) -> Iterable[tuple[Transport, int]]:
    routed = [(route.transport, route.container_port) for route in service.routes]
    return [*routed, *((publish.transport, publish.container_port) for publish in service.publishes)]
