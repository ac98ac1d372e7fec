"""The parts of the engine's API that are used: requests, responses, events, and the meaning of failures."""

import asyncio
import socket
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager

import aiodocker
import aiohttp
import msgspec

from mesh.model.part import DaemonPart
from mesh.model.service import Address
from mesh.sources.docker.events import StopConfig, stop_config_of
from mesh.sources.docker.gate import EventLines, convert_containers
from mesh.sources.docker.messages import ContainerDetails, ContainerSummary, DockerEvent, DockerNetwork
from mesh.util.bounded_response import BoundedResponse, ResponseTooLargeError
from mesh.util.bulkhead import Bulkhead

bulkhead = Bulkhead(DaemonPart.SOURCES)

REQUEST_TIMEOUT = 10.0
"""Seconds that the engine has to answer a request. The stream of events has no limit."""

MAX_QUEUED_EVENTS = 1024
"""Events that wait; after that, the stream is not read until they are handled."""

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
    timeout = aiohttp.ClientTimeout(total=answer)
    docker = aiodocker.Docker(url, timeout=timeout)
    unbounded = docker.session
    docker.session = aiohttp.ClientSession(
        connector=docker.connector, connector_owner=False, timeout=timeout, response_class=BoundedResponse
    )
    try:
        yield docker
    finally:
        await docker.close()
        await unbounded.close()


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

    def __init__(self) -> None:
        self._heard: asyncio.Queue[DockerEvent | None] = asyncio.Queue(MAX_QUEUED_EVENTS)
        self._ended = asyncio.Event()
        self._error: Exception | None = None

    def poke(self) -> None:
        """Make `some` return, with an empty list if no event came."""
        if self._heard.empty():
            self._heard.put_nowait(None)

    async def some(self) -> list[DockerEvent]:
        """Return at least one event and all that came with it; empty after `poke`.

        Raises `CLIENT_ERRORS` when the stream has ended.
        """
        found: list[DockerEvent] = []
        while not found or not self._heard.empty():
            if self._ended.is_set() and self._heard.empty():
                raise self._error or aiohttp.ClientPayloadError("the stream of events ended")
            event = await self._heard.get()
            if event is None:
                if found or not self._ended.is_set():
                    break
                continue
            found.append(event)
        return found

    async def all(self) -> list[DockerEvent]:
        """Return every event of a request that ends by itself. Raises `CLIENT_ERRORS`."""
        found: list[DockerEvent] = []
        while not (self._ended.is_set() and self._heard.empty()):
            event = await self._heard.get()
            if event is not None:
                found.append(event)
        if self._error is not None:
            raise self._error
        return found

    async def run(self, docker: aiodocker.Docker, params: Mapping[str, str]) -> None:
        """Read the response to `GET /events` until it ends, fails, or the task is cancelled."""
        forever, lines = aiohttp.ClientTimeout(), EventLines()
        try:
            async with docker.session.get(f"{docker.docker_host}/events", params=params, timeout=forever) as response:
                if response.status != 200:
                    raise NotDockerError(f"it answers {response.status} to a request for events")
                async for chunk in response.content.iter_any():
                    for event in lines.feed(chunk):
                        await self._heard.put(event)
        except CLIENT_ERRORS as error:
            self._error = error
        finally:
            self._ended.set()
            if self._heard.empty():
                self._heard.put_nowait(None)


@asynccontextmanager
async def open_events(docker: aiodocker.Docker, *, filters: str, **span: float) -> AsyncIterator[EventStream]:
    """Request events. `since` and `until` are seconds of the engine's clock."""
    params = {"filters": filters, **{name: f"{seconds:.6f}" for name, seconds in span.items()}}
    stream = EventStream()
    work = bulkhead.run("events of an engine", stream.run(docker, params))
    request = asyncio.get_running_loop().create_task(work, name="docker events")
    try:
        yield stream
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
    if isinstance(error, aiohttp.ClientConnectionError):
        return "it does not answer; start it, or set [source.docker] socket"
    if isinstance(error, ResponseTooLargeError):
        return f"{error}; check that it is a container engine"
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
