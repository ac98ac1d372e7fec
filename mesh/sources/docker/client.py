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
from mesh.sources.docker.events import StopConfig, stop_config_of
from mesh.sources.docker.messages import ContainerDetails, ContainerSummary, DockerEvent, DockerNetwork

REQUEST_TIMEOUT = 10.0
"""Seconds that the engine gets for an answer; events have all the time there is."""

CLIENT_ERRORS = (aiodocker.DockerError, aiohttp.ClientError, OSError, TimeoutError, ValueError, msgspec.MsgspecError)
"""What an engine that is gone, restarts, hangs or answers nonsense makes of a call."""

_SURPRISES = (TypeError, LookupError, AttributeError, ArithmeticError, AssertionError, RecursionError)
"""What the client makes of an answer that has not the form it takes for granted."""

_FIELDS = ("Id", "Names", "State", "Status", "Labels", "Ports", "HostConfig", "NetworkSettings")


class NotDockerError(ValueError):
    """The answer is none of a Docker engine: another program listens there."""


@contextmanager
def translate_surprises() -> Iterator[None]:
    """Around calls of the client, and nothing of ours: what it stumbles over is the engine's, a `NotDockerError`."""
    try:
        yield
    except _SURPRISES as error:
        raise NotDockerError(f"{type(error).__name__}: {error}") from error


@asynccontextmanager
async def open_client(url: str, answer: float = REQUEST_TIMEOUT) -> AsyncIterator[aiodocker.Docker]:
    """A client of the engine; nothing is asked yet."""
    docker = aiodocker.Docker(url, timeout=aiohttp.ClientTimeout(total=answer))
    try:
        yield docker
    finally:
        await docker.close()


async def list_containers(docker: aiodocker.Docker) -> list[ContainerSummary]:
    """The containers that run, paused ones included. Raises `CLIENT_ERRORS`."""
    with translate_surprises():
        found = await docker.containers.list()
    return [msgspec.convert({name: one[name] for name in _FIELDS if name in one}, ContainerSummary) for one in found]


async def list_network_drivers(docker: aiodocker.Docker) -> dict[str, str]:
    """Network name -> its driver. Raises `CLIENT_ERRORS`."""
    with translate_surprises():
        found = await docker.networks.list()
    return {network.name: network.driver for network in msgspec.convert(found, list[DockerNetwork])}


async def inspect_stop_config(docker: aiodocker.Docker, id: str) -> StopConfig | None:
    """How a container wants to be stopped; None: it is gone. Raises `CLIENT_ERRORS`."""
    try:
        with translate_surprises():
            shown = await docker.containers.container(id).show()
        return stop_config_of(msgspec.convert(shown, ContainerDetails))
    except aiodocker.DockerError as error:
        if error.status != 404:
            raise
        return None


class EventStream:
    """The events of one request, in their order."""

    def __init__(self, heard: asyncio.Queue[dict[str, Any] | None], request: asyncio.Task[None]) -> None:
        self._heard = heard
        self._request = request

    def poke(self) -> None:
        """Make `some` return, with nothing if nothing came."""
        self._heard.put_nowait({})

    async def some(self) -> list[DockerEvent]:
        """At least one event, and all that came with it. Raises `CLIENT_ERRORS` when the stream has ended."""
        found: list[DockerEvent] = []
        while not found or not self._heard.empty():
            raw = await self._heard.get()
            if raw is None:
                self._ended()
                raise aiohttp.ClientPayloadError("the stream of events ended")
            if not raw:
                break
            found.append(msgspec.convert(raw, DockerEvent))
        return found

    async def all(self) -> list[DockerEvent]:
        """Every event of a request that ends by itself. Raises `CLIENT_ERRORS`."""
        found = []
        while (raw := await self._heard.get()) is not None:
            found.append(msgspec.convert(raw, DockerEvent))
        self._ended()
        return found

    def _ended(self) -> None:
        """Raises what ended the request, if anything did; one that goes on has said `null`, which ends nothing."""
        if self._request.done():
            with translate_surprises():
                self._request.result()


@asynccontextmanager
async def open_events(docker: aiodocker.Docker, *, filters: str, **span: float) -> AsyncIterator[EventStream]:
    """Ask for events; `since` and `until` are seconds of the engine's clock."""
    heard = docker.events.channel.subscribe()
    params: Any = {name: f"{seconds:.6f}" for name, seconds in span.items()}
    request = asyncio.get_running_loop().create_task(docker.events.run(filters=filters, **params), name="docker events")
    try:
        yield EventStream(heard.queue, request)
    finally:
        request.cancel()
        await asyncio.gather(request, return_exceptions=True)


def explain_failure(error: BaseException, answer: float = REQUEST_TIMEOUT) -> str:
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
    if isinstance(error, (NotDockerError, msgspec.MsgspecError, aiohttp.ContentTypeError)):
        return f"it answered what is not understood ({text}); is it a Docker engine of API 1.41 or later?"
    return text


def outbound_address(version: int) -> Address | None:
    """The address from which this host would reach the outside; None: it would not. Nothing is sent."""
    family, outside = (socket.AF_INET, "192.0.2.1") if version == 4 else (socket.AF_INET6, "2001:db8::1")
    with socket.socket(family, socket.SOCK_DGRAM) as asked:
        try:
            asked.connect((outside, 9))
        except OSError:
            return None
        return str(asked.getsockname()[0])
