"""Asks the other workers, round after round, whether they are there; what follows is decided in `peers`.

Of other workers' endpoints only those are asked that nobody else judges, and one of each worker that does not listen:
in quiet times the cost does not depend on how many there are.
"""

import asyncio
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field, replace
from random import randrange
from typing import NamedTuple, Protocol

from mesh.cluster.failure_detector import (
    DetectorState,
    PingResult,
    PingRound,
    PingTarget,
    choose_stand_ins,
    observe_round,
    peer_problems,
    ping_targets,
)
from mesh.cluster.ping import PingFunction, ping_worker
from mesh.cluster.ping_schedule import plan_pings
from mesh.model.problem import Problem
from mesh.model.service import Address, EndpointKey
from mesh.model.table import RealKey
from mesh.model.view import ClusterView

ROUND_INTERVAL = 0.2
"""Seconds from the beginning of one round to that of the next; longer while somebody does not answer."""
LAST_PING_RETENTION = 60.0
"""Seconds after which it does not matter any more when somebody was asked."""


class PeerSource(Protocol):
    """What is known of the other workers, whenever a round begins."""

    def workers(self) -> Mapping[str, RealKey]:
        """Where each of them answers."""
        ...

    def unleased(self) -> Collection[str]:
        """Those among them that the store has lost."""
        ...

    def deaf(self) -> Collection[str]:
        """Other workers in the store that do not say where they answer."""
        ...

    def view(self) -> ClusterView:
        """Their endpoints are in it."""
        ...


@dataclass(frozen=True, slots=True)
class _DoubtfulEndpoints:
    """The endpoints to ask, and what that follows from."""

    view: ClusterView = field(default_factory=ClusterView)
    workers: frozenset[str] = frozenset()
    """In doubt."""
    standing: Mapping[str, EndpointKey] = field(default_factory=dict)
    doubtful: Mapping[EndpointKey, PingTarget] = field(default_factory=dict)
    """Of workers in doubt."""
    instead: Mapping[EndpointKey, PingTarget] = field(default_factory=dict)
    """In the place of workers that do not listen."""


class Reachability:
    """Knows which workers and endpoints answer. While no `PeerMonitor` pings, it takes everything for reachable."""

    def __init__(self) -> None:
        self.known = DetectorState()
        """What the rounds so far have shown. Replaced as a whole."""

    def answers(self, worker: str) -> bool:
        """Whether a worker has answered lately."""
        return self.known.answers(worker)

    def problems(self) -> list[Problem]:
        """What an operator is told of it now."""
        return peer_problems(self.known)

    @property
    def lost(self) -> tuple[frozenset[EndpointKey], bool]:
        """What is out of reach, and whether that is rather this worker's own fault."""
        return self.known.lost, self.known.isolated

    def lease_ended(self, workers: Collection[str]) -> None:
        """The store has lost these, no other ones: what follows does not wait for the end of a round."""
        self.known = replace(self.known, unleased=frozenset(workers))


