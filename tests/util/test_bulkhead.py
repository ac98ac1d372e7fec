"""Bulkheads: what raises ends alone, is counted and reported; what must pass does."""

import asyncio
import logging
from collections.abc import Awaitable

import pytest

from mesh.model.codes import Code
from mesh.model.part import DaemonPart
from mesh.util.bulkhead import (
    FIRST_PAUSE,
    LASTS,
    LONGEST_PAUSE,
    MAX_PROBLEMS,
    STABLE,
    TRACEBACK_INTERVAL,
    Bulkhead,
    InternalErrors,
    contain_event_loop,
    describe_error,
)
from mesh.util.logging.formats import LineFormatter

ERRORS = (
    ValueError("x"),
    IndexError(),
    UnicodeDecodeError("utf-8", b"\xff", 0, 1, "x"),
    MemoryError(),
    RecursionError(),
)
PASSING = (asyncio.CancelledError, SystemExit, KeyboardInterrupt, GeneratorExit)


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def errors(clock: Clock) -> InternalErrors:
    return InternalErrors(clock)


@pytest.fixture
def probes(errors: InternalErrors) -> Bulkhead:
    return Bulkhead(DaemonPart.PROBES, errors)


@pytest.mark.parametrize("error", ERRORS, ids=lambda error: type(error).__name__)
def test_an_exception_ends_its_body_alone(probes: Bulkhead, errors: InternalErrors, error: Exception) -> None:
    with probes.contain("probe of shop/web/1") as body:
        raise error
    assert body.failed
    assert errors.counts() == {part: int(part is DaemonPart.PROBES) for part in DaemonPart}
    (problem,) = errors.problems()
    assert problem.code is Code.INTERNAL_ERROR
    assert problem.subject == "probes, probe of shop/web/1"
    assert problem.reason == describe_error(error)


@pytest.mark.parametrize("error", PASSING)
def test_what_is_no_error_passes(probes: Bulkhead, errors: InternalErrors, error: type[BaseException]) -> None:
    with pytest.raises(error), probes.contain("a pass"):
        raise error
    assert not any(errors.counts().values())


def test_a_problem_ends_with_the_next_success(probes: Bulkhead, errors: InternalErrors) -> None:
    for subject in ("a", "b"):
        with probes.contain(subject):
            raise ValueError
    with probes.contain("a") as body:
        pass
    assert not body.failed
    assert [problem.subject for problem in errors.problems()] == ["probes, b"]


def test_a_problem_ends_without_a_repetition(probes: Bulkhead, errors: InternalErrors, clock: Clock) -> None:
    with probes.contain("a"):
        raise ValueError
    clock.now += LASTS - 1
    assert errors.problems()
    clock.now += 1
    assert not errors.problems()
    assert errors.counts()[DaemonPart.PROBES] == 1


