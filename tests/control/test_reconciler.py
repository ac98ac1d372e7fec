"""The control loop over fakes: the order of steps, adoption after a restart, and what stays when a part fails."""

import asyncio
import logging
from collections.abc import AsyncIterator, Collection, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace

import pytest
from typing_extensions import override

from mesh.cluster.records.encode import build_view, encode_daemon, encode_service_claim, encode_vip_claim
from mesh.control.arrival_watcher import PassiveSources
from mesh.control.assembly import ControlLoop, LoopParts, control_loop
from mesh.control.context import ClusterState, LoopContext
from mesh.control.drain_requests import DrainRequests
from mesh.control.host_watcher import HostFactSources
from mesh.control.ports import EndpointUpkeep, Firewall, HostUpkeep, WorkerConfig
from mesh.control.reconciler import AUDIT, LOOK_AGAIN
from mesh.control.snapshot import WorkerFacts
from mesh.control.weight_requests import WeightRequests
from mesh.dataplane.diff import diff_tables
from mesh.dataplane.drain import BackendKey
from mesh.dataplane.operations import AddRealServer, BindVip, DeleteRealServer, UnbindVip
from mesh.health.prober import Prober
from mesh.host import HostError
from mesh.host.hairpin import HairpinResult
from mesh.host.host_problems import HostNeeds
from mesh.model.claims import Claims
from mesh.model.codes import Code
from mesh.model.engine_facts import EngineFacts
from mesh.model.probe import ProbeKind
from mesh.model.service import Address, Endpoint, Name, Transport
from mesh.model.table import RealKey, RealServer, Table, VirtualKey, VirtualServer
from mesh.store import StoreSnapshot
from mesh.testing.dataplane import FakeDataPlane
from mesh.testing.host import FakeHost, FakeHostFacts
from mesh.testing.probes import FakeCheck
from mesh.testing.source import FakeSource
from mesh.testing.store import MemoryCluster, MemoryStore
from tests.builders import PROBED_WEB_LABELS, SMALL_POOL, WEB_LABELS, numbered_instance
from tests.control.reported import status_of

FACTS = WorkerFacts("0", "w1", "fake", "a test")


class StoreWithSavedView(MemoryStore):
    """Tells what was saved, as the store with a saved view does."""

    def __init__(self, cluster: MemoryCluster, saved: Mapping[str, bytes]) -> None:
        super().__init__(cluster, "w1")
        self._saved = saved

    @override
    async def watch(self) -> AsyncIterator[StoreSnapshot]:
        async for snapshot in super().watch():
            yield replace(snapshot, saved=self._saved)


@dataclass
class Bench:
    """A worker on fakes."""

    plane: FakeDataPlane = field(default_factory=FakeDataPlane)
    cluster: MemoryCluster = field(default_factory=MemoryCluster)
    source: FakeSource = field(default_factory=FakeSource)
    check: FakeCheck = field(default_factory=FakeCheck)
    host: FakeHost = field(default_factory=FakeHost)
    facts: FakeHostFacts = field(default_factory=FakeHostFacts)
    engine: EngineFacts | None = None
    passive: PassiveSources | None = None
    needs: HostNeeds = field(default_factory=lambda: HostNeeds(pool=SMALL_POOL, data_plane="ipvs"))
    upkeep: list[HostUpkeep] = field(default_factory=list)
    endpoint_upkeep: EndpointUpkeep | None = None
    firewall: Firewall | None = None
    listening: set[tuple[Transport, int]] = field(default_factory=set)
    zones: list[Mapping[Name, Address]] = field(default_factory=list)
    news: asyncio.Event = field(default_factory=asyncio.Event)
    saved: Mapping[str, bytes] = field(default_factory=dict)
    """The records that a former process has saved on the disk."""
    leaving: DrainRequests = field(init=False)
    """Of the process that runs."""
    weights: WeightRequests = field(init=False)
    """Of the process that runs."""
    adopted: list[Endpoint] = field(default_factory=list)
    """What a former process has registered."""

    @asynccontextmanager
    async def running(self) -> AsyncIterator[ControlLoop]:
        context = LoopContext(ClusterState(SMALL_POOL))
        self.leaving = DrainRequests(context.events.instances_changed.set, self.adopted)
        self.weights = WeightRequests(context.events.instances_changed.set, self.adopted)
        prober = Prober(context.events.wake.set, dict.fromkeys(ProbeKind, self.check))
        self.loop = control_loop(
            WorkerConfig("w1", "mesh.internal", SMALL_POOL, range(30000, 30010), 30.0),
            FACTS,
            LoopParts(
                host=self.host,
                sources=[self.source],
                store=StoreWithSavedView(self.cluster, self.saved),
                plane=self.plane,
                upkeep=self.upkeep,
                endpoint_upkeep=self.endpoint_upkeep,
                firewall=self.firewall,
                listening=self.listens,
                prober=prober,
                passive=self.passive,
                facts=HostFactSources(self.facts, self.needs, self.engine_facts),
                publish=lambda names: self.zones.append({name: part.vip for name, part in names.items()}),
                drains=self.leaving,
                weights=self.weights,
            ),
            context,
        )
        async with asyncio.TaskGroup() as tasks:
            parts = [tasks.create_task(self.loop.reconciler.run()), tasks.create_task(prober.run())]
            yield self.loop
            for part in parts:
                part.cancel()

    async def engine_facts(self) -> EngineFacts | None:
        return self.engine

    async def listens(self) -> set[tuple[Transport, int]]:
        return self.listening

    async def passes(self, seconds: float = 1.0) -> None:
        """Let virtual time go by: long enough for any burst, shorter than the audit."""
        await asyncio.sleep(seconds)

    def real_servers(self) -> dict[str, list[str]]:
        return {str(key): sorted(map(str, s.real_servers)) for key, s in self.plane.table.virtual_servers.items()}


