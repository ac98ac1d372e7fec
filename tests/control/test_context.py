"""What the parts of a control loop share: the newest view, addresses and events."""

import asyncio
from ipaddress import ip_network

from mesh.control.context import ClusterState, LoopEvents
from mesh.model.claims import Claims
from mesh.model.service import Transport
from mesh.model.view import ClusterView

CLAIMS = Claims(
    {"web.test": "10.112.0.7", "far.test": "8.8.8.8"},
    {"web.test": "demo/web", "far.test": "demo/far"},
    {(Transport.TCP, 30000): ("web.test", 80), (Transport.TCP, 30001): ("far.test", 80)},
    {"10.112.0.7": "web.test", "8.8.8.8": "far.test"},
)


def state() -> ClusterState:
    return ClusterState(ip_network("10.112.0.0/24"))


def test_a_removed_address_is_remembered() -> None:
    cluster = state()
    cluster.move(frozenset({"192.0.2.1", "192.0.2.3"}))
    cluster.move(frozenset({"192.0.2.1"}))
    assert cluster.addresses == frozenset({"192.0.2.1"})
    assert set(cluster.all_addresses()) == {"192.0.2.1", "192.0.2.3"}


def test_claims_outside_of_the_pool_are_not_in_force() -> None:
    cluster = state()
    assert cluster.claims() == Claims()
    cluster.see(ClusterView(claims=CLAIMS))
    assert set(cluster.claims().vips) == {"web.test"}


def test_the_same_claims_stay_the_same_object() -> None:
    cluster = state()
    first = cluster.see(ClusterView(claims=CLAIMS))
    then = cluster.see(ClusterView(claims=CLAIMS, workers=frozenset({"w2"})))
    assert first.claims is then.claims


async def test_a_change_of_instances_wakes_the_loop_and_the_registration() -> None:
    events = LoopEvents()
    events.instances_changed.set()
    await asyncio.wait_for(asyncio.gather(events.wake.wait(), events.registration.wait()), 1)
    assert not events.passed.is_set()
