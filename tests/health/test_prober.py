"""When the prober checks endpoints and what it makes of the results, in virtual time."""

import asyncio
import logging
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import cast

import pytest
from looptime import LoopTimeEventLoop

from mesh.health.prober import Prober
from mesh.health.state_machine import Verdict
from mesh.health.targets import ProbeTarget
from mesh.health.timer_wheel import first_due
from mesh.model.probe import Probe, ProbeKind
from mesh.model.service import EndpointKey, Health
from mesh.testing.probes import FakeCheck

pytestmark = pytest.mark.looptime

PROBE = Probe(ProbeKind.HTTP, 80, startup_interval=5.0)  # 0 s delay, 2 s timeout, 5 s interval, 2 successes, 3 failures
A = ProbeTarget(PROBE, "127.0.0.11", 18080)
B = ProbeTarget(PROBE, "127.0.0.12", 18080)
KEY_A, KEY_B, SLOW, QUICK, SERVER = (("w1", id) for id in ("a", "b", "slow", "quick", "server-1"))
SLOT = 0.1


class Running:
    """A prober that runs against a fake, and how often it called back."""

    def __init__(self, max_in_flight: int = 256) -> None:
        self.check = FakeCheck()
        self.changes: list[Mapping[EndpointKey, Health]] = []
        checks = dict.fromkeys(ProbeKind, self.check)
        self.prober = Prober(lambda: self.changes.append(self.prober.health()), checks, max_in_flight)

    def times(self, target: ProbeTarget) -> list[float]:
        return self.check.times(target.address, target.port)

    def answer(self, target: ProbeTarget, ok: bool, duration: float = 0.0) -> None:
        self.check.set(target.address, target.port, ok, "status 200" if ok else "status 503", duration)


@asynccontextmanager
async def running(targets: Mapping[EndpointKey, ProbeTarget], max_in_flight: int = 256) -> AsyncIterator[Running]:
    subject = Running(max_in_flight)
    subject.prober.watch(targets)
    async with asyncio.TaskGroup() as group:
        task = group.create_task(subject.prober.run())
        yield subject
        task.cancel()


def now() -> float:
    return asyncio.get_running_loop().time()


async def test_first_check_after_the_delay_then_each_interval() -> None:
    target = replace(A, probe=replace(PROBE, initial_delay=3.0))
    begun = now()
    async with running({KEY_A: target}) as subject:
        await asyncio.sleep(18)
        times = subject.times(target)
    first = first_due("a", begun, 3.0, 5.0)
    assert begun + 3.0 <= first < begun + 3.5
    assert len(times) == 3
    for number, asked in enumerate(times):
        assert 0 <= asked - (first + 5.0 * number) <= SLOT + 1e-6


async def test_the_first_success_makes_a_starting_endpoint_healthy() -> None:
    async with running({KEY_A: A}) as subject:
        assert subject.prober.health() == {KEY_A: Health.STARTING}
        await asyncio.sleep(12)  # three refusals
        assert len(subject.times(A)) == 3
        assert subject.prober.health() == {KEY_A: Health.STARTING}
        assert not subject.changes
        subject.answer(A, ok=True)
        await asyncio.sleep(5)
        assert subject.changes == [{KEY_A: Health.HEALTHY}]


async def test_checks_are_counted_by_result() -> None:
    async with running({KEY_A: A, KEY_B: B}, max_in_flight=1) as subject:
        subject.answer(A, False, duration=0.25)
        subject.answer(B, True, duration=0.25)
        before = subject.prober.figures()
        await asyncio.sleep(20)
        found = subject.prober.figures()
    assert sum(before.verdicts.values()) == 0, "it was a copy"
    assert found.verdicts[ProbeKind.HTTP, False] == len(subject.times(A)) - found.in_flight > 2
    assert found.seconds.total == pytest.approx(0.25 * found.verdicts.total())


