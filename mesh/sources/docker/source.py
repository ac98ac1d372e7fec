"""A Docker engine, or Podman, as a source of instances: its events, and lists that make up for missed events.

It lists the containers once and then follows the stream of events from just before that list, so that nothing is
missed. An event is a reason to list again, which takes a millisecond or two. The exception is a signal that ends a
container: it takes effect immediately, since the process is already ending. The list is also repeated every
`RELIST_INTERVAL` seconds, and a moment after an event, because the engine reports some changes before its own lists
show them.

Events are lost when the engine restarts (it keeps them in memory); a list makes up for them. A restart of a container
that no event told of is seen by its time of start. While the engine does not answer, the last list stays in force,
except for what the processes of this host tell of containers that have ended or begun again (`absence`).

The engine's clock may differ from this host's. A span of events is given in the engine's time, which its responses
tell, and nothing waits for that time to be right.
"""

import asyncio
import json
import logging
import math
from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import aclosing
from dataclasses import replace
from functools import partial

import aiodocker
from typing_extensions import override

from mesh.config.labels.reader import parse_cost
from mesh.model.codes import Code
from mesh.model.errors import CodedText
from mesh.model.part import DaemonPart
from mesh.model.problem import Problem
from mesh.model.service import DrainReason, Health, Instance
from mesh.sources import Source
from mesh.sources.docker.absence import ContainerMemory, EngineAbsence
from mesh.sources.docker.client import (
    CLIENT_ERRORS,
    REQUEST_TIMEOUT,
    EventStream,
    explain_failure,
    inspect_container,
    list_containers,
    list_network_drivers,
    open_client,
    open_events,
    outbound_address,
    read_together,
    refuses_connections,
    shake_hands,
)
from mesh.sources.docker.clock import EngineClock
from mesh.sources.docker.events import WATCHED_ACTIONS, EventMeaning, event_meaning, exit_code, has_died
from mesh.sources.docker.gate import UNREADABLE_EVENT
from mesh.sources.docker.inspection import ContainerInspection
from mesh.sources.docker.instances import (
    ContainerHistory,
    InstanceListing,
    InstanceRules,
    container_health,
    container_name,
    has_mesh_label,
    is_test,
    network_chain,
    read_instances,
)
from mesh.sources.docker.label_origins import SWARM_ANSWER, OriginReader
from mesh.sources.docker.messages import ContainerSummary, DockerEvent
from mesh.sources.docker.processes import ContainerProcesses, ProcContainerProcesses
from mesh.util.backoff import Backoff
from mesh.util.bulkhead import Bulkhead
from mesh.util.offload import compute

log = logging.getLogger("vipmesh")
bulkhead = Bulkhead(DaemonPart.SOURCES)

RELIST_INTERVAL = 30.0
"""Seconds after which everything is listed even without an event."""
SETTLE_DELAY = 0.1
"""Seconds after an event until the engine's lists are sure to show it."""
HEALTH_DELAY = 1.0
"""Seconds after an event until Podman has stored the result of a HEALTHCHECK that it has reported."""
MAX_INSPECTIONS = 16
"""Inspections at the same time."""
SIGNAL_HISTORY = 300.0
"""Seconds before the first request whose signals still count, for stops that are in progress."""
FIRST_RETRY, LAST_RETRY = 0.1, 5.0
"""Seconds between two attempts to reach an engine that does not answer, doubled from the first to the last."""
RESTARTS = 10.0
"""Seconds in which an engine that went away may just be restarting: it is tried after `FIRST_RETRY` each time."""
LOOK_INTERVAL, LAST_LOOK_INTERVAL = 0.05, 1.0
"""Seconds between two looks at the processes of this host, while it may be restarting and later on."""
LOOKS = 60.0
"""Seconds for which it may be restarting its containers."""

