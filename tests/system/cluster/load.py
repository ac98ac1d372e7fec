"""Clients anywhere in the lab: single requests, or continuous requests with every failure counted."""

import asyncio
import socket
from collections import Counter
from collections.abc import AsyncIterator, Collection, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from tests.system.cluster.lab import Lab
from tests.system.ipvs.lab import PATIENCE, name_in

PAUSE = 0.02
"""Seconds between two questions of one client."""


@dataclass(frozen=True)
class Way:
    """A client and what it asks."""

    place: str
    address: str
    port: int
    kind: socket.SocketKind = socket.SOCK_STREAM


async def ask(lab: Lab, way: Way, patience: float = PATIENCE) -> str:
    """Which container answers a new connection, or a datagram from a new port. Raises `OSError`."""
    loop = asyncio.get_running_loop()
    with lab.socket(way.place, way.kind) as sock:
        async with asyncio.timeout(patience):
            await loop.sock_connect(sock, (way.address, way.port))
            await loop.sock_sendall(sock, b"hello\n")
            return name_in(await loop.sock_recv(sock, 100))


async def answering(lab: Lab, way: Way, of: Collection[str], times: int = 200) -> set[str]:
    """Which containers answer; looks no further once it has met all `of` them. A scheduler may choose at random."""
    met: set[str] = set()
    for _ in range(times):
        met.add(await ask(lab, way))
        if met >= set(of):
            break
    return met


@dataclass
class Counted:
    """What came of the questions so far."""

    answers: Counter[str] = field(default_factory=Counter)
    """By container."""
    failures: list[tuple[float, Way, str]] = field(default_factory=list)
    """When it was asked (the loop's clock), and why there was no answer."""
    times: list[tuple[float, str]] = field(default_factory=list)
    """When it was asked, and who answered."""

    def since(self, when: float) -> set[str]:
        """Who answered what was asked since then."""
        return {name for asked, name in self.times if asked >= when}


@asynccontextmanager
async def load(lab: Lab, ways: Sequence[Way], patience: float = 3.0) -> AsyncIterator[Counted]:
    """All of them ask, each one question after the other, until the end of the block."""
    counted = Counted()
    enough = asyncio.Event()

    async def keep_asking(way: Way) -> None:
        loop = asyncio.get_running_loop()
        while not enough.is_set():
            asked = loop.time()
            try:
                name = await ask(lab, way, patience)
            except OSError as error:  # `TimeoutError` is one
                counted.failures.append((asked, way, repr(error)))
            else:
                counted.answers[name] += 1
                counted.times.append((asked, name))
            await asyncio.sleep(PAUSE)

    async with asyncio.TaskGroup() as tasks:
        for way in ways:
            tasks.create_task(keep_asking(way))
        try:
            yield counted
        finally:
            enough.set()