def test_the_traceback_of_one_kind_is_logged_once(
    probes: Bulkhead, errors: InternalErrors, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(error: Exception) -> None:
        with probes.contain("a"):
            raise error

    for _ in range(3):
        fail(ValueError("x"))
    fail(KeyError("y"))
    clock.now += TRACEBACK_INTERVAL
    fail(ValueError("z"))
    assert [record.getMessage() for record in caplog.records] == [
        "probes, a: ValueError: x; only this is affected",
        "probes, a: KeyError: 'y'; only this is affected",
        "probes, a: ValueError: z; only this is affected (2 more of this kind since the last traceback)",
    ]
    assert all(record.exc_info and record.levelno == logging.ERROR for record in caplog.records)
    assert errors.counts()[DaemonPart.PROBES] == 5


def test_text_from_outside_is_cut_and_escaped(
    probes: Bulkhead, errors: InternalErrors, caplog: pytest.LogCaptureFixture
) -> None:
    with probes.contain("name\x1b[2J" + "n" * 10_000):
        raise ValueError("line 1\n2026-01-01 00:00:00,000 ERROR forged\x1b[2J" + "x" * 100_000)
    (problem,) = errors.problems()
    assert len(str(problem)) < 1000
    assert str(problem).isprintable()
    text = LineFormatter().format(caplog.records[0])
    assert len(text) < 40_000
    assert "\x1b" not in text
    assert all(line.startswith("    ") for line in text.splitlines()[1:])


def test_an_endless_recursion_is_logged_with_few_frames(probes: Bulkhead, caplog: pytest.LogCaptureFixture) -> None:
    def down(depth: int) -> int:
        return up(depth + 1)

    def up(depth: int) -> int:
        return down(depth + 1)

    with probes.contain("a"):
        down(0)
    assert "RecursionError" in LineFormatter().format(caplog.records[0])
    assert len(LineFormatter().format(caplog.records[0]).splitlines()) < 200


def test_problems_are_bounded(probes: Bulkhead, errors: InternalErrors) -> None:
    for number in range(10 * MAX_PROBLEMS):
        with probes.contain(f"probe {number:03d}"):
            raise ValueError
    assert len(errors.problems()) == MAX_PROBLEMS
    assert errors.problems()[-1].subject == f"probes, probe {10 * MAX_PROBLEMS - 1:03d}"
    assert errors.counts()[DaemonPart.PROBES] == 10 * MAX_PROBLEMS


async def test_work_returns_its_result_or_none(probes: Bulkhead) -> None:
    async def work(number: int) -> int:
        return 12 // number

    assert await probes.run("a", work, 4) == 3
    assert await probes.run("a", work, 0) is None


async def test_callbacks_and_methods_end_alone(probes: Bulkhead, errors: InternalErrors) -> None:
    class Protocol:
        def __init__(self) -> None:
            self.seen: list[bytes] = []

        @probes.method
        def data_received(self, data: bytes) -> None:
            """Process data."""
            self.seen.append(data)
            raise ValueError

    protocol = Protocol()
    protocol.data_received(b"x")
    assert protocol.seen == [b"x"]
    assert Protocol.data_received.__doc__ == "Process data."
    done = asyncio.Event()
    loop = asyncio.get_running_loop()
    loop.call_soon(probes.callback(protocol.seen.remove, "remove"), b"y")
    loop.call_soon(probes.callback(done.set))
    await done.wait()
    assert [problem.subject for problem in errors.problems()] == [
        "probes, remove",
        "probes, test_callbacks_and_methods_end_alone.<locals>.Protocol.data_received",
    ]


class Part:
    """A part that raises what is asked for, and notes when it began."""

    def __init__(self, *ends: BaseException | None, lasts: float = 0.0) -> None:
        self.ends = list(ends)
        self.lasts = lasts
        self.began: list[float] = []

    async def run(self) -> None:
        self.began.append(asyncio.get_running_loop().time())
        await asyncio.sleep(self.lasts)
        end = self.ends.pop(0)
        if end is not None:
            raise end


@pytest.mark.looptime
async def test_a_part_that_ends_is_started_again_with_back_off(probes: Bulkhead, errors: InternalErrors) -> None:
    part = Part(*(ValueError("x") for _ in range(14)), None)
    await probes.keep_running("prober", part.run)
    pauses = [after - before for before, after in zip(part.began, part.began[1:], strict=False)]
    assert len(pauses) == 14
    for number, pause in enumerate(pauses):
        longest = min(LONGEST_PAUSE, FIRST_PAUSE * 2**number)
        assert longest / 2 - 1e-6 <= pause <= longest + 1e-6
    assert errors.counts()[DaemonPart.PROBES] == 14
    (problem,) = errors.problems()
    assert problem.code is Code.PART_ENDED
    assert problem.subject == "probes, prober"


@pytest.mark.looptime
async def test_a_part_that_ran_well_for_long_begins_with_the_first_pause(probes: Bulkhead) -> None:
    lasts = STABLE + 1  # more than the clock of a loop rounds off
    part = Part(*(ValueError() for _ in range(5)), None, lasts=lasts)
    await probes.keep_running("prober", part.run)
    assert part.began[-1] - part.began[0] < 5 * (lasts + FIRST_PAUSE) + 0.01


def test_a_part_is_a_problem_until_it_has_run_for_long(errors: InternalErrors, clock: Clock) -> None:
    errors.part_ended(DaemonPart.PROBES, "prober", ValueError(), 2.0)
    clock.now += STABLE + 1.9
    assert errors.problems()
    clock.now += 0.2
    assert not errors.problems()


@pytest.mark.parametrize("error", [SystemExit, KeyboardInterrupt])
async def test_a_part_that_is_told_to_exit_does(probes: Bulkhead, error: type[BaseException]) -> None:
    async def run() -> None:
        raise error

    with pytest.raises(error):
        await _alone(probes.keep_running("prober", run))


async def _alone(work: Awaitable[None]) -> None:
    await work


async def test_a_part_can_be_cancelled_while_it_runs_and_while_it_rests(probes: Bulkhead) -> None:
    part = Part(lasts=3600.0)
    async with asyncio.TaskGroup() as tasks:
        task = tasks.create_task(probes.keep_running("prober", part.run))
        while not part.began:
            await asyncio.sleep(0)
        task.cancel()
    assert task.cancelled()
    failing = Part(ValueError())
    async with asyncio.TaskGroup() as tasks:
        task = tasks.create_task(probes.keep_running("prober", failing.run))
        while failing.ends:
            await asyncio.sleep(0)
        task.cancel()
    assert task.cancelled()


async def test_a_group_of_exceptions_is_one_error(probes: Bulkhead, errors: InternalErrors) -> None:
    async def fail() -> None:
        raise ValueError("within")

    async def run() -> None:
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(fail())

    await probes.run("a", run)
    (problem,) = errors.problems()
    assert problem.reason == "ValueError: within"


async def test_what_a_library_raises_in_the_event_loop_is_reported(errors: InternalErrors) -> None:
    loop = asyncio.get_running_loop()
    before = loop.get_exception_handler()
    contain_event_loop(loop, errors)
    try:
        done = asyncio.Event()

        def fail() -> None:
            done.set()
            raise ValueError("in a callback")

        loop.call_soon(fail)
        await done.wait()
        await asyncio.sleep(0)
        assert errors.counts()[DaemonPart.DAEMON] == 1
        told: list[object] = []
        loop.default_exception_handler = told.append  # type: ignore[method-assign, assignment]
        loop.call_exception_handler({"message": "accept", "exception": OSError(24, "Too many open files")})
        loop.call_exception_handler({"message": "no exception"})
        assert len(told) == 2
        assert errors.counts()[DaemonPart.DAEMON] == 1
    finally:
        loop.set_exception_handler(before)
        vars(loop).pop("default_exception_handler", None)
