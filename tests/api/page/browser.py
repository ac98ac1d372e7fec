"""The browser of the distribution, and a worker with a fixed snapshot for its page."""

import asyncio
import os
import shutil
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path

import msgspec
import pytest
from playwright.async_api import Browser, ConsoleMessage, Page, async_playwright
from typing_extensions import override

from mesh.api.channel.worker_channel import DEADLINE, MAX_ANSWER_BYTES, ChannelReply
from mesh.api.events import EventInput, ServiceTraffic, TrafficEvent
from mesh.api.http.broadcaster import EventBroadcaster
from mesh.api.http.history import HistoryHandler
from mesh.api.http.past_events import PastEventsHandler
from mesh.api.http.server import AdminApi, AdminListenConfig
from mesh.api.http.stacks import StackRequests
from mesh.api.past_events import PastEventsDocument
from mesh.api.traffic_history import INTERVAL, HistorySample, TrafficHistory
from mesh.control.planner import make_plan
from mesh.control.snapshot import WorkerFacts, WorkerSnapshot
from mesh.dataplane.drain import BackendKey
from mesh.health.history import CheckHistory
from mesh.health.snapshot import HealthSnapshot
from mesh.health.state_machine import Verdict
from mesh.model.claims import Claims
from mesh.model.past_event import EventKind, NumberedEvent, PastEvent
from mesh.model.service import Endpoint, EndpointKey, Health, Instance
from mesh.model.table import RealKey, TrafficCounters, VirtualKey
from mesh.model.view import ClusterView
from mesh.platform.logs.reading.document import ServiceLogLine
from mesh.testing.channel import FakeDirectory, FakeWorkerChannel
from mesh.testing.log_lines import FakeServiceLogs
from tests.api.http.worker import TOKEN, VERBS
from tests.builders import HTTP_PROBE, service
from tests.system.e2e.programs import free_port

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
FACTS = WorkerFacts("1.2", "w1", "ipvs", "this kernel has IPVS", ("127.0.0.1:53",))


def observed(services: int = 3, endpoints: int = 2) -> WorkerSnapshot:
    """So many services with so many endpoints each, all healthy, of weight 1, 2 ... on `w1` and `w2` in turn."""
    declared = tuple(service(f"service-{n}.test", owner=f"demo/{n}", probe=HTTP_PROBE) for n in range(services))
    ends = tuple(
        Endpoint(f"{s.owner}/{e}", s.owner, "w1" if e % 2 == 0 else "w2", f"10.2.{n >> 8}.{n & 255}", e + 1, e + 1)
        for n, s in enumerate(declared)
        for e in range(endpoints)
    )
    vips = {s.name: f"10.112.{n >> 8}.{n & 255}" for n, s in enumerate(declared)}
    health = {e.key: Health.HEALTHY for e in ends}
    view = ClusterView(declared, ends, Claims(vips, {s.name: s.owner for s in declared}), health)
    own = {e.key: Health.HEALTHY for e in ends if e.worker == FACTS.worker}
    instances = tuple(Instance(e.id, e.owner, e.address, {}) for e in ends if e.worker == FACTS.worker)
    return WorkerSnapshot(FACTS, view, instances, own, asked(dict.fromkeys(own, "status 200")), make_plan(view, health))


def asked(found: Mapping[EndpointKey, str]) -> HealthSnapshot:
    """What the last check of own endpoints has found."""
    histories = {}
    for key, words in found.items():
        histories[key] = CheckHistory()
        histories[key].add(Verdict(words == "status 200", words, 0.01), 1.0)
    return HealthSnapshot(histories=histories)


def failed(seen: WorkerSnapshot, service: int, words: str) -> WorkerSnapshot:
    """The first endpoint of a service has failed its probes."""
    key = (FACTS.worker, f"demo/{service}/0")
    found = {key: past.verdicts()[-1].reason for key, past in seen.judged.histories.items()}
    return replace(seen, probed={**seen.probed, key: Health.UNHEALTHY}, judged=asked({**found, key: words}))


def happened(text: str, kind: EventKind = EventKind.ENDPOINT_FAILED, ago: float = 60.0, **about: object) -> PastEvent:
    """An event that was noticed so many seconds ago."""
    return PastEvent(at=time.time() - ago, kind=kind, code="VM781", text=text, **about)  # type: ignore[arg-type]


class Rings(FakeWorkerChannel):
    """Other workers with past events. Those without a ring refuse."""

    def __init__(self, *names: str) -> None:
        super().__init__(FakeDirectory({name: RealKey("192.0.2.9", 9780) for name in names}))
        self.kept: dict[str, list[PastEvent]] = {}
        self.ahead = dict.fromkeys(names, 0.0)
        """Seconds by which the clock of each is ahead."""

    @override
    async def ask(
        self,
        worker: str,
        path: str,
        *,
        accept: str = "application/json",
        deadline: float = DEADLINE,
        most: int = MAX_ANSWER_BYTES,
    ) -> ChannelReply:
        if worker in self.kept:
            numbered = tuple(NumberedEvent(number, each) for number, each in enumerate(self.kept[worker], 1))
            document = PastEventsDocument(worker, time.time() + self.ahead[worker], numbered)
            self.answers[worker, path] = ChannelReply(msgspec.json.encode(document))
        return await super().ask(worker, path, accept=accept, deadline=deadline, most=most)


