"""A worker whose lease has ended while it still answers pings: which of its records others keep, and for how long."""

import asyncio
from itertools import groupby

import msgspec
import pytest

from mesh.cluster.endpoint_authority import EndpointAuthority
from mesh.cluster.membership import Membership, admin_addresses, listen_addresses
from mesh.cluster.records.encode import build_view, encode_daemon
from mesh.cluster.sync import ClusterSync
from mesh.control.conditions import LoopConditions
from mesh.model.table import RealKey
from mesh.store import StoreSnapshot
from mesh.testing.store import MemoryCluster, MemoryStore
from tests.builders import SMALL_POOL
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


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        ("10.1.0.2:9780", RealKey("10.1.0.2", 9780)),
        ("[fd00::2]:9780", RealKey("fd00::2", 9780)),
        ("10.1.0.2", None),
        ("10.1.0.2:0", None),
        ("10.1.0.2:99999", None),
        ("0.0.0.0:9780", None),
        ("224.0.0.1:9780", None),
        ("[fe80::2%eth0]:9780", None),
        ("w2.example:9780", None),
        ("[" + ":" * 5000 + "]:1", None),
        (5, None),
        (None, None),
    ],
)
def test_an_admin_address_passes_the_gate_or_there_is_none(written: object, expected: RealKey | None) -> None:
    record = {"workers/w2/daemon": msgspec.json.encode({"v": 1, "version": "1", "session": "s", "admin": written})}
    assert admin_addresses(record).get("w2") == expected
    assert listen_addresses(record) == {}


def test_a_record_says_something_of_its_own_worker_alone() -> None:
    records = encode_daemon("w2", "1", "s", admin="10.1.0.2:9780") | encode_daemon("w3", "1", "s", "10.1.0.3:9781")
    records |= {"workers/w4/endpoints/daemon": records["workers/w2/daemon"]}
    assert admin_addresses(records) == {"w2": RealKey("10.1.0.2", 9780)}
    assert b"admin" not in encode_daemon("w3", "1", "s", "10.1.0.3:9781")["workers/w3/daemon"], "as before this field"
    assert build_view(records)[0].workers == {"w2", "w3"}
    assert build_view(records)[1] != (), "the record of another kind is a problem, not an address"


async def test_the_admin_address_of_a_worker_that_answers_stays_when_its_lease_ends(cluster: MemoryCluster) -> None:
    async with Worker(cluster, "w1").running() as one, Worker(cluster, "w2").running() as two:
        two.offers("a")
        one.met = {"w2"}
        await asyncio.sleep(1)
        assert one.share.admin_addresses == {"w2": RealKey("10.1.0.2", 9780)}
        cluster.expire("w2")
        await asyncio.sleep(1)
        assert one.share.admin_addresses == {"w2": RealKey("10.1.0.2", 9780)}
        one.met.clear()
        one.share.review()
        await asyncio.sleep(1)
        assert one.share.admin_addresses == {}


@pytest.mark.parametrize(
    ("own", "there", "is_asked"),
    [
        ("10.1.0.1", "10.1.0.2", True),
        ("10.1.0.1", "127.0.0.2", False),
        ("127.0.0.1", "127.0.0.2", True),
        ("127.0.0.1", "169.254.1.1", False),
        ("10.1.0.1", "10.1.0.1", False),
        ("10.1.0.1", str(SMALL_POOL[1]), False),
        ("10.1.0.1", "::ffff:127.0.0.1", False),
    ],
)
def test_where_the_admin_api_of_another_worker_can_be(own: str, there: str, is_asked: bool) -> None:
    sync = ClusterSync(
        "w1",
        MemoryStore(MemoryCluster(), "w1"),
        LoopConditions(),
        lambda _: ((), ()),
        admin=RealKey(own, 9780),
        authority=EndpointAuthority("w1", SMALL_POOL),
    )
    sync.move(frozenset({own}))
    assert (sync.admin_refusal(there) is None) is is_asked
