"""Asks the other workers, round after round, whether they are there; what follows is decided in `peers`.

A question is a connection that is closed at once: that it is accepted, or refused, is all that is asked. Of other
workers' endpoints only those are asked whose worker missed the last round, so that in quiet times the cost does not
depend on how many there are.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Collection, Iterable, Mapping
from typing import Protocol, TypeAlias

from mesh.model import Address, ClusterView, EndpointKey, Health, RealKey
from mesh.peers import Answer, Known, Place, Round, observe, places, problems, withhold
from mesh.probes.tcp import OURS, connect
from mesh.problem import Problem

log = logging.getLogger("vipmesh")

EVERY = 0.5
"""Seconds from one round to the next."""
TIMEOUT = 0.5
"""Seconds that an answer may take."""
LATE = 0.25
"""Seconds. A timeout that comes so late says that this process was busy, and nothing of who was asked."""
RATE = 200
"""Questions to workers in a second: with more than a hundred of them, rounds become longer."""
AT_A_TIME = 256
"""Questions in flight."""

Question: TypeAlias = Callable[[RealKey], Awaitable[Answer | None]]
"""Asks one place; None: this worker could not ask."""


class Others(Protocol):
    """What is known of the other workers, whenever a round begins."""

    def workers(self) -> Mapping[str, RealKey]:
        """Where each of them answers."""
        ...

    def view(self) -> ClusterView:
        """Their endpoints are in it."""
        ...


async def ask(real: RealKey) -> Answer | None:
    """A `Question`, by TCP."""
    loop = asyncio.get_running_loop()
    begun = loop.time()
    try:
        async with asyncio.timeout(TIMEOUT):
            (await connect(real.address, real.port)).close()
    except TimeoutError:
        return Answer.SILENT if loop.time() - begun < TIMEOUT + LATE else None
    except (ConnectionRefusedError, ConnectionResetError):
        return Answer.REFUSED
    except OSError as error:
        return None if error.errno in OURS else Answer.SILENT
    return Answer.ANSWERED


class Reach:
    """Of one worker. Without `run` it finds everything within reach."""

    def __init__(
        self,
        wake: Callable[[], None],
        witnesses: Collection[RealKey] = (),
        question: Question = ask,
    ) -> None:
        """`wake` is called when something is lost or back; `witnesses`: the store's members on other hosts."""
        self._wake = wake
        self._witnesses = tuple(witnesses)
        self._question = question
        self._known = Known()

    def problems(self) -> list[Problem]:
        """What an operator is told of it now."""
        return problems(self._known)

    def withheld(self, view: ClusterView, health: Mapping[EndpointKey, Health]) -> ClusterView:
        """The view in which what is out of reach takes no new connection."""
        return withhold(view, health, self._known.lost, isolated=self._known.isolated)

    async def run(self, others: Others) -> None:
        """Ask until cancelled."""
        loop = asyncio.get_running_loop()
        while True:
            begun = loop.time()
            workers = others.workers()
            asked = places(others.view(), self._known.doubtful) if self._known.doubtful else {}
            before = self._known
            self._known = observe(before, await self._round(workers, asked), workers.keys())
            if (self._known.lost, self._known.isolated) != (before.lost, before.isolated):
                self._wake()
            await asyncio.sleep(max(EVERY, len(workers) / RATE) - (loop.time() - begun))

    async def _round(self, workers: Mapping[str, RealKey], asked: Mapping[EndpointKey, Place]) -> Round:
        if not workers:
            return Round()
        hosts = {*workers.values(), *self._witnesses}
        answers = await self._ask_all(hosts | {place.real for place in asked.values()})
        endpoints = {key: _of(place, answers[place.real]) for key, place in asked.items() if place.real in answers}
        by_worker = {worker: answers[real] for worker, real in workers.items() if real in answers}
        return Round(by_worker, _by_address(answers, hosts), endpoints)

    async def _ask_all(self, places: Iterable[RealKey]) -> dict[RealKey, Answer]:
        answers: dict[RealKey, Answer] = {}
        room = asyncio.Semaphore(AT_A_TIME)

        async def ask_one(real: RealKey) -> None:
            async with room:
                answer = await self._question(real)
            if answer is not None:
                answers[real] = answer

        async with asyncio.TaskGroup() as tasks:
            for real in places:
                tasks.create_task(ask_one(real), name=f"ask {real}")
        return answers


async def listen(real: RealKey) -> asyncio.Server:
    """Be there for the others. Raises `OSError`."""
    return await asyncio.start_server(_hang_up, real.address, real.port)


async def _hang_up(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.transport.abort()


def _of(place: Place, answer: Answer) -> Answer:
    return Answer.ANSWERED if place.datagrams and answer is Answer.REFUSED else answer


def _by_address(answers: Mapping[RealKey, Answer], hosts: Iterable[RealKey]) -> dict[Address, Answer]:
    """The best answer of each host."""
    found: dict[Address, Answer] = {}
    for real in hosts:
        answer = answers.get(real)
        if answer is not None and found.get(real.address, Answer.SILENT) is Answer.SILENT:
            found[real.address] = answer
    return found