@dataclass
class Worker:
    """What the page shows; to be changed by the test."""

    directory: Path
    observed: WorkerSnapshot = field(default_factory=observed)
    traffic: dict[VirtualKey, TrafficCounters] = field(default_factory=dict)
    connections: dict[BackendKey, int] = field(default_factory=dict)
    port: int = field(default_factory=free_port)
    looks: int = 0
    history: TrafficHistory = field(default_factory=TrafficHistory)
    past: list[PastEvent] = field(default_factory=list)
    """The events that it has kept; `keep` adds one."""
    logs: FakeServiceLogs = field(default_factory=lambda: FakeServiceLogs("w1"))
    """The lines of services."""
    channel: "Rings | None" = None
    """Other workers; None if it has none that it could ask."""
    stacks: StackRequests | None = None
    """What runs of stacks; None if its engine cannot be asked."""

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/"

    @property
    def link(self) -> str:
        return f"{self.url}#token={TOKEN}"

    @asynccontextmanager
    async def running(self) -> AsyncIterator[EventBroadcaster]:
        token = self.directory / "token"
        token.touch(0o600)
        token.write_text(TOKEN)
        feed = EventBroadcaster(self.look)
        entrance = AdminListenConfig(f"unix://{self.directory}/admin.sock", f"127.0.0.1:{self.port}", token)
        api = AdminApi(
            entrance,
            lambda: self.observed,
            VERBS,
            feed=feed,
            channel=self.channel,
            past=PastEventsHandler(lambda: FACTS.worker, "test", self),
            history=HistoryHandler(lambda: FACTS.worker, self.history),
            stacks=self.stacks,
            logs=self.logs,
        )
        await api.start()
        async with asyncio.TaskGroup() as tasks:
            running = tasks.create_task(feed.run())
            try:
                yield feed
            finally:
                await api.stop()
                running.cancel()

    async def read(self, *, after: int = 0, since: float = 0.0) -> tuple[NumberedEvent, ...]:
        """Return the events like a ring."""
        every = (NumberedEvent(number, each) for number, each in enumerate(self.past, 1))
        return tuple(each for each in every if each.number > after and each.event.at >= since)

    def keep(self, event: PastEvent, feed: EventBroadcaster | None = None) -> None:
        """Keep an event, and tell it to those who watch."""
        self.past.append(event)
        if feed is not None:
            feed.happened([NumberedEvent(len(self.past), event)])

    def write(self, text: str, ago: float, owner: str = "demo/1") -> None:
        """Let an instance of a service have written a line so many seconds ago."""
        at = datetime.fromtimestamp(time.time() - ago, UTC).isoformat().replace("+00:00", "Z")
        self.logs.lines.append(ServiceLogLine(text, "web1", "w1", owner, "stdout", at))

    def passed(self, minutes: int, owner: str, busiest: int) -> None:
        """Let a service have had traffic for the last minutes, up to so many connections."""
        slot, rounds = int(asyncio.get_running_loop().time() // INTERVAL), minutes * 6
        for back in range(rounds, 0, -1):
            count = busiest * (rounds - back + 1) // rounds
            traffic = ServiceTraffic(owner, count, {}, count / 10, count * 100.0, count * 1000.0)
            whole = TrafficEvent(
                count, (traffic,), counted=True, opened=count / 10, bytes_in=count * 100.0, bytes_out=count * 1000.0
            )
            self.history.record(slot - back, time.time() - 10 * back, HistorySample(3, 6, whole))

    async def look(self) -> EventInput:
        self.looks += 1
        return EventInput(self.observed, asyncio.get_running_loop().time(), dict(self.traffic), dict(self.connections))


@asynccontextmanager
async def launched() -> AsyncIterator[Browser]:
    if CHROMIUM is None:
        pytest.skip("needs chromium; `tests/install-packages` says what to install")
    sandbox = ["--no-sandbox"] if os.geteuid() == 0 else []  # it refuses to run as root with one
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=CHROMIUM, args=sandbox)
        try:
            yield browser
        finally:
            await browser.close()


@dataclass
class Complaints:
    """What the browser has to say against a page; a refused token is the test's own doing."""

    found: list[str] = field(default_factory=list)

    def listen(self, page: Page) -> None:
        page.on("pageerror", lambda error: self.found.append(str(error)))
        page.on("dialog", lambda dialog: self.found.append(f"dialog: {dialog.message}"))
        page.on("console", self._console)

    def _console(self, message: ConsoleMessage) -> None:
        if message.type == "error" and "status of 401" not in message.text and "ERR_CONNECTION" not in message.text:
            self.found.append(message.text)
