"""The engines of a swarm, asked through the engine of this worker.

Each request opens its own connection and is bounded in time and length: without a quorum the engine answers nothing at
all. Nothing is remembered: how many instances there are, and where, is the engine's.
"""

import asyncio
import json
import random
import re
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import suppress
from dataclasses import replace
from typing import Any, TypeVar
from urllib.parse import quote

import aiodocker
import msgspec
from typing_extensions import override

from mesh.platform.fleet.decode import decode_spec
from mesh.platform.fleet.encode import encode_mode, encode_spec
from mesh.platform.fleet.engine_objects import decode_service, decode_state, decode_task, decode_worker
from mesh.platform.fleet.errors import (
    FleetConflictError,
    FleetError,
    FleetNoQuorumError,
    FleetRefusedError,
    FleetUnavailableError,
)
from mesh.platform.fleet.protocol import (
    Fleet,
    FleetAvailability,
    FleetService,
    FleetSpec,
    FleetState,
    FleetTask,
    FleetWorker,
)
from mesh.platform.fleet.refusals import refusal
from mesh.sources.docker.client import (
    CLIENT_ERRORS,
    explain_failure,
    open_client,
    open_events,
    translate_surprises,
)
from mesh.sources.docker.messages import DockerEvent, EngineError
from mesh.util.backoff import Backoff

T = TypeVar("T")

REQUEST_TIMEOUT = 10.0
"""Seconds that the engine has to answer."""
REGISTRY_TIMEOUT = 30.0
"""Seconds that the engine and a registry have to answer."""
_PLAIN_ANSWER = 3.0
"""Seconds that the engine has for an answer that needs no swarm."""
HEARTBEAT = 2.0
"""Seconds between two heartbeats of a worker of a swarm that `initialize` makes."""
LISTEN, ADVERTISE = "127.0.0.1:2377", "127.0.0.1"
FIRST_PAUSE, LONGEST_PAUSE = 0.5, 10.0
"""Seconds before the events are asked for again, doubled from the first to the longest."""
_EVENTS = json.dumps(
    {
        "type": ["service", "node", "container"],
        "event": ["create", "update", "remove", "start", "die", "destroy", "health_status"],
    }
)
_OF_SWARM = frozenset({"info", "nodes", "services", "tasks", "secrets", "configs", "swarm"})
"""The requests that an engine answers for its swarm."""
_TASK = "com.docker.swarm.task.id"
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}", re.ASCII)
_DEFAULT_REGISTRY = re.compile(r"^(?:docker\.io/)?(?:library/)?")


