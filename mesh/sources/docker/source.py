"""A Docker engine as a source of instances: its events, and lists that make up for missed events.

It lists the containers once and then follows the stream of events from just before that list, so that nothing is
missed. An event is a reason to list again, which takes a millisecond or two. The exception is a signal that ends a
container: it takes effect immediately, since the process is already ending. The list is also repeated every
`RELIST_INTERVAL` seconds, and a moment after an event, because the engine reports some changes before its own lists
show them.

Events are lost when the engine restarts (it keeps them in memory); a list makes up for them. While the engine does not
answer, the last list stays in force.
"""

import asyncio
import json
import logging
import time
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from dataclasses import replace

import aiodocker
from typing_extensions import override

from mesh.model.codes import Code
from mesh.model.errors import CodedText
from mesh.model.part import DaemonPart
from mesh.model.problem import Problem
from mesh.model.service import DrainReason, Health, Instance
from mesh.sources import Source
from mesh.sources.docker.client import (
    CLIENT_ERRORS,
    REQUEST_TIMEOUT,
    EventStream,
    explain_failure,
    inspect_stop_config,
    list_containers,
    list_network_drivers,
    open_client,
    open_events,
    outbound_address,
)
from mesh.sources.docker.events import WATCHED_ACTIONS, EventMeaning, StopConfig, event_meaning
from mesh.sources.docker.gate import UNREADABLE_EVENT
from mesh.sources.docker.instances import (
    ContainerHistory,
    InstanceListing,
    InstanceRules,
    container_health,
    has_mesh_label,
    read_instances,
)
from mesh.sources.docker.messages import ContainerSummary, DockerEvent
from mesh.util.backoff import Backoff
from mesh.util.bulkhead import Bulkhead

log = logging.getLogger("vipmesh")
bulkhead = Bulkhead(DaemonPart.SOURCES)

RELIST_INTERVAL = 30.0
"""Seconds after which everything is listed even without an event."""
SETTLE_DELAY = 0.1
"""Seconds after an event until the engine's lists are sure to show it."""
SIGNAL_HISTORY = 300.0
"""Seconds before the first request whose signals still count, for stops that are in progress."""
FIRST_RETRY, LAST_RETRY = 0.1, 5.0
"""Seconds between two attempts to reach an engine that does not answer, doubled from the first to the last."""

EVENT_FILTERS = json.dumps({"type": ["container", "network"], "event": WATCHED_ACTIONS})
"""Filters of the event stream. The engine drops the rest: each run of a HEALTHCHECK causes three events."""
_SIGNALS = json.dumps({"type": ["container"], "event": ["start", "kill", "die"]})

DrainFirst = Callable[[str, str | None, float], None]
"""Called with container ID, instance ID (None if it is not an instance) and seconds until the engine kills it."""


