"""The etcd store while etcd fails: members killed, frozen, compacted or wiped, and leases lost."""

import asyncio
import json
import shutil
from collections.abc import Iterator
from contextlib import aclosing
from pathlib import Path

import pytest

from mesh.config.etcd_url import EtcdUrl
from mesh.store import StoreError
from mesh.store.etcd import EtcdClient
from mesh.store.etcd.messages import RangeResponse
from tests.store.contract import watching
from tests.store.etcd.server import EtcdServer, SteeredEtcdClient, etcd, following, retried, until, worker


@pytest.fixture
def single(tmp_path: Path) -> Iterator[EtcdServer]:
    with etcd(tmp_path) as server:
        yield server


@pytest.fixture
def three(tmp_path: Path) -> Iterator[EtcdServer]:
    with etcd(tmp_path, 3) as server:
        yield server


async def test_the_leader_is_killed_and_nothing_is_lost(three: EtcdServer) -> None:
    url = three.fresh()
    async with worker(url) as store, worker(url, "w2") as other, aclosing(watching(other)) as snapshots:
        await store.register({"workers/w1/x": b"0"})
        await until(snapshots, lambda seen: seen == {"workers/w1/x": b"0"})
        killed = three.leader()
        killed.kill()
        took = await retried(store, {"workers/w1/x": b"1"})
        assert took < 5
        assert (await until(snapshots, lambda seen: seen["workers/w1/x"] == b"1")).records == {"workers/w1/x": b"1"}
        assert await store.claim({"claims/a": b"1"}) == {}
        await until(snapshots, lambda seen: "claims/a" in seen)
        three.start([killed])


async def test_a_frozen_member_is_abandoned_by_watches_too(three: EtcdServer) -> None:
    """Its kernel goes on to acknowledge what is sent to it: only an answer proves that it lives."""
    url = three.fresh()
    follower = next(member for member in three.members if member is not three.leader())
    two = next(member for member in three.members if member is not follower)
    only = EtcdUrl((follower.url, two.url), url.prefix)
    gateway = SteeredEtcdClient(only.members, first=0)  # the one that will freeze
    async with (
        worker(url) as store,
        worker(only, "w2", ttl=3, gateway=gateway) as other,
        aclosing(watching(other)) as snapshots,
    ):
        await other.register({"workers/w2/x": b"x"})
        await until(snapshots, lambda seen: "workers/w2/x" in seen)
        follower.freeze()
        try:
            await retried(store, {"workers/w1/x": b"1"})
            await until(snapshots, lambda seen: "workers/w1/x" in seen, seconds=8)
            assert "workers/w2/x" in (await other.read()).records, "its lease was kept alive over another member"
        finally:
            follower.thaw()


async def test_a_frozen_etcd_is_reported_soon_whatever_the_length_of_the_lease(single: EtcdServer) -> None:
    async with worker(single.fresh(), ttl=60) as store, following(store):
        await store.register({"workers/w1/x": b"x"})
        await asyncio.sleep(2)
        (member,) = single.members
        member.freeze()
        try:
            async with asyncio.timeout(15):
                while store.trouble is None:
                    await asyncio.sleep(0.02)
            assert store.trouble.text.startswith("since 20")
        finally:
            member.thaw()


async def test_a_frozen_etcd_is_reported_by_a_worker_that_has_registered_nothing(single: EtcdServer) -> None:
    async with worker(single.fresh(), ttl=10) as store, following(store):
        (member,) = single.members
        member.freeze()
        try:
            async with asyncio.timeout(60):
                while store.trouble is None:
                    await asyncio.sleep(0.02)
        finally:
            member.thaw()
        async with asyncio.timeout(60):
            while store.trouble is not None:
                await asyncio.sleep(0.02)


async def test_a_failed_read_is_reported_like_a_failed_watch() -> None:
    async with worker(EtcdUrl(("http://127.0.0.1:1",), "/x/")) as store:
        with pytest.raises(StoreError):
            await store.read()
        assert "Connection refused" in str(store.trouble)


