"""Work that comes in bursts: the first of it at once, the rest together."""

import asyncio

import pytest

from mesh.util.pacing import PacedSignal, RunPacer

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


async def test_a_signal_that_was_set_wakes_its_loop_once() -> None:
    signal = PacedSignal(4, 1)
    signal.set()
    signal.set()
    await signal.wait()
    waiting = asyncio.ensure_future(signal.wait())
    await asyncio.sleep(60)
    assert not waiting.done()
    signal.set()
    await waiting


async def test_what_is_signalled_while_the_loop_rests_is_one_burst() -> None:
    clock = asyncio.get_running_loop().time
    signal = PacedSignal(4, 1)
    signal.set()
    await signal.wait()
    with signal.work():
        await asyncio.sleep(0.1)
        signal.set()
    began = clock()
    waiting = asyncio.ensure_future(signal.wait())
    await asyncio.sleep(0.3)
    signal.set()
    await waiting
    assert clock() - began == pytest.approx(0.4)
    again = asyncio.ensure_future(signal.wait())
    await asyncio.sleep(60)
    assert not again.done()
    again.cancel()