class DockerSource(Source):
    """The `Source` of one engine.

    `url` is `unix:///path` or `tcp://HOST:PORT`. `on_drain` is called when a container was sent the drain signal as its
    stop signal. Its owner must send a terminating signal when the container is drained.
    """

    # Over 12 attributes: how the engine is asked, and what is known of its containers between two lists. Events and
    # lists change the same state.

    def __init__(
        self,
        url: str,
        rules: InstanceRules,
        *,
        name: str = "source 0",
        on_drain: DrainFirst | None = None,
        relist: float = RELIST_INTERVAL,
        answer: float = REQUEST_TIMEOUT,
    ) -> None:
        """`relist` is the time between two lists, `answer` the time until the engine counts as gone, in seconds."""
        self.name = name
        self._url = url
        self._rules = rules
        self._on_drain = on_drain
        self._relist = relist
        self._answer = answer
        self._trouble: CodedText | None = None
        self._good = InstanceListing()
        self._touched = asyncio.Event()
        self._events: EventStream | None = None
        self._healthy: dict[str, str] = {}
        self._forget()

    @property
    @override
    def trouble(self) -> CodedText | None:
        return self._trouble

    def touch(self) -> None:
        """List immediately. Call it in the event loop's thread."""
        self._touched.set()
        if self._events is not None:
            self._events.poke()

    @override
    def locate(self, instance: Instance, label: str | None) -> str:
        """Return `container NAME`; the problem itself names the label."""
        return f"container {self._good.names.get(instance.id, instance.id)}"

    def find(self, name: str) -> str | None:
        """Return the instance of a container by name, ID or the beginning of its ID; None if there is none."""
        for instance_id, container in self._good.names.items():
            if name in (instance_id, container):
                return instance_id
        ids = [found for id, found in self._good.containers.items() if len(name) >= 12 and id.startswith(name)]
        return ids[0] if len(ids) == 1 else None

    def forgive(self, instance_id: str) -> None:
        """Forget that the instance was sent a signal that should end it: it continued to run."""
        for id, found in self._good.containers.items():
            if found == instance_id and self._stopping.pop(id, None) is not None:
                self.touch()

    @override
    async def watch(self) -> AsyncGenerator[tuple[tuple[Instance, ...], tuple[Problem, ...]], None]:
        told: tuple[tuple[Instance, ...], tuple[Problem, ...]] | None = None
        backoff = Backoff(FIRST_RETRY, LAST_RETRY)
        while True:
            try:
                async with aclosing(self._follow()) as listings:
                    async for listing in listings:
                        if self._trouble is not None:
                            log.info("docker engine at %s answers again", self._url)
                        self._trouble = None
                        backoff.reset()
                        if (listing.instances, listing.problems) != told:
                            told = listing.instances, listing.problems
                            yield told
            except CLIENT_ERRORS as error:
                self._fail(error)
            except Exception as error:  # noqa: BLE001 -- this connection ends, and the last list stays in force
                bulkhead.caught(self.name, error)
                self._fail(error)
            await self._nothing_for(backoff.next_pause())

    # ---------------------------------------------------------------------------------------------- one connection

    async def _follow(self) -> AsyncGenerator[InstanceListing, None]:
        """Yield the instances now and when they may have changed, until the engine is gone. Raises `CLIENT_ERRORS`."""
        self._forget()
        async with open_client(self._url, self._answer) as docker:
            began = time.time()  # the engine runs on this host and has the same clock
            past = await self._signals(docker, began)
            yield await self._list(docker)
            async with open_events(docker, since=began, filters=EVENT_FILTERS) as self._events:
                batch, wait = past, SETTLE_DELAY
                while True:
                    meanings = {self._take_safely(event) for event in batch}
                    if meanings & {EventMeaning.STOPPING, EventMeaning.DRAIN_FIRST}:
                        yield self._read()
                    if not batch or meanings & {EventMeaning.LOOK, EventMeaning.BEGUN, EventMeaning.ENDED}:
                        yield await self._list(docker)
                    batch = await self._next(self._events, wait)
                    wait = SETTLE_DELAY if batch else self._relist

    def _forget(self) -> None:
        """Drop what is known of the containers, since it may be outdated; keep since when they are healthy."""
        self._containers: list[ContainerSummary] = []
        self._drivers: dict[str, str] = {}
        self._endings: dict[str, StopConfig] = {}
        self._stopping: dict[str, DrainReason] = {}
        self._ended: set[str] = set()
        self._touched.clear()

    async def _signals(self, docker: aiodocker.Docker, now: float) -> list[DockerEvent]:
        """Return the recent signals to containers that have not restarted since: stops that are in progress."""
        last: dict[str, list[DockerEvent]] = {}
        async with (
            asyncio.timeout(self._answer),
            open_events(docker, since=now - SIGNAL_HISTORY, until=now, filters=_SIGNALS) as p,
        ):
            for event in await p.all():
                known = last.setdefault(event.actor.id, [])
                if event.action == "kill":
                    known.append(event)
                else:
                    known.clear()
        return [event for signals in last.values() for event in signals]

    async def _next(self, coming: EventStream, wait: float) -> list[DockerEvent]:
        """Return the next events, or none when it is time to list. Raises `CLIENT_ERRORS` when the stream has ended."""
        try:
            async with asyncio.timeout(wait):
                return await coming.some()
        except TimeoutError:
            return []

    def _take_safely(self, event: DockerEvent) -> EventMeaning:
        """Take an event. One that raises ends alone, as a reason to list: it must not come again after a new start."""
        if event is UNREADABLE_EVENT:
            log.warning(
                "docker engine at %s: an event cannot be read; the containers are listed again",
                self._url,
                extra=Code.ENGINE_EVENT_UNREADABLE.extra,
            )
        with bulkhead.contain("an event"):
            return self._take(event)
        return EventMeaning.LOOK

    def _take(self, event: DockerEvent) -> EventMeaning:
        id = event.actor.id
        what = event_meaning(event, self._endings.get(id))
        match what:
            case EventMeaning.BEGUN:
                self._lose(id)
            case EventMeaning.ENDED:
                self._lose(id)
                self._ended.add(id)
            case EventMeaning.STOPPING:
                self._stopping[id] = DrainReason.STOPPING
            case EventMeaning.DRAIN_FIRST:
                self._stopping[id] = DrainReason.STOPPING
                if self._on_drain is not None:
                    left = self._endings[id].seconds - max(0.0, time.time() - event.nanoseconds / 1e9)
                    self._on_drain(id, self._good.containers.get(id), left)
        return what

    def _lose(self, id: str) -> None:
        self._ended.discard(id)
        self._stopping.pop(id, None)
        self._endings.pop(id, None)
        self._healthy.pop(id, None)

    async def _list(self, docker: aiodocker.Docker) -> InstanceListing:
        self._containers = await list_containers(docker)
        self._drivers = await list_network_drivers(docker)
        await self._inspect(docker)
        present = {container.id for container in self._containers}
        self._ended &= present
        self._stopping = {id: drain for id, drain in self._stopping.items() if id in present}
        self._healthy = {id: since for id, since in self._healthy.items() if id in present}
        for container in self._containers:
            if container_health(container) is Health.HEALTHY and container.id in self._endings:
                self._healthy[container.id] = self._endings[container.id].started_at
            elif container_health(container) is Health.UNHEALTHY:
                self._healthy.pop(container.id, None)
        return self._read()

    async def _inspect(self, docker: aiodocker.Docker) -> None:
        """Fetch what lists do not contain, for containers that are new."""
        new = [c.id for c in self._containers if c.id not in self._endings and has_mesh_label(c.labels)]
        shown = await asyncio.gather(*(inspect_stop_config(docker, id) for id in new))
        self._endings.update({id: found for id, found in zip(new, shown, strict=True) if found is not None})

    def _read(self) -> InstanceListing:
        healthy = [id for id, since in self._healthy.items() if (e := self._endings.get(id)) and e.started_at == since]
        rules = (
            self._rules if self._rules.worker else replace(self._rules, worker=outbound_address(self._rules.version))
        )
        there = [container for container in self._containers if container.id not in self._ended]
        self._good = read_instances(there, self._drivers, rules, ContainerHistory(self._stopping, healthy))
        return self._good

    def _fail(self, error: Exception) -> None:
        reason = CodedText(
            f"docker engine at {self._url}: {explain_failure(error, self._answer)}", Code.ENGINE_UNREACHABLE
        )
        if reason != self._trouble:
            log.error("%s; the last list stays in force", reason, extra=reason.code.extra)
        self._trouble = reason

    async def _nothing_for(self, seconds: float) -> None:
        try:
            async with asyncio.timeout(seconds):
                await self._touched.wait()
        except TimeoutError:
            return
        self._touched.clear()
