"""The parts of the engine's API that are used: requests, responses, events, and the meaning of failures."""

import asyncio
import json
import socket
from collections.abc import AsyncIterator, Awaitable, Iterable, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from typing import TypeVar
from urllib.parse import urlsplit

import aiodocker
import aiohttp
import msgspec

from mesh.model.part import DaemonPart
from mesh.model.service import Address
from mesh.sources.docker.gate import EventLines, convert_containers
from mesh.sources.docker.identity import relevant_image_labels
from mesh.sources.docker.inspection import ContainerInspection, inspection_of
from mesh.sources.docker.messages import (
    ContainerDetails,
    ContainerSummary,
    DockerEvent,
    DockerNetwork,
    EngineError,
    EngineVersion,
    ImageConfig,
    ImageDetails,
    SwarmInfo,
    SwarmTask,
    TaskContainerSpec,
)
from mesh.sources.docker.versions import OLDEST, ApiRefusedError, choose_api_version, parse_api_version
from mesh.util.bounded_response import BoundedResponse, ResponseTooLargeError
from mesh.util.bulkhead import Bulkhead

bulkhead = Bulkhead(DaemonPart.SOURCES)

T = TypeVar("T")

REQUEST_TIMEOUT = 10.0
"""Seconds that the engine has to answer a request. The stream of events has no limit."""
MAX_RESPONSE_BYTES = 1 << 20
"""Limit of a response that describes the engine itself."""
MAX_QUEUED_EVENTS = 1024
"""Events that wait; after that, the stream is not read until they are handled."""
MAX_QUOTED_LENGTH = 300
"""Characters of the engine's own words in a message."""
HISTORY_PATIENCE = 1.0
"""Seconds that a request for past events may stay open once it was answered. An engine whose clock is behind the given
time keeps it open until then, after it has sent all of them.
"""

CLIENT_ERRORS = (aiodocker.DockerError, aiohttp.ClientError, OSError, TimeoutError, ValueError, msgspec.MsgspecError)
"""Exceptions of a call to an engine that is gone, restarts, hangs or sends an invalid response."""

_SURPRISES = (TypeError, LookupError, AttributeError, ArithmeticError, AssertionError, RecursionError)
"""Exceptions of the client library if a response does not have the form that it expects."""

_KNOCK_TIMEOUT = 0.5
"""Seconds in which an engine takes a connection."""
_RUNNING = json.dumps({"status": ["running", "paused"]})
"""Podman lists paused containers only on request."""


class NotDockerError(ValueError):
    """The response is not from a Docker engine: another program listens there."""


@dataclass(frozen=True, slots=True)
class EngineHandshake:
    """The engine's description of itself."""

    version: EngineVersion
    time: float | None
    """Seconds since 1970 by the engine's clock, rounded down; None if it does not tell."""


@contextmanager
def translate_surprises() -> Iterator[None]:
    """Raise `NotDockerError` for unexpected responses. Use it around calls of the client library only."""
    try:
        yield
    except _SURPRISES as error:
        raise NotDockerError(f"{type(error).__name__}: {error}") from error


async def refuses_connections(url: str) -> bool:
    """Return whether nothing listens at the engine's address any more. What does not answer in time is not counted.

    Docker closes its listener before it ends its containers, and goes on sending events meanwhile.
    """
    place = urlsplit(url)
    try:
        async with asyncio.timeout(_KNOCK_TIMEOUT):
            if place.scheme == "unix":
                _, writer = await asyncio.open_unix_connection(place.path)
            else:
                _, writer = await asyncio.open_connection(place.hostname, place.port)
    except (ConnectionRefusedError, FileNotFoundError):
        return True
    except (OSError, TimeoutError):
        return False
    writer.close()
    return False


@asynccontextmanager
async def open_client(url: str, answer: float = REQUEST_TIMEOUT) -> AsyncIterator[aiodocker.Docker]:
    """Open a client of the engine that uses a version of its API that both know. Raises `CLIENT_ERRORS`."""
    timeout = aiohttp.ClientTimeout(total=answer)
    docker = aiodocker.Docker(url, timeout=timeout)
    unbounded = docker.session
    docker.session = aiohttp.ClientSession(
        connector=docker.connector, connector_owner=False, timeout=timeout, response_class=BoundedResponse
    )
    try:
        async with asyncio.timeout(min(answer, REQUEST_TIMEOUT)):
            await shake_hands(docker)
        yield docker
    finally:
        await docker.close()
        await unbounded.close()


