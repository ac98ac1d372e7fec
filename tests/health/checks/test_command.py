"""The command check on a fake runner: verdicts, limits of concurrency and rate, and commands that could not run."""

import asyncio
from collections import Counter
from dataclasses import replace

import pytest

from mesh.health.checks.command import MAX_CONCURRENT_COMMANDS, CommandCheck
from mesh.health.checks.command_places import SLOW_PLACES
from mesh.health.prober import Prober
from mesh.health.state_machine import Verdict
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


class HangingRunner:
    """Commands of services whose name begins with `bad` never end; others exit with status 1 at once."""

    def __init__(self) -> None:
        self.begun: list[tuple[float, str]] = []
        self.running: Counter[str] = Counter()
        self.most: Counter[str] = Counter()

    async def run(self, endpoint: str, command: str, seconds: float) -> tuple[int, str] | None:
        self.begun.append((asyncio.get_running_loop().time(), endpoint))
        for each in ("all", endpoint.rpartition("/")[0]):
            self.running[each] += 1
            self.most[each] = max(self.most[each], self.running[each])
        try:
            async with asyncio.timeout(seconds):
                await asyncio.sleep(86_400 if endpoint.startswith("bad") else 0)
        finally:
            self.running.subtract(("all", endpoint.rpartition("/")[0]))
        return 1, ""


DAY = replace(PROBE, timeout=86_400.0)


@pytest.mark.looptime
@pytest.mark.parametrize("services", [1, 4, 20, 100])
@pytest.mark.parametrize("endpoints", [1, 4])
async def test_commands_that_hang_delay_those_of_another_service_little(services: int, endpoints: int) -> None:
    runner = HangingRunner()
    check = CommandCheck(runner)

    async def again(key: str) -> None:
        while True:
            assert await check(key, DAY) is None, "a place that was taken away says nothing about the endpoint"
            await asyncio.sleep(1)

    async with asyncio.TaskGroup() as tasks:
        names = [f"bad{service}/web/{endpoint}" for service in range(services) for endpoint in range(endpoints)]
        await check("good/web/1", PROBE)
        hanging = [tasks.create_task(again(name)) for name in names]
        for _ in range(50):
            began = asyncio.get_running_loop().time()
            verdict = await check("good/web/1", PROBE)
            assert verdict is not None
            assert verdict.reason == "exit status 1"
            assert asyncio.get_running_loop().time() - began <= 1.5
            await asyncio.sleep(0.7)
        for task in hanging:
            task.cancel()
    assert runner.most["all"] <= MAX_CONCURRENT_COMMANDS + SLOW_PLACES
    assert runner.running["all"] == 0
    assert (await check("good/web/1", PROBE)) is not None, "all places are free again"


@pytest.mark.looptime
async def test_a_slow_command_that_is_in_nobodys_way_runs_to_its_end() -> None:
    check = CommandCheck(FakeRunner(seconds=900.0))
    verdict = await check("a/b/1", DAY)
    assert verdict is not None
    assert verdict.ok


@pytest.mark.looptime
async def test_services_get_the_same_share_of_the_starts() -> None:
    """A service with a thousand endpoints does not delay one with a single endpoint by more than a few turns."""
    runner = HangingRunner()
    check = CommandCheck(runner)
    many = [asyncio.ensure_future(check(f"large/web/{number}", PROBE)) for number in range(1000)]
    await asyncio.sleep(0)
    began = asyncio.get_running_loop().time()
    await check("small/web/1", PROBE)
    assert asyncio.get_running_loop().time() - began < 0.5
    await asyncio.gather(*many)
    assert len(runner.begun) == 1001


@pytest.mark.looptime
async def test_cancelled_waiting_commands_leave_no_place_taken() -> None:
    runner = HangingRunner()
    check = CommandCheck(runner)
    tasks = [asyncio.ensure_future(check(f"bad/web/{number}", DAY)) for number in range(100)]
    await asyncio.sleep(5)
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    assert runner.running["all"] == 0
    began = asyncio.get_running_loop().time()
    await asyncio.gather(*(check(f"good/web/{number}", PROBE) for number in range(20)))
    assert asyncio.get_running_loop().time() - began < 1.5


@pytest.mark.looptime
async def test_waiting_commands_take_no_place_of_other_checks() -> None:
    asked: list[float] = []

    async def network(address: str, port: int, probe: Probe, /) -> Verdict:
        asked.append(asyncio.get_running_loop().time())
        return Verdict(True, "connected", 0.0)

    prober = Prober(
        lambda: None, dict.fromkeys(ProbeKind, network), max_in_flight=4, commands=CommandCheck(HangingRunner())
    )
    hanging = {("w1", f"bad/web/{number}"): ProbeTarget(DAY, "10.2.0.1", 80) for number in range(50)}
    web = ProbeTarget(Probe(ProbeKind.TCP, 80, interval=1.0), "10.2.0.2", 80)
    prober.watch({**hanging, ("w1", "good/web/1"): web})
    async with asyncio.TaskGroup() as tasks:
        running = tasks.create_task(prober.run())
        await asyncio.sleep(60)
        running.cancel()
    assert len(asked) >= 55
