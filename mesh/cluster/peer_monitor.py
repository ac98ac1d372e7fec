"""Pings the other workers, round after round; `mesh.cluster.failure_detector` decides what follows.

Of other workers' endpoints only those whose health no worker publishes are pinged, and one of each worker that does not
listen: normally the cost does not depend on their number.
"""

import asyncio
import time
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field, replace
from random import randrange
from typing import NamedTuple, Protocol

from mesh.cluster.cut_off import CutOff, cut_off
from mesh.cluster.failure_detector import (
    MISSES_BEFORE_LOST,
    DetectorState,
    PingResult,
    PingRound,
    PingTarget,
    choose_stand_ins,
    observe_round,
    ping_targets,
)
from mesh.cluster.ping import PingFunction, ping_worker
from mesh.cluster.ping_schedule import plan_pings
from mesh.model.errors import CodedText
from mesh.model.part import DaemonPart
from mesh.model.service import Address, EndpointKey
from mesh.model.table import RealKey
from mesh.model.view import ClusterView
from mesh.util.bulkhead import Bulkhead

bulkhead = Bulkhead(DaemonPart.PEERS)

ROUND_INTERVAL = 0.2
"""Seconds from the start of one round to the start of the next; longer while a target does not answer."""
LAST_PING_RETENTION = 60.0
"""Seconds after which the time of a target's last ping no longer matters."""


class PeerSource(Protocol):
    """Lists the other workers at the start of each round."""

    def workers(self) -> Mapping[str, RealKey]:
        """The address of each worker's peer listener."""
        ...

    def unleased(self) -> Collection[str]:
        """The workers among them that disappeared from the store."""
        ...

    def non_listening(self) -> Collection[str]:
        """Other workers in the store without a peer listener."""
        ...

    def view(self) -> ClusterView:
        """The view that has their endpoints."""
        ...


@dataclass(frozen=True, slots=True)
class _DoubtfulEndpoints:
    """The endpoints to ping, and the inputs that they follow from."""

    view: ClusterView = field(default_factory=ClusterView)
    workers: frozenset[str] = frozenset()
    """Workers in doubt."""
    standing: Mapping[str, EndpointKey] = field(default_factory=dict)
    doubtful: Mapping[EndpointKey, PingTarget] = field(default_factory=dict)
    """Endpoints of workers in doubt."""
    instead: Mapping[EndpointKey, PingTarget] = field(default_factory=dict)
    """Endpoints that are pinged in place of workers that do not listen."""


class Reachability:
    """Knows which workers and endpoints answer. While no `PeerMonitor` pings, everything counts as reachable."""

    def __init__(self) -> None:
        self.state = DetectorState()
        """The state of the failure detector. Replaced as a whole."""
        self.heard: dict[str, float] = {}
        """When each worker that is there answered last, in seconds since 1970."""

    def answers(self, worker: str) -> bool:
        """Whether a worker has answered lately."""
        return self.state.answers(worker)

    def cut_off(self, store: CodedText | None) -> CutOff:
        """What operators are told now. `store`: why the store does not answer; None if it does."""
        return cut_off(store, self.state, self.heard)

    @property
    def lost(self) -> tuple[frozenset[EndpointKey], bool]:
        """The endpoints out of reach, and whether this worker is probably cut off itself."""
        return self.state.lost, self.state.isolated

    def note(self, seen: PingRound, workers: Collection[str]) -> None:
        """Note who has answered in a round; only workers that are still there are kept."""
        now = time.time()
        answered = {worker: now for worker, answer in seen.workers.items() if answer is PingResult.ANSWERED}
        self.heard = {worker: at for worker, at in (self.heard | answered).items() if worker in workers}

    def lease_ended(self, workers: Collection[str]) -> None:
        """Replace the workers that disappeared from the store, without waiting for the end of a round."""
        self.state = replace(self.state, unleased=frozenset(workers))