async def shake_hands(docker: aiodocker.Docker) -> EngineHandshake:
    """Choose the version of the API for this client, again if it is open: the engine may have been replaced.

    Raises `CLIENT_ERRORS`.
    """
    async with docker.session.get(f"{docker.docker_host}/version") as response:
        told = await _read_version(response)
        now = _date(response)
    if parse_api_version(told.api_version) is None:
        async with docker.session.get(f"{docker.docker_host}/_ping") as response:
            told = msgspec.structs.replace(told, api_version=response.headers.get("Api-Version"))
            now = _date(response)
    newest = parse_api_version(told.api_version)
    if newest is None:
        raise NotDockerError("it tells no version of its API")
    docker.api_version = f"v{choose_api_version(newest, parse_api_version(told.min_api_version))}"
    return EngineHandshake(told, now)


async def _read_version(response: aiohttp.ClientResponse) -> EngineVersion:
    """Return the description, or an empty one if the response has another form."""
    body = await _read_limited(response, MAX_RESPONSE_BYTES)
    if response.status == 200:
        with suppress(msgspec.MsgspecError, ValueError, RecursionError):
            return msgspec.json.decode(body, type=EngineVersion)
    return EngineVersion()


async def _read_limited(response: aiohttp.ClientResponse, limit: int) -> bytes:
    body = bytearray()
    async for chunk in response.content.iter_any():
        body += chunk
        if len(body) > limit:
            raise NotDockerError(f"its response is longer than {limit} bytes")
    return bytes(body)


def _date(response: aiohttp.ClientResponse) -> float | None:
    """Return the time in the header `Date` of a response, RFC 9110 section 6.6.1; None without a valid one."""
    try:
        return parsedate_to_datetime(response.headers["Date"]).timestamp()
    except (LookupError, ValueError, TypeError, OverflowError):
        return None


async def list_containers(docker: aiodocker.Docker) -> list[ContainerSummary]:
    """Return the running containers, including paused ones. Raises `CLIENT_ERRORS`."""
    with translate_surprises():
        found = await docker.containers.list(filters=_RUNNING)
    return convert_containers(found)


async def list_network_drivers(docker: aiodocker.Docker) -> dict[str, str]:
    """Return the driver of each network, by network name. Raises `CLIENT_ERRORS`."""
    with translate_surprises():
        found = await docker.networks.list()
    return {network.name: network.driver for network in msgspec.convert(found, list[DockerNetwork])}


async def read_together(reads: Iterable[Awaitable[T]]) -> list[T]:
    """Return the results of requests that run at the same time, in their order.

    The first error is raised when all have ended: none is left that would use the client after it is closed.
    """
    found = await asyncio.gather(*reads, return_exceptions=True)
    results: list[T] = []
    for each in found:
        if isinstance(each, BaseException):
            raise each
        results.append(each)
    return results


async def inspect_container(docker: aiodocker.Docker, id: str) -> ContainerInspection | None:
    """Return what the list does not contain of a container, or None if it is gone. Raises `CLIENT_ERRORS`."""
    try:
        with translate_surprises():
            shown = await docker.containers.container(id).show()
        return inspection_of(msgspec.convert(shown, ContainerDetails))
    except (msgspec.ValidationError, UnicodeEncodeError, OverflowError):
        return ContainerInspection()  # this container alone is treated as if it said nothing
    except aiodocker.DockerError as error:
        if error.status != 404:
            raise
        return None


async def read_image_labels(docker: aiodocker.Docker, id: str) -> Mapping[str, str]:
    """Return the labels of an image that matter, empty if it is gone or tells none. Raises `CLIENT_ERRORS`."""
    try:
        with translate_surprises():
            shown = await docker.images.inspect(id)
        details = msgspec.convert(shown, ImageDetails)
    except (msgspec.ValidationError, UnicodeEncodeError, OverflowError):
        return {}  # this image alone is treated as if it said nothing
    except aiodocker.DockerError as error:
        if error.status != 404:
            raise
        return {}
    return relevant_image_labels((details.config or ImageConfig()).labels or {})


async def list_swarm_tasks(docker: aiodocker.Docker) -> Mapping[str, Mapping[str, str]] | None:
    """Return the labels of the tasks on this engine by the ID of their container, as their services declare them.

    None if the engine is no manager of a swarm, or the swarm has no quorum. Raises `CLIENT_ERRORS`.
    """
    try:
        with translate_surprises():
            info = msgspec.convert(await docker.system.info(), SwarmInfo)
            if info.swarm is None or not info.swarm.control_available or not info.swarm.node_id:
                return None
            found = await docker.tasks.list(filters={"node": [info.swarm.node_id]})
    except aiodocker.DockerError as error:
        if error.status == 900:  # the client's own: no answer
            raise
        return None
    tasks = msgspec.convert(found, list[SwarmTask])
    return {
        task.status.container_status.container_id: relevant_image_labels(
            (task.spec.container_spec or TaskContainerSpec()).labels or {}
        )
        for task in tasks
        if task.status.container_status is not None and task.status.container_status.container_id
    }