EVENT_FILTERS = json.dumps({"type": ["container", "network"], "event": WATCHED_ACTIONS})
"""Filters of the event stream. The engine drops the rest: each run of a HEALTHCHECK causes three events."""
_SIGNALS = json.dumps({"type": ["container"], "event": ["start", "kill", "die", "died"]})

_REASONS_TO_LIST = {EventMeaning.LOOK, EventMeaning.INSPECT, EventMeaning.BEGUN, EventMeaning.ENDED}
_REASONS_TO_KNOCK = {EventMeaning.STOPPING, EventMeaning.DRAIN_FIRST, EventMeaning.ENDED}

DrainFirst = Callable[[str, str | None, float], None]
"""Called with container ID, instance ID (None if it is not an instance) and seconds until the engine kills it."""

ContainerEnded = Callable[[str, str | None, int | None, bool, bool], None]
"""Called with the instance ID (the container's ID if it is no instance), the container's name, the exit code (None for
each that is not known), whether the kernel ended it for want of memory, and whether somebody has asked for the end.
"""
_KILLED = 137
"""The exit code after SIGKILL, which the kernel sends for want of memory."""


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
        on_ended: ContainerEnded = lambda *_: None,
        relist: float = RELIST_INTERVAL,
        answer: float = REQUEST_TIMEOUT,
        processes: ContainerProcesses | None = None,
    ) -> None:
        """`relist` is the time between two lists, `answer` the time until the engine counts as gone, in seconds.

        `processes`: those of this host; None for those in /proc.
        """
        self.name = name
        self._url = url
        self._rules = rules
        self._on_drain = on_drain
        self._on_ended = on_ended
        self._out_of_memory: set[str] = set()
        """Running containers in which the kernel ended a process for want of memory."""
        self._relist = relist
        self._answer = answer
        self._trouble: CodedText | None = None
        self._ending: CodedText | None = None
        """That the engine takes no new requests, while it still sends events; None if it does."""
        self._good = InstanceListing()
        self._touched = asyncio.Event()
        self._events: EventStream | None = None
        self._healthy: dict[str, str] = {}
        """The run in which a container was healthy."""
        self._inspections = asyncio.Semaphore(MAX_INSPECTIONS)
        self._memory = ContainerMemory(processes or ProcContainerProcesses())
        self._absence: EngineAbsence | None = None
        """What runs while the engine is away; None while it answers."""
        self._gone_at = 0.0
        """When it went away, by the loop's clock."""
        self._forget()

    @property
    @override
    def trouble(self) -> CodedText | None:
        return self._trouble or self._ending

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

    def unlabelled(self) -> Mapping[str, str]:
        """Return the names of running containers without labels of the mesh, by ID."""
        return {
            each.id: container_name(each)
            for each in self._containers
            if not each.unreadable and not has_mesh_label(each.labels) and not is_test(each)
        }

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
            async with aclosing(self._listings(backoff)) as listings:
                async for listing in listings:
                    if (listing.instances, listing.problems) != told:
                        told = listing.instances, listing.problems
                        yield told

    async def _listings(self, backoff: Backoff) -> AsyncGenerator[InstanceListing, None]:
        """Yield the instances until the engine has gone away and answers again."""
        try:
            async with aclosing(self._follow()) as listings:
                async for listing in listings:
                    if self._trouble is not None:
                        log.info("docker engine at %s answers again", self._url)
                    self._trouble = self._absence = None
                    backoff.reset()
                    yield listing
        except CLIENT_ERRORS as error:
            self._fail(error)
        except Exception as error:  # noqa: BLE001 -- this connection ends, and the last list stays in force
            bulkhead.caught(self.name, error)
            self._fail(error)
        async with aclosing(self._without_engine(backoff)) as listings:
            async for listing in listings:
                yield listing

    # ------------------------------------------------------------------------------------------- without the engine

    async def _without_engine(self, backoff: Backoff) -> AsyncGenerator[InstanceListing, None]:
        """Yield the instances when they have changed, until the engine may answer again."""
        clock = asyncio.get_running_loop().time
        if self._absence is None:
            self._gone_at = clock()
            there = [container for container in self._containers if container.id not in self._ended]
            self._absence = self._memory.absence(there, self._drivers, self._known())
        answers = asyncio.get_running_loop().create_task(bulkhead.run(self.name, self._knock, backoff))
        try:
            while not self._absence.is_blind and not answers.done():
                if await asyncio.to_thread(self._absence.look):
                    yield await self._read_absence(self._absence)
                restarting = clock() < self._gone_at + LOOKS
                await asyncio.wait({answers}, timeout=LOOK_INTERVAL if restarting else LAST_LOOK_INTERVAL)
            await asyncio.wait({answers})
        finally:
            answers.cancel()
            await asyncio.gather(answers, return_exceptions=True)

    async def _knock(self, backoff: Backoff) -> None:
        """Return when the engine has answered."""
        clock = asyncio.get_running_loop().time
        while True:
            pause = backoff.next_pause()
            await self._nothing_for(FIRST_RETRY if clock() < self._gone_at + RESTARTS else pause)
            try:
                async with open_client(self._url, self._answer):
                    return
            except CLIENT_ERRORS as error:
                self._fail(error)

    async def _read_absence(self, absence: EngineAbsence) -> InstanceListing:
        before, containers = self._good, absence.last.containers
        cost = sum(parse_cost(each.labels or {}) for each in containers)
        self._good = await compute(cost, partial(absence.listing, self._present_rules()))
        for id, instance_id in before.containers.items():
            if id not in self._good.containers and absence.has_seen_end(id):
                self._on_ended(instance_id, before.names.get(instance_id), None, False, False)
        return self._good

    # ---------------------------------------------------------------------------------------------- one connection

    async def _follow(self) -> AsyncGenerator[InstanceListing, None]:
        """Yield the instances now and when they may have changed, until the engine is gone. Raises `CLIENT_ERRORS`."""
        self._forget()
        async with open_client(self._url, self._answer) as docker:
            began = await self._read_clock(docker)
            past = await self._signals(docker, began)
            if began is not None:
                yield await self._list(docker)
            async with open_events(docker, since=began, filters=EVENT_FILTERS) as self._events:
                if began is None:
                    await self._events.begin(self._answer)  # nothing before this moment is sent: list afterwards
                batch, wait = past, SETTLE_DELAY
                while True:
                    meanings = {self._take_safely(event) for event in batch}
                    if meanings & _REASONS_TO_KNOCK:
                        await self._notice_its_end()
                    if meanings & {EventMeaning.STOPPING, EventMeaning.DRAIN_FIRST}:
                        yield await self._read()
                    if not batch or meanings & _REASONS_TO_LIST:
                        yield await self._list(docker)
                    batch = await self._next(self._events, min(wait, self._until_inspection()))
                    wait = SETTLE_DELAY if batch else self._relist

    async def _notice_its_end(self) -> None:
        """Find out whether the container ends because the engine itself does."""
        if self._ending is None and await refuses_connections(self._url):
            self._ending = CodedText(
                f"docker engine at {self._url}: it takes no new requests, since it is ending", Code.ENGINE_UNREACHABLE
            )

    def _forget(self) -> None:
        """Drop what is known of the containers, since it may be outdated; keep since when they are healthy."""
        self._ending = None
        self._containers: list[ContainerSummary] = []
        self._lists_lack_health = False
        """Whether it is Podman: health and network mode are only in inspections."""
        self._drivers: dict[str, str] = {}
        self._origins = OriginReader()
        self._inspected: dict[str, ContainerInspection] = {}
        self._stale: set[str] = set()
        """Containers to inspect again at the next list."""
        self._begun: set[str] = set()
        """Containers whose start or end was reported since their last inspection."""
        self._inspect_at: dict[str, float] = {}
        """Containers to inspect again at a time of the loop's clock."""
        self._refresh_at = math.inf
        self._list_at = math.inf
        """When to list again although no event says so."""
        self._stopping: dict[str, DrainReason] = {}
        self._ended: set[str] = set()
        self._out_of_memory.clear()
        self._clock = EngineClock(None, 0.0)
        self._touched.clear()

    async def _read_clock(self, docker: aiodocker.Docker) -> float | None:
        """Ask the engine for its API version and its time; return the time, or None if it does not tell.

        An engine that was replaced behind its socket, or whose clock was set, is followed from here on.
        """
        async with asyncio.timeout(self._answer):
            told = (await shake_hands(docker)).time
        now = asyncio.get_running_loop().time()
        self._clock = EngineClock(told, now)
        self._refresh_at = now + self._relist
        return told

    async def _signals(self, docker: aiodocker.Docker, now: float | None) -> list[DockerEvent]:
        """Return the recent signals to containers that have not restarted since: stops that are in progress.

        `now` is the engine's time. If it is not known, none are requested.
        """
        if now is None:
            return []
        last: dict[str, list[DockerEvent]] = {}
        async with open_events(docker, since=now - SIGNAL_HISTORY, until=now, filters=_SIGNALS) as past:
            for event in await past.all(self._answer):
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
        known = self._inspected.get(id)
        what = event_meaning(event, None if known is None else known.stop)
        match what:
            case EventMeaning.INSPECT if self._lists_lack_health:
                self._stale.add(id)
                self._inspect_at[id] = asyncio.get_running_loop().time() + HEALTH_DELAY
            case EventMeaning.BEGUN:
                self._lose(id)
            case EventMeaning.OUT_OF_MEMORY:
                self._out_of_memory.add(id)
            case EventMeaning.ENDED:
                self._note_end(event)
                self._lose(id)
                self._ended.add(id)
            case EventMeaning.STOPPING:
                self._stopping[id] = DrainReason.STOPPING
            case EventMeaning.DRAIN_FIRST if known is not None:
                self._stopping[id] = DrainReason.STOPPING
                if self._on_drain is not None:
                    age = self._clock.age(event.nanoseconds / 1e9, asyncio.get_running_loop().time())
                    self._on_drain(id, self._good.containers.get(id), known.stop.seconds - age)
        return what

    def _note_end(self, event: DockerEvent) -> None:
        """Report the end of a process. A removal comes later, and ends none."""
        id, code = event.actor.id, exit_code(event)
        if has_died(event):
            name = (event.actor.attributes or {}).get("name")
            out_of_memory = id in self._out_of_memory and code in (None, _KILLED)
            self._on_ended(self._good.containers.get(id, id), name, code, out_of_memory, id in self._stopping)

    def _lose(self, id: str) -> None:
        self._out_of_memory.discard(id)
        self._ended.discard(id)
        self._stopping.pop(id, None)
        self._healthy.pop(id, None)
        # The last inspection stays until the next one: the stop signal is the same, and the next event may need it.
        self._stale.add(id)
        self._begun.add(id)

    async def _list(self, docker: aiodocker.Docker) -> InstanceListing:
        self._list_at = math.inf
        await self._refresh(docker)
        self._containers = await list_containers(docker)
        self._lists_lack_health = any(not c.host_config.network_mode for c in self._containers)
        await self._read_drivers(docker)
        await self._inspect(docker)
        labelled = [container for container in self._containers if has_mesh_label(container.labels)]
        if await self._origins.update(docker, labelled):
            # A manager learns of the container of a task a moment after it has started.
            self._list_at = asyncio.get_running_loop().time() + HEALTH_DELAY
        present = {container.id for container in self._containers}
        self._ended &= present
        self._stopping = {id: drain for id, drain in self._stopping.items() if id in present}
        self._healthy = {id: since for id, since in self._healthy.items() if id in present}
        for container in self._containers:
            run = self._run(container.id)
            if container_health(container) is Health.HEALTHY and run is not None:
                self._healthy[container.id] = run
            elif container_health(container) is Health.UNHEALTHY:
                self._healthy.pop(container.id, None)
        self._memory.listed(self._containers, self._inspected, asyncio.get_running_loop().time())
        return await self._read()

    async def _read_drivers(self, docker: aiodocker.Docker) -> None:
        """Read the drivers of networks; keep those that are known if the engine does not tell in time.

        The engine of a manager asks its swarm before it lists networks, and waits for a leader if there is none.
        """
        try:
            async with asyncio.timeout(SWARM_ANSWER):
                self._drivers = await list_network_drivers(docker)
        except TimeoutError:
            if not self._drivers:
                raise

    def process_of(self, container: str) -> int:
        """Return the PID of the first process of a container, as its engine sees it; 0 if it is not known."""
        found = self._inspected.get(container)
        return 0 if found is None else found.pid

    def _until_inspection(self) -> float:
        """Return the seconds until the next container must be inspected; infinite if there is none."""
        due = min(self._list_at, min(self._inspect_at.values(), default=math.inf))
        return max(0.0, due - asyncio.get_running_loop().time())

    async def _refresh(self, docker: aiodocker.Docker) -> None:
        """Mark the inspections that are outdated by now, and follow an engine that has changed."""
        now = asyncio.get_running_loop().time()
        due = {id for id, at in self._inspect_at.items() if at <= now}
        self._inspect_at = {id: at for id, at in self._inspect_at.items() if id not in due}
        self._stale |= due
        if now >= self._refresh_at:
            self._stale.update(self._inspected)
            await self._read_clock(docker)

    async def _inspect(self, docker: aiodocker.Docker) -> None:
        """Fetch what lists do not contain, for containers that are new or may have changed."""
        here = {container.id: container for container in self._containers}
        labelled = [container for container in self._containers if has_mesh_label(container.labels)]
        self._inspected = {id: found for id, found in self._inspected.items() if id in here}
        self._stale &= here.keys()
        self._begun &= here.keys()
        gone: set[str] = set()
        while True:
            # Podman tells the network mode by inspection only: each round may show one lender more.
            chains = [network_chain(container, here, self._known()) or (container,) for container in labelled]
            wanted = {container.id for chain in chains for container in chain} - gone
            new = sorted((wanted - self._inspected.keys()) | (wanted & self._stale))
            if not new:
                return
            found = await read_together(self._inspect_one(docker, id) for id in new)
            gone |= {id for id, inspection in zip(new, found, strict=True) if inspection is None}

    async def _inspect_one(self, docker: aiodocker.Docker, id: str) -> ContainerInspection | None:
        """Inspect a container; None if it is gone."""
        async with self._inspections:
            found = await inspect_container(docker, id)
        before = self._run(id)
        if found is not None and before is not None and found.run != before and id not in self._begun:
            self._lose(id)  # it was restarted, and no event told of it
        self._stale.discard(id)
        self._begun.discard(id)
        if found is None:
            self._inspected.pop(id, None)
        else:
            self._inspected[id] = found
            self._memory.inspected(id, found)
        return found

    def _run(self, id: str) -> str | None:
        found = self._inspected.get(id)
        return None if found is None else found.run

    def _known(self) -> ContainerHistory:
        healthy = [id for id, since in self._healthy.items() if since == self._run(id)]
        return ContainerHistory(
            dict(self._stopping),
            healthy,
            self._inspected,
            self._origins.images,
            self._origins.tasks,
            self._origins.awaited,
        )

    async def _read(self) -> InstanceListing:
        rules = self._present_rules()
        there = [container for container in self._containers if container.id not in self._ended]
        read = partial(read_instances, there, self._drivers, rules, self._known())
        # Whoever starts containers chooses what their labels cost, which must not hold the event loop.
        self._good = await compute(sum(parse_cost(each.labels or {}) for each in there), read)
        return self._good

    def _present_rules(self) -> InstanceRules:
        rules = self._rules
        return rules if rules.worker else replace(rules, worker=outbound_address(rules.version))

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
