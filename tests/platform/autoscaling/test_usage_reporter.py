"""The part of the daemon that tells usage: off while no service is scaled, and whole again after each failure."""

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, field

import pytest
from typing_extensions import override

from mesh.model.codes import Code
from mesh.model.part import DaemonPart, ProblemPart
from mesh.model.service import Instance
from mesh.platform.autoscaling.cgroup_files import CgroupLimits, CgroupUsage, ContainerCgroup
from mesh.platform.autoscaling.cgroup_reader import CgroupSource
from mesh.platform.autoscaling.usage_records import decode_usages
from mesh.platform.autoscaling.usage_reporter import (
    INTERVAL,
    ContainerProcessId,
    ScaledInstance,
    UsageReporter,
    has_scaling_labels,
)
from mesh.platform.autoscaling.usage_sampler import UsageSampler
from mesh.store import StoreError
from mesh.store.usage import LocalUsageStore
from mesh.util.bulkhead import INTERNAL_ERRORS
from mesh.util.conditions import Conditions

ID = "a" * 64


def instance(name: str = ID[:12], run: str = "first", **labels: str) -> Instance:
    written = {f"mesh.{key}": value for key, value in labels.items()}
    return Instance(f"shop/web/{name}", "shop/web", "10.2.0.1", written, run=run)


class CountingCgroups(CgroupSource):
    """Every container uses half a core."""

    def __init__(self) -> None:
        self.used = 0

    @override
    def find(self, container: str, pid: int) -> ContainerCgroup | None:
        return ContainerCgroup(2, container, container, container) if pid == 7 else None

    @override
    def usage(self, cgroup: ContainerCgroup) -> CgroupUsage | None:
        self.used += int(INTERVAL * 0.5e9)
        return CgroupUsage(self.used)

    @override
    def limits(self, cgroup: ContainerCgroup) -> CgroupLimits:
        return CgroupLimits()


class FailingUsageStore(LocalUsageStore):
    """Refuses while it is told to."""

    is_away = False

    def __init__(self) -> None:
        super().__init__(lambda: 0.0)
        self.written = asyncio.Event()

    @override
    async def write(self, key: str, value: bytes) -> None:
        if self.is_away:
            raise StoreError(Code.STORE_UNREACHABLE, "the store does not answer; start it")
        await super().write(key, value)
        self.written.set()


@dataclass
class Lab:
    """A reporter with what it asks."""

    scaled: list[ScaledInstance] = field(default_factory=list)
    processes: dict[str, int] = field(default_factory=lambda: {ID[:12]: 7})
    searches: list[str] = field(default_factory=list)
    opened: int = 0

    def __post_init__(self) -> None:
        self.store = FailingUsageStore()
        self.conditions = Conditions()
        self.reporter = UsageReporter(
            "w1",
            lambda: self.scaled,
            find_process=self.find,
            make_sampler=lambda: UsageSampler(CountingCgroups(), "run", 0),
            open_store=self.open,
            conditions=self.conditions,
        )

    async def find(self, container: str) -> ContainerProcessId | None:
        self.searches.append(container)
        pid = self.processes.get(container)
        return None if pid is None else ContainerProcessId(ID, pid)

    async def open(self) -> FailingUsageStore:
        self.opened += 1
        return self.store

    @property
    def codes(self) -> list[Code]:
        return [problem.code for problem in self.conditions.problems.get(ProblemPart.AUTOSCALING, ())]

    async def told(self) -> Mapping[str, int | None]:
        """Thousandths of a core of each container that the store knows."""
        usages = decode_usages(await self.store.read())
        return {each.id: each.cpu for each in usages["w1"].services.get("shop/web", ())} if usages else {}


def scaled(run: str = "first") -> ScaledInstance:
    return ScaledInstance(instance(run=run, **{"auto_scaling.max_cpu": "70"}), is_probed=False, has_served=False)


@pytest.mark.parametrize("prefix", ["mesh.", "aliyun."])
def test_labels_of_autoscaling_switch_it_on(prefix: str) -> None:
    on = Instance("x", "shop/web", "10.2.0.1", {f"{prefix}auto_scaling.max_cpu": "70"})
    assert has_scaling_labels(on)
    assert not has_scaling_labels(instance(scale="2"))


async def test_without_a_scaled_service_nothing_is_opened_or_asked() -> None:
    lab = Lab()
    await lab.reporter.report()
    assert (lab.opened, lab.searches) == (0, [])


@pytest.mark.looptime
async def test_usage_is_told_every_ten_seconds() -> None:
    lab = Lab([scaled()])
    task = asyncio.ensure_future(lab.reporter.run())
    await lab.store.written.wait()  # without a limit: virtual time would be over before a thread is
    assert await lab.told() == {ID: None}, "there is no sample before"
    lab.store.written.clear()
    await lab.store.written.wait()
    told = await lab.told()
    assert told.keys() == {ID}
    assert told[ID] == pytest.approx(500, rel=0.2)
    assert lab.searches == [ID[:12]], "the engine is asked once for each run"
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    assert await lab.store.read() == {}, "the store is closed"


async def test_a_container_that_started_again_is_looked_for_again() -> None:
    lab = Lab([scaled()])
    await lab.reporter.report()
    lab.scaled = [scaled("second")]
    await lab.reporter.report()
    assert lab.searches == [ID[:12]] * 2


@pytest.mark.parametrize("processes", [{}, {ID[:12]: 8}], ids=["unknown to the engine", "without a visible cgroup"])
async def test_a_container_without_usage_is_a_problem_until_it_has_some(processes: dict[str, int]) -> None:
    lab = Lab([scaled()], processes)
    await lab.reporter.report()
    assert lab.codes == [Code.USAGE_UNREADABLE]
    assert await lab.told() == {}
    lab.scaled = []
    await lab.reporter.report()
    assert lab.codes == []


async def test_a_store_that_is_away_is_a_problem_until_it_answers() -> None:
    lab = Lab([scaled()])
    lab.store.is_away = True
    await lab.reporter.report()
    assert lab.codes == [Code.USAGE_NOT_WRITTEN]
    lab.store.is_away = False
    await lab.reporter.report()
    assert lab.codes == []
    assert (await lab.told()).keys() == {ID}


@pytest.mark.looptime
async def test_an_unexpected_error_ends_one_round_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    lab = Lab([scaled()])
    before = INTERNAL_ERRORS.counts().get(DaemonPart.AUTOSCALING, 0)
    find = lab.reporter.report
    rounds = iter([True, False])

    async def report() -> None:
        if next(rounds, False):
            raise ValueError("unexpected")
        await find()

    monkeypatch.setattr(lab.reporter, "report", report)
    task = asyncio.ensure_future(lab.reporter.run())
    await lab.store.written.wait()
    assert (await lab.told()).keys() == {ID}
    assert INTERNAL_ERRORS.counts()[DaemonPart.AUTOSCALING] == before + 1
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
