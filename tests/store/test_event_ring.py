"""The ring of past events: one contract for the one on disk and the fake, and what only a disk can do wrong."""

import asyncio
import os
import sqlite3
import stat
from collections.abc import Callable
from pathlib import Path

import pytest

from mesh.model.codes import Code
from mesh.model.past_event import EventKind, PastEvent
from mesh.store.event_ring import EventRing, EventRingError, RingBatch, RingContent, RingLimits
from mesh.store.sqlite_event_ring import SqliteEventRing
from mesh.testing.event_ring import FakeEventRing
from tests.store.test_full_disk import fill, on_small_disk

LIMITS = RingLimits(5, 100.0)


def event(text: str, at: float = 1.0) -> PastEvent:
    return PastEvent(
        at=at,
        kind=EventKind.CONTAINER_DIED,
        code="VM783",
        text=text,
        worker="w1",
        ports=(80,),
        names=("web.test",),
        exit_code=137,
        signal="SIGKILL",
        out_of_memory=True,
    )


def batch(*texts: str, at: float = 1.0) -> RingBatch:
    return RingBatch(at, [event(text, at) for text in texts])


async def texts(ring: EventRing, *, after: int = 0, since: float = 0.0) -> list[str]:
    return [each.event.text for each in await ring.read(after=after, since=since)]


@pytest.fixture(params=["disk", "fake"])
def ring(request: pytest.FixtureRequest, tmp_path: Path) -> EventRing:
    return SqliteEventRing(tmp_path / "ring" / "e.db", LIMITS) if request.param == "disk" else FakeEventRing(LIMITS)


async def test_a_new_ring_is_empty(ring: EventRing) -> None:
    assert await ring.open() == RingContent()
    assert await texts(ring) == []
    await ring.close()


async def test_events_come_back_in_order_with_all_fields_and_numbers(ring: EventRing) -> None:
    await ring.open()
    assert await ring.write(batch("a", "b")) == 1
    assert await ring.write(batch("c")) == 3
    found = await ring.read()
    assert [each.number for each in found] == [1, 2, 3]
    assert [each.event for each in found] == [event("a"), event("b"), event("c")]
    assert await texts(ring, after=2) == ["c"]
    await ring.close()


async def test_the_oldest_events_are_dropped_and_their_numbers_are_not_used_again(ring: EventRing) -> None:
    await ring.open()
    await ring.write(batch(*"abcd"))
    await ring.write(batch(*"efgh"))
    assert await texts(ring) == [*"defgh"]
    await ring.write(RingBatch(at=102.0))
    assert await texts(ring) == [], "all of them are older than 100 s"
    await ring.close()
    await ring.open()
    assert await ring.write(batch("i", at=102.0)) == 9
    await ring.close()


async def test_a_batch_larger_than_the_ring_leaves_its_newest_events(ring: EventRing) -> None:
    await ring.open()
    assert await ring.write(batch(*"abcdefgh")) == 1
    assert await texts(ring) == [*"defgh"]
    await ring.close()


async def test_events_since_a_time(ring: EventRing) -> None:
    await ring.open()
    await ring.write(RingBatch(30.0, [event("a", 10.0), event("b", 20.0), event("c", 30.0)]))
    assert await texts(ring, since=20.0) == ["b", "c"]
    await ring.close()


async def test_the_state_and_the_end_of_the_last_run_are_there_after_a_restart(ring: EventRing) -> None:
    await ring.open()
    await ring.write(RingBatch(1.0, state={"a": b"1", "b": b"2"}))
    await ring.write(RingBatch(2.0, state={"a": None, "b": b"3"}))
    await ring.close()
    assert await ring.open() == RingContent({"b": b"3"}, 2.0, stopped=False)
    await ring.write(RingBatch(3.0, stopped=True))
    await ring.close()
    assert await ring.open() == RingContent({"b": b"3"}, 3.0, stopped=True)
    await ring.close()


async def test_files_are_private_from_the_first_moment(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        ring = SqliteEventRing(tmp_path / "e.db", LIMITS)
        await ring.open()
        await ring.write(batch("a"))
        assert {stat.S_IMODE(file.stat().st_mode) for file in tmp_path.iterdir()} == {0o600}
        await ring.close()
    finally:
        os.umask(before)


@pytest.mark.parametrize("damage", [lambda data: b"not a database" * 500, lambda data: data[:100] + b"\xff" * 4096])
async def test_a_damaged_ring_is_replaced_by_an_empty_one(tmp_path: Path, damage: Callable[[bytes], bytes]) -> None:
    path = tmp_path / "e.db"
    ring = SqliteEventRing(path, LIMITS)
    await ring.open()
    await ring.write(batch("a"))
    await ring.close()
    path.write_bytes(damage(path.read_bytes()))
    content = await ring.open()
    assert content == RingContent(replaced=True)
    await ring.write(batch("b"))
    assert await texts(ring) == ["b"]
    await ring.close()


async def test_a_kind_of_a_later_version_is_left_out(tmp_path: Path) -> None:
    ring = SqliteEventRing(tmp_path / "e.db", LIMITS)
    await ring.open()
    await ring.write(batch("a", "b"))
    database = sqlite3.connect(tmp_path / "e.db")
    with database:
        database.execute("UPDATE events SET event = replace(event, 'container-died', 'unheard-of') WHERE number = 1")
    database.close()
    assert await texts(ring) == ["b"]
    await ring.close()


async def test_a_file_that_may_not_be_written_is_an_error_with_a_remedy(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    ring = SqliteEventRing(tmp_path / "file" / "e.db", LIMITS)
    for attempt in (ring.open, ring.read, lambda: ring.write(batch("a"))):
        with pytest.raises(EventRingError, match=r"set \[events\] file") as caught:
            await attempt()
        assert caught.value.code is Code.EVENTS_NOT_KEPT


def test_a_full_disk_loses_events_and_they_are_kept_again_when_there_is_room(tmp_path: Path) -> None:
    async def work(disk: Path) -> None:
        ring = SqliteEventRing(disk / "e.db", RingLimits(1000, 1e9))
        await ring.open()
        await ring.write(batch("a"))
        filler = fill(disk)
        with pytest.raises(EventRingError, match="make room"):
            await ring.write(batch(*["x" * 300] * 900))
        await asyncio.to_thread(filler.unlink)
        await ring.write(batch("b"))
        found = await texts(ring)
        assert (found[0], found[-1]) == ("a", "b")
        await ring.close()

    on_small_disk(work, tmp_path)


def test_a_ring_on_a_full_disk_cannot_be_opened_and_can_be_later(tmp_path: Path) -> None:
    async def work(disk: Path) -> None:
        filler = fill(disk)
        ring = SqliteEventRing(disk / "e.db", LIMITS)
        with pytest.raises(EventRingError, match="make room"):
            await ring.open()
        await asyncio.to_thread(filler.unlink)
        assert (await ring.open()).alive is None
        await ring.write(batch("a"))
        await ring.close()

    on_small_disk(work, tmp_path)