class EventStream:
    """The events of one request, in order."""

    def __init__(self, docker: aiodocker.Docker, params: Mapping[str, str]) -> None:
        """`params` is the query of `GET /events`. The owner must run `run`."""
        self._docker = docker
        self._params = params
        self._heard: asyncio.Queue[DockerEvent | None] = asyncio.Queue(MAX_QUEUED_EVENTS)
        self._begun = asyncio.Event()
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

    async def begin(self, answer: float) -> None:
        """Wait until the engine has begun its response. Podman does so with the first event or the end.

        Raises `TimeoutError` after `answer` seconds.
        """
        async with asyncio.timeout(answer):
            await self._begun.wait()

    async def all(self, answer: float = REQUEST_TIMEOUT) -> list[DockerEvent]:
        """Return every event of a request that ends by itself, or those that came in time if it does not.

        `answer` is the time that the engine has to begin its response, in seconds. Raises `CLIENT_ERRORS`.
        """
        await self.begin(answer)
        found: list[DockerEvent] = []
        with suppress(TimeoutError):
            async with asyncio.timeout(HISTORY_PATIENCE):
                while not (self._ended.is_set() and self._heard.empty()):
                    event = await self._heard.get()
                    if event is not None:
                        found.append(event)
        if self._error is not None:
            raise self._error
        return found

    async def run(self) -> None:
        """Read the response until it ends, fails, or the task is cancelled."""
        try:
            with translate_surprises():
                await self._read()
        except CLIENT_ERRORS as error:
            self._error = error
        except Exception as error:
            self._error = NotDockerError(f"{type(error).__name__}: {error}")  # the events so far are not all
            raise
        finally:
            self._ended.set()
            self._begun.set()
            if self._heard.empty():
                self._heard.put_nowait(None)

    async def _read(self) -> None:
        docker = self._docker
        url, forever = f"{docker.docker_host}/{docker.api_version}/events", aiohttp.ClientTimeout()
        async with docker.session.get(url, params=self._params, timeout=forever) as response:
            if response.status != 200:
                raise _refusal(response.status, await _read_limited(response, MAX_RESPONSE_BYTES))
            self._begun.set()
            lines = EventLines()
            async for chunk in response.content.iter_any():
                await self._take(lines, chunk)
            await self._take(lines, b"\n")

    async def _take(self, lines: EventLines, chunk: bytes) -> None:
        for event in lines.feed(chunk):
            await self._heard.put(event)


def _refusal(status: int, body: bytes) -> aiodocker.DockerError:
    """Return the error of a response, with its message if it has the engine's form."""
    with suppress(msgspec.MsgspecError, RecursionError):
        return aiodocker.DockerError(status, msgspec.json.decode(body, type=EngineError).message)
    return aiodocker.DockerError(status, body[:200].decode(errors="replace"))


@asynccontextmanager
async def open_events(docker: aiodocker.Docker, *, filters: str, **span: float | None) -> AsyncIterator[EventStream]:
    """Request events. `since` and `until` are seconds of the engine's clock; None leaves a limit out."""
    params = {name: f"{seconds:.6f}" for name, seconds in span.items() if seconds is not None}
    stream = EventStream(docker, {"filters": filters, **params})
    request = asyncio.get_running_loop().create_task(
        bulkhead.run("events of an engine", stream.run), name="docker events"
    )
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
    if isinstance(error, TimeoutError):
        return f"no answer in {answer:g} s; check its log"
    if isinstance(error, aiodocker.DockerError):
        if error.status == 900:
            return "it does not answer; start it, or set [source.docker] socket"
        return f"it refuses a request with status {error.status}: {_one_line(str(error.message))}; check its log"
    if isinstance(error, aiohttp.ClientConnectionError):
        return "it does not answer; start it, or set [source.docker] socket"
    if isinstance(error, ResponseTooLargeError):
        return f"{error}; check that it is a container engine"
    if isinstance(error, aiohttp.ClientPayloadError):
        return "it closed the stream of events"
    if isinstance(error, ApiRefusedError):
        return text
    if isinstance(error, (NotDockerError, msgspec.MsgspecError, aiohttp.ContentTypeError)):
        return (
            f"its response is not understood ({_one_line(text)}); check that it is a Docker engine with API {OLDEST} "
            f"or later"
        )
    return _one_line(text)


def _one_line(text: str) -> str:
    """Return the engine's own words for a message of one line: control characters escaped, cut after 300 characters."""
    kept = text[:MAX_QUOTED_LENGTH]
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in kept)


def outbound_address(version: int) -> Address | None:
    """Return the address from which this host reaches other networks, or None without a route. Nothing is sent."""
    family, outside = (socket.AF_INET, "192.0.2.1") if version == 4 else (socket.AF_INET6, "2001:db8::1")
    with socket.socket(family, socket.SOCK_DGRAM) as asked:
        try:
            asked.connect((outside, 9))
        except OSError:
            return None
        return str(asked.getsockname()[0])
