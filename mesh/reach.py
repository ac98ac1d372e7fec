"""Asks the other workers, round after round, whether they are there; what follows is decided in `peers`.

A question is a connection that is closed at once: that it is accepted, or refused, is all that is asked. A worker says
its name first, since an address may be another's by now. Of other workers' endpoints only those are asked that nobody
else judges, so that in quiet times the cost does not depend on how many there are.
"""

import asyncio
import errno
import logging
import os
import socket
from collections.abc import Awaitable, Callable, Collection, Iterable, Mapping
from typing import Protocol, TypeAlias

from mesh.model import Address, ClusterView, EndpointKey, RealKey
from mesh.peers import Answer, Known, Place, Round, observe, places, problems, withhold
from mesh.probes.tcp import OURS, unconnected
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
BACKLOG = 1024
"""Questions that wait for this process: as long as the kernel takes them, the others see that the host is there."""
AT_A_TIME = 256
"""Questions in flight."""

Question: TypeAlias = Callable[[RealKey, str | None], Awaitable[Answer | None]]
"""Asks one place, for a worker if one is named; None: this worker could not ask."""


class Others(Protocol):
    """What is known of the other workers, whenever a round begins."""

    def workers(self) -> Mapping[str, RealKey]:
        """Where each of them answers."""
        ...

    def unleased(self) -> Collection[str]:
        """Those among them that the store has lost."""
        ...

    def view(self) -> ClusterView:
        """Their endpoints are in it."""
        ...


async def ask(real: RealKey, worker: str | None) -> Answer | None:
    """A `Question`, by TCP."""
    loop = asyncio.get_running_loop()
    begun = loop.time()
    try:
        with unconnected(real.address) as sock:
            if (error := sock.connect_ex((real.address, real.port))) not in (0, errno.EINPROGRESS):
                raise OSError(error, os.strerror(error))
            answered = await _is_ready(sock, reading=worker is not None)
            answer = _arrived(sock, worker)
    except (ConnectionRefusedError, ConnectionResetError):
        return Answer.REFUSED
    except OSError as error:
        return None if error.errno in OURS else Answer.SILENT
    failed = answer in (Answer.SILENT, Answer.MUTE)
    return None if failed and not answered and loop.time() - begun >= TIMEOUT + LATE else answer


async def _is_ready(sock: socket.socket, *, reading: bool) -> bool:
    """Wait until something has arrived, or until the connection is there, or in vain."""
    loop = asyncio.get_running_loop()
    ready = asyncio.Event()
    if reading:
        loop.add_reader(sock, ready.set)
    else:
        loop.add_writer(sock, ready.set)
    try:
        async with asyncio.timeout(TIMEOUT):
            return await ready.wait()
    except TimeoutError:
        return False
    finally:
        loop.remove_reader(sock)
        loop.remove_writer(sock)


def _arrived(sock: socket.socket, worker: str | None) -> Answer:
    """What the kernel has of an answer: where this process comes late to look, that is not the other's fault."""
    if error := sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR):
        raise OSError(error, os.strerror(error))
    try:
        sock.getpeername()
    except OSError:
        return Answer.SILENT  # not connected yet
    if worker is None:
        return Answer.ANSWERED
    try:
        return _named(worker, sock.recv(1000))
    except BlockingIOError:
        return Answer.MUTE


def _named(worker: str, said: bytes) -> Answer:
    return Answer.ANSWERED if said == _greeting(worker) else Answer.REFUSED


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

    def answers(self, worker: str) -> bool:
        """Whether a worker has answered lately."""
        return self._known.answers(worker)

    def problems(self) -> list[Problem]:
        """What an operator is told of it now."""
        return problems(self._known)

    @property
    def lost(self) -> tuple[frozenset[EndpointKey], bool]:
        """What is out of reach, and whether that is rather this worker's own fault."""
        return self._known.lost, self._known.isolated

    def withheld(self, view: ClusterView) -> ClusterView:
        """The view in which what is out of reach takes no new connection."""
        lost, isolated = self.lost
        return withhold(view, lost, isolated=isolated)

    async def run(self, others: Others) -> None:
        """Ask until cancelled."""
        loop = asyncio.get_running_loop()
        while True:
            begun = loop.time()
            workers = others.workers()
            asked = places(others.view(), self._known.doubtful) if self._known.doubtful else {}
            before = self._known
            seen = await self._round(workers, asked)
            self._known = observe(before, seen, workers.keys(), others.unleased())
            if self._follows(self._known) != self._follows(before):
                self._wake()
            await asyncio.sleep(max(EVERY, len(workers) / RATE) - (loop.time() - begun))

    @staticmethod
    def _follows(known: Known) -> object:
        """What has consequences."""
        return known.lost, known.isolated, frozenset(worker for worker in known.unleased if known.answers(worker))

    async def _round(self, workers: Mapping[str, RealKey], asked: Mapping[EndpointKey, Place]) -> Round:
        if not workers and not asked:
            return Round()
        hosts = {*workers.values(), *self._witnesses}
        names = {real: worker for worker, real in workers.items()}
        answers = await self._ask_all({real: names.get(real) for real in [*hosts, *(p.real for p in asked.values())]})
        endpoints = {key: _of(place, answers[place.real]) for key, place in asked.items() if place.real in answers}
        by_worker = {worker: answers[real] for worker, real in workers.items() if real in answers}
        return Round(by_worker, _by_address(answers, hosts), endpoints)

    async def _ask_all(self, places: Mapping[RealKey, str | None]) -> dict[RealKey, Answer]:
        answers: dict[RealKey, Answer] = {}
        room = asyncio.Semaphore(AT_A_TIME)

        async def ask_one(real: RealKey, worker: str | None) -> None:
            async with room:
                answer = await self._question(real, worker)
            if answer is not None:
                answers[real] = answer

        async with asyncio.TaskGroup() as tasks:
            for real, worker in places.items():
                tasks.create_task(ask_one(real, worker), name=f"ask {real}")
        return answers


async def listen(real: RealKey, worker: str) -> asyncio.Server:
    """Be there for the others, under this name. Raises `OSError`."""

    async def greet(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(_greeting(worker))
        writer.close()

    return await asyncio.start_server(greet, real.address, real.port, backlog=BACKLOG)


def _greeting(worker: str) -> bytes:
    return f"vipmesh {worker}\n".encode()


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
