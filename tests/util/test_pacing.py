"""Pacing of bursts: the first signal at once, later ones together."""

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


async def test_the_first_signal_after_a_quiet_time_is_not_delayed() -> None:
    pace = RunPacer(4, 1)
    assert await waited(pace) == 0
    await worked(pace, 0.1)
    await asyncio.sleep(0.4)
    assert await waited(pace) == 0


async def test_the_pause_is_proportional_to_the_work() -> None:
    pace = RunPacer(4, 1)
    await worked(pace, 0.1)
    assert await waited(pace) == pytest.approx(0.4)
    await worked(pace, 0.05)
    await asyncio.sleep(0.15)
    assert await waited(pace) == pytest.approx(0.05)


async def test_the_pause_never_exceeds_its_maximum() -> None:
    pace = RunPacer(4, 1)
    await worked(pace, 60)
    assert await waited(pace) == pytest.approx(1)


async def test_failed_work_counts_towards_the_pause() -> None:
    pace = RunPacer(4, 1)

    async def fail() -> None:
        with pace.work():
            await asyncio.sleep(0.1)
            raise OSError("gone")

    with pytest.raises(OSError, match="gone"):
        await fail()
    assert await waited(pace) == pytest.approx(0.4)


async def test_a_signal_wakes_its_loop_once() -> None:
    signal = PacedSignal(4, 1)
    signal.set()
    signal.set()
    await signal.wait()
    waiting = asyncio.ensure_future(signal.wait())
    await asyncio.sleep(60)
    assert not waiting.done()
    signal.set()
    await waiting


async def test_signals_during_a_pause_are_coalesced() -> None:
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
