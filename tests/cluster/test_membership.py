"""A worker whose lease has ended while it still answers pings: which of its records others keep, and for how long."""

import asyncio
from itertools import groupby

import pytest

from mesh.cluster.membership import Membership, listen_addresses
from mesh.model.table import RealKey
from mesh.store import StoreSnapshot
from mesh.testing.store import MemoryCluster
from tests.cluster.test_sync import Worker

pytestmark = pytest.mark.looptime


@pytest.fixture
def cluster() -> MemoryCluster:
    return MemoryCluster()


async def test_a_worker_that_answers_stays_without_a_gap_until_it_is_back_in_the_store(cluster: MemoryCluster) -> None:
    async with Worker(cluster, "w1").running() as one, Worker(cluster, "w2").running() as two:
        two.offers("a")
        one.met = {"w2"}
        await asyncio.sleep(1)
        before = len(one.views)
        cluster.expire("w2")
        await asyncio.sleep(1)
        assert one.share.unleased == {"w2"}
        assert one.share.peer_addresses == {"w2": RealKey("10.1.0.2", 9781)}
        two.offers("a", "bb")
        await asyncio.sleep(1)
        assert one.share.unleased == frozenset()
        seen = [[endpoint.id for endpoint in view.endpoints] for view in one.views[before:]]
        assert [ids for ids, _ in groupby(seen)] == [["a"], ["a", "bb"]], "nothing in between"


async def test_a_worker_that_does_not_answer_is_removed_with_its_lease(cluster: MemoryCluster) -> None:
    async with Worker(cluster, "w1").running() as one, Worker(cluster, "w2").running() as two:
        two.offers("a")
        await asyncio.sleep(1)
        cluster.expire("w2")
        await asyncio.sleep(1)
        assert one.seen == []
        assert one.share.peer_addresses == {}


async def test_a_worker_that_stops_answering_is_dropped_at_the_next_review(cluster: MemoryCluster) -> None:
    async with Worker(cluster, "w1").running() as one, Worker(cluster, "w2").running() as two:
        two.offers("a")
        one.met = {"w2"}
        await asyncio.sleep(1)
        cluster.expire("w2")
        await asyncio.sleep(1)
        assert one.seen == [("w2", "a")]
        one.met.clear()
        one.share.review()
        await asyncio.sleep(1)
        assert one.seen == []


async def test_a_withdrawn_endpoint_is_not_a_lost_lease(cluster: MemoryCluster) -> None:
    async with Worker(cluster, "w1").running() as one, Worker(cluster, "w2").running() as two:
        two.offers("a")
        one.met = {"w2"}
        await asyncio.sleep(1)
        two.offers()
        await asyncio.sleep(1)
        assert one.seen == []
        assert one.share.unleased == frozenset()


def test_a_new_store_incarnation_ends_no_lease() -> None:
    daemon = {"workers/w2/daemon": b'{"listens":"10.1.0.2:9781"}', "workers/w2/endpoints/a": b"{}"}
    before = StoreSnapshot(1, daemon, "one")
    there = Membership().after(before, None, "w1")
    assert there.after(StoreSnapshot(2, {}, "two"), before, "w1") == Membership()
    kept = there.after(StoreSnapshot(2, {}, "one"), before, "w1")
    assert kept.all_records() == {"workers/w2/endpoints/a": b"{}"}, "its word counts until others ask in its place"
    assert kept.after(StoreSnapshot(1, {}, "two"), StoreSnapshot(2, {}, "one"), "w1") == kept


@pytest.mark.parametrize(
    ("value", "place"),
    [
        (b'{"v":1,"version":"1","session":"x","listens":"10.1.0.2:9781"}', RealKey("10.1.0.2", 9781)),
        (b'{"v":9,"listens":"[fd00::2]:9781","newer":[1]}', RealKey("fd00::2", 9781)),
        (b'{"v":1,"version":"1","session":"x"}', None),
        (b'{"v":1,"listens":null}', None),
        (b'{"v":1,"listens":"w2:9781"}', None),
        (b'{"v":1,"listens":"10.1.0.2:0"}', None),
        (b'{"v":1,"listens":"10.1.0.2:99999"}', None),
        (b'{"v":1,"listens":"10.1.0.999:9781"}', None),
        (b'{"v":1,"listens":7}', None),
        (b"no json", None),
        (b'{"x":' + b"[" * 3000, None),
        (b'{"listens":"\xff"}', None),
    ],
)
def test_the_listen_address_of_a_worker(value: bytes, place: RealKey | None) -> None:
    assert listen_addresses({"workers/w%2F2/daemon": value}) == ({} if place is None else {"w/2": place})


def test_only_daemon_records_have_listen_addresses() -> None:
    value = b'{"listens":"10.1.0.2:9781"}'
    assert (
        listen_addresses(
            {"workers/w2/endpoints/daemon": value, "health/w2/daemon": value, "claims/names/daemon": value}
        )
        == {}
    )
