"""The command check on a fake runner: verdicts, limits of concurrency and rate, and commands that could not run."""

import asyncio

import pytest

from mesh.health.checks.command import MAX_CONCURRENT_COMMANDS, CommandCheck
from mesh.health.prober import Prober
from mesh.health.targets import ProbeTarget
from mesh.model.probe import Probe, ProbeKind
from mesh.model.service import Health

PROBE = Probe(ProbeKind.COMMAND, None, command="check", timeout=1.0, interval=5.0)


class FakeRunner:
    """Takes `seconds` for every command, then gives `answer`."""

    def __init__(self, answer: tuple[int, str] | None = (0, ""), seconds: float = 0.0) -> None:
        self.answer = answer
        self.seconds = seconds
        self.begun: list[float] = []
        self.running = 0
        self.most = 0

    async def run(self, endpoint: str, command: str, seconds: float) -> tuple[int, str] | None:
        assert command == "check"
        self.begun.append(asyncio.get_running_loop().time())
        self.running += 1
        self.most = max(self.most, self.running)
        try:
            async with asyncio.timeout(seconds):
                await asyncio.sleep(self.seconds)
        finally:
            self.running -= 1
        return self.answer


@pytest.mark.parametrize(
    ("answer", "ok", "reason"),
    [
        ((0, "fine\n"), True, "exit status 0"),
        ((1, ""), False, "exit status 1"),
        ((2, "first\nno such table\n\n"), False, "exit status 2: no such table"),
        ((1, "a\x1b[31mb" + "x" * 100), False, "exit status 1: a?[31mb" + "x" * 53),
    ],
)
async def test_the_exit_status_decides(answer: tuple[int, str], ok: bool, reason: str) -> None:
    verdict = await CommandCheck(FakeRunner(answer))("e", PROBE)
    assert verdict is not None
    assert (verdict.ok, verdict.reason) == (ok, reason)


@pytest.mark.looptime
async def test_a_command_that_takes_too_long_failed() -> None:
    verdict = await CommandCheck(FakeRunner(seconds=2.0))("e", PROBE)
    assert verdict is not None
    assert (verdict.ok, verdict.reason) == (False, "no end in 1 s")


@pytest.mark.looptime
async def test_concurrency_is_limited_and_waiting_does_not_count_towards_the_timeout() -> None:
    runner = FakeRunner(seconds=0.9)
    check = CommandCheck(runner)
    verdicts = await asyncio.gather(*(check(f"e{n}", PROBE) for n in range(20)))
    assert all(verdict is not None and verdict.ok for verdict in verdicts)
    assert runner.most == MAX_CONCURRENT_COMMANDS


@pytest.mark.looptime
async def test_commands_start_no_faster_than_the_rate_limit() -> None:
    runner = FakeRunner(seconds=0.001)
    check = CommandCheck(runner, at_once=100, rate=20.0)
    await asyncio.gather(*(check(f"e{n}", PROBE) for n in range(60)))
    assert all(sum(start <= at < start + 1 for at in runner.begun) <= 21 for start in runner.begun)
    assert runner.begun[-1] - runner.begun[0] < 3.1


@pytest.mark.looptime
async def test_a_command_that_could_not_run_changes_no_health() -> None:
    runner = FakeRunner()
    prober = Prober(lambda: None, {}, commands=CommandCheck(runner))
    prober.watch({("w1", "e"): ProbeTarget(PROBE, "10.2.0.1", 80)})
    async with asyncio.TaskGroup() as tasks:
        running = tasks.create_task(prober.run())
        await asyncio.sleep(2)
        assert prober.health() == {("w1", "e"): Health.HEALTHY}
        for answer, health in ((None, Health.HEALTHY), ((1, ""), Health.UNHEALTHY), (None, Health.UNHEALTHY)):
            runner.answer = answer
            await asyncio.sleep(25)
            assert prober.health() == {("w1", "e"): health}
        running.cancel()