class SwarmFleet(Fleet):
    """Implements `Fleet` by the swarm mode of a Docker engine."""

    def __init__(self, url: str, answer: float = REQUEST_TIMEOUT) -> None:
        """`url`: where the engine listens, `unix:///run/docker.sock`. `answer`: seconds that it has for an answer."""
        self._url = url
        self._answer = answer

    @override
    async def state(self) -> FleetState:
        return decode_state(await self._ask("GET", "info"))

    @override
    async def initialize(self) -> FleetState:
        state = await self.state()
        if state.is_active:
            raise FleetRefusedError("this engine is already part of a swarm")
        if state.live_restore:
            raise FleetRefusedError(
                "live-restore is set, and a swarm does not start with it; set "
                '"live-restore": false in /etc/docker/daemon.json and type `systemctl restart docker`'
            )
        settings = {"Dispatcher": {"HeartbeatPeriod": round(HEARTBEAT * 1e9)}}
        body = {"ListenAddr": LISTEN, "AdvertiseAddr": ADVERTISE, "Spec": settings}
        await self._ask("POST", "swarm/init", body=body, answer=REGISTRY_TIMEOUT)
        return await self.state()

    @override
    async def workers(self) -> tuple[FleetWorker, ...]:
        found = _decoded(await self._ask("GET", "nodes"), decode_worker)
        return tuple(sorted(found, key=lambda each: (each.name, each.id)))

    @override
    async def services(self, label: str = "") -> tuple[FleetService, ...]:
        filters = {"label": [label]} if label else {}
        raw = await self._ask("GET", "services", filters=filters)
        found = _decoded(raw, decode_service)
        if any(each.spec.networks for each in found):
            names = await self._network_names({target for each in found for target in each.spec.networks})
            found = _decoded(raw, lambda one: decode_service(one, names))
        return tuple(sorted(found, key=lambda each: each.spec.name))

    @override
    async def tasks(self, service_id: str = "") -> tuple[FleetTask, ...]:
        filters = {"service": [service_id]} if service_id else {}
        return tuple(_decoded(await self._ask("GET", "tasks", filters=filters), decode_task))

    @override
    async def resolve_image(self, reference: str, *, pull: bool) -> str:
        if "@" in reference:
            return reference
        if not pull and (here := await self._local_digest(reference)) is not None:
            return here
        try:
            found = await self._ask("GET", f"distribution/{_escaped(reference)}/json", answer=REGISTRY_TIMEOUT)
        except FleetError as error:
            if pull:
                raise FleetRefusedError(f"image {reference}: {error}") from error
            return reference  # another worker may have it; if none has, the engine says so at the task
        digest = _field(found, "Descriptor", "digest")
        return f"{reference}@{digest}" if _is_digest(digest) else reference

    @override
    async def create(self, spec: FleetSpec) -> str:
        id = _field(await self._ask("POST", "services/create", body=await self._encode(spec)), "ID")
        if not isinstance(id, str):
            raise FleetUnavailableError("the engine's answer has no ID of the service")
        return id

    @override
    async def replace(self, service_id: str, version: int, spec: FleetSpec) -> None:
        path = f"services/{_escaped(service_id)}"
        raw = await self._ask("GET", path)
        if (now := decode_service(raw)) is None or now.version != version:
            raise FleetConflictError(f"service {spec.name} was changed since version {version}")
        body = await self._encode(spec)
        current = raw["Spec"]
        names = await self._network_names(set(now.spec.networks))
        if _differs_in_count_only(decode_spec(current, names)[0], spec):
            # What others set stays as it is: to scale must not make other containers.
            body = {**current, "Labels": dict(spec.labels), "Mode": encode_mode(spec.instances)}
        elif isinstance(forced := _field(current, "TaskTemplate", "ForceUpdate"), int):
            body["TaskTemplate"]["ForceUpdate"] = forced
        await self._ask("POST", f"{path}/update", body=body, version=version)

    @override
    async def remove(self, service_id: str) -> None:
        with suppress(FleetConflictError):
            await self._ask("DELETE", f"services/{_escaped(service_id)}")

    @override
    async def set_worker(
        self, worker_id: str, version: int, labels: Mapping[str, str], availability: FleetAvailability
    ) -> None:
        path = f"nodes/{_escaped(worker_id)}"
        spec = _field(await self._ask("GET", path), "Spec")
        body = {**(spec if isinstance(spec, dict) else {}), "Labels": dict(labels), "Availability": availability.value}
        await self._ask("POST", f"{path}/update", body=body, version=version)

    @override
    async def changes(self) -> AsyncIterator[str]:
        backoff = Backoff(FIRST_PAUSE, LONGEST_PAUSE, jitter=0.5, random=random.random)
        while True:
            with suppress(*CLIENT_ERRORS):
                async with open_client(self._url, self._answer) as docker, open_events(docker, filters=_EVENTS) as news:
                    await news.begin(self._answer)
                    yield ""
                    backoff.reset()
                    while True:
                        for event in await news.some():
                            if id := changed_object(event):
                                yield id
            await asyncio.sleep(backoff.next_pause())

    async def _encode(self, spec: FleetSpec) -> dict[str, Any]:
        files = spec.container.files
        secrets = await self._ids("secrets") if any(each.is_secret for each in files) else {}
        configs = await self._ids("configs") if any(not each.is_secret for each in files) else {}
        try:
            return encode_spec(spec, secrets, configs)
        except ValueError as error:
            raise FleetRefusedError(str(error)) from error

    async def _ids(self, kind: str) -> dict[str, str]:
        """Return the ID of each secret or config by its name."""
        found = await self._ask("GET", kind)
        pairs = [(_field(each, "Spec", "Name"), _field(each, "ID")) for each in found if isinstance(each, dict)]
        return {name: id for name, id in pairs if isinstance(name, str) and isinstance(id, str)}

    async def _network_names(self, targets: set[str]) -> dict[str, str]:
        """Return the name of each network by its ID. One that is gone keeps its ID."""
        names: dict[str, str] = {}
        for target in sorted(targets):
            with suppress(FleetConflictError, FleetRefusedError):
                name = _field(await self._ask("GET", f"networks/{_escaped(target)}"), "Name")
                names[target] = name if isinstance(name, str) else target
        return names

    async def _local_digest(self, reference: str) -> str | None:
        """Return the reference with its digest, or without where the image has none; None if it is not here."""
        try:
            found = _field(await self._ask("GET", f"images/{_escaped(reference)}/json"), "RepoDigests")
        except FleetConflictError:
            return None
        repository = _repository(reference)
        for each in found if isinstance(found, list) else ():
            name, _, digest = each.partition("@") if isinstance(each, str) else ("", "", "")
            if _is_digest(digest) and _repository(name) == repository:
                return f"{reference}@{digest}"
        return reference

    async def _ask(
        self,
        method: str,
        path: str,
        *,
        filters: Mapping[str, list[str]] | None = None,
        body: object = None,
        version: int | None = None,
        answer: float | None = None,
    ) -> Any:
        """Return the decoded answer of one request. Raises `FleetError`."""
        patience = answer or self._answer
        params = {"filters": json.dumps(filters)} if filters else {}
        if version is not None:
            params["version"] = str(version)
        try:
            async with asyncio.timeout(patience), open_client(self._url, patience) as docker:
                with translate_surprises():
                    return await _send(docker, method, path, params, body)
        except aiodocker.DockerError as error:
            raise refusal(error.status, str(error.message)) from error
        except TimeoutError as error:
            raise await self._silence(path, explain_failure(error, patience)) from error
        except CLIENT_ERRORS as error:
            raise FleetUnavailableError(f"the engine: {explain_failure(error, patience)}") from error

    async def _silence(self, path: str, reason: str) -> FleetUnavailableError:
        """Return what it means that a request was not answered in time.

        An engine whose swarm has just lost its leader waits for another one with each request that needs it, `/info`
        included, and answers the rest.
        """
        if path.partition("/")[0] not in _OF_SWARM:
            return FleetUnavailableError(f"the engine: {reason}")
        try:
            async with asyncio.timeout(_PLAIN_ANSWER), open_client(self._url, _PLAIN_ANSWER) as docker:
                with translate_surprises():
                    await _send(docker, "GET", "containers/json", {"limit": "1"}, None)
        except CLIENT_ERRORS:
            return FleetUnavailableError(f"the engine: {reason}")
        return FleetNoQuorumError("the engine answers, but not for its swarm")