async def test_thresholds_set_the_time_to_become_unhealthy_and_healthy(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    async with running({SERVER: replace(A, begins=Health.HEALTHY)}) as subject:
        assert subject.prober.health() == {SERVER: Health.HEALTHY}
        await asyncio.sleep(9.9)  # two failures
        assert subject.prober.health() == {SERVER: Health.HEALTHY}
        await asyncio.sleep(1)
        assert subject.prober.health() == {SERVER: Health.UNHEALTHY}
        subject.answer(A, ok=True)
        await asyncio.sleep(5)
        assert subject.prober.health() == {SERVER: Health.UNHEALTHY}
        await asyncio.sleep(5)
        assert subject.prober.health() == {SERVER: Health.HEALTHY}
        assert [verdict.ok for verdict in subject.prober.history(SERVER)] == [False] * 3 + [True] * 2
        assert [verdict.at for verdict in subject.prober.history(SERVER)] == subject.times(A)
    assert [record.getMessage() for record in caplog.records] == [
        "probe: server-1 127.0.0.11:18080 unhealthy: refused (3 of 3)",
        "probe: server-1 127.0.0.11:18080 healthy: status 200 (2 of 2)",
    ]
    assert [record.levelno for record in caplog.records] == [logging.WARNING, logging.INFO]


async def test_a_slow_endpoint_delays_no_other_and_has_one_check_at_a_time() -> None:
    slow = replace(A, probe=replace(PROBE, timeout=12.0))
    async with running({SLOW: slow, QUICK: B}) as subject:
        subject.answer(slow, ok=True, duration=11.0)
        subject.answer(B, ok=True)
        begun = now()
        await asyncio.sleep(30)
        # 11 s of a 5 s rhythm: two beats are missed, the third is kept.
        assert [round(asked - subject.times(slow)[0]) for asked in subject.times(slow)] == [0, 15]
        first = first_due("quick", begun, 0.0, 5.0)
        assert [round((asked - first) / 5.0, 1) for asked in subject.times(B)] == [0, 1, 2, 3, 4, 5]
        assert subject.prober.health() == {SLOW: Health.HEALTHY, QUICK: Health.HEALTHY}


async def test_another_run_resets_the_health_and_one_that_is_not_known_does_not() -> None:
    first, second = replace(A, run="1"), replace(A, run="2")
    async with running({KEY_A: A}) as subject:
        subject.answer(A, ok=True)
        await asyncio.sleep(12)
        for same in (first, A, first):
            subject.prober.watch({KEY_A: same})
            assert subject.prober.health() == {KEY_A: Health.HEALTHY}
        subject.prober.watch({KEY_A: A})
        subject.prober.watch({KEY_A: second})
        assert subject.prober.health() == {KEY_A: Health.STARTING}, "the run before the unknown one counts"
        assert subject.prober.history(KEY_A) == ()
        await asyncio.sleep(12)
        assert subject.prober.health() == {KEY_A: Health.HEALTHY}


async def test_simultaneous_changes_are_reported_together() -> None:
    targets = {("w1", f"e{number}"): replace(A, port=number) for number in range(1, 101)}
    async with running(targets) as subject:
        for target in targets.values():
            subject.answer(target, ok=True)
        await asyncio.sleep(1)
        assert set(subject.prober.health().values()) == {Health.HEALTHY}
        assert len(subject.changes) <= 6  # the slots of the first half second
        assert subject.changes[-1] == subject.prober.health()


async def test_checks_in_flight_are_bounded_and_every_endpoint_is_checked() -> None:
    targets = {("w1", f"e{number}"): replace(A, port=number) for number in range(1, 41)}
    async with running(targets, max_in_flight=8) as subject:
        for target in targets.values():
            subject.answer(target, ok=True, duration=0.7)
        await asyncio.sleep(4.9)
        assert subject.check.most_in_flight == 8
        assert [len(subject.times(target)) for target in targets.values()] == [1] * 40
        assert set(subject.prober.health().values()) == {Health.HEALTHY}
        # The wait for a turn is not the endpoint's time.
        assert all(subject.prober.history(key)[0].duration == 0.7 for key in targets)


async def test_a_suspended_process_checks_each_endpoint_once_and_resumes_the_interval() -> None:
    begun = now()
    async with running({KEY_A: A, KEY_B: B}) as subject:
        await asyncio.sleep(1)
        cast(LoopTimeEventLoop, asyncio.get_running_loop()).setup_looptime(start=begun + 303)
        await asyncio.sleep(9)
        for key, target in ((KEY_A, A), (KEY_B, B)):
            first = first_due(key[1], begun, 0.0, 5.0)
            before, late, *after = subject.times(target)
            assert before - first <= SLOT
            assert late == pytest.approx(begun + 303, abs=SLOT)
            assert after == pytest.approx([first + 305, first + 310], abs=SLOT + 1e-6)


async def test_the_same_targets_again_change_nothing() -> None:
    async with running({KEY_A: A}) as subject:
        subject.answer(A, ok=True)
        await asyncio.sleep(1)
        for _ in range(40):
            subject.prober.watch({KEY_A: replace(A)})
            await asyncio.sleep(0.25)
        assert subject.prober.health() == {KEY_A: Health.HEALTHY}
        assert len(subject.times(A)) == 3
        assert len(subject.changes) == 1


async def test_a_new_address_resets_the_health_and_a_new_threshold_does_not() -> None:
    async with running({KEY_A: A}) as subject:
        subject.answer(A, ok=True)
        await asyncio.sleep(1)
        subject.prober.watch({KEY_A: replace(A, probe=replace(PROBE, unhealthy_threshold=1))})
        assert subject.prober.health() == {KEY_A: Health.HEALTHY}
        assert len(subject.prober.history(KEY_A)) == 1
        subject.answer(A, ok=False)
        await asyncio.sleep(5)
        assert subject.prober.health() == {KEY_A: Health.UNHEALTHY}
        subject.prober.watch({KEY_A: replace(A, port=18081)})
        assert subject.prober.health() == {KEY_A: Health.STARTING}
        assert subject.prober.history(KEY_A) == ()


async def test_a_shorter_interval_takes_effect_at_once() -> None:
    slow = replace(A, probe=replace(PROBE, interval=3600.0, startup_interval=3600.0))
    async with running({KEY_A: slow}) as subject:
        await asyncio.sleep(400)
        assert len(subject.times(A)) == 1
        subject.prober.watch({KEY_A: A})
        await asyncio.sleep(5.2)
        assert len(subject.times(A)) == 2


async def test_a_removed_endpoint_cancels_its_check_in_flight() -> None:
    async with running({KEY_A: A, KEY_B: B}) as subject:
        subject.answer(A, ok=True, duration=1.5)
        subject.answer(B, ok=True)
        await asyncio.sleep(1)
        assert subject.check.in_flight == 1
        subject.prober.watch({KEY_B: B})
        await asyncio.sleep(0.1)
        assert subject.check.in_flight == 0
        assert len(subject.check.cancelled) == 1
        await asyncio.sleep(20)
        assert subject.prober.health() == {KEY_B: Health.HEALTHY}
        assert subject.prober.history(KEY_A) == ()
        assert len(subject.times(A)) == 1
        assert len(subject.times(B)) == 5


async def test_an_endpoint_removed_between_two_checks_is_not_checked_again() -> None:
    async with running({KEY_A: A, KEY_B: B}) as subject:
        await asyncio.sleep(1)
        subject.prober.watch({KEY_B: B})
        await asyncio.sleep(10)
        assert len(subject.times(A)) == 1
        assert len(subject.times(B)) == 3


async def test_an_endpoint_removed_and_added_while_it_waits_is_checked_once() -> None:
    async with running({KEY_A: A, KEY_B: B}, max_in_flight=1) as subject:
        subject.answer(A, ok=True, duration=1.9)
        subject.answer(B, ok=True, duration=1.9)
        await asyncio.sleep(1)
        [busy] = subject.check.asked
        waiting = KEY_B if busy.address == A.address else KEY_A
        both = {KEY_A: A, KEY_B: B}
        subject.prober.watch({key: target for key, target in both.items() if key != waiting})
        subject.prober.watch(both)
        await asyncio.sleep(4)
        assert len(subject.times(both[waiting])) == 1


async def test_a_verdict_for_a_target_that_has_changed_does_not_count() -> None:
    async with running({KEY_A: A}) as subject:
        subject.answer(A, ok=True, duration=1.5)
        await asyncio.sleep(1)
        subject.prober.watch({KEY_A: replace(A, probe=replace(PROBE, path="/ready"))})
        await asyncio.sleep(3)
        assert subject.prober.health() == {KEY_A: Health.STARTING}
        await asyncio.sleep(4)
        assert subject.prober.health() == {KEY_A: Health.HEALTHY}


async def test_a_cancelled_prober_cancels_its_checks() -> None:
    async with running({KEY_A: A}) as subject:
        subject.answer(A, ok=True, duration=1.9)
        await asyncio.sleep(1)
        assert subject.check.in_flight == 1
    assert subject.check.in_flight == 0


async def test_the_prober_may_start_without_targets() -> None:
    async with running({}) as subject:
        await asyncio.sleep(100)
        assert subject.prober.health() == {}
        subject.prober.watch({KEY_A: A})
        await asyncio.sleep(1)
        assert len(subject.times(A)) == 1


async def test_a_verdict_of_a_cancelled_check_does_not_count() -> None:
    """A socket may have its answer at the moment in which the endpoint goes: then nothing is left to cancel."""
    over = asyncio.Event()

    async def deaf(address: str, port: int, probe: Probe) -> Verdict:
        try:
            await over.wait()
        except asyncio.CancelledError:
            await asyncio.sleep(1)
        return Verdict(True, "status 200", 0.0)

    changes: list[Mapping[EndpointKey, Health]] = []
    prober = Prober(lambda: changes.append(prober.health()), dict.fromkeys(ProbeKind, deaf))
    prober.watch({KEY_A: A})
    async with asyncio.TaskGroup() as group:
        task = group.create_task(prober.run())
        await asyncio.sleep(3)
        prober.watch({})
        await asyncio.sleep(30)
        assert not task.done()
        assert prober.health() == {}
        assert changes == []
        task.cancel()


async def test_a_starting_endpoint_is_checked_five_times_as_often() -> None:
    target = replace(A, probe=Probe(ProbeKind.HTTP, 80))
    async with running({KEY_A: target}) as subject:
        await asyncio.sleep(5)
        asked = len(subject.times(target))
        assert asked == 5
        subject.answer(target, ok=True)
        await asyncio.sleep(1.1)
        assert subject.prober.health() == {KEY_A: Health.HEALTHY}
        asked = len(subject.times(target))
        await asyncio.sleep(10)
        assert len(subject.times(target)) == asked + 2


async def test_an_endpoint_that_does_not_start_in_time_is_unhealthy_and_checked_less_often(
    caplog: pytest.LogCaptureFixture,
) -> None:
    target = replace(A, probe=Probe(ProbeKind.HTTP, 80, startup=10.0))
    async with running({KEY_A: target}) as subject:
        await asyncio.sleep(12)
        assert subject.changes == [{KEY_A: Health.UNHEALTHY}]
        asked = len(subject.times(target))
        await asyncio.sleep(50)
        assert len(subject.times(target)) == asked + 10
    assert [record.getMessage() for record in caplog.records] == [
        "probe: a 127.0.0.11:18080 unhealthy: refused (its startup time is over)"
    ]


async def test_refused_traffic_triggers_an_early_check_and_is_no_verdict() -> None:
    async with running({KEY_A: replace(A, begins=Health.HEALTHY), KEY_B: B}) as subject:
        subject.answer(A, ok=True)
        await asyncio.sleep(11)
        asked = len(subject.times(A))
        for _ in range(40):  # a flood of refusals, for 4 s
            subject.prober.suspect(A.address, A.port)
            await asyncio.sleep(0.1)
        assert 4 <= len(subject.times(A)) - asked <= 5  # once in a second, and not forty times
        assert subject.prober.health()[KEY_A] is Health.HEALTHY
        subject.answer(A, ok=False)
        before = len(subject.times(A))
        for _ in range(30):
            subject.prober.suspect(A.address, 1)  # another port of the same endpoint
            await asyncio.sleep(0.1)
        assert len(subject.times(A)) - before == 3
        assert subject.prober.health()[KEY_A] is Health.UNHEALTHY
        subject.prober.suspect("192.0.2.1", 80)  # not watched


async def test_an_endpoint_in_maintenance_is_not_checked_and_must_pass_a_check_afterwards() -> None:
    async with running({KEY_A: A, KEY_B: B}) as subject:
        subject.answer(A, ok=True, duration=1.0)
        await asyncio.sleep(2)
        assert subject.prober.health()[KEY_A] is Health.HEALTHY
        await asyncio.sleep(4)  # in the middle of a check
        subject.prober.watch({KEY_A: replace(A, aside=True), KEY_B: B})
        await asyncio.sleep(0)
        asked = len(subject.times(A))
        await asyncio.sleep(60)
        assert (len(subject.times(A)), subject.check.in_flight) == (asked, 0)
        assert len(subject.prober.history(KEY_A)) >= 1  # what it said before is still told
        subject.answer(A, ok=True)
        subject.prober.watch({KEY_A: A, KEY_B: B})
        assert subject.prober.health()[KEY_A] is Health.STARTING
        await asyncio.sleep(0.3)
        assert subject.prober.health()[KEY_A] is Health.HEALTHY


async def test_an_endpoint_in_maintenance_from_the_start_is_not_checked() -> None:
    async with running({KEY_A: replace(A, aside=True)}) as subject:
        await asyncio.sleep(30)
        assert not subject.times(A)
        subject.prober.watch({})
        assert subject.prober.health() == {}


async def test_endpoints_that_hang_do_not_delay_others() -> None:
    """A hundred that hang want ten times the room; the quick ones keep their rhythm all the same."""
    hang = {("w1", f"h{number}"): replace(A, port=number) for number in range(1, 101)}
    quick = {("w1", f"q{number}"): replace(B, port=number) for number in range(1, 21)}
    async with running({**hang, **quick}, max_in_flight=20) as subject:
        for target in hang.values():
            subject.answer(target, ok=True, duration=30.0)
        for target in quick.values():
            subject.answer(target, ok=True)
        await asyncio.sleep(30)  # until everybody is known to be quick or slow
        asked = {key: len(subject.times(target)) for key, target in quick.items()}
        late = subject.prober.stats.late
        await asyncio.sleep(50)
        assert subject.check.most_in_flight == 20
        assert all(len(subject.times(target)) - asked[key] == 10 for key, target in quick.items())
        assert all(subject.times(target) for target in hang.values())
        assert subject.prober.stats.late > late  # what waits is counted


async def test_a_gap_in_the_clock_fails_no_endpoint() -> None:
    """As when the process is suspended in the middle of a check: its timeout is over, and says nothing."""
    one = replace(A, begins=Health.HEALTHY, probe=replace(PROBE, unhealthy_threshold=1, timeout=2.0))
    async with running({KEY_A: one}) as subject:
        subject.answer(A, ok=True)
        await asyncio.sleep(4.9)
        subject.answer(A, ok=True, duration=3.0)
        while not subject.check.in_flight:
            await asyncio.sleep(0.05)
        cast(LoopTimeEventLoop, asyncio.get_running_loop()).setup_looptime(start=now() + 100)
        subject.answer(A, ok=True)
        await asyncio.sleep(3)
        assert subject.prober.health() == {KEY_A: Health.HEALTHY}
        assert not subject.changes
        assert all(verdict.ok for verdict in subject.prober.history(KEY_A))
        subject.answer(A, ok=False)
        await asyncio.sleep(5.2)
        assert subject.prober.health() == {KEY_A: Health.UNHEALTHY}


async def test_statistics_count_checks() -> None:
    async with running({KEY_A: A, KEY_B: B}) as subject:
        subject.answer(B, ok=True)
        await asyncio.sleep(9.9)
        assert (subject.prober.stats.checks, subject.prober.stats.failures, subject.prober.stats.late) == (4, 2, 0)


async def test_a_probe_whose_header_values_are_not_known_yet_is_no_verdict() -> None:
    withheld = replace(A, probe=replace(PROBE, withheld_headers=("Authorization",)), begins=Health.HEALTHY)
    async with running({KEY_A: withheld}) as subject:
        await asyncio.sleep(60)
        assert subject.times(A) == []
        assert subject.prober.health() == {KEY_A: Health.HEALTHY}
        complete = replace(withheld, probe=replace(PROBE, headers=(("Authorization", "Bearer 1"),)))
        subject.prober.watch({KEY_A: complete})
        await asyncio.sleep(20)
        assert len(subject.times(A)) >= 3
        assert subject.prober.health() == {KEY_A: Health.UNHEALTHY}
