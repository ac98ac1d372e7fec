"""The facts of the host as they change under a running worker: what is reported, withheld and cleared again."""

from dataclasses import replace
from ipaddress import ip_interface, ip_network
from typing import Any

import pytest

from mesh.api.explain.query import explain
from mesh.cluster.records.encode import encode_daemon
from mesh.control import host_watcher
from mesh.control.host_watcher import ENGINE_REST
from mesh.control.pass_runner import STAYS_OPEN
from mesh.control.reconciler import AUDIT
from mesh.host import HostError
from mesh.host.facts import HostFacts
from mesh.host.firewall.upkeep import FirewallReport
from mesh.host.host_problems import HostNeeds
from mesh.host.overlap import HostAddress, HostRoute
from mesh.model.codes import Code
from mesh.model.engine_facts import EngineFacts, EngineNetwork
from mesh.model.part import DaemonPart
from mesh.model.service import Instance
from mesh.testing.firewall import FakeFirewall
from mesh.testing.host import FakeHostFacts
from mesh.util.bulkhead import INTERNAL_ERRORS
from tests.builders import SMALL_POOL, WEB_LABELS, instance, numbered_instance
from tests.control.reported import status_of
from tests.control.test_reconciler import Bench

pytestmark = pytest.mark.looptime

EVERYTHING = HostFacts(routes=(HostRoute(ip_network("10.0.0.0/8"), "eth1"),))
OUTSIDE = HostFacts(routes=(HostRoute(ip_network("192.0.2.0/24"), "eth0"),))
PUBLISHED = {**WEB_LABELS, "mesh.routing.publish.port_80": "30080"}


def routed(name: str) -> Instance:
    return instance(f"{name}/1", {"mesh.routing.port_80": f"{name}.test"}, f"demo/{name}")


async def test_an_overlap_that_comes_while_the_worker_runs_is_reported_and_cleared() -> None:
    bench = Bench()
    async with bench.running() as loop:
        bench.source.say([numbered_instance(1)])
        await bench.passes()
        before = bench.plane.table
        assert status_of(loop).problems == ()
        bench.engine = EngineFacts(networks=(EngineNetwork("backend", (ip_network("10.112.0.0/26"),)),))
        bench.facts.are(
            HostFacts(
                routes=(HostRoute(ip_network("10.112.0.0/26"), "br-1"),),
                addresses=(HostAddress(ip_interface("10.112.0.1/26"), "br-1"),),
            )
        )
        await bench.passes(ENGINE_REST + 1)
        (problem,) = status_of(loop).problems
        assert problem.startswith("error: [vip] pool 10.112.0.0/24: overlaps docker network backend 10.112.0.0/26 of")
        assert '`docker network rm backend`), or set [vip] pool = "10.112.1.0/24"' in problem
        assert bench.plane.table == before, "what is bound stays"
        bench.engine = EngineFacts()
        bench.facts.are(OUTSIDE)
        await bench.passes(ENGINE_REST + 1)
        assert status_of(loop).problems == ()


async def test_a_vip_that_would_take_the_traffic_of_another_host_is_not_bound() -> None:
    bench = Bench()
    bench.facts.are(EVERYTHING)
    async with bench.running() as loop:
        bench.source.say([numbered_instance(1, PUBLISHED)])
        await bench.passes()
        assert list(bench.real_servers()) == ["tcp://192.0.2.1:30080"]
        assert (bench.plane.table.vips, bench.zones) == (frozenset(), [])
        pool, withheld = status_of(loop).problems
        assert "overlaps route 10.0.0.0/8 dev eth1" in pool
        assert 'set [vip] pool = "172.16.0.0/24"' in pool
        assert withheld.startswith("error: service web.test: its VIP 10.112.0.")
        assert "is not bound on this worker: it is in 10.0.0.0/8, a network of this host" in withheld
        explanation = explain("web.test", loop.snapshots.evidence())
        assert not explanation.works
        (way,) = explanation.ways
        assert [reason.cause for reason in way.ports[0].why_not] == ["vip-withheld"]
        assert [str(name.why_not and name.why_not.cause) for name in way.names] == ["vip-withheld"]

        bench.facts.are(OUTSIDE)
        await bench.passes()
        assert len(bench.plane.table.vips) == 1
        assert list(bench.zones[-1]) == ["web.test"]
        assert status_of(loop).problems == ()


