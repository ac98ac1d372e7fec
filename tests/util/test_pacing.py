"""pace: the first at once, the rest together."""

import asyncio

import pytest

from mesh.util.pacing import RunPacer

pytestmark = pytest.mark.looptime


async def worked(pace: RunPacer, seconds: float) -> None:
    with pace.work():
        await asyncio.sleep(seconds)


async def waited(pace: RunPacer) -> float:
    clock = asyncio.get_running_loop().time
    began = clock()
    await pace.wait()
    return clock() - began


async def test_after_a_quiet_time_nobody_waits() -> None:
    pace = RunPacer(4, 1)
    assert await waited(pace) == 0
    await worked(pace, 0.1)
    await asyncio.sleep(0.4)
    assert await waited(pace) == 0


async def test_after_work_it_rests_in_proportion() -> None:
    pace = RunPacer(4, 1)
    await worked(pace, 0.1)
    assert await waited(pace) == pytest.approx(0.4)
    await worked(pace, 0.05)
    await asyncio.sleep(0.15)
    assert await waited(pace) == pytest.approx(0.05)


async def test_it_never_rests_longer_than_the_longest() -> None:
    pace = RunPacer(4, 1)
    await worked(pace, 60)
    assert await waited(pace) == pytest.approx(1)


async def test_work_that_fails_was_work() -> None:
    pace = RunPacer(4, 1)

    async def fail() -> None:
        with pace.work():
            await asyncio.sleep(0.1)
            raise OSError("gone")

    with pytest.raises(OSError, match="gone"):
        await fail()
    assert await waited(pace) == pytest.approx(0.4)
