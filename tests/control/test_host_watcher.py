"""The facts of the host as they change under a running worker: what is reported, withheld and cleared again."""

from dataclasses import replace
from ipaddress import ip_interface, ip_network

import pytest

from mesh.api.explain.query import explain
from mesh.control.host_watcher import ENGINE_REST
from mesh.host import HostError
from mesh.host.facts import HostFacts
from mesh.host.overlap import HostAddress, HostRoute
from mesh.model.codes import Code
from mesh.model.engine_facts import EngineFacts, EngineNetwork
from mesh.model.service import Instance
from tests.builders import WEB_LABELS, instance, numbered_instance
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