async def test_a_restart_with_an_overlap_keeps_the_vips_that_are_bound() -> None:
    bench = Bench()
    async with bench.running():
        bench.source.say([numbered_instance(1)])
        await bench.passes()
    bound = bench.plane.table
    bench.facts.are(EVERYTHING)
    async with bench.running() as loop:
        bench.source.say(
            [numbered_instance(1), instance(owner="demo/shop", labels={"mesh.routing.port_80": "shop.test"})]
        )
        await bench.passes()
        assert bench.plane.table == bound
        assert list(bench.zones[-1]) == ["web.test"]
        assert [line.split(":")[1] for line in status_of(loop).problems] == [
            " [vip] pool 10.112.0.0/24",
            " service shop.test",
        ]


async def test_a_new_vip_is_chosen_outside_of_the_networks_of_the_host() -> None:
    bench = Bench()
    bench.facts.are(HostFacts(routes=(HostRoute(ip_network("10.112.0.0/25"), "br-1"),)))
    async with bench.running():
        await bench.passes()
        many = [
            instance(f"demo/s{n}/10.2.0.{n + 1}", owner=f"demo/s{n}", labels={"mesh.routing.port_80": f"s{n}.test"})
            for n in range(20)
        ]
        bench.source.say(many)
        await bench.passes()
        assert len(bench.plane.table.vips) == 20
        assert not [vip for vip in bench.plane.table.vips if int(vip.split(".")[3]) < 128]


async def test_facts_that_cannot_be_read_leave_the_last_ones_in_force() -> None:
    bench = Bench()
    bench.facts.are(EVERYTHING)
    error = HostError(Code.HOST_UNREADABLE, "the facts of this host cannot be read (no): see `dmesg`")
    async with bench.running() as loop:
        bench.source.say([numbered_instance(1)])
        await bench.passes()
        bench.facts.fail(error)
        await bench.passes()
        assert status_of(loop).frozen == (str(error),)
        assert bench.plane.table.vips == frozenset()
        bench.facts.are(OUTSIDE)
        await bench.passes()
        assert (status_of(loop).frozen, len(bench.plane.table.vips)) == ((), 1)


async def test_a_worker_whose_host_tells_nothing_serves() -> None:
    bench = Bench()
    bench.facts.fail(HostError(Code.HOST_UNREADABLE, "the facts of this host cannot be read (no): see `dmesg`"))
    async with bench.running():
        bench.source.say([numbered_instance(1)])
        await bench.passes()
        assert len(bench.plane.table.vips) == 1


async def test_published_ports_of_labels_are_compared_with_those_of_outgoing_connections() -> None:
    bench = Bench()
    bench.facts.are(replace(OUTSIDE, local_ports=range(30070, 61000), reserved_ports=frozenset([1234])))
    async with bench.running() as loop:
        bench.source.say([numbered_instance(1, PUBLISHED)])
        await bench.passes()
        bench.facts.are(replace(OUTSIDE, local_ports=range(30070, 61000), reserved_ports=frozenset([1234])))
        await bench.passes()
        (problem,) = status_of(loop).problems
        assert problem.startswith("warning: service web.test: published port 30080 is among the ports of outgoing")
        assert "net.ipv4.ip_local_reserved_ports = 1234,30080'" in problem
        bench.facts.are(replace(OUTSIDE, local_ports=range(30070, 61000), reserved_ports=frozenset([1234, 30080])))
        await bench.passes()
        assert status_of(loop).problems == ()


