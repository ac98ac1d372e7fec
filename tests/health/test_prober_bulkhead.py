"""What raises in a check ends that check alone; the prober goes on, with every place of its queue."""

import asyncio
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import replace

import pytest
from typing_extensions import override

from mesh.health.prober import CommandChecker, Prober
from mesh.health.state_machine import Verdict
from mesh.health.targets import ProbeTarget
from mesh.health.timer_wheel import TimerWheel
from mesh.model.part import DaemonPart
from mesh.model.probe import Probe, ProbeKind
from mesh.model.service import EndpointKey, Health
from mesh.util.bulkhead import INTERNAL_ERRORS

HTTP = Probe(ProbeKind.HTTP, 80, startup_interval=5.0)
TARGET = ProbeTarget(HTTP, "127.0.0.11", 18080)
BAD, GOOD = ("w1", "bad"), ("w1", "good")
EXCEPTIONS = (
    ValueError("x"),
    UnicodeEncodeError("idna", "a..b", 1, 2, "label empty or too long"),
    IndexError("list index out of range"),
    ZeroDivisionError(),
    KeyError("x"),
    RecursionError(),
    ExceptionGroup("several", [ValueError("x")]),
    asyncio.InvalidStateError(),
    AssertionError(),
)


def errors() -> int:
    return INTERNAL_ERRORS.counts()[DaemonPart.PROBES]


@asynccontextmanager
async def probing(prober: Prober, targets: Mapping[EndpointKey, ProbeTarget]) -> AsyncIterator[asyncio.Task[None]]:
    prober.watch(targets)
    async with asyncio.TaskGroup() as group:
        task = group.create_task(prober.run())
        yield task
        assert not task.done(), "the prober runs on"
        task.cancel()


class Checks:
    """Checks that raise for one port, and succeed for the others."""

    def __init__(self, error: BaseException | None) -> None:
        self.error = error
        self.asked: list[int] = []

    async def __call__(self, address: str, port: int, probe: Probe, /) -> Verdict:
        self.asked.append(port)
        if port == 1 and self.error is not None:
            raise self.error
        return Verdict(True, "status 200", 0.0)


@pytest.mark.looptime
@pytest.mark.parametrize("error", EXCEPTIONS, ids=lambda error: type(error).__name__)
async def test_an_exception_in_a_check_fails_that_check_alone(error: Exception) -> None:
    checks, before = Checks(error), errors()
    prober = Prober(lambda: None, dict.fromkeys(ProbeKind, checks), max_in_flight=1)
    bad = replace(TARGET, port=1, begins=Health.HEALTHY)
    async with probing(prober, {BAD: bad, GOOD: replace(TARGET, port=2)}):
        await asyncio.sleep(31)
        assert prober.health() == {BAD: Health.UNHEALTHY, GOOD: Health.HEALTHY}
        assert checks.asked.count(1) == errors() - before >= 6
        (reason,) = {verdict.reason for verdict in prober.history(BAD)}
        assert reason.startswith("the check failed: ")
        assert any(problem.subject == "probes, probe of bad" for problem in INTERNAL_ERRORS.problems())
        checks.error = None
        await asyncio.sleep(11)
        assert prober.health() == {BAD: Health.HEALTHY, GOOD: Health.HEALTHY}
        assert not any(problem.subject == "probes, probe of bad" for problem in INTERNAL_ERRORS.problems())


@pytest.mark.looptime
async def test_a_lack_of_memory_is_no_verdict() -> None:
    checks = Checks(MemoryError())
    prober = Prober(lambda: None, dict.fromkeys(ProbeKind, checks))
    async with probing(prober, {BAD: replace(TARGET, port=1, begins=Health.HEALTHY)}):
        await asyncio.sleep(31)
        assert checks.asked.count(1) >= 6
        assert prober.health() == {BAD: Health.HEALTHY}
        assert prober.history(BAD) == ()


@pytest.mark.parametrize("error", [SystemExit, KeyboardInterrupt])
def test_what_ends_the_process_passes(error: type[BaseException]) -> None:
    async def probe() -> None:
        prober = Prober(lambda: None, dict.fromkeys(ProbeKind, Checks(error())))
        prober.watch({BAD: replace(TARGET, port=1, probe=replace(HTTP, interval=0.1, startup_interval=0.1))})
        await prober.run()

    with pytest.raises(error):
        asyncio.run(probe())


@pytest.mark.looptime
async def test_an_exception_in_a_command_check_fails_that_check_alone() -> None:
    class Broken(CommandChecker):
        @override
        async def __call__(self, id: str, probe: Probe, /) -> Verdict | None:
            raise LookupError(id)

    prober = Prober(lambda: None, dict.fromkeys(ProbeKind, Checks(None)), commands=Broken())
    command = Probe(ProbeKind.COMMAND, None, command="true")
    async with probing(prober, {BAD: ProbeTarget(command, "127.0.0.1", 1, Health.HEALTHY), GOOD: TARGET}):
        await asyncio.sleep(31)
        assert prober.health() == {BAD: Health.UNHEALTHY, GOOD: Health.HEALTHY}