class FakeEndpointUpkeep(EndpointUpkeep):
    """Returns or raises the prepared results; then there is nothing to do."""

    def __init__(self) -> None:
        self.calls: list[frozenset[Address]] = []
        self.results: list[HairpinResult | HostError] = []

    @override
    async def repair(self, endpoints: frozenset[Address]) -> HairpinResult:
        self.calls.append(endpoints)
        result = self.results.pop(0) if self.results else HairpinResult()
        if isinstance(result, HostError):
            raise result
        return result


@pytest.fixture
async def bench() -> Bench:
    return Bench()


@pytest.mark.looptime
class TestTheLoop:
    async def test_from_instances_to_table_and_zone(self, bench: Bench) -> None:
        async with bench.running() as loop:
            bench.source.say([numbered_instance(1), numbered_instance(2)])
            await bench.passes()
            (vip,) = bench.plane.table.vips
            assert bench.real_servers() == {f"tcp://{vip}:80": ["10.2.0.1:80", "10.2.0.2:80"]}
            assert bench.zones[-1] == {"web.test": vip}
            (service,) = status_of(loop).services
            assert (service.vip, [e.serving for e in service.endpoints]) == (vip, [True, True])

    async def test_the_name_is_published_after_its_vip_and_withdrawn_before_it(self, bench: Bench) -> None:
        seen: list[tuple[str, bool]] = []
        bench.zones = _Recorder(bench, seen)
        async with bench.running():
            bench.source.say([numbered_instance(1)])
            await bench.passes()
            bench.source.say([])
            await bench.passes()
        assert list(dict.fromkeys(seen)) == [("named", True), ("unnamed", True)], "bound whenever the zone changes"
        assert bench.plane.table == Table()

    async def test_nothing_is_programmed_before_the_store_has_answered(self, bench: Bench) -> None:
        bench.plane = FakeDataPlane(_table())
        bench.cluster.out_of_reach = True
        async with bench.running():
            bench.source.say([])
            await bench.passes(3 * AUDIT)
            assert bench.plane.table == _table()

    async def test_a_source_that_has_not_answered_removes_no_instances(self, bench: Bench) -> None:
        async with bench.running():
            bench.source.say([numbered_instance(1)])
            await bench.passes()
        before = bench.plane.table
        bench.source = FakeSource()
        async with bench.running() as loop:
            bench.source.fall_silent("compose.yaml: broken")
            await bench.passes(3 * AUDIT)
            assert bench.plane.table == before
            assert status_of(loop).frozen == ("compose.yaml: broken",)

    async def test_a_restart_without_a_change_writes_nothing(self, bench: Bench) -> None:
        bench.check.set("10.2.0.1", 80, True, "status 200")
        async with bench.running():
            bench.source.say([numbered_instance(1, PROBED_WEB_LABELS)])
            await bench.passes(8)
            assert [*bench.real_servers().values()] == [["10.2.0.1:80"]]
        applied = bench.plane.applied
        bench.check.set("10.2.0.1", 80, False, "refused")  # not yet three times in a row: what serves goes on serving
        bench.source = FakeSource()
        async with bench.running():
            bench.source.say([numbered_instance(1, PROBED_WEB_LABELS)])
            await bench.passes(4)
            assert bench.plane.applied == applied
            assert [*bench.real_servers().values()] == [["10.2.0.1:80"]]
            await bench.passes(20)
            assert [*bench.real_servers().values()] == [[]], "the presumption ends with the third failure"

    async def test_a_restart_withdraws_no_verdict_although_the_store_is_slow(self, bench: Bench) -> None:
        """The others would send nothing to the endpoint until it is probed anew."""
        bench.check.set("10.2.0.1", 80, ok=True, reason="status 200")
        async with bench.running():
            bench.source.say([numbered_instance(1, PROBED_WEB_LABELS)])
            await bench.passes(6)
        verdict = "health/w1/demo%2Fweb%2F10.2.0.1"
        assert verdict in bench.cluster.records
        before, change = dict(bench.cluster.records), bench.cluster.change
        missing: list[bool] = []

        def watched(changes: Mapping[str, bytes | None]) -> None:
            change(changes)
            missing.append(verdict not in bench.cluster.records)

        bench.cluster.change = watched  # type: ignore[method-assign]  # to see all that is ever written
        bench.cluster.out_of_reach = True
        bench.source = FakeSource()
        async with bench.running():
            bench.source.say([numbered_instance(1, PROBED_WEB_LABELS)])
            await bench.passes(1)
            bench.cluster.out_of_reach = False
            await bench.passes(20)
        assert missing
        assert not any(missing)
        assert before.keys() | {"workers/w1/digest"} == bench.cluster.records.keys() | {"workers/w1/digest"}

    async def test_an_instance_started_after_a_restart_must_pass_a_check_although_its_address_was_adopted(
        self, bench: Bench
    ) -> None:
        bench.check.set("10.2.0.1", 80, True, "status 200")
        async with bench.running():
            bench.source.say([numbered_instance(1, PROBED_WEB_LABELS)])
            await bench.passes(8)
        bench.check.set("10.2.0.1", 80, False, "refused")
        bench.source = FakeSource()
        async with bench.running():
            bench.source.say([])
            await bench.passes()
            bench.source.say([numbered_instance(1, PROBED_WEB_LABELS)])
            await bench.passes()
            assert [*bench.real_servers().values()] == [[]]

    @pytest.mark.parametrize(
        ("before", "after", "serves"),
        [("1", "1", True), ("1", "2", False), (None, "2", True), ("1", None, True), (None, None, True)],
    )
    async def test_a_container_that_was_restarted_while_the_daemon_was_stopped_must_pass_a_check(
        self, bench: Bench, before: str | None, after: str | None, serves: bool
    ) -> None:
        """A run that one side does not know, as after an update of vipmesh, is presumed to be the same."""
        bench.check.set("10.2.0.1", 80, True, "status 200")
        async with bench.running():
            bench.source.say([replace(numbered_instance(1, PROBED_WEB_LABELS), run=before)])
            await bench.passes(8)
        bench.check.set("10.2.0.1", 80, False, "refused")
        bench.source = FakeSource()
        async with bench.running():
            bench.source.say([replace(numbered_instance(1, PROBED_WEB_LABELS), run=after)])
            await bench.passes()
            assert [*bench.real_servers().values()] == [["10.2.0.1:80"] if serves else []]
            assert bool(_verdicts(bench)) is serves
            bench.check.set("10.2.0.1", 80, True, "status 200")
            await bench.passes(12)
            assert [*bench.real_servers().values()] == [["10.2.0.1:80"]]

    @pytest.mark.parametrize("out_of_reach", [False, True])
    async def test_a_restart_that_no_event_told_of_begins_as_starting(self, bench: Bench, out_of_reach: bool) -> None:
        bench.check.set("10.2.0.1", 80, True, "status 200")
        async with bench.running():
            bench.source.say([replace(numbered_instance(1, PROBED_WEB_LABELS), run="1")])
            await bench.passes(8)
            assert [*bench.real_servers().values()] == [["10.2.0.1:80"]]
            assert len(_verdicts(bench)) == 1
            bench.check.set("10.2.0.1", 80, False, "refused")
            bench.cluster.out_of_reach = out_of_reach
            bench.source.say([replace(numbered_instance(1, PROBED_WEB_LABELS), run="2")])
            await bench.passes()
            assert [*bench.real_servers().values()] == [[]]
            bench.cluster.out_of_reach = False
            await bench.passes(4)
            assert _verdicts(bench) == []
            bench.check.set("10.2.0.1", 80, True, "status 200")
            await bench.passes(12)
            assert [*bench.real_servers().values()] == [["10.2.0.1:80"]]
            assert len(_verdicts(bench)) == 1

    @pytest.mark.parametrize(("after", "serves"), [("1", True), ("2", False)])
    async def test_a_restart_while_the_lease_ended_is_known_from_the_saved_view(
        self, bench: Bench, after: str, serves: bool
    ) -> None:
        bench.check.set("10.2.0.1", 80, True, "status 200")
        async with bench.running():
            bench.source.say([replace(numbered_instance(1, PROBED_WEB_LABELS), run="1")])
            await bench.passes(8)
        bench.saved = dict(bench.cluster.records)
        bench.cluster.expire("w1")
        assert "workers/w1/endpoints/demo%2Fweb%2F10.2.0.1" not in bench.cluster.records
        bench.check.set("10.2.0.1", 80, False, "refused")
        bench.source = FakeSource()
        async with bench.running():
            bench.source.say([replace(numbered_instance(1, PROBED_WEB_LABELS), run=after)])
            await bench.passes()
            assert [*bench.real_servers().values()] == [["10.2.0.1:80"] if serves else []]

    async def test_another_container_at_an_adopted_address_must_pass_a_check(self, bench: Bench) -> None:
        bench.check.set("10.2.0.1", 80, True, "status 200")
        async with bench.running():
            bench.source.say([replace(numbered_instance(1, PROBED_WEB_LABELS), run="1")])
            await bench.passes(8)
        bench.check.set("10.2.0.1", 80, False, "refused")
        bench.source = FakeSource()
        async with bench.running():
            bench.source.say([replace(numbered_instance(1, PROBED_WEB_LABELS), id="demo/web/other", run="2")])
            await bench.passes()
            assert [*bench.real_servers().values()] == [[]]

    async def test_a_probe_adds_removes_and_adds_an_endpoint_again(self, bench: Bench) -> None:
        async with bench.running():
            bench.source.say([numbered_instance(1, PROBED_WEB_LABELS)])
            await bench.passes(20)
            assert [*bench.real_servers().values()] == [[]]
            for ok, wait in ((True, 6), (False, 20), (True, 20)):
                bench.check.set("10.2.0.1", 80, ok, "as told")
                await bench.passes(wait)
                assert [*bench.real_servers().values()] == [["10.2.0.1:80"] if ok else []]

    async def test_the_audit_repairs_outside_changes_and_reports_them(
        self, bench: Bench, caplog: pytest.LogCaptureFixture
    ) -> None:
        async with bench.running() as loop:
            bench.source.say([numbered_instance(1)])
            await bench.passes()
            wanted = bench.plane.table
            await bench.plane.apply(diff_tables(wanted, Table()))
            await bench.passes(AUDIT + 1)
            assert bench.plane.table == wanted
            assert status_of(loop).repairs == 3
            assert "repaired: the data plane was changed outside vipmesh: bind VIP" in caplog.text
            await bench.passes(3 * AUDIT)
            assert status_of(loop).repairs == 3

    async def test_between_audits_only_changed_virtual_servers_are_read(self, bench: Bench) -> None:
        async with bench.running():
            other = {"mesh.routing.port_80": "other.local"}
            bench.source.say([numbered_instance(1), numbered_instance(2, other, "demo/other")])
            await bench.passes(AUDIT + 1)
            asked = bench.plane.asked
            asked.clear()
            bench.source.say(
                [
                    numbered_instance(1),
                    numbered_instance(2, other, "demo/other"),
                    numbered_instance(3, other, "demo/other"),
                ]
            )
            await bench.passes(0.1)
            (grown,) = [key for key, reals in bench.real_servers().items() if len(reals) == 2]
            assert [[str(key) for key in keys or ()] for keys in asked if keys != frozenset()] == [[grown]]
            await bench.passes(AUDIT)
            assert asked[-1] is None

    async def test_a_failed_repair_is_retried_soon_and_reported_when_it_succeeds(
        self, bench: Bench, caplog: pytest.LogCaptureFixture
    ) -> None:
        async with bench.running() as loop:
            bench.source.say([numbered_instance(1)])
            await bench.passes()
            before = bench.plane.table
            bench.plane.table = Table()
            bench.plane.fail_next(lambda operation: isinstance(operation, AddRealServer), "there is none")
            await bench.passes(AUDIT - LOOK_AGAIN / 2)
            assert bench.plane.table != before
            assert status_of(loop).repairs == 2
            await bench.passes(LOOK_AGAIN)
            assert bench.plane.table == before
            assert status_of(loop).repairs == 3
            assert "repaired: the data plane was changed outside vipmesh: add real server 10.2.0.1:80" in caplog.text

    async def test_a_permanent_failure_is_retried_at_each_audit_and_reported_once(
        self, bench: Bench, caplog: pytest.LogCaptureFixture
    ) -> None:
        async with bench.running() as loop:
            for _ in range(6):
                bench.plane.fail_next(lambda operation: isinstance(operation, AddRealServer), "no memory")
            bench.source.say([numbered_instance(1)])
            await bench.passes()
            await bench.passes(AUDIT + 1)  # not at the very moment of one
            tried = loop.stats.passes
            await bench.passes(3 * AUDIT)
            assert loop.stats.passes == tried + 3
            assert caplog.text.count("no memory") == 1
            assert loop.stats.refusals["add_real_server"] == loop.stats.operations["add_real_server"] > 3
            assert loop.stats.operations["bind_vip"] == 1
            assert sum(loop.stats.pass_seconds.counts) == loop.stats.passes
            assert status_of(loop).repairs == 0

    async def test_planned_changes_are_not_counted_as_repairs(self, bench: Bench) -> None:
        bench.check.set("10.2.0.1", 80, True, "status 200")
        async with bench.running() as loop:
            for instances in (
                [numbered_instance(1, PROBED_WEB_LABELS)],
                [numbered_instance(1, PROBED_WEB_LABELS), numbered_instance(2, PROBED_WEB_LABELS)],
                [],
            ):
                bench.source.say(instances)
                await bench.passes(2 * AUDIT)
            assert status_of(loop).repairs == 0

    async def test_a_published_port_in_use_by_a_local_program_is_not_served(self, bench: Bench) -> None:
        bench.listening = {(Transport.TCP, 30022)}
        published = {f"mesh.routing.publish.port_{port}": str(30000 + port) for port in (22, 80)}
        async with bench.running() as loop:
            bench.source.say([numbered_instance(1, {**WEB_LABELS, **published})])
            await bench.passes()
            assert "tcp://192.0.2.1:30080" in bench.real_servers()
            assert "tcp://192.0.2.1:30022" not in bench.real_servers()
            assert any("tcp port 30022 is not published here" in problem for problem in status_of(loop).problems)

            bench.listening = {(Transport.TCP, 30080)}
            await bench.passes(AUDIT)
            assert {"tcp://192.0.2.1:30022", "tcp://192.0.2.1:30080"} < set(bench.real_servers()), "who is served stays"
            assert status_of(loop).problems == ()

    async def test_host_settings_are_set_up_first_and_repaired_at_the_audit(
        self, bench: Bench, caplog: pytest.LogCaptureFixture
    ) -> None:
        caplog.set_level(logging.INFO)
        findings: list[list[str] | HostError] = [["ip_forward is 1, was 0"], [], ["ip_forward is 1, was 0"]]

        class Settings:
            async def repair(self, addresses: frozenset[Address], claims: Claims) -> list[str]:
                assert addresses == {"192.0.2.1"}
                found = findings.pop(0) if findings else []
                if isinstance(found, HostError):
                    raise found
                return found

        bench.upkeep = [Settings()]
        async with bench.running() as loop:
            bench.source.say([numbered_instance(1)])
            await bench.passes()
            assert "set up: ip_forward is 1, was 0" in caplog.text
            assert status_of(loop).repairs == 0
            await bench.passes(2 * AUDIT)
            assert caplog.text.count("repaired: ip_forward is 1, was 0") == 1
            assert status_of(loop).repairs == 1
            findings[:] = [HostError(Code.KERNEL_SETTING, "/proc/sys is read-only; write it to /etc/sysctl.d")] * 2
            await bench.passes(AUDIT + 1)
            assert status_of(loop).frozen == ("/proc/sys is read-only; write it to /etc/sysctl.d",)
            assert bench.plane.table.virtual_servers, "what was programmed goes on"
            await bench.passes(2 * AUDIT)
            assert status_of(loop).frozen == ()

    async def test_settings_follow_the_endpoints_and_are_audited(
        self, bench: Bench, caplog: pytest.LogCaptureFixture
    ) -> None:
        caplog.set_level(logging.INFO)
        upkeep = bench.endpoint_upkeep = FakeEndpointUpkeep()
        async with bench.running() as loop:
            await bench.passes(3 * AUDIT)
            assert upkeep.calls == [], "nothing is cleared before the source has answered"
            upkeep.results = [HairpinResult(is_complete=False), HairpinResult(("hairpin on at bridge port a",))]
            bench.source.say([numbered_instance(1)])
            await bench.passes(3)
            assert upkeep.calls == [{"10.2.0.1"}] * 2, "looked at again until the endpoint is resolved"
            assert "set up: hairpin on at bridge port a" in caplog.text

            upkeep.results = [HairpinResult(repaired=("hairpin on at bridge port a",))]
            await bench.passes(AUDIT)
            assert "repaired: hairpin on at bridge port a" in caplog.text
            assert status_of(loop).repairs == 1
            upkeep.results = [HostError(Code.HAIRPIN, "not permitted: run as root")]
            await bench.passes(AUDIT)
            assert status_of(loop).frozen == ("not permitted: run as root",)
            bench.source.say([])
            await bench.passes()
            assert upkeep.calls[-1] == set()
            assert status_of(loop).frozen == ()

            upkeep.calls.clear()
            upkeep.results = [HairpinResult(is_complete=False)] * 20
            bench.source.say([numbered_instance(2)])
            await bench.passes(AUDIT)
            assert len(upkeep.calls) == 6, "an endpoint that never answers is left to the audit"

    async def test_a_removed_endpoint_drains_until_its_last_connection_has_ended(self, bench: Bench) -> None:
        async with bench.running():
            bench.source.say([numbered_instance(1), numbered_instance(2)])
            await bench.passes()
            (key,) = bench.plane.table.virtual_servers
            leaving = RealKey("10.2.0.1", 80)
            bench.plane.active[key, leaving] = 1
            bench.source.say([numbered_instance(2)])
            await bench.passes(20)
            assert bench.plane.table.virtual_servers[key].real_servers == {
                leaving: RealServer(0),
                RealKey("10.2.0.2", 80): RealServer(1),
            }
            bench.plane.active.clear()
            await bench.passes(2)
            assert bench.plane.table.virtual_servers[key].real_servers == {RealKey("10.2.0.2", 80): RealServer(1)}

    async def test_a_drain_waits_for_a_connection_that_begins_after_its_first_count(self, bench: Bench) -> None:
        bench.plane = plane = _PlaneWithLateConnection()
        async with bench.running(), asyncio.TaskGroup() as tasks:
            bench.source.say([numbered_instance(1), numbered_instance(2)])
            await bench.passes()
            (key,) = plane.table.virtual_servers
            bench.leaving.ask(numbered_instance(1).id)
            free = tasks.create_task(bench.leaving.until_free(numbered_instance(1).id))
            await bench.passes(5)
            assert plane.table.virtual_servers[key].real_servers[RealKey("10.2.0.1", 80)] == RealServer(0)
            assert not free.done()
            plane.active.clear()
            await bench.passes(2)
            assert plane.table.virtual_servers[key].real_servers == {RealKey("10.2.0.2", 80): RealServer(1)}
            assert free.done()

    async def test_a_removed_service_drains_behind_its_vip_without_its_name_until_the_time_is_up(
        self, bench: Bench
    ) -> None:
        async with bench.running():
            bench.source.say([numbered_instance(1)])
            await bench.passes()
            (key,) = bench.plane.table.virtual_servers
            bench.plane.active[key, RealKey("10.2.0.1", 80)] = 1
            bench.source.say([])
            await bench.passes(29)
            assert bench.zones[-1] == {}
            assert bench.plane.table.vips == {key.address}
            await bench.passes(3)
            assert bench.plane.table == Table()

    async def test_an_unhealthy_endpoint_is_removed_at_once_with_its_connections(self, bench: Bench) -> None:
        bench.check.set("10.2.0.1", 80, True, "status 200")
        async with bench.running():
            bench.source.say([numbered_instance(1, PROBED_WEB_LABELS)])
            await bench.passes(8)
            (key,) = bench.plane.table.virtual_servers
            bench.plane.active[key, RealKey("10.2.0.1", 80)] = 7
            bench.check.set("10.2.0.1", 80, False, "refused")
            await bench.passes(17)
            assert bench.plane.table.virtual_servers[key].real_servers == {}

    async def test_a_published_port_follows_the_addresses_of_the_worker(self, bench: Bench) -> None:
        labels = {**WEB_LABELS, "mesh.routing.publish.port_80": "8080"}
        async with bench.running():
            bench.source.say([numbered_instance(1, labels)])
            await bench.passes()
            published = "tcp://192.0.2.1:8080"
            assert bench.real_servers()[published] == ["10.2.0.1:80"]
            bench.host.has("192.0.2.1", "198.51.100.7", "2001:db8::1")
            await bench.passes()
            assert {*bench.real_servers()} >= {published, "tcp://198.51.100.7:8080"}
            assert not any("2001" in key for key in bench.real_servers())
            bench.host.has("198.51.100.7")
            await bench.passes()
            assert published not in bench.real_servers()

    async def test_a_claim_outside_of_the_pool_is_not_programmed_and_is_reported(self, bench: Bench) -> None:
        bench.cluster.write(encode_service_claim("web.test", "8.8.8.8") | encode_vip_claim("8.8.8.8", "web.test"))
        labels = {**WEB_LABELS, "mesh.routing.publish.port_80": "8080"}
        other = {"mesh.routing.port_80": "other.test"}
        async with bench.running() as loop:
            bench.source.say([numbered_instance(1, labels), numbered_instance(2, other, owner="demo/other")])
            await bench.passes()
            (vip,) = bench.plane.table.vips
            assert [*bench.real_servers()] == [f"tcp://{vip}:80"], "of the other service alone"
            assert bench.zones[-1] == {"other.test": vip}
            shown = status_of(loop)
            assert {s.name: s.vip for s in shown.services} == {"web.test": None, "other.test": vip}
            assert "the VIP 8.8.8.8 is outside of the pool 10.112.0.0/24; set [vip] pool" in str(shown)

    async def test_workers_without_a_listen_address_are_not_pinged(self, bench: Bench) -> None:
        daemons = (
            encode_daemon("w2", "0", "a", "10.1.0.2:9781")
            | encode_daemon("w3", "0", "b")
            | encode_daemon("w1", "0", "c")
        )
        bench.cluster.write(daemons)
        async with bench.running() as loop:
            bench.source.say([numbered_instance(1)])
            await bench.passes()
            assert loop.peers.workers() == {"w2": RealKey("10.1.0.2", 9781)}
            assert loop.peers.non_listening() == {"w3"}, "and not this one, which listens as little"

    async def test_a_network_change_triggers_a_repair_before_the_audit(self, bench: Bench) -> None:
        async with bench.running():
            bench.source.say([numbered_instance(1)])
            await bench.passes()
            wanted = bench.plane.table
            await bench.plane.apply([UnbindVip(address) for address in wanted.vips])
            bench.host.has("192.0.2.1")
            await bench.passes()
            assert bench.plane.table == wanted

    async def test_a_burst_of_changes_results_in_few_passes(self, bench: Bench) -> None:
        async with bench.running() as loop:
            for count in range(1, 100):
                bench.source.say([numbered_instance(n) for n in range(1, count + 1)])
            await bench.passes()
            assert len(next(iter(bench.real_servers().values()))) == 99
            assert loop.stats.passes < 10

    async def test_a_refused_operation_is_reported_and_retried_and_stops_no_other(
        self, bench: Bench, caplog: pytest.LogCaptureFixture
    ) -> None:
        bench.plane.fail_next(lambda operation: isinstance(operation, BindVip), "no such device; make mesh0")
        other = {"mesh.routing.port_80": "other.test"}
        async with bench.running() as loop:
            bench.source.say([numbered_instance(1), numbered_instance(2, other, owner="demo/other")])
            await bench.passes()
            assert "no such device; make mesh0" in status_of(loop).failures[0]
            assert len(bench.zones[-1]) == 1, "a name whose VIP could not be bound is not given out"
            assert caplog.text.count("make mesh0") == 1
            await bench.passes(AUDIT + 1)
            assert status_of(loop).failures == ()
            assert len(bench.zones[-1]) == 2

    async def test_an_unavailable_data_plane_freezes_the_zone_until_it_is_back(
        self, bench: Bench, caplog: pytest.LogCaptureFixture
    ) -> None:
        caplog.set_level(logging.INFO)
        async with bench.running() as loop:
            bench.source.say([numbered_instance(1)])
            await bench.passes()
            bench.plane.gone = "ip_vs was unloaded; modprobe ip_vs"
            bench.source.say([])
            await bench.passes(3 * AUDIT)
            assert len(bench.zones[-1]) == 1
            assert status_of(loop).frozen == ("ip_vs was unloaded; modprobe ip_vs",)
            assert caplog.text.count("modprobe ip_vs") == 1
            assert loop.stats.stalls > 0
            bench.plane.gone = None
            await bench.passes(AUDIT + 1)
            assert bench.zones[-1] == {}
            assert status_of(loop).frozen == ()

    async def test_an_unreachable_store_freezes_remote_endpoints_until_it_is_back(self, bench: Bench) -> None:
        async with bench.running() as loop:
            bench.source.say([numbered_instance(1)])
            await bench.passes()
            before = dict(bench.cluster.records)
            bench.cluster.out_of_reach = True
            new = numbered_instance(3, {"mesh.routing.port_80": "new.test"}, owner="demo/new")
            bench.source.say([numbered_instance(2), new])
            await bench.passes(5)
            assert [*bench.real_servers().values()] == [["10.2.0.2:80"]], "its own endpoints it knows itself"
            assert set(bench.zones[-1]) == {"web.test"}, "without the store no VIP is given away"
            assert bench.cluster.records == before
            (line,) = status_of(loop).frozen
            assert line.startswith("the store is out of reach; bring it back; this worker is cut off from etcd: ")
            bench.cluster.out_of_reach = False
            await bench.passes(5)
            assert sorted(bench.real_servers().values()) == [["10.2.0.2:80"], ["10.2.0.3:80"]]
            assert set(bench.zones[-1]) == {"web.test", "new.test"}
            assert not status_of(loop).frozen
            seen, _ = build_view(bench.cluster.records)
            assert [endpoint.address for endpoint in seen.endpoints] == ["10.2.0.3", "10.2.0.2"]

    async def test_two_owners_of_one_name_are_a_conflict_that_does_not_flap(
        self, bench: Bench, caplog: pytest.LogCaptureFixture
    ) -> None:
        async with bench.running() as loop:
            bench.source.say([numbered_instance(1, owner="demo/web")])
            await bench.passes()
            before = bench.plane.table
            bench.source.say([numbered_instance(1, owner="demo/web"), numbered_instance(2, owner="demo/another")])
            await bench.passes(3 * AUDIT)
            assert bench.plane.table == before
            refused = {service.owner: service.vip for service in status_of(loop).services}
            assert refused["demo/another"] is None
            assert any("demo/web" in problem and "web.test" in problem for problem in status_of(loop).problems)
            assert caplog.text.count("demo/another") <= 2

    async def test_a_bad_label_is_reported_with_its_location(self, bench: Bench) -> None:
        async with bench.running() as loop:
            bench.source.say([numbered_instance(1, {**WEB_LABELS, "mesh.routing.scheduler": "fastest"})])
            await bench.passes()
            (problem,) = status_of(loop).problems
            assert problem.startswith("fake demo/web/10.2.0.1 mesh.routing.scheduler: error: ")
            assert [*bench.real_servers().values()] == [["10.2.0.1:80"]]


