"""The parts of the engine's API that are used: requests, responses, events, and the meaning of failures."""

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
from mesh.sources.docker.gate import convert_containers, convert_event
from mesh.sources.docker.messages import ContainerDetails, ContainerSummary, DockerEvent, DockerNetwork

REQUEST_TIMEOUT = 10.0
"""Seconds that the engine has to answer a request. The stream of events has no limit."""

CLIENT_ERRORS = (aiodocker.DockerError, aiohttp.ClientError, OSError, TimeoutError, ValueError, msgspec.MsgspecError)
"""Exceptions of a call to an engine that is gone, restarts, hangs or sends an invalid response."""

_SURPRISES = (TypeError, LookupError, AttributeError, ArithmeticError, AssertionError, RecursionError)
"""Exceptions of the client library if a response does not have the form that it expects."""


class NotDockerError(ValueError):
    """The response is not from a Docker engine: another program listens there."""


@contextmanager
def translate_surprises() -> Iterator[None]:
    """Raise `NotDockerError` for unexpected responses. Use it around calls of the client library only."""
    try:
        yield
    except _SURPRISES as error:
        raise NotDockerError(f"{type(error).__name__}: {error}") from error


@asynccontextmanager
async def open_client(url: str, answer: float = REQUEST_TIMEOUT) -> AsyncIterator[aiodocker.Docker]:
    """Open a client of the engine. No request is sent yet."""
    docker = aiodocker.Docker(url, timeout=aiohttp.ClientTimeout(total=answer))
    try:
        yield docker
    finally:
        await docker.close()


async def list_containers(docker: aiodocker.Docker) -> list[ContainerSummary]:
    """Return the running containers, including paused ones. Raises `CLIENT_ERRORS`."""
    with translate_surprises():
        found = await docker.containers.list()
    return convert_containers(found)


async def list_network_drivers(docker: aiodocker.Docker) -> dict[str, str]:
    """Return the driver of each network, by network name. Raises `CLIENT_ERRORS`."""
    with translate_surprises():
        found = await docker.networks.list()
    return {network.name: network.driver for network in msgspec.convert(found, list[DockerNetwork])}


async def inspect_stop_config(docker: aiodocker.Docker, id: str) -> StopConfig | None:
    """Return how a container is to be stopped, or None if it is gone. Raises `CLIENT_ERRORS`."""
    try:
        with translate_surprises():
            shown = await docker.containers.container(id).show()
        return stop_config_of(msgspec.convert(shown, ContainerDetails))
    except (msgspec.ValidationError, OverflowError):
        return StopConfig()  # this container alone is treated as if it said nothing
    except aiodocker.DockerError as error:
        if error.status != 404:
            raise
        return None


class EventStream:
    """The events of one request, in order."""

    def __init__(self, heard: asyncio.Queue[dict[str, Any] | None], request: asyncio.Task[None]) -> None:
        self._heard = heard
        self._request = request

    def poke(self) -> None:
        """Make `some` return, with an empty list if no event came."""
        self._heard.put_nowait({})

    async def some(self) -> list[DockerEvent]:
        """Return at least one event and all that came with it; empty after `poke`.

        Raises `CLIENT_ERRORS` when the stream has ended.
        """
        found: list[DockerEvent] = []
        while not found or not self._heard.empty():
            raw = await self._heard.get()
            if raw is None:
                self._ended()
                raise aiohttp.ClientPayloadError("the stream of events ended")
            if not raw:
                break
            found.append(convert_event(raw))
        return found

    async def all(self) -> list[DockerEvent]:
        """Return every event of a request that ends by itself. Raises `CLIENT_ERRORS`."""
        found = []
        while (raw := await self._heard.get()) is not None:
            found.append(convert_event(raw))
        self._ended()
        return found

    def _ended(self) -> None:
        """Raise the error that ended the request, if any. A request that still runs has sent `null`."""
        if self._request.done():
            with translate_surprises():
                self._request.result()


@asynccontextmanager
async def open_events(docker: aiodocker.Docker, *, filters: str, **span: float) -> AsyncIterator[EventStream]:
    """Request events. `since` and `until` are seconds of the engine's clock."""
    heard = docker.events.channel.subscribe()
    params: Any = {name: f"{seconds:.6f}" for name, seconds in span.items()}
    request = asyncio.get_running_loop().create_task(docker.events.run(filters=filters, **params), name="docker events")
    try:
        yield EventStream(heard.queue, request)
    finally:
        request.cancel()
        await asyncio.gather(request, return_exceptions=True)


def explain_failure(error: BaseException, answer: float = REQUEST_TIMEOUT) -> str:
    """Return what is wrong with the engine, and what to do."""
    text = str(error) or type(error).__name__
    if "Permission denied" in text:
        return "permission denied; run as root or in the group docker"
    if isinstance(error, aiodocker.DockerError) and error.status == 900:
        return "it does not answer; start it, or set [source.docker] socket"
    if isinstance(error, aiohttp.ClientPayloadError):
        return "it closed the stream of events"
    if isinstance(error, TimeoutError):
        return f"no answer in {answer:g} s; check its log"
    if isinstance(error, (NotDockerError, msgspec.MsgspecError, aiohttp.ContentTypeError)):
        return f"its response is not understood ({text}); check that it is a Docker engine with API 1.41 or later"
    return text


def outbound_address(version: int) -> Address | None:
    """Return the address from which this host reaches other networks, or None without a route. Nothing is sent."""
    family, outside = (socket.AF_INET, "192.0.2.1") if version == 4 else (socket.AF_INET6, "2001:db8::1")
    with socket.socket(family, socket.SOCK_DGRAM) as asked:
        try:
            asked.connect((outside, 9))
        except OSError:
            return None
        return str(asked.getsockname()[0])
