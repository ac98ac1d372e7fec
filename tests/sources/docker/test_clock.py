"""An engine whose clock is off is followed, and what it did is dated right."""

import asyncio
from pathlib import Path
from typing import Any

import pytest

from mesh.model.service import DrainReason
from mesh.sources.docker.clock import EngineClock
from mesh.sources.docker.source import DockerSource
from tests.sources.docker.fake_engine import NAME, FakeEngine
from tests.system.docker.test_source import RULES, watching

OFF = [-86400.0, -30.0, -0.5, 0.0, 0.5, 30.0, 86400.0]


@pytest.mark.parametrize("ahead", OFF)
@pytest.mark.parametrize("by", ["socket", "tcp"])
async def test_an_engine_whose_clock_is_off_is_followed(tmp_path: Path, ahead: float, by: str) -> None:
    fake = FakeEngine(ahead=ahead)
    async with fake.listening(tmp_path / "docker.sock" if by == "socket" else by) as url:
        source = DockerSource(url, RULES)
        async with watching(source) as seen:
            await seen.until(lambda now: now.keys() == {NAME}, 5)
            fake.run = "2026-11-30T12:00:00Z"
            fake.tell("die")
            fake.tell("start")
            await seen.until(lambda now: bool(now) and now[NAME].run == fake.run, 5)
            fake.tell("kill", signal="15")
            await seen.until(lambda now: now[NAME].drain is DrainReason.STOPPING, 5)
            assert source.trouble is None
    for since, until in fake.spans:
        assert since is not None
        assert since <= fake.now
        assert until is None or until <= fake.now


@pytest.mark.parametrize("ahead", [-30.0, 30.0])
async def test_an_engine_that_tells_no_time_is_followed(tmp_path: Path, ahead: float) -> None:
    fake = FakeEngine(ahead=ahead)
    fake.has_date = False
    async with fake.listening(tmp_path / "docker.sock") as url, watching(DockerSource(url, RULES)) as seen:
        await seen.until(lambda now: now.keys() == {NAME}, 5)
        fake.tell("kill", signal="15")
        await seen.until(lambda now: now[NAME].drain is DrainReason.STOPPING, 5)


async def test_a_time_that_is_not_the_engines_delays_the_start_only(tmp_path: Path) -> None:
    """A proxy tells its own time, and the engine is half a minute behind it: past events are not waited for."""
    fake = FakeEngine(ahead=-30.0)
    fake.past = [fake.event("kill", age=10, signal="15")]
    fake.dates_ahead = 30.0
    async with fake.listening(tmp_path / "docker.sock") as url:
        source = DockerSource(url, RULES)
        async with watching(source) as seen:
            await seen.until(lambda now: now.keys() == {NAME} and now[NAME].drain is DrainReason.STOPPING, 5)
            assert source.trouble is None


@pytest.mark.parametrize("ahead", OFF)
async def test_a_stop_in_progress_is_dated_by_the_engines_clock(tmp_path: Path, ahead: float) -> None:
    fake = FakeEngine(ahead=ahead)
    fake.past = [fake.event("kill", age=4, signal="18")]
    left: list[float] = []
    async with fake.listening(tmp_path / "docker.sock") as url:
        source = DockerSource(url, RULES, on_drain=lambda _, instance, seconds: left.append(seconds))
        async with watching(source) as seen:
            await seen.until(lambda now: now.keys() == {NAME} and now[NAME].drain is DrainReason.STOPPING, 5)
            assert 3 < left[0] <= 6, "of ten seconds; the engine tells its time in whole seconds"


@pytest.mark.parametrize(
    ("before", "action", "attributes", "expected"),
    [
        (("oom",), "die", {"exitCode": "137"}, (137, True, False)),
        (("oom",), "die", {"exitCode": "0"}, (0, False, False)),
        ((), "die", {"exitCode": "137"}, (137, False, False)),
        (("start",), "died", {}, (None, False, False)),
        (("oom", "start"), "die", {"exitCode": "137"}, (137, False, False)),
    ],
)
async def test_the_end_of_a_container_is_reported_once(
    tmp_path: Path,
    before: tuple[str, ...],
    action: str,
    attributes: dict[str, str],
    expected: tuple[int | None, bool, bool],
) -> None:
    fake, ended = FakeEngine(), list[tuple[str, str | None, int | None, bool, bool]]()
    done = asyncio.Event()

    def on_ended(*end: Any) -> None:
        ended.append(end)
        done.set()

    async with fake.listening(tmp_path / "docker.sock") as url:
        source = DockerSource(url, RULES, on_ended=on_ended)
        async with watching(source) as seen:
            await seen.until(lambda now: now.keys() == {NAME}, 5)
            for each in before:
                fake.tell(each)
            fake.tell(action, **attributes)
            fake.tell("destroy")
            async with asyncio.timeout(5):
                await done.wait()
    ((id, name, *rest),) = ended
    assert NAME in (id, name)
    assert tuple(rest) == expected


async def test_the_end_of_a_container_that_was_told_to_stop_is_asked_for(tmp_path: Path) -> None:
    fake, ended = FakeEngine(), list[bool]()
    async with fake.listening(tmp_path / "docker.sock") as url:
        source = DockerSource(url, RULES, on_ended=lambda *end: ended.append(end[-1]))
        async with watching(source) as seen:
            await seen.until(lambda now: now.keys() == {NAME}, 5)
            fake.tell("kill", signal="15")
            fake.tell("die", exitCode="143")
            await seen.until(lambda _: bool(ended), 30)
    assert ended == [True]


def test_an_event_that_has_just_come_makes_the_difference_exact() -> None:
    clock = EngineClock(1000.0, 5.0)  # the engine's time is 1000.9
    assert clock.age(1002.9, 7.0) == 0.0
    assert clock.age(1004.9, 10.0) == pytest.approx(1.0)


def test_an_event_from_before_is_never_younger_than_it_was() -> None:
    clock = EngineClock(1000.0, 5.0)
    assert clock.age(998.0, 5.0) == 3.0, "it was 2.0 to 3.0 seconds ago"
    assert clock.age(998.0, 6.0) == 4.0


def test_without_a_time_an_event_is_new() -> None:
    clock = EngineClock(None, 5.0)
    assert clock.age(998.0, 5.0) == 0.0
    assert clock.age(998.0, 8.0) == 3.0