class _PlaneWithLateConnection(FakeDataPlane):
    """A new connection begins at each real server that takes one, as soon as connections were counted."""

    @override
    async def connections(self, only: Collection[VirtualKey] | None = None) -> Mapping[BackendKey, int]:
        counts = await super().connections(only)
        for key, real in counts:
            if self.table.virtual_servers[key].real_servers[real].weight:
                self.active[key, real] = 1
        return counts


class _Recorder(list[Mapping[Name, Address]]):
    """Notes at each change of the zone whether every VIP is bound, as it stands at that moment."""

    def __init__(self, bench: Bench, seen: list[tuple[str, bool]]) -> None:
        super().__init__()
        self._bench = bench
        self._seen = seen

    @override
    def append(self, zone: Mapping[Name, Address], /) -> None:
        if self or zone:
            self._seen.append(("named" if zone else "unnamed", bool(self._bench.plane.table.vips)))
        super().append(zone)


def _table() -> Table:
    key = VirtualKey("10.112.0.9", 80, Transport.TCP)
    return Table({key: VirtualServer(real_servers={RealKey("10.2.0.9", 80): RealServer(1)})}, frozenset({"10.112.0.9"}))


async def test_an_operation_reads_well_in_a_log() -> None:
    operation = DeleteRealServer(VirtualKey("10.112.0.9", 80, Transport.TCP), RealKey("10.2.0.9", 80))
    assert str(operation) == "delete real server 10.2.0.9:80 of tcp://10.112.0.9:80"


def _verdicts(bench: Bench) -> list[str]:
    return [key for key in bench.cluster.records if key.startswith("health/")]
