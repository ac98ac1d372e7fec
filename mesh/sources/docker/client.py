"""The engine's API, as far as it is used: who is asked, what its answers are, and what its failures mean."""

import asyncio
import socket
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Any

import aiodocker
import aiohttp
import msgspec

from mesh.model.service import Address
from mesh.sources.docker.events import Ending, ending_of
from mesh.sources.docker.messages import Event, Inspected, Listed, Network

ANSWER = 10.0
"""Seconds that the engine gets for an answer; events have all the time there is."""

FAILURES = (aiodocker.DockerError, aiohttp.ClientError, OSError, TimeoutError, ValueError, msgspec.MsgspecError)
"""What an engine that is gone, restarts, hangs or answers nonsense makes of a call."""

_SURPRISES = (TypeError, LookupError, AttributeError, ArithmeticError, AssertionError, RecursionError)
"""What the client makes of an answer that has not the form it takes for granted."""

_FIELDS = ("Id", "Names", "State", "Status", "Labels", "Ports", "HostConfig", "NetworkSettings")


class NonsenseError(ValueError):
    """The answer is none of a Docker engine: another program listens there."""


@contextmanager
def understood() -> Iterator[None]:
    """Around calls of the client, and nothing of ours: what it stumbles over is the engine's, a `NonsenseError`."""
    try:
        yield
    except _SURPRISES as error:
        raise NonsenseError(f"{type(error).__name__}: {error}") from error


@asynccontextmanager
async def connected(url: str, answer: float = ANSWER) -> AsyncIterator[aiodocker.Docker]:
    """A client of the engine; nothing is asked yet."""
    docker = aiodocker.Docker(url, timeout=aiohttp.ClientTimeout(total=answer))
    try:
        yield docker
    finally:
        await docker.close()


async def containers(docker: aiodocker.Docker) -> list[Listed]:
    """The containers that run, paused ones included. Raises `FAILURES`."""
    with understood():
        found = await docker.containers.list()
    return [msgspec.convert({name: one[name] for name in _FIELDS if name in one}, Listed) for one in found]


async def drivers(docker: aiodocker.Docker) -> dict[str, str]:
    """Network name -> its driver. Raises `FAILURES`."""
    with understood():
        found = await docker.networks.list()
    return {network.name: network.driver for network in msgspec.convert(found, list[Network])}


async def ending(docker: aiodocker.Docker, id: str) -> Ending | None:
    """How a container wants to be stopped; None: it is gone. Raises `FAILURES`."""
    try:
        with understood():
            shown = await docker.containers.container(id).show()
        return ending_of(msgspec.convert(shown, Inspected))
    except aiodocker.DockerError as error:
        if error.status != 404:
            raise
        return None


class Events:
    """The events of one request, in their order."""

    def __init__(self, heard: asyncio.Queue[dict[str, Any] | None], request: asyncio.Task[None]) -> None:
        self._heard = heard
        self._request = request

    def poke(self) -> None:
        """Make `some` return, with nothing if nothing came."""
        self._heard.put_nowait({})

    async def some(self) -> list[Event]:
        """At least one event, and all that came with it. Raises `FAILURES` when the stream has ended."""
        found: list[Event] = []
        while not found or not self._heard.empty():
            raw = await self._heard.get()
            if raw is None:
                self._ended()
                raise aiohttp.ClientPayloadError("the stream of events ended")
            if not raw:
                break
            found.append(msgspec.convert(raw, Event))
        return found

    async def all(self) -> list[Event]:
        """Every event of a request that ends by itself. Raises `FAILURES`."""
        found = []
        while (raw := await self._heard.get()) is not None:
            found.append(msgspec.convert(raw, Event))
        self._ended()
        return found

    def _ended(self) -> None:
        """Raises what ended the request, if anything did; one that goes on has said `null`, which ends nothing."""
        if self._request.done():
            with understood():
                self._request.result()


@asynccontextmanager
async def events(docker: aiodocker.Docker, *, filters: str, **span: float) -> AsyncIterator[Events]:
    """Ask for events; `since` and `until` are seconds of the engine's clock."""
    heard = docker.events.channel.subscribe()
    params: Any = {name: f"{seconds:.6f}" for name, seconds in span.items()}
    request = asyncio.get_running_loop().create_task(docker.events.run(filters=filters, **params), name="docker events")
    try:
        yield Events(heard.queue, request)
    finally:
        request.cancel()
        await asyncio.gather(request, return_exceptions=True)


def words(error: BaseException, answer: float = ANSWER) -> str:
    """What is wrong with the engine, and what to do."""
    text = str(error) or type(error).__name__
    if "Permission denied" in text:
        return "permission denied; run as root or in the group docker"
    if isinstance(error, aiodocker.DockerError) and error.status == 900:
        return "it does not answer; start it, or set [source.docker] socket"
    if isinstance(error, aiohttp.ClientPayloadError):
        return "it ended the stream of its events"
    if isinstance(error, TimeoutError):
        return f"no answer in {answer:g} s; see its log"
    if isinstance(error, (NonsenseError, msgspec.MsgspecError, aiohttp.ContentTypeError)):
        return f"it answered what is not understood ({text}); is it a Docker engine of API 1.41 or later?"
    return text


def own_address(version: int) -> Address | None:
    """The address from which this host would reach the outside; None: it would not. Nothing is sent."""
    family, outside = (socket.AF_INET, "192.0.2.1") if version == 4 else (socket.AF_INET6, "2001:db8::1")
    with socket.socket(family, socket.SOCK_DGRAM) as asked:
        try:
            asked.connect((outside, 9))
        except OSError:
            return None
        return str(asked.getsockname()[0])