class PeerMonitor:
    """Pings the other workers, round after round."""

    def __init__(
        self,
        reachability: Reachability,
        others: PeerSource,
        wake: Callable[[], None],
        witnesses: Collection[RealKey] = (),
        question: PingFunction = ping_worker,
    ) -> None:
        """`reachability` is kept up to date. `wake` is called when something is lost or back; `witnesses`: the store's
        members on other hosts."""
        self._reachability = reachability
        self._others = others
        self._wake = wake
        self._witnesses = tuple(witnesses)
        self._question = question
        self._last: dict[RealKey, float] = {}
        """When each was asked."""
        self._asked = _DoubtfulEndpoints()
        self._begin = randrange(1 << 16)

    async def run(self) -> None:
        """Ask until cancelled."""
        loop = asyncio.get_running_loop()
        others, begun = self._others, loop.time() - ROUND_INTERVAL
        while True:
            before, begun = begun, loop.time()
            workers, deaf = others.workers(), others.deaf()
            asked = self._in_question(others.view(), deaf)
            seen = await self._round(workers, asked, min(begun - before, 2 * ROUND_INTERVAL))
            known = self._reachability.known
            now = observe_round(known, seen, workers.keys(), others.unleased(), deaf)
            self._reachability.known = now
            if _consequences(now) != _consequences(known):
                self._wake()
            await asyncio.sleep(ROUND_INTERVAL - (loop.time() - begun))

    def _in_question(self, view: ClusterView, deaf: Collection[str]) -> "_DoubtfulEndpoints":
        """The endpoints to ask; worked out anew only where they may be other ones."""
        known, last = self._reachability.known, self._asked
        doubtful = known.doubtful
        standing = choose_stand_ins(known, view, deaf, self._begin) if deaf else {}
        same = view.endpoints is last.view.endpoints and view.services is last.view.services
        if same and (doubtful, standing) == (last.workers, last.standing):
            return last
        found = ping_targets(view, doubtful) if doubtful else {}
        instead = ping_targets(view, (), standing.values()) if standing else {}
        self._asked = _DoubtfulEndpoints(view, doubtful, standing, found, instead)
        return self._asked

    async def _round(self, workers: Mapping[str, RealKey], asked: "_DoubtfulEndpoints", seconds: float) -> PingRound:
        known, endpoints = self._reachability.known, {**asked.instead, **asked.doubtful}
        if not workers and not endpoints:
            return PingRound()
        turns = {**workers, **{key[0]: place.real for key, place in asked.instead.items()}}
        chosen = plan_pings(known, turns, asked.doubtful, self._witnesses, last=self._last, seconds=seconds)
        names = {real: worker for worker, real in workers.items()}
        answers = await self._ask_all({real: names.get(real) for real in (*chosen.turn, *chosen.again)})
        by_endpoint = {
            key: _of(place, answers[place.real]) for key, place in endpoints.items() if place.real in answers
        }
        by_worker = {worker: answers[real] for worker, real in workers.items() if real in answers}
        untried = {p.real for key, p in asked.instead.items() if known.stand_ins.get(key[0]) != key}
        hosts = {*names, *self._witnesses, *(place.real for place in asked.instead.values())} - untried
        turn, again = ([real for real in reals if real in hosts] for reals in (chosen.turn, chosen.again))
        return PingRound(by_worker, _by_address(answers, turn), by_endpoint, _by_address(answers, again))

    async def _ask_all(self, places: Mapping[RealKey, str | None]) -> dict[RealKey, PingResult]:
        answers: dict[RealKey, PingResult] = {}

        async def ask_one(real: RealKey, worker: str | None) -> None:
            answer = await self._question(real, worker)
            if answer is not None:
                answers[real] = answer

        now = asyncio.get_running_loop().time()
        self._last = {real: when for real, when in self._last.items() if when > now - LAST_PING_RETENTION}
        async with asyncio.TaskGroup() as tasks:
            for real, worker in places.items():
                self._last[real] = now
                tasks.create_task(ask_one(real, worker), name=f"ask {real}")
        return answers


class _Consequences(NamedTuple):
    """The part of the detector's state that the control loop acts on."""

    lost: frozenset[EndpointKey]
    is_own_fault: bool
    """False while nothing is lost."""
    answering: frozenset[str]
    """Workers whose lease has ended and that answer."""


def _consequences(known: DetectorState) -> _Consequences:
    answering = frozenset(worker for worker in known.unleased if known.answers(worker))
    return _Consequences(known.lost, bool(known.lost) and known.isolated, answering)


def _of(place: PingTarget, answer: PingResult) -> PingResult:
    return PingResult.ANSWERED if place.datagrams and answer is PingResult.REFUSED else answer


def _by_address(answers: Mapping[RealKey, PingResult], hosts: Iterable[RealKey]) -> dict[Address, PingResult]:
    """The best answer of each host."""
    found: dict[Address, PingResult] = {}
    for real in hosts:
        answer = answers.get(real)
        if answer is not None and found.get(real.address, PingResult.SILENT) is PingResult.SILENT:
            found[real.address] = answer
    return found