@pytest.mark.looptime
async def test_a_request_that_cannot_be_built_fails_its_endpoint_alone() -> None:
    """Plain checks run in a batch, without a task of their own."""
    prober = Prober(lambda: None)
    bad = ProbeTarget(replace(HTTP, host="b\u00fccher.example"), "127.0.0.1", 1, Health.HEALTHY)
    worse = replace(bad, address="not an address")
    async with probing(prober, {BAD: bad, ("w1", "worse"): worse}):
        await asyncio.sleep(31)
        assert set(prober.health().values()) == {Health.UNHEALTHY}


@pytest.mark.looptime
async def test_an_interval_that_no_gate_lets_through_stops_nothing() -> None:
    checks = Checks(None)
    prober = Prober(lambda: None, dict.fromkeys(ProbeKind, checks))
    odd = {
        ("w1", str(interval)): replace(
            TARGET, port=3, probe=replace(HTTP, interval=interval, startup_interval=interval)
        )
        for interval in (0.0, float("nan"), float("inf"))
    }
    async with probing(prober, {**odd, GOOD: replace(TARGET, port=2)}):
        await asyncio.sleep(31)
        assert prober.health()[GOOD] is Health.HEALTHY
        assert checks.asked.count(2) >= 6


@pytest.mark.looptime
async def test_a_prober_that_ended_begins_again_with_every_target(monkeypatch: pytest.MonkeyPatch) -> None:
    checks = Checks(None)
    prober = Prober(lambda: None, dict.fromkeys(ProbeKind, checks), max_in_flight=2)
    real = TimerWheel.due
    failures = 0

    def due(wheel: TimerWheel[EndpointKey], now: float) -> list[EndpointKey]:
        nonlocal failures
        keys = real(wheel, now)
        if keys and failures < 2:
            failures += 1
            raise RuntimeError("the wheel is broken")  # the keys have left it
        return keys

    monkeypatch.setattr(TimerWheel, "due", due)
    targets = {("w1", str(n)): replace(TARGET, port=n) for n in range(2, 12)}
    async with probing(prober, targets):
        await asyncio.sleep(20)
        assert set(prober.health().values()) == {Health.HEALTHY}
        assert prober.figures().in_flight == 0
    assert failures == 2, "it ended twice"


async def test_plain_checks_in_flight_are_made_again_when_the_prober_begins_again() -> None:
    """Their batch is gone with the run that ended."""
    calls = 0

    def on_change() -> None:
        nonlocal calls
        calls += 1
        if calls == 1:
            raise RuntimeError("the first change is lost")

    async def answer(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.close()

    async def hang(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        del writer

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    silent = await asyncio.start_server(hang, "127.0.0.1", 0)
    quick = Probe(ProbeKind.TCP, 1, interval=0.1, timeout=1.0)
    slow = replace(quick, kind=ProbeKind.HTTP, timeout=60.0)
    prober = Prober(on_change, max_in_flight=4)
    targets = {
        ("w1", "quick"): ProbeTarget(quick, "127.0.0.1", server.sockets[0].getsockname()[1]),
        ("w1", "slow"): ProbeTarget(slow, "127.0.0.1", silent.sockets[0].getsockname()[1]),
    }
    try:
        async with probing(prober, targets):
            async with asyncio.timeout(20):
                while calls < 1 or prober.stats.checks < 8:
                    await asyncio.sleep(0.02)
            assert prober.figures().in_flight <= 2
            assert prober.health()["w1", "quick"] is Health.HEALTHY
    finally:
        server.close()
        silent.close()


async def test_targets_may_go_while_their_next_check_begins_before_the_last_has_landed() -> None:
    """A busy event loop runs the prober between the end of a check and the callback of its task."""
    loop = asyncio.get_running_loop()
    quick = Probe(ProbeKind.GRPC, 80, interval=0.05, timeout=0.05, startup_interval=0.05)
    first, second = ("w1", "first"), ("w1", "second")
    targets = {first: ProbeTarget(quick, "127.0.0.1", 1), second: ProbeTarget(quick, "127.0.0.1", 2)}
    begun = [0, 0, 0]
    dropped = asyncio.Event()

    def drop() -> None:
        prober.watch({second: targets[second]})
        dropped.set()

    async def check(address: str, port: int, probe: Probe, /) -> Verdict:
        begun[port] += 1
        if port == 2 and not dropped.is_set():
            time.sleep(0.12)  # the next check of the first is due before its task has landed
        elif port == 1 and begun[1] > 1:
            loop.call_soon(drop)
            await asyncio.sleep(0)
            await asyncio.sleep(0)
        return Verdict(False, "refused", 0.0)

    prober = Prober(lambda: None, dict.fromkeys(ProbeKind, check), max_in_flight=8)
    before = errors()
    async with probing(prober, targets) as task:
        async with asyncio.timeout(10):
            await dropped.wait()
            so_far = begun[2]
            while begun[2] < so_far + 5 and not task.done():
                await asyncio.sleep(0.01)
        assert prober.health().keys() == {second}
        prober.watch({})
        async with asyncio.timeout(10):
            while prober.figures().in_flight:
                await asyncio.sleep(0.01)
        assert prober.figures().waiting == 0
    assert errors() == before
