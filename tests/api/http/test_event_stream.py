"""The event stream: what watchers receive over real connections, and when snapshots are taken, in virtual time."""

import asyncio
import logging
from dataclasses import replace
from pathlib import Path

import pytest

from mesh.api.events import EventInput
from mesh.api.http import broadcaster as feed
from mesh.api.http import event_stream as events
from mesh.api.http.broadcaster import MAX_INTERVAL, MAX_WATCHERS, MIN_INTERVAL, EventBroadcaster, TooManyWatchersError
from mesh.control.snapshot import WorkerSnapshot
from mesh.model.service import Health
from tests.api.http.worker import client, serving, socket_of, until
from tests.api.metrics.test_families import OBSERVED, problem


class Looks:
    """A worker that can be changed, and how often it was looked at."""

    def __init__(self) -> None:
        self.observed = OBSERVED
        self.times: list[float] = []

    async def __call__(self) -> EventInput:
        self.times.append(asyncio.get_running_loop().time())
        return EventInput(self.observed, self.times[-1])


async def test_a_full_snapshot_is_sent_first_and_then_changes(tmp_path: Path) -> None:
    async with (
        serving(socket_of(tmp_path)) as api,
        client(tmp_path) as session,
        session.get("/v1/events") as answer,
        session.get("/v1/events") as other,
    ):
        for each in (answer, other):
            names = [name for name, _ in await until(each, "flow")]
            assert names == ["worker", *["service"] * 4, "ready", "flow"]
        assert api.feed.watching == 2
    assert api.feed.watching == 0


async def test_the_end_of_the_daemon_is_announced(tmp_path: Path) -> None:
    async with client(tmp_path) as session:
        async with serving(socket_of(tmp_path)):
            answer = await session.get("/v1/events")
            await until(answer, "ready")
        (*_, (_, last)) = await until(answer, "bye")
        assert last == {"reason": "the daemon stops or restarts; connect again"}
        assert await answer.content.read() == b""


async def test_keepalive_comments_are_sent_while_nothing_changes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(events, "KEEPALIVE_INTERVAL", 0.01)
    async with serving(socket_of(tmp_path)), client(tmp_path) as session, session.get("/v1/events") as answer:
        await until(answer, "ready")
        async with asyncio.timeout(10):
            while (await answer.content.readline()) != b": still here\n":
                pass


async def test_a_watcher_that_does_not_read_is_disconnected_and_others_continue(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(events, "WRITE_TIMEOUT", 0.5)
    long = replace(OBSERVED, problems={"labels": tuple(problem("x" * 800) for _ in range(10_000))})
    async with serving(socket_of(tmp_path), long) as api, client(tmp_path) as session:
        _, writer = await asyncio.open_unix_connection(str(tmp_path / "admin.sock"), limit=1024)
        writer.write(b"GET /v1/events HTTP/1.1\r\nHost: localhost\r\n\r\n")
        writer.transport.pause_reading()  # type: ignore[attr-defined]
        async with session.get("/v1/status") as answer:
            assert answer.status == 200, "the API goes on"
        async with asyncio.timeout(10):
            while not api.feed.dropped:
                await asyncio.sleep(0.05)
        writer.close()
        assert api.feed.dropped == 1
        assert api.feed.watching == 0
    assert "has read nothing for 0.5 s: disconnected" in caplog.text


@pytest.mark.looptime
class TestTheFeed:
    async def test_without_watchers_no_snapshot_is_taken(self) -> None:
        looks = Looks()
        subject = EventBroadcaster(looks)
        async with asyncio.TaskGroup() as tasks:
            running = tasks.create_task(subject.run())
            await asyncio.sleep(60)
            assert not looks.times
            watcher = subject.watch("me")
            await asyncio.sleep(21 * MAX_INTERVAL)
            assert 20 <= len(looks.times) <= 22
            subject.leave(watcher)
            await asyncio.sleep(60)
            assert len(looks.times) <= 23
            running.cancel()

    async def test_a_burst_of_changes_results_in_few_snapshots(self) -> None:
        looks = Looks()
        subject = EventBroadcaster(looks)
        async with asyncio.TaskGroup() as tasks:
            running = tasks.create_task(subject.run())
            subject.watch("me")
            await asyncio.sleep(MAX_INTERVAL)
            before = len(looks.times)
            for _ in range(100):
                subject.changed()
                await asyncio.sleep(0.02)
            assert len(looks.times) - before <= 2 / MIN_INTERVAL + 1
            running.cancel()

    async def test_a_change_is_sent_soon(self) -> None:
        looks = Looks()
        subject = EventBroadcaster(looks)
        async with asyncio.TaskGroup() as tasks:
            running = tasks.create_task(subject.run())
            watcher = subject.watch("me")
            assert b"event: ready" in await watcher.take()
            await asyncio.sleep(MIN_INTERVAL)
            looks.observed = replace(OBSERVED, probed=dict.fromkeys(OBSERVED.probed, Health.HEALTHY))
            began = asyncio.get_running_loop().time()
            subject.changed()
            news = await watcher.take()
            assert asyncio.get_running_loop().time() - began <= MIN_INTERVAL
            assert news.count(b"event: service") == 1
            assert b"event: worker" not in news
            running.cancel()

    async def test_a_slow_reader_gets_a_reason_and_is_disconnected(
        self, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
    ) -> None:
        monkeypatch.setattr(feed, "MAX_PENDING_BYTES", 2000)
        caplog.set_level(logging.WARNING)
        looks = Looks()
        subject = EventBroadcaster(looks)
        async with asyncio.TaskGroup() as tasks:
            running = tasks.create_task(subject.run())
            slow, quick = subject.watch("uid 7"), subject.watch("me")
            assert b"event: ready" in await slow.take()
            for _ in range(60):
                assert b"event: bye" not in await quick.take()
            last = await slow.take()
            assert last.startswith(b"event: bye\ndata: ")
            assert b"read too slowly" in last
            assert await slow.take() == b""
            assert (subject.watching, subject.dropped) == (1, 1)
            running.cancel()
        assert "watcher uid 7 reads too slowly: disconnected" in caplog.text

    async def test_the_number_of_watchers_is_limited(self) -> None:
        subject = EventBroadcaster(Looks())
        watchers = [subject.watch("me") for _ in range(MAX_WATCHERS)]
        with pytest.raises(TooManyWatchersError, match="64 are connected"):
            subject.watch("me")
        subject.leave(watchers[0])
        subject.leave(watchers[0])
        subject.watch("me")

    async def test_a_later_watcher_gets_the_current_snapshot(self) -> None:
        looks = Looks()
        subject = EventBroadcaster(looks)
        async with asyncio.TaskGroup() as tasks:
            running = tasks.create_task(subject.run())
            first = subject.watch("me")
            await first.take()
            looks.observed = WorkerSnapshot(OBSERVED.facts)
            second = subject.watch("me too")
            assert (await second.take()).count(b"event: service") == 0
            assert b"event: gone" in await first.take()
            running.cancel()