def changed_object(event: DockerEvent) -> str:
    """Return the ID of the service, worker or container of a task that an event is about; empty for any other."""
    if event.type == "container" and _TASK not in (event.actor.attributes or {}):
        return ""
    return event.actor.id


async def _send(docker: aiodocker.Docker, method: str, path: str, params: Mapping[str, str], body: object) -> Any:
    url = f"{docker.docker_host}/{docker.api_version}/{path}"
    async with docker.session.request(method, url, params=dict(params), json=body) as response:
        received = await response.read()
        if response.status >= 400:
            raise aiodocker.DockerError(response.status, _message(received))
        return msgspec.json.decode(received) if received.strip() else None


def _message(body: bytes) -> str:
    with suppress(msgspec.MsgspecError, ValueError, RecursionError):
        return msgspec.json.decode(body, type=EngineError).message
    return body[:200].decode(errors="replace")


def _decoded(raw: object, decode: Callable[[object], T | None]) -> list[T]:
    """Return the objects of a list that can be read. Raises `FleetUnavailableError` if it is no list."""
    if not isinstance(raw, list):
        raise FleetUnavailableError("the engine's answer is no list; check that it is a Docker engine")
    return [found for each in raw if (found := decode(each)) is not None]


def _field(raw: object, *names: str) -> object:
    """Return what is under these names; None if it is not there."""
    for name in names:
        raw = raw.get(name) if isinstance(raw, dict) else None
    return raw


def _differs_in_count_only(now: FleetSpec, wanted: FleetSpec) -> bool:
    """Return whether a change is of the count, or of the labels of the service, and of nothing else."""
    return now != wanted and replace(now, labels=wanted.labels, instances=wanted.instances) == wanted


def _is_digest(digest: object) -> bool:
    return isinstance(digest, str) and _DIGEST.fullmatch(digest) is not None


def _repository(reference: str) -> str:
    """Return `web` for `docker.io/library/web:1`."""
    path, slash, last = reference.partition("@")[0].rpartition("/")
    return _DEFAULT_REGISTRY.sub("", path + slash + last.partition(":")[0], count=1)


def _escaped(text: str) -> str:
    """Return a text as a part of a path. The slash of a repository stays; nothing leads out of the path."""
    return quote(text, safe="/:") if ".." not in text else quote(text, safe="")
