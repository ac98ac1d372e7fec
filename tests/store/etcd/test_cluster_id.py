"""Members of two etcd clusters in one URL: no claim is granted twice."""

import asyncio
import logging
import shutil
from collections.abc import Iterator, Mapping
from contextlib import aclosing
from pathlib import Path

import pytest

from mesh.config.etcd_url import EtcdUrl
from mesh.model.codes import Code
from mesh.store import StoreError, StoreSnapshot
from mesh.store.etcd.cluster_id import choose_cluster
from tests.store.contract import watching
from tests.store.etcd.server import EtcdServer, SteeredEtcdClient, etcd, retried, until, worker

A, B, C = 0xAAAA, 0xBBBB, 0xCCCC


@pytest.mark.parametrize(
    ("said", "members", "before", "cluster"),
    [
        ({"a": A}, "a", None, A),
        ({"a": A}, "a", B, A),
        ({"a": A, "b": A}, "abc", None, A),
        ({"a": A, "b": A}, "abc", B, A),
        ({"a": B, "b": A, "c": A}, "abc", None, A),
        ({"a": B, "b": A, "c": A}, "abc", B, A),
        ({"a": A}, "ab", None, A),
        ({"a": A}, "ab", A, A),
        ({"a": A}, "abc", A, A),
        ({"a": A}, "ab", B, "another etcd cluster than before (a: aaaa; before: bbbb)"),
        ({"a": A}, "abc", B, "another etcd cluster than before (a: aaaa; before: bbbb)"),
        ({"a": A, "b": B}, "ab", None, "different etcd clusters (a: aaaa, b: bbbb)"),
        ({"a": A, "b": B}, "ab", A, "different etcd clusters (a: aaaa, b: bbbb)"),
        ({"a": A, "b": B}, "abc", A, "different etcd clusters (a: aaaa, b: bbbb)"),
        ({"a": A, "b": B, "c": C}, "abc", None, "different etcd clusters (a: aaaa, b: bbbb, c: cccc)"),
        ({"a": A, "b": A, "c": B, "d": B}, "abcd", None, "different etcd clusters"),
    ],
)
def test_which_cluster_is_chosen(said: Mapping[str, int], members: str, before: int | None, cluster: int | str) -> None:
    if isinstance(cluster, int):
        assert choose_cluster(said, members, before) == cluster
        return
    with pytest.raises(StoreError) as caught:
        choose_cluster(said, members, before)
    assert cluster in str(caught.value)


@pytest.fixture
def one(tmp_path: Path) -> Iterator[EtcdServer]:
    with etcd(tmp_path / "one") as server:
        yield server


@pytest.fixture
def another(tmp_path: Path) -> Iterator[EtcdServer]:
    with etcd(tmp_path / "another") as server:
        yield server


@pytest.fixture
def three(tmp_path: Path) -> Iterator[EtcdServer]:
    with etcd(tmp_path / "three", 3) as server:
        yield server


async def test_two_clusters_in_one_url_grant_no_claims(one: EtcdServer, another: EtcdServer) -> None:
    url = EtcdUrl(one.urls + another.urls, "/both/")
    gateways = [SteeredEtcdClient(url.members, first=number) for number in range(2)]
    async with (
        worker(url, gateway=gateways[0]) as store,
        worker(url, "w2", gateway=gateways[1]) as other,
    ):
        for number, asking in enumerate((store, other)):
            with pytest.raises(
                StoreError, match=r"belong to different etcd clusters .* list the members of one cluster"
            ) as told:
                await asking.claim({"claims/vips/10.112.0.7": str(number).encode()})
            assert all(f"{member}: " in str(told.value) for member in url.members)
            with pytest.raises(StoreError, match="belong to different etcd clusters"):
                await asking.register({f"workers/w{number + 1}/x": b"x"})
        async with aclosing(watching(store)) as snapshots:
            waiting = asyncio.ensure_future(anext(snapshots))
            async with asyncio.timeout(15):
                while store.trouble is None:
                    await asyncio.sleep(0.02)
            assert store.trouble.code is Code.ETCD_CLUSTERS_DIFFER
            waiting.cancel()
            await asyncio.wait([waiting])
    for server in (one, another):
        assert server.ctl("get", "--prefix", url.prefix) == ""


async def test_a_member_of_a_minority_cluster_is_left_out_and_named(
    three: EtcdServer, another: EtcdServer, caplog: pytest.LogCaptureFixture
) -> None:
    url = EtcdUrl((*another.urls, *three.urls[:2]), "/most/")
    with caplog.at_level(logging.ERROR, "vipmesh"):
        first, second = SteeredEtcdClient(url.members), SteeredEtcdClient(url.members)
        async with (
            worker(url, gateway=first) as store,
            worker(url, "w2", gateway=second) as other,
            aclosing(watching(other)) as snapshots,
        ):
            for number, (gateway, asking) in enumerate(((first, store), (second, other))):
                gateway.ask_first(0)
                await asking.claim({"claims/a": b"1"})
                gateway.ask_first(0)
                await asking.register({f"workers/w{number + 1}/x": b"x"})
            await until(snapshots, lambda seen: len(seen) == 3)
            second.drop_watches()
            second.ask_first(0)  # the watch too
            await retried(store, {"workers/w1/x": b"y"})
            await until(snapshots, lambda seen: seen["workers/w1/x"] == b"y")
    assert another.ctl("get", "--prefix", url.prefix) == ""
    told = f"etcd: {another.urls[0]} belongs to another etcd cluster than most members in [store] url; remove it"
    assert caplog.text.count(told) == 2, "once by each worker"


async def test_a_recreated_cluster_is_another_store_incarnation(three: EtcdServer) -> None:
    url = three.fresh()
    async with worker(url) as store, aclosing(watching(store)) as snapshots:
        await store.claim({"claims/a": b"1"})
        await store.register({"workers/w1/x": b"x"})
        before = await until(snapshots, lambda seen: len(seen) == 2)
        three.stop()
        for member in three.members:
            shutil.rmtree(three.directory / member.command[member.command.index("--name") + 1])
            member.command += ["--initial-cluster-token", "anew"]
        await asyncio.to_thread(three.start)
        after = await until(snapshots, lambda seen: seen == {"workers/w1/x": b"x"})
        assert after.origin.partition("@")[2] != before.origin.partition("@")[2], "the number of the cluster"


async def test_after_a_restart_a_single_member_is_not_another_cluster(one: EtcdServer) -> None:
    url = EtcdUrl((*one.urls, "http://127.0.0.1:1"), "/before/")
    async with worker(url) as store:
        store.remember(StoreSnapshot(7, {}, "some life@abc"))
        with pytest.raises(StoreError, match=r"another etcd cluster than before \(.*; before: abc\)"):
            await store.claim({"claims/a": b"1"})
        assert one.ctl("get", "--prefix", url.prefix) == ""
    async with worker(EtcdUrl(one.urls, "/before/")) as store:
        store.remember(StoreSnapshot(7, {}, "some life@abc"))
        assert await store.claim({"claims/a": b"1"}) == {}, "all members there are"
