"""Each part of a worker raises twice: the worker programs its service all the same, and says what has failed."""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from ipaddress import ip_network
from typing import Any

import pytest

from mesh.cluster.claimer import Claimer
from mesh.cluster.record_publisher import RecordPublisher
from mesh.cluster.records.view_builder import ViewBuilder
from mesh.cluster.retained import RetainedRecords
from mesh.cluster.view_overlay import ViewOverlay
from mesh.control import dns_zone, planner
from mesh.control.cluster_follower import ClusterFollower
from mesh.control.context import ClusterState
from mesh.control.host_upkeep import UpkeepRunner
from mesh.control.pass_runner import PassRunner, PortGuard
from mesh.control.source_watcher import SourceWatcher
from mesh.control.sync import DataPlaneSync
from mesh.control.view_tracker import ViewTracker
from mesh.health.monitor import HealthMonitor
from mesh.model.problem import Severity
from mesh.model.service import Instance
from mesh.testing.dataplane import FakeDataPlane
from mesh.testing.host import FakeHost
from mesh.testing.source import FakeSource
from mesh.testing.store import MemoryCluster, MemoryStore
from mesh.testing.worker import FakeProber, FakeWorker, WorkerBed
from mesh.util.bulkhead import INTERNAL_ERRORS

pytestmark = pytest.mark.looptime

BED = WorkerBed(ip_network("10.112.0.0/24"))
WEB = Instance("shop/web/1", "shop/web", "10.1.0.1", {"mesh.routing.port_80": "web.test"})
API = Instance("shop/api/1", "shop/api", "10.1.0.2", {"mesh.routing.port_80": "api.test"})

METHODS = [
    (Claimer, "_claim"),
    (Claimer, "follow"),
    (RecordPublisher, "_records"),
    (RecordPublisher, "follow"),
    (ViewBuilder, "follow"),
    (ViewOverlay, "build"),
    (RetainedRecords, "records"),
    (RetainedRecords, "tick"),
    (RetainedRecords, "silent"),
    (ClusterFollower, "_take_view"),
    (ClusterFollower, "review"),
    (ClusterFollower, "publish_health"),
    (ClusterState, "see"),
    (ClusterState, "move"),
    (UpkeepRunner, "check"),
    (PassRunner, "adopt"),  # once per process
    (PassRunner, "run"),
    (PortGuard, "check"),
    (SourceWatcher, "_register"),
    (SourceWatcher, "instances"),
    (DataPlaneSync, "program"),
    (DataPlaneSync, "_publish_names"),
    (ViewTracker, "update"),
    (HealthMonitor, "watch"),
    (HealthMonitor, "reports"),
    (FakeDataPlane, "read"),
    (FakeDataPlane, "apply"),
    (FakeProber, "watch"),
    (MemoryStore, "register"),
    (MemoryStore, "claim"),
]
ITERATORS = [(FakeSource, "watch"), (FakeHost, "watch"), (MemoryStore, "watch")]
FUNCTIONS = [(planner, "plan_service"), (dns_zone, "dns_service")]


class Failing:
    """Raises at the first calls of a function."""

    def __init__(self, function: Callable[..., Any], times: int = 2) -> None:
        self.function = function
        self.left = times

    def check(self) -> None:
        if self.left:
            self.left -= 1
            raise RecursionError("on purpose") if self.left else LookupError("on purpose")


def errors() -> int:
    return sum(INTERNAL_ERRORS.counts().values())


@pytest.fixture(autouse=True)
def no_problem_is_left() -> Iterator[None]:
    yield
    INTERNAL_ERRORS.forget()


async def works_in_the_end(failing: Failing) -> None:
    before = errors()
    cluster, plane = MemoryCluster(), FakeDataPlane()
    names: list[set[str]] = []
    worker = FakeWorker(
        "w1", MemoryStore(cluster, "w1"), BED, plane=plane, publish=lambda parts: names.append(set(parts))
    )
    worker.runs([WEB, API])
    async with asyncio.TaskGroup() as tasks:
        running = tasks.create_task(worker.run())
        table, registered = plane.table, False
        for _ in range(600):
            await asyncio.sleep(0.1)
            table = plane.table
            registered = any(key.startswith("workers/w1/endpoints/") for key in cluster.records)
            named = bool(names) and names[-1] == {"web.test", "api.test"}
            if len(table.virtual_servers) == 2 and named and registered and not failing.left:
                break
        assert not running.done()
        assert not failing.left, "it was called too seldom"
        assert {real.address for server in table.virtual_servers.values() for real in server.real_servers} == {
            "10.1.0.1",
            "10.1.0.2",
        }
        assert names[-1] == {"web.test", "api.test"}
        assert registered
        assert errors() > before, "several at once may be one error"
        worker.runs([WEB])
        await asyncio.sleep(60)
        assert {real.address for s in plane.table.virtual_servers.values() for real in s.real_servers} == {
            "10.1.0.1"
        }, "it goes on following its source"
        running.cancel()


@pytest.mark.parametrize(("kind", "name"), METHODS, ids=lambda value: getattr(value, "__name__", value))
async def test_a_part_that_raises_goes_on(kind: type, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    function = getattr(kind, name)
    failing = Failing(function, 1 if name == "adopt" else 2)
    if asyncio.iscoroutinefunction(function):

        async def raise_first(*args: Any, **kwargs: Any) -> Any:
            failing.check()
            return await function(*args, **kwargs)

        monkeypatch.setattr(kind, name, raise_first)
    else:

        def raise_at_first(*args: Any, **kwargs: Any) -> Any:
            failing.check()
            return function(*args, **kwargs)

        monkeypatch.setattr(kind, name, raise_at_first)
    await works_in_the_end(failing)


@pytest.mark.parametrize(("kind", "name"), ITERATORS, ids=lambda value: getattr(value, "__name__", value))
async def test_a_watch_that_raises_is_begun_again(kind: type, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    function = getattr(kind, name)
    failing = Failing(function)

    async def raise_first(*args: Any, **kwargs: Any) -> AsyncIterator[Any]:
        failing.check()
        async for each in function(*args, **kwargs):
            yield each

    monkeypatch.setattr(kind, name, raise_first)
    await works_in_the_end(failing)


@pytest.mark.parametrize(("module", "name"), FUNCTIONS)
async def test_one_service_that_raises_costs_no_other(module: Any, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    function = getattr(module, name)

    def raise_for_web(*args: Any, **kwargs: Any) -> Any:
        if "web" in repr(args):
            raise IndexError("on purpose")
        return function(*args, **kwargs)

    monkeypatch.setattr(module, name, raise_for_web)
    cluster, plane = MemoryCluster(), FakeDataPlane()
    names: list[set[str]] = []
    worker = FakeWorker(
        "w1", MemoryStore(cluster, "w1"), BED, plane=plane, publish=lambda parts: names.append(set(parts))
    )
    worker.runs([WEB, API])
    async with asyncio.TaskGroup() as tasks:
        running = tasks.create_task(worker.run())
        await asyncio.sleep(30)
        observed = worker.loop.snapshots.observe()
        assert {real.address for s in plane.table.virtual_servers.values() for real in s.real_servers} >= {"10.1.0.2"}
        assert sum(observed.internal_errors.values()) > 0
        if module is planner:
            assert names[-1] == {"api.test"}
            assert [p for p in observed.problems["internal"] if "plan of service shop/web" in p.subject]
            assert all(problem.severity is Severity.ERROR for problem in observed.problems["internal"])
            monkeypatch.undo()
            await asyncio.sleep(30)
            assert names[-1] == {"api.test", "web.test"}, "it is tried again although nothing has changed"
        running.cancel()