async def test_without_a_majority_the_last_view_stays_and_the_failure_is_reported(three: EtcdServer) -> None:
    url = three.fresh()
    async with worker(url) as store, worker(url, "w2") as other, aclosing(watching(other)) as snapshots:
        await store.register({"workers/w1/x": b"0"})
        await until(snapshots, lambda seen: seen == {"workers/w1/x": b"0"})
        killed = [three.leader(), *[m for m in three.members if m is not three.leader()]][:2]
        for member in killed:
            member.kill()
        waiting = asyncio.ensure_future(until(snapshots, lambda seen: seen.get("workers/w1/x") == b"1", 40))
        async with asyncio.timeout(15):
            while other.trouble is None:
                await asyncio.sleep(0.05)
        assert other.trouble.text.startswith("since 20")
        with pytest.raises(StoreError, match=r"etcd is not available \(.*; check that etcd runs"):
            await store.claim({"claims/a": b"1"})
        assert not waiting.done(), "no picture without a majority"
        three.start(killed)
        await retried(store, {"workers/w1/x": b"1"})
        await waiting
        assert await store.claim({"claims/a": b"1"}) == {}
        async with asyncio.timeout(10):
            while other.trouble is not None:
                await asyncio.sleep(0.05)


async def test_all_are_killed_and_come_back_with_every_claim_and_no_gap(three: EtcdServer) -> None:
    url = three.fresh()
    async with worker(url, ttl=3) as store, worker(url, "w2", ttl=3) as other, aclosing(watching(other)) as snapshots:
        await store.claim({"claims/a": b"1"})
        await store.register({"workers/w1/x": b"x"})
        await until(snapshots, lambda seen: len(seen) == 2)
        seen_without = []

        async def look() -> None:
            async for snapshot in snapshots:
                seen_without.append("workers/w1/x" not in snapshot.records)
                if "workers/w1/new" in snapshot.records:
                    return

        looking = asyncio.ensure_future(look())
        three.stop()
        await asyncio.sleep(5)  # longer than the lease
        with pytest.raises(StoreError, match="Connection refused"):
            await other.claim({"claims/a": b"2"})
        assert not looking.done()
        await asyncio.to_thread(three.start)
        await retried(store, {"workers/w1/x": b"x", "workers/w1/new": b"n"})
        async with asyncio.timeout(10):
            await looking
        assert not any(seen_without), "the lease was kept: its endpoints were there throughout"
        assert await other.claim({"claims/a": b"2"}) == {"claims/a": b"1"}, "claims outlive it"


async def test_a_lease_that_is_lost_is_regained_at_once(single: EtcdServer) -> None:
    url = single.fresh()
    records = {"workers/w1/x": b"x", "health/w1/x": b"h"}
    async with worker(url, ttl=3) as store, worker(url, "w2") as other, aclosing(watching(other)) as snapshots:
        await store.register(records)
        await until(snapshots, lambda seen: seen == records)
        for lease in single.ctl("lease", "list").splitlines()[1:]:
            single.ctl("lease", "revoke", lease)
        begun = asyncio.get_running_loop().time()
        await until(snapshots, lambda seen: not seen)
        await until(snapshots, lambda seen: seen == records)
        assert asyncio.get_running_loop().time() - begun < 3, "sooner than the TTL"


async def test_a_lease_is_kept_alive_while_writing_takes_long(single: EtcdServer) -> None:
    url = single.fresh()
    gateway = SteeredEtcdClient(url.members)
    async with worker(url, ttl=2, gateway=gateway) as store:
        await store.register({"workers/w1/x": b"x"})
        before = (await store.read()).revision
        gateway.delay = {"kv/txn": 5}
        await store.register({"workers/w1/x": b"y"})
        after = await store.read()
        assert (after.revision, after.records) == (before + 1, {"workers/w1/x": b"y"}), "the write, and no loss before"


async def test_a_registration_under_a_lost_lease_succeeds(single: EtcdServer) -> None:
    url = single.fresh()
    async with worker(url, ttl=60) as store:
        await store.register({"workers/w1/x": b"x"})
        for lease in single.ctl("lease", "list").splitlines()[1:]:
            single.ctl("lease", "revoke", lease)
        await store.register({"workers/w1/x": b"x", "workers/w1/y": b"y"})
        assert set((await store.read()).records) == {"workers/w1/x", "workers/w1/y"}


async def test_a_watch_interrupted_over_a_compaction_lists_again(single: EtcdServer) -> None:
    url = single.fresh()
    gateway = SteeredEtcdClient(url.members)
    async with (
        worker(url) as store,
        worker(url, "w2", gateway=gateway) as other,
        aclosing(watching(other)) as snapshots,
    ):
        await store.claim({"claims/a": b"1"})
        await store.register({"workers/w1/x": b"x", "workers/w1/y": b"y"})
        before = await until(snapshots, lambda seen: len(seen) == 3)
        gateway.drop_watches()
        await store.register({"workers/w1/y": b"Y"})
        for number in range(10):
            await store.claim({f"claims/{number}": b"n"})
        single.ctl("compact", str((await store.read()).revision))
        after = await until(snapshots, lambda seen: len(seen) == 12)
        assert after.revision > before.revision
        assert after.records == (await store.read()).records, "what was deleted meanwhile is gone"