@pytest.mark.parametrize(
    "place", [(FakeHostFacts, "changes"), (FakeHostFacts, "read"), (host_watcher, "host_problems")]
)
async def test_an_unexpected_error_is_counted_and_the_worker_serves(
    place: tuple[Any, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    before = INTERNAL_ERRORS.counts()[DaemonPart.HOST]
    bench = Bench()
    bench.facts.are(EVERYTHING)

    def fail(*_: object) -> None:
        raise LookupError("on purpose")

    monkeypatch.setattr(*place, fail)
    async with bench.running() as loop:
        bench.source.say([numbered_instance(1, PUBLISHED)])
        await bench.passes()
        assert "tcp://192.0.2.1:30080" in bench.real_servers()
        assert INTERNAL_ERRORS.counts()[DaemonPart.HOST] > before
        assert "LookupError: on purpose" in [p.reason for p in loop.snapshots.observe().problems["internal"]]
        monkeypatch.undo()
        await bench.passes(60)
        assert any("overlaps route 10.0.0.0/8 dev eth1" in p for p in status_of(loop).problems), "it is watched again"
    INTERNAL_ERRORS.forget()


async def test_an_engine_that_raises_costs_only_its_own_facts() -> None:
    bench = Bench()

    async def fail() -> EngineFacts:
        raise LookupError("on purpose")

    bench.engine_facts = fail  # type: ignore[method-assign]
    bench.facts.are(EVERYTHING)
    async with bench.running() as loop:
        bench.source.say([numbered_instance(1)])
        await bench.passes()
        bench.facts.are(OUTSIDE)
        await bench.passes()
        assert len(bench.plane.table.vips) == 1
        (problem,) = loop.snapshots.observe().problems["internal"]
        assert problem.subject == "host, engine facts"
    INTERNAL_ERRORS.forget()


async def test_a_network_that_changes_all_the_time_does_not_cost_the_engine_and_the_loop() -> None:
    """As with a routing daemon: the engine is asked now and then, and a pass is due only if the pool is concerned."""
    bench, asked = Bench(), 0

    async def engine_facts() -> EngineFacts:
        nonlocal asked
        asked += 1
        return EngineFacts()

    bench.engine_facts = engine_facts  # type: ignore[method-assign]
    async with bench.running() as loop:
        bench.source.say([numbered_instance(1)])
        await bench.passes()
        passes, asked = loop.stats.passes, 0
        for number in range(100):
            bench.facts.are(HostFacts(routes=(HostRoute(ip_network(f"198.51.100.{number}/32"), "eth0"),)))
            await bench.passes(0.05)
        assert loop.stats.passes == passes
        assert asked <= 5 / ENGINE_REST + 1


DOCKER_28 = EngineFacts("28.5.2", live_restore=True)
DIRECT = HostNeeds(pool=SMALL_POOL, data_plane="ipvs", routes_to_containers=True)


async def test_what_the_version_of_an_engine_suggests_counts_only_while_the_rules_cannot_be_read() -> None:
    firewall = FakeFirewall()
    bench = Bench(firewall=firewall, needs=DIRECT, engine=DOCKER_28)
    async with bench.running() as loop:
        bench.source.say([numbered_instance(1)])
        await bench.passes(ENGINE_REST + 1)
        assert status_of(loop).problems == (), "the rules do not drop it: the network is not protected"
        firewall.report = FirewallReport(is_read=False)
        firewall.changed.set()
        await bench.passes()
        bench.facts.are(OUTSIDE)
        await bench.passes()
        (problem,) = status_of(loop).problems
        assert "it drops what other workers send to the addresses of its containers" in problem


async def test_the_firewall_is_judged_for_what_other_workers_send() -> None:
    firewall = FakeFirewall()
    bench = Bench(firewall=firewall)
    async with bench.running() as loop:
        bench.source.say([numbered_instance(1)])
        await bench.passes()
        assert firewall.demands[-1].direct == frozenset(), "without other workers nobody else sends"
        bench.cluster.write(encode_daemon("w2", "0", "a", "10.1.0.2:9781"))
        await bench.passes()
        firewall.changed.set()
        await bench.passes(2.0)
        (found,) = firewall.demands[-1].direct
        assert (found.service, found.port) == ("web.test", 80)
        assert loop.peers.workers()


async def test_the_firewall_stays_open_for_a_moment_after_the_last_service() -> None:
    """An engine that restarts without live-restore ends all containers, and starts them again."""
    firewall = FakeFirewall()
    bench = Bench(firewall=firewall)
    async with bench.running():
        bench.source.say([numbered_instance(1)])
        await bench.passes()
        bench.source.say([])
        await bench.passes(STAYS_OPEN / 2)
        assert not bench.plane.table.virtual_servers
        assert firewall.demands[-1].needed
        bench.source.say([numbered_instance(1)])
        await bench.passes()
        assert all(demand.needed for demand in firewall.demands if demand != firewall.demands[0])
        bench.source.say([])
        await bench.passes(2 * AUDIT)
        assert not firewall.demands[-1].needed
