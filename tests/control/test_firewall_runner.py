"""The control loop keeps the firewall open beside its passes: nothing of the firewall can hold them up."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace

import pytest
from typing_extensions import override

from mesh.control.conditions import LoopConditions
from mesh.control.host_upkeep import FIRST_OPENING, FirewallRunner
from mesh.host.firewall.direct_access import DirectEndpoint
from mesh.host.firewall.plan import FirewallDemand
from mesh.host.firewall.upkeep import FirewallReport
from mesh.model.codes import Code
from mesh.model.part import DaemonPart, ProblemPart
from mesh.model.problem import Problem, Severity
from mesh.model.service import Transport
from mesh.testing.firewall import FakeFirewall
from mesh.util.bulkhead import LONGEST_PAUSE, Bulkhead, InternalErrors

AUDIT = 10.0
NEEDED, NOTHING = FirewallDemand(needed=True), FirewallDemand()
MORE = FirewallDemand(frozenset(["192.0.2.1"]), needed=True)
PROBLEM = Problem(Code.FIREWALL_REPORTED, Severity.WARNING, "firewall", "it drops", "open it")

pytestmark = pytest.mark.looptime


@asynccontextmanager
async def running(
    firewall: FakeFirewall,
    conditions: LoopConditions,
    direct: Callable[[], frozenset[DirectEndpoint]] = frozenset,
) -> AsyncIterator[FirewallRunner]:
    runner = FirewallRunner(firewall, conditions, AUDIT, direct)
    async with asyncio.TaskGroup() as tasks:
        parts = [tasks.create_task(runner.run()), tasks.create_task(runner.watch())]
        yield runner
        for part in parts:
            part.cancel()


def now() -> float:
    return asyncio.get_running_loop().time()


async def test_a_demand_is_worked_on_at_once_and_again_at_each_audit() -> None:
    firewall, conditions = FakeFirewall(), LoopConditions()
    async with running(firewall, conditions) as runner:
        await asyncio.sleep(3 * AUDIT)
        assert firewall.demands == [], "before the first pass nothing is known"
        began = now()
        await runner.demand(NEEDED)
        assert (firewall.demands, now()) == ([NEEDED], began)
        await runner.demand(NEEDED)
        await asyncio.sleep(2.5 * AUDIT)
        assert firewall.demands == [NEEDED] * 3
        await runner.demand(MORE)
        await asyncio.sleep(0.1)
        runner.look_again()
        await asyncio.sleep(0.1)
        assert firewall.demands[3:] == [MORE, MORE]


async def test_a_firewall_that_hangs_holds_up_the_first_services_for_a_moment_and_nothing_else() -> None:
    firewall, conditions = FakeFirewall(), LoopConditions()
    firewall.answers.clear()
    async with running(firewall, conditions) as runner:
        began = now()
        await runner.demand(NEEDED)
        assert now() == began + FIRST_OPENING
        await runner.demand(MORE)
        await runner.demand(NOTHING)
        assert now() == began + FIRST_OPENING
        firewall.answers.set()
        await asyncio.sleep(0.1)
        assert firewall.demands == [NEEDED, NOTHING]


async def test_what_it_reports_is_logged_counted_and_shown_while_it_holds() -> None:
    firewall, conditions = FakeFirewall(), LoopConditions()
    firewall.report = FirewallReport(("opened",), ("repaired",), (PROBLEM,))
    async with running(firewall, conditions) as runner:
        await runner.demand(NEEDED)
        assert conditions.problems[ProblemPart.FIREWALL] == (PROBLEM,)
        assert conditions.repairs == 1
        firewall.report = FirewallReport()
        await asyncio.sleep(AUDIT + 0.1)
        assert conditions.problems[ProblemPart.FIREWALL] == ()


async def test_a_worker_without_a_firewall_waits_for_nothing() -> None:
    runner = FirewallRunner(None, LoopConditions(), AUDIT)
    await runner.run()
    await runner.watch()
    await runner.demand(NEEDED)


async def test_a_change_of_rules_is_looked_at_at_once_and_many_are_one() -> None:
    firewall, conditions = FakeFirewall(), LoopConditions()
    async with running(firewall, conditions) as runner:
        await runner.demand(NEEDED)
        await asyncio.sleep(3)
        for _ in range(5):
            firewall.changed.set()
            await asyncio.sleep(0.1)
        assert len(firewall.demands) == 2
        await asyncio.sleep(2)
        assert len(firewall.demands) == 3


class FirewallThatRaises(FakeFirewall):
    """Raises at its first repairs."""

    @override
    async def repair(self, demand: FirewallDemand) -> FirewallReport:
        await super().repair(demand)
        if len(self.demands) < 3:
            raise LookupError("on purpose")
        return self.report


async def test_a_repair_that_raises_is_made_again_before_the_next_audit() -> None:
    firewall, conditions, errors = FirewallThatRaises(), LoopConditions(), InternalErrors()
    runner = FirewallRunner(firewall, conditions, audit=10 * LONGEST_PAUSE)
    async with asyncio.TaskGroup() as tasks:
        running = tasks.create_task(Bulkhead(DaemonPart.HOST, errors).keep_running("firewall", runner.run))
        await runner.demand(NEEDED)
        await asyncio.sleep(LONGEST_PAUSE)
        assert firewall.demands == [NEEDED] * 3
        assert errors.counts()[DaemonPart.HOST] == 2
        await runner.demand(MORE)
        await asyncio.sleep(0.1)
        assert firewall.demands[3:] == [MORE]
        running.cancel()


async def test_endpoints_that_others_reach_directly_are_judged_at_each_look() -> None:
    firewall, direct = FakeFirewall(), [frozenset([DirectEndpoint("web.test", "172.18.0.2", 80, Transport.TCP)])]
    async with running(firewall, LoopConditions(), lambda: direct[-1]) as runner:
        await runner.demand(NEEDED)
        direct.append(frozenset())
        await asyncio.sleep(1.5 * AUDIT)
    assert firewall.demands == [replace(NEEDED, direct=each) for each in direct]


async def test_whether_the_rules_can_be_read_is_known() -> None:
    firewall = FakeFirewall()
    async with running(firewall, LoopConditions()) as runner:
        found = [runner.reads_rules]
        await runner.demand(NEEDED)
        for is_read in (False, True):
            firewall.report = FirewallReport(is_read=is_read)
            runner.look_again()
            await asyncio.sleep(0.1)
            found.append(runner.reads_rules)
    assert found == [True, False, True], "at first nothing says that they cannot be read"
    assert not FirewallRunner(None, LoopConditions(), AUDIT).reads_rules