async def test_a_store_that_lost_its_disks_is_another_incarnation(single: EtcdServer) -> None:
    url = single.fresh()
    async with worker(url) as store, aclosing(watching(store)) as snapshots:
        await store.claim({"claims/a": b"1"})
        await store.register({"workers/w1/x": b"x"})
        before = await until(snapshots, lambda seen: len(seen) == 2)
        single.stop()
        for data in single.directory.glob("m*/"):
            if data.is_dir():
                shutil.rmtree(data)
        await asyncio.to_thread(single.start)
        after = await until(snapshots, lambda seen: seen == {"workers/w1/x": b"x"})
        assert after.origin != before.origin
        assert "claims/a" not in after.records


async def test_a_store_with_all_keys_deleted_is_another_incarnation(single: EtcdServer) -> None:
    url = single.fresh()
    async with worker(url) as store, aclosing(watching(store)) as snapshots:
        await store.claim({"claims/a": b"1"})
        before = await until(snapshots, lambda seen: "claims/a" in seen)
        single.ctl("del", "--prefix", url.prefix)
        assert (await until(snapshots, lambda seen: not seen)).origin != before.origin


async def test_a_worker_registers_again_after_all_keys_were_deleted(single: EtcdServer) -> None:
    """Its lease is alive and says nothing of it."""
    url = single.fresh()
    records = {"workers/w1/x": b"x", "health/w1/x": b"h"}
    async with worker(url, ttl=60) as store, aclosing(watching(store)) as snapshots:
        await store.register(records)
        await until(snapshots, lambda seen: seen == records)
        single.ctl("del", "--prefix", url.prefix)
        await until(snapshots, lambda seen: not seen)
        await until(snapshots, lambda seen: seen == records)


async def test_records_deleted_during_an_interrupted_watch_are_written_again(single: EtcdServer) -> None:
    url = single.fresh()
    records = {"workers/w1/x": b"x", "workers/w1/y": b"y"}
    gateway = SteeredEtcdClient(url.members)
    async with worker(url, ttl=60, gateway=gateway) as store, aclosing(watching(store)) as snapshots:
        await store.register(records)
        await until(snapshots, lambda seen: seen == records)
        gateway.drop_watches()
        single.ctl("del", f"{url.prefix}workers/w1/x")
        await store.claim({"claims/a": b"1"})
        single.ctl("compact", str((await store.read()).revision))
        await until(snapshots, lambda seen: seen == {"claims/a": b"1", "workers/w1/y": b"y"})
        await until(snapshots, lambda seen: seen == {"claims/a": b"1", **records})


async def test_a_full_etcd_can_still_be_read(single: EtcdServer) -> None:
    url = single.fresh()
    gateway = EtcdClient(url.members)
    async with worker(url, gateway=gateway) as store:
        await store.read()
        await store.claim({"claims/a": b"1"})
        await store.register({"workers/w1/x": b"x"})
        (status,) = json.loads(single.ctl("endpoint", "status", "-w", "json"))
        alarm = {"action": "ACTIVATE", "memberID": status["Status"]["header"]["member_id"], "alarm": "NOSPACE"}
        await gateway.call("maintenance/alarm", alarm, RangeResponse)
        async with worker(url, "w2") as late, aclosing(watching(late)) as snapshots:
            await until(snapshots, lambda seen: seen == {"claims/a": b"1", "workers/w1/x": b"x"})
            with pytest.raises(StoreError, match="its quota is used up"):
                await late.register({"workers/w2/x": b"x"})
            single.ctl("alarm", "disarm")
            await retried(late, {"workers/w2/x": b"x"})
            await until(snapshots, lambda seen: "workers/w2/x" in seen)


async def test_a_stopped_member_is_skipped_and_a_stopped_cluster_is_reported() -> None:
    down = EtcdUrl(("http://127.0.0.1:1", "http://127.0.0.1:2"), "/x/")
    async with worker(down) as store:
        with pytest.raises(StoreError) as caught:
            await store.claim({"claims/a": b"1"})
        assert "http://127.0.0.1:1: " in str(caught.value)
        assert "http://127.0.0.1:2: " in str(caught.value)
        assert str(caught.value).endswith("check that etcd runs and that [store] url lists its client addresses")