class PeerMonitor:
    """Pings the other workers, round after round."""

    def __init__(
        self,
        reachability: Reachability,
        peers: PeerSource,
        wake: Callable[[], None],
        witnesses: Collection[RealKey] = (),
        ping: PingFunction = ping_worker,
    ) -> None:
        """`reachability` is updated after each round. `wake` is called when something is lost or back; `witnesses`: the
        store's members on other hosts.
        """
        self._reachability = reachability
        self._peers = peers
        self._wake = wake
        self._witnesses = tuple(witnesses)
        self._ping = ping
        self._last: dict[RealKey, float] = {}
        """When each target was pinged last."""
        self._doubtful = _DoubtfulEndpoints()
        self._begin = randrange(1 << 16)

    async def run(self) -> None:
        """Ping until cancelled."""
        loop = asyncio.get_running_loop()
        peers, begun = self._peers, loop.time() - ROUND_INTERVAL
        while True:
            before, begun = begun, loop.time()
            workers, non_listening = peers.workers(), peers.non_listening()
            pinged = self._in_question(peers.view(), non_listening)
            seen = await self._round(workers, pinged, min(begun - before, 2 * ROUND_INTERVAL))
            state = self._reachability.state
            after = observe_round(state, seen, workers.keys(), peers.unleased(), non_listening)
            self._reachability.state = after
            self._reachability.note(seen, workers)
            if _consequences(after) != _consequences(state):
                self._wake()
            await asyncio.sleep(ROUND_INTERVAL - (loop.time() - begun))

    def _in_question(self, view: ClusterView, non_listening: Collection[str]) -> "_DoubtfulEndpoints":
        """The endpoints to ping; computed again only if its inputs have changed."""
        state, last = self._reachability.state, self._doubtful
        doubtful = state.doubtful
        standing = choose_stand_ins(state, view, non_listening, self._begin) if non_listening else {}
        same = view.endpoints is last.view.endpoints and view.services is last.view.services
        if same and (doubtful, standing) == (last.workers, last.standing):
            return last
        found = ping_targets(view, doubtful) if doubtful else {}
        instead = ping_targets(view, (), standing.values()) if standing else {}
        self._doubtful = _DoubtfulEndpoints(view, doubtful, standing, found, instead)
        return self._doubtful

    async def _round(self, workers: Mapping[str, RealKey], pinged: "_DoubtfulEndpoints", seconds: float) -> PingRound:
        state, endpoints = self._reachability.state, {**pinged.instead, **pinged.doubtful}
        if not workers and not endpoints:
            return PingRound()
        turns = {**workers, **{key[0]: place.real for key, place in pinged.instead.items()}}
        chosen = plan_pings(state, turns, pinged.doubtful, self._witnesses, last=self._last, seconds=seconds)
        names = {real: worker for worker, real in workers.items()}
        answers = await self._ask_all({real: names.get(real) for real in (*chosen.turn, *chosen.again)})
        by_endpoint = {
            key: _of(place, answers[place.real]) for key, place in endpoints.items() if place.real in answers
        }
        by_worker = {worker: answers[real] for worker, real in workers.items() if real in answers}
        untried = {p.real for key, p in pinged.instead.items() if state.stand_ins.get(key[0]) != key}
        hosts = {*names, *self._witnesses, *(place.real for place in pinged.instead.values())} - untried
        turn, again = ([real for real in reals if real in hosts] for reals in (chosen.turn, chosen.again))
        return PingRound(by_worker, _by_address(answers, turn), by_endpoint, _by_address(answers, again))

    async def _ask_all(self, places: Mapping[RealKey, str | None]) -> dict[RealKey, PingResult]:
        answers: dict[RealKey, PingResult] = {}

        async def ask_one(real: RealKey, worker: str | None) -> None:
            answer = await self._ping(real, worker)
            if answer is not None:
                answers[real] = answer

        now = asyncio.get_running_loop().time()
        self._last = {real: when for real, when in self._last.items() if when > now - LAST_PING_RETENTION}
        async with asyncio.TaskGroup() as tasks:
            for real, worker in places.items():
                self._last[real] = now
                tasks.create_task(bulkhead.run("a ping", ask_one, real, worker), name=f"ask {real}")
        return answers


class _Consequences(NamedTuple):
    """The part of the detector's state that the control loop acts on."""

    lost: frozenset[EndpointKey]
    is_own_fault: bool
    """False while nothing is lost and no worker is silent."""
    answering: frozenset[str]
    """Workers whose lease has ended and that answer."""


def _consequences(state: DetectorState) -> _Consequences:
    answering = frozenset(worker for worker in state.unleased if state.answers(worker))
    silent = any(missed >= MISSES_BEFORE_LOST for missed in state.misses.values())
    return _Consequences(state.lost, (bool(state.lost) or silent) and state.isolated, answering)


def _of(place: PingTarget, answer: PingResult) -> PingResult:
    return PingResult.ANSWERED if place.datagrams and answer is PingResult.REFUSED else answer


def _by_address(answers: Mapping[RealKey, PingResult], hosts: Iterable[RealKey]) -> dict[Address, PingResult]:
    """The best result of each host."""
    found: dict[Address, PingResult] = {}
    for real in hosts:
        answer = answers.get(real)
        if answer is not None and found.get(real.address, PingResult.SILENT) is PingResult.SILENT:
            found[real.address] = answer
    return found
