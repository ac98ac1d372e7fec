"""The recorder keeps events on disk, across restarts and full disks, and tells the others of them."""

import asyncio
import logging
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace

import pytest
from typing_extensions import override

from mesh.control.conditions import LoopConditions
from mesh.control.event_recorder import (
    MAX_LINES,
    MAX_WAITING,
    RETRY,
    SETTLE_TIME,
    ContainerExit,
    ContainerExits,
    EventRecorder,
)
from mesh.control.past_events import EventMoment
from mesh.model.codes import Code
from mesh.model.past_event import EventKind, NumberedEvent, PastEvent
from mesh.model.view import ClusterView
from mesh.store.event_ring import RingBatch, RingLimits
from mesh.testing.event_ring import FakeEventRing
from tests.control.test_past_events import A, B, view

pytestmark = pytest.mark.looptime
K = EventKind


class WallClock:
    """The time since 1970, which a test sets."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def wall(monkeypatch: pytest.MonkeyPatch) -> WallClock:
    clock = WallClock()
    monkeypatch.setattr("mesh.control.event_recorder.time.time", clock)
    return clock


@dataclass
class RecorderBench:
    """A recorder of a worker whose state a test sets."""

    ring: FakeEventRing = field(default_factory=lambda: FakeEventRing(RingLimits(100_000, 1e9)))
    known: ClusterView | None = field(default_factory=lambda: view(A))
    exits: ContainerExits = field(default_factory=ContainerExits)
    conditions: LoopConditions = field(default_factory=LoopConditions)
    notified: list[NumberedEvent] = field(default_factory=list)
    due: asyncio.Event = field(default_factory=asyncio.Event)

    def look(self, at: float, _: bool) -> EventMoment | None:
        return None if self.known is None else EventMoment(at, "w1", self.known, self.known)

    @asynccontextmanager
    async def running(self, *, crash: bool = False) -> AsyncIterator[EventRecorder]:
        recorder = EventRecorder(
            "w1",
            self.ring,
            look=self.look,
            due=self.due,
            exits=self.exits,
            conditions=self.conditions,
            on_events=self.notified.extend,
        )
        async with asyncio.TaskGroup() as tasks:
            task = tasks.create_task(recorder.run())
            await asyncio.sleep(1)
            yield recorder
            task.cancel()
        if not crash:
            await recorder.stop()

    async def sees(self, known: ClusterView) -> None:
        self.known = known
        self.due.set()
        await asyncio.sleep(1)

    async def events(self) -> Sequence[PastEvent]:
        return [each.event for each in await self.ring.read()]

    async def kinds(self) -> list[EventKind]:
        return [event.kind for event in await self.events()]


BEGIN = [K.DAEMON_STARTED, K.ENDPOINT_CAME, K.SERVICE_VIP, K.SERVICE_SERVES, K.WORKER_CAME, K.WORKER_CAME]


async def test_starts_stops_and_changes_are_kept() -> None:
    bench = RecorderBench()
    async with bench.running():
        await bench.sees(view(A, B))
        await bench.sees(view(B))
    assert await bench.kinds() == [*BEGIN, K.ENDPOINT_CAME, K.ENDPOINT_GONE, K.DAEMON_STOPPED]
    assert [each.number for each in bench.notified] == [*range(1, 10)]


async def test_a_restart_records_what_changed_meanwhile_and_nothing_else() -> None:
    bench = RecorderBench(known=view(A, B))
    async with bench.running():
        pass
    bench.known = view(A)
    before = len(await bench.kinds())
    async with bench.running():
        pass
    assert (await bench.kinds())[before:] == [K.DAEMON_STARTED, K.ENDPOINT_GONE, K.DAEMON_STOPPED]


async def test_a_crash_leaves_a_gap(wall: WallClock) -> None:
    bench = RecorderBench()
    async with bench.running(crash=True):
        pass
    wall.now = 1600.0
    before = len(await bench.kinds())
    async with bench.running():
        pass
    gap, started, *_ = (await bench.events())[before:]
    assert (gap.kind, started.kind) == (K.GAP, K.DAEMON_STARTED)
    assert gap.text == (
        "nothing was recorded from 1970-01-01 00:16:40 UTC to 1970-01-01 00:26:40 UTC: "
        "the daemon did not stop in an orderly way, or could not write that it stopped"
    )


async def test_a_suspended_host_leaves_a_gap(wall: WallClock) -> None:
    bench = RecorderBench()
    async with bench.running():
        wall.now += 3600
        await bench.sees(view(A, B))
        assert (await bench.kinds())[len(BEGIN) :] == [K.GAP, K.ENDPOINT_CAME]


async def test_the_time_is_written_although_nothing_happens(wall: WallClock) -> None:
    bench = RecorderBench()
    async with bench.running():
        for _ in range(10):
            wall.now += 10
            await asyncio.sleep(10)
        assert bench.ring.batches[-1].at > 1060
        assert len(bench.ring.batches) <= 5


def test_each_reader_of_ends_gets_all_of_them() -> None:
    exits = ContainerExits()
    follower = exits.follow()
    ended = ContainerExit("a", None, 1, False)
    exits.put(ended)
    assert (exits.take(), follower.take(), follower.take()) == ((ended,), (ended,), ())


@pytest.mark.parametrize(
    ("ended", "signal", "words"),
    [
        (ContainerExit("a", "web-1", 137, True), "SIGKILL", "exit code 137, SIGKILL, out of memory"),
        (ContainerExit("a", "web-1", 143, False), "SIGTERM", "exit code 143, SIGTERM"),
        (ContainerExit("a", "web-1", 1, False), None, "exit code 1"),
        (ContainerExit("a", "web-1", 4242, False), None, "exit code 4242"),
        (ContainerExit("a", "web-1", None, False), None, "its exit code is not known"),
    ],
)
async def test_the_end_of_a_container(ended: ContainerExit, signal: str | None, words: str) -> None:
    bench = RecorderBench()
    async with bench.running():
        bench.exits.put(ended)
        await bench.sees(view())
        died, gone, empty = (await bench.events())[len(BEGIN) :]
    assert (died.kind, gone.kind, empty.kind) == (K.CONTAINER_DIED, K.ENDPOINT_GONE, K.SERVICE_EMPTY)
    assert died.text == f"container web-1 of web.test on w1 ended: {words}"
    assert (died.owner, died.exit_code, died.signal) == ("demo/web", ended.exit_code, signal)


async def test_a_disk_that_is_full_at_the_start_loses_the_first_look_and_no_line(
    wall: WallClock, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, logger="vipmesh")
    bench = RecorderBench()
    async with bench.running():
        pass
    before = len(await bench.kinds())
    caplog.clear()
    wall.now = 5000.0
    bench.known = view(A, B)
    bench.ring.is_full = True
    async with bench.running():
        await asyncio.sleep(SETTLE_TIME + 2 * RETRY)
        assert "came" not in caplog.text, "what was there before is not known yet"
        wall.now = 5060.0
        await bench.sees(view(B))
        assert "endpoint a of web.test on w1 is gone" in caplog.text
        wall.now = 5090.0
        bench.ring.is_full = False
        await asyncio.sleep(2 * RETRY)
    found = (await bench.events())[before:]
    assert [(event.kind, event.at) for event in found] == [
        (K.DAEMON_STARTED, 5000),
        (K.ENDPOINT_CAME, 5000),
        (K.ENDPOINT_GONE, 5060),
        (K.DAEMON_STOPPED, 5090),
    ]


async def test_a_disk_that_stays_full_loses_no_line_of_the_log(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, logger="vipmesh")
    bench = RecorderBench()
    bench.ring.is_full = True
    async with bench.running():
        await asyncio.sleep(SETTLE_TIME + 2 * RETRY)
        await bench.sees(view(A, B))
    assert "came at" in caplog.text
    assert "the daemon stopped" in caplog.text


async def test_a_full_disk_loses_the_oldest_events_says_so_and_stops_nothing() -> None:
    bench = RecorderBench()
    async with bench.running():
        bench.ring.is_full = True
        for number in range(MAX_WAITING):
            bench.exits.put(ContainerExit(f"c{number}", None, 0, False))
        await bench.sees(view(A, B))
        (problem,) = bench.conditions.problems["events"]
        assert problem.code is Code.EVENTS_NOT_KEPT
        assert problem.remedy == "make room"
        await bench.sees(view(B))
        bench.ring.is_full = False
        await asyncio.sleep(RETRY + 1)
        events = (await bench.events())[len(BEGIN) :]
        assert bench.conditions.problems["events"] == ()
    assert len(events) == MAX_WAITING + 1
    assert events[0].text == "2 earlier events were lost, since they could not be written"
    assert (events[1].endpoint, events[-2].kind, events[-1].kind) == ("c2", K.ENDPOINT_CAME, K.ENDPOINT_GONE)


async def test_a_ring_that_cannot_be_opened_is_opened_later() -> None:
    bench = RecorderBench()
    bench.ring.is_full = True
    async with bench.running():
        await bench.sees(view(A, B))
        assert bench.conditions.problems["events"]
        bench.ring.is_full = False
        await asyncio.sleep(2 * RETRY)
        assert (await bench.kinds())[:3] == [K.DAEMON_STARTED, K.ENDPOINT_CAME, K.ENDPOINT_CAME]


async def test_nothing_is_recorded_before_the_first_view() -> None:
    bench = RecorderBench(known=None)
    async with bench.running():
        assert await bench.kinds() == [K.DAEMON_STARTED]


async def test_state_of_another_version_is_left_out() -> None:
    bench = RecorderBench()
    await bench.ring.write(RingBatch(1.0, state={"service/demo/web": b"{", "unheard-of": b"[]", "workers": b"1"}))
    async with bench.running():
        assert (await bench.kinds())[2:] == BEGIN[1:]


async def test_many_events_at_once_are_counted_in_the_log(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "vipmesh")
    bench = RecorderBench()
    async with bench.running():
        for number in range(MAX_LINES + 7):
            bench.exits.put(ContainerExit(f"c{number}", None, 0, False))
        await bench.sees(view(A))
        assert (await bench.kinds()).count(K.CONTAINER_DIED) == MAX_LINES + 7
    assert caplog.text.count("ended: exit code 0") == MAX_LINES
    assert "7 more events at once; `vipmesh events` lists them" in caplog.text


async def test_each_event_is_one_line_with_code_service_and_name(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "vipmesh")
    bench = RecorderBench(known=view(replace(A, name="web-1")))
    async with bench.running():
        pass
    lines = [record for record in caplog.records if hasattr(record, "fields") and "event" in record.fields]
    came = next(record for record in lines if record.fields["event"] == "endpoint-came")
    assert came.getMessage() == "endpoint web-1 of web.test on w1 came at 10.2.0.1 [VM780]"
    assert came.fields == {"event": "endpoint-came", "code": "VM780", "service": "web.test", "endpoint": "web-1"}
    assert len(lines) == len(await bench.kinds())


async def test_a_write_that_a_stop_interrupts_is_not_repeated() -> None:
    class SlowRing(FakeEventRing):
        """Goes on to write what its caller no longer waits for, as a thread does."""

        @override
        async def write(self, batch: RingBatch) -> int:
            first = await super().write(batch)
            if any(each.kind is K.ENDPOINT_GONE for each in batch.events):
                await asyncio.sleep(5)
            return first

    bench = RecorderBench(ring=SlowRing(RingLimits(1000, 1e9)), known=view(A, B))
    async with bench.running():
        await bench.sees(view(A))
    assert (await bench.kinds()).count(K.ENDPOINT_GONE) == 1
