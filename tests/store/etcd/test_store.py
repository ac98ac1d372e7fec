"""The etcd store on real etcd: the contract, and what workers see of one another."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, aclosing

import pytest

from mesh.store import ACTING_KEY
from mesh.store.etcd import EtcdStore
from tests.store.contract import StoreContract, watching
from tests.store.etcd.server import EtcdServer, etcd, until, worker


@pytest.fixture(scope="module")
def single(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EtcdServer]:
    with etcd(tmp_path_factory.mktemp("etcd")) as server:
        yield server


@pytest.fixture(scope="module")
def three(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EtcdServer]:
    with etcd(tmp_path_factory.mktemp("etcd3"), 3) as server:
        yield server


class TestSingle(StoreContract):
    @pytest.fixture
    async def store(self, single: EtcdServer) -> AsyncIterator[EtcdStore]:
        async with worker(single.fresh()) as store:
            yield store


class TestThreeMembers(StoreContract):
    @pytest.fixture
    async def store(self, three: EtcdServer) -> AsyncIterator[EtcdStore]:
        async with worker(three.fresh()) as store:
            yield store


async def test_the_keys_are_where_etcdctl_finds_them(single: EtcdServer) -> None:
    url = single.fresh()
    async with worker(url) as store:
        await store.claim({"claims/vips/10.112.0.7": b'{"v":1,"name":"web.test"}'})
        await store.register({"workers/w1/endpoints/a%2Fb": b'{"v":1}'})
        await store.read()
        lines = (await asyncio.to_thread(single.ctl, "get", "--prefix", url.prefix)).splitlines()
    shown = dict(zip(lines[::2], lines[1::2], strict=True))
    assert shown.pop(f"{url.prefix}origin")
    assert shown == {
        f"{url.prefix}claims/vips/10.112.0.7": '{"v":1,"name":"web.test"}',
        f"{url.prefix}workers/w1/endpoints/a%2Fb": '{"v":1}',
    }


async def test_of_many_simultaneous_claims_exactly_one_succeeds(three: EtcdServer) -> None:
    url = three.fresh()
    async with AsyncExitStack() as stack:
        stores = [await stack.enter_async_context(worker(url, f"w{number}")) for number in range(20)]
        for turn in range(5):
            key, pair = f"claims/names/{turn}", f"claims/vips/{turn}"
            wishes = [{key: f"owner {number}".encode(), pair: str(number).encode()} for number in range(20)]
            refused = await asyncio.gather(*(s.claim(wish) for s, wish in zip(stores, wishes, strict=True)))
            (winner,) = [number for number, answer in enumerate(refused) if not answer]
            assert all(answer in ({}, wishes[winner]) for answer in refused), "the losers are told who holds it"
            seen = [(await store.read()).records[key] for store in stores]
            assert set(seen) == {f"owner {winner}".encode()}, "the same one for all"


async def test_of_many_simultaneous_replacements_exactly_one_succeeds(three: EtcdServer) -> None:
    url = three.fresh()
    async with AsyncExitStack() as stack:
        stores = [await stack.enter_async_context(worker(url, f"w{number}")) for number in range(10)]
        await stores[0].claim({"claims/names/x": b"old"})
        done = await asyncio.gather(
            *(s.replace("claims/names/x", b"old", str(n).encode()) for n, s in enumerate(stores))
        )
        assert done.count(True) == 1


async def test_a_burst_is_coalesced_in_order_and_all_workers_converge(three: EtcdServer) -> None:
    url = three.fresh()
    async with worker(url) as store, worker(url, "w2") as other, aclosing(watching(other)) as snapshots:
        snapshot = await anext(snapshots)
        for number in range(1000):
            await store.register({"workers/w1/x": str(number).encode()})
        count, revisions, values = 0, [0], [-1]
        while values[-1] != 999:
            async with asyncio.timeout(10):
                snapshot = await anext(snapshots)
            count += 1
            revisions.append(snapshot.revision)
            values.append(int(snapshot.records["workers/w1/x"]))
            await asyncio.sleep(0.05)  # what a consumer does with it
        assert revisions == sorted(set(revisions))
        assert values == sorted(set(values)), "never back in time"
        assert count < 100, "what came meanwhile is one picture"
        assert (await store.read()).records == snapshot.records


async def test_only_the_changes_of_a_large_registration_are_written_and_in_parts(single: EtcdServer) -> None:
    url = single.fresh()
    async with worker(url) as store, worker(url, "w2") as other, aclosing(watching(other)) as snapshots:
        records = {f"workers/w1/endpoints/{number}": b"x" * 400 for number in range(5000)}
        await store.register(records)
        assert (await until(snapshots, lambda seen: len(seen) == 5000)).records == records
        before = (await store.read()).revision
        records["workers/w1/endpoints/7"] = b"other"
        del records["workers/w1/endpoints/8"]
        await store.register(records)
        changed = await until(snapshots, lambda seen: seen.get("workers/w1/endpoints/7") == b"other")
        assert changed.records == records, "one transaction"
        after = await store.read()
        assert after.records == records
        assert after.revision < before + 10, "all of it would be 40 and more; leases of others may end meanwhile"


async def test_records_of_a_worker_expire_with_its_lease_and_claims_stay(single: EtcdServer) -> None:
    url = single.fresh()
    async with worker(url, "w2") as other, aclosing(watching(other)) as snapshots:
        async with worker(url, "w1", ttl=2) as store:
            await store.claim({"claims/a": b"1"})
            await store.register({"workers/w1/x": b"x"})
            await until(snapshots, lambda seen: "workers/w1/x" in seen)
            await asyncio.sleep(4)
            assert "workers/w1/x" in (await other.read()).records, "kept alive beyond its TTL"
        gone = await until(snapshots, lambda seen: "workers/w1/x" not in seen)
        assert gone.records == {"claims/a": b"1"}


async def test_a_restarted_daemon_takes_over_its_former_lease(single: EtcdServer) -> None:
    url = single.fresh()
    records = {"workers/w1/x": b"x", "health/w1/x": b"h"}
    async with worker(url, "w2") as other, aclosing(watching(other)) as snapshots:
        async with worker(url, "w1") as store:
            await store.register(records)
        before = await until(snapshots, lambda seen: len(seen) == 2)
        async with worker(url, "w1") as again:
            await again.register(records)
            assert (await again.read()).revision == before.revision, "nothing was written"
            await again.register({"workers/w1/x": b"x"})
            assert (await until(snapshots, lambda seen: len(seen) < 2)).records == {"workers/w1/x": b"x"}
        leases = [
            line for line in (await asyncio.to_thread(single.ctl, "lease", "list")).splitlines() if line[0] != "f"
        ]
        held = [await asyncio.to_thread(single.ctl, "lease", "timetolive", "--keys", lease) for lease in leases]
        assert len([text for text in held if url.prefix in text]) == 1


async def test_a_lease_of_another_length_is_not_taken_over(single: EtcdServer) -> None:
    url = single.fresh()
    async with worker(url, "w1", ttl=60) as store:
        await store.register({"workers/w1/x": b"x"})
    async with worker(url, "w1", ttl=2) as again:
        await again.register({"workers/w1/x": b"x"})
    async with worker(url, "w2") as other, aclosing(watching(other)) as snapshots:
        await until(snapshots, lambda seen: not seen)


async def test_one_of_many_holds_a_key_and_it_goes_on_when_that_one_stays_away(three: EtcdServer) -> None:
    url = three.fresh()
    async with AsyncExitStack() as stack:
        stores = [await stack.enter_async_context(worker(url, f"w{number}", ttl=2)) for number in range(5)]
        values = [f"w{number}".encode() for number in range(5)]
        held = await asyncio.gather(
            *(store.hold(ACTING_KEY, value) for store, value in zip(stores, values, strict=True))
        )
        (holder,) = {*held}
        assert holder in values
        others = [(store, value) for store, value in zip(stores, values, strict=True) if value != holder]
        async with asyncio.timeout(40):
            while (new := await others[0][0].hold(ACTING_KEY, others[0][1])) == holder:
                await asyncio.sleep(0.1)
        assert new == others[0][1]
        gone = stores[values.index(holder or b"")]
        assert await gone.hold(ACTING_KEY, holder) == new
        await gone.release(ACTING_KEY, holder or b"")
        assert await gone.hold(ACTING_KEY, None) == new, "it releases only what it has"


async def test_a_held_key_outlives_a_lease_that_was_revoked(single: EtcdServer) -> None:
    url = single.fresh()
    async with worker(url, ttl=60) as store:
        assert await store.hold(ACTING_KEY, b"w1") == b"w1"
        shown = single.ctl("get", f"{url.prefix}{ACTING_KEY}", "-w", "fields").splitlines()
        (lease,) = [line.partition(" : ")[2] for line in shown if line.startswith('"Lease"')]
        single.ctl("lease", "revoke", f"{int(lease):x}")
        assert await store.hold(ACTING_KEY, b"w1") == b"w1"
        assert single.ctl("get", "--print-value-only", f"{url.prefix}{ACTING_KEY}").strip() == "w1"
