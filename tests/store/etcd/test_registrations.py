"""Records of a worker in etcd that differ from what it wrote: deleted, overwritten, applied late, without a lease."""

import asyncio
from collections.abc import AsyncGenerator, Iterator
from contextlib import aclosing

import pytest

from mesh.cluster.records.decode import daemon_session
from mesh.cluster.records.encode import encode_daemon
from mesh.store import StoreError, StoreSnapshot
from mesh.store.etcd.registrations import RegistrationKeeper
from tests.store.contract import watching
from tests.store.etcd.server import EtcdServer, SteeredEtcdClient, ends_as, etcd, following, until, worker

ELDER, NEWER = (encode_daemon("w1", "0.1.0", run) for run in ("elder", "newer"))
RECORDS = {"workers/w1/x": b"x", "workers/w1/y": b"y", **ELDER}


@pytest.fixture(scope="module")
def single(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EtcdServer]:
    with etcd(tmp_path_factory.mktemp("etcd")) as server:
        yield server


def leases(server: EtcdServer, prefix: str) -> set[str]:
    """Of all keys below it; `0` for none."""
    shown = server.ctl("get", "--prefix", prefix, "-w", "fields").splitlines()
    return {line.partition(" : ")[2] for line in shown if line.startswith('"Lease"')}


async def no_more(snapshots: AsyncGenerator[StoreSnapshot, None], seconds: float) -> None:
    """Nothing changes for so long."""
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(seconds):
            await anext(snapshots)


async def test_deleted_records_of_a_worker_are_written_again(single: EtcdServer) -> None:
    url = single.fresh()
    records = {"workers/w1/x": b"x", "workers/w1/y": b"y"}
    async with worker(url, ttl=60) as store, aclosing(watching(store)) as snapshots:
        await store.register(records)
        await until(snapshots, lambda seen: seen == records)
        single.ctl("del", f"{url.prefix}workers/w1/x")
        await until(snapshots, lambda seen: "workers/w1/x" not in seen)
        await until(snapshots, lambda seen: seen == records)


async def test_two_daemons_with_one_name_do_not_overwrite_each_other(single: EtcdServer) -> None:
    url = single.fresh()
    async with worker(url) as elder, worker(url) as newer, aclosing(watching(elder)) as snapshots:
        await elder.register(RECORDS)
        theirs = {"workers/w1/x": b"other", **NEWER}
        await newer.register(theirs)
        await until(snapshots, lambda seen: seen == theirs)
        await no_more(snapshots, 3)


@pytest.mark.parametrize(
    ("key", "value", "leased"),
    [
        pytest.param("x", "old", True, id="an older write that is applied late"),
        pytest.param("more", "old", True, id="an older write of what is gone since"),
        pytest.param("x", "garbage", False, id="overwritten by hand"),
        pytest.param("x", "x", False, id="the same, without a lease"),
        pytest.param("more", "of nobody", False, id="one too many"),
        pytest.param("daemon", "garbage", False, id="no record of a daemon"),
        pytest.param("daemon", "garbage", True, id="no record of a daemon, with a lease"),
        pytest.param("daemon", NEWER["workers/w1/daemon"].decode(), False, id="of a daemon without a lease"),
    ],
)
async def test_overwritten_records_of_a_worker_are_written_again(
    single: EtcdServer, key: str, value: str, leased: bool, caplog: pytest.LogCaptureFixture
) -> None:
    url = single.fresh()
    async with worker(url, ttl=60) as store, following(store):
        await store.register(RECORDS)
        before = await store.read()
        (lease,) = leases(single, f"{url.prefix}workers/")
        under = [f"--lease={int(lease):x}"] if leased else []
        await asyncio.to_thread(single.ctl, "put", *under, f"{url.prefix}workers/w1/{key}", value)
        async with asyncio.timeout(10):
            while (snapshot := await store.read()).revision < before.revision + 2:
                pass  # the put, and the answer to it
        assert snapshot.records == RECORDS
        assert (
            f"1 records of this worker differ from what it wrote, such as {url.prefix}workers/w1/{key};" in caplog.text
        )
        assert leases(single, f"{url.prefix}workers/") == {lease}, "they go with the worker"


async def test_continuous_outside_writes_are_repaired_at_a_limited_rate(single: EtcdServer) -> None:
    url = single.fresh()
    async with worker(url, ttl=60) as store, aclosing(watching(store)) as snapshots:
        await store.register(RECORDS)
        await until(snapshots, lambda seen: seen == RECORDS)
        repaired = []
        for _ in range(3):
            await asyncio.to_thread(single.ctl, "put", f"{url.prefix}workers/w1/x", "garbage")
            await until(snapshots, lambda seen: seen["workers/w1/x"] == b"garbage")
            overwritten = asyncio.get_running_loop().time()
            await until(snapshots, lambda seen: seen == RECORDS)
            repaired.append(asyncio.get_running_loop().time())
            if len(repaired) == 1:
                assert repaired[0] - overwritten < 1.5, "at once"
        assert repaired[2] - repaired[0] > 3, "then one each two seconds"


async def test_many_registrations_in_a_row_trigger_no_repair(
    single: EtcdServer, caplog: pytest.LogCaptureFixture
) -> None:
    """The watch lags behind what is written, and must not be taken for somebody else's word."""
    url = single.fresh()
    async with worker(url) as store, aclosing(watching(store)) as snapshots:

        async def write() -> None:
            for number in range(300):
                more = {f"workers/w1/{number % 7}": b"", f"health/w1/{number}": b""}
                await store.register({**RECORDS, "workers/w1/x": str(number).encode(), **more})

        writing = asyncio.ensure_future(write())
        await until(snapshots, lambda seen: seen.get("workers/w1/x") == b"299", seconds=50)
        await writing
        assert "not what it wrote" not in caplog.text


async def test_the_older_daemon_registers_again_once_the_newer_one_is_gone(single: EtcdServer) -> None:
    url = single.fresh()
    theirs, newest = {"workers/w1/x": b"other", **NEWER}, {**RECORDS, "workers/w1/z": b"z"}
    async with worker(url, "w2") as other, following(other) as seen, worker(url, ttl=2) as elder, following(elder):
        await elder.register(RECORDS)
        (lease,) = leases(single, f"{url.prefix}workers/")
        async with worker(url, ttl=2) as newer, following(newer):
            await newer.register(theirs)
            await ends_as(seen, theirs)  # the elder's own watch may be behind this one
            assert leases(single, f"{url.prefix}workers/") == {lease}, "it has taken the elder's over"
            pictures = len(seen)
            await elder.register(newest)
            await asyncio.sleep(4)
            assert len(seen) == pictures, "no contest"
        await ends_as(seen, newest)
        pictures = len(seen)
        await asyncio.sleep(3)
        assert len(seen) == pictures, "its own lease is kept alive"


@pytest.mark.parametrize("in_doubt", [True, False], ids=["after a write without an answer", "without a doubt"])
async def test_a_daemon_resumed_after_another_took_its_name_does_not_take_it_back(
    single: EtcdServer, in_doubt: bool
) -> None:
    url = single.fresh()
    gateway = SteeredEtcdClient(url.members)
    async with worker(url, ttl=60, gateway=gateway) as elder:  # nobody keeps its watch: it knows nothing of the other
        await elder.register(RECORDS)
        async with worker(url, ttl=60) as newer, following(newer) as seen:
            theirs = {"workers/w1/x": b"other", **NEWER}
            await newer.register(theirs)
            if in_doubt:
                gateway.lost = {"kv/txn"}  # from now on it has to read what the store holds
                with pytest.raises(StoreError):
                    await elder.register({**RECORDS, "workers/w1/z": b"z"})
            await elder.register({**RECORDS, "workers/w1/z": b"z"})
            assert (await newer.read()).records == theirs
            await newer.register({**theirs, "workers/w1/last": b""})
            await ends_as(seen, {**theirs, "workers/w1/last": b""})
            assert not any("workers/w1/z" in records for records in seen)


async def test_records_read_from_a_former_store_incarnation_do_not_count(single: EtcdServer) -> None:
    """The answer was under way when the store was lost."""
    url = single.fresh()
    own = tuple(f"{url.prefix}{part}/w1/".encode() for part in ("workers", "health"))
    wanted = {f"{url.prefix}{key}".encode(): value for key, value in RECORDS.items()}
    gateway = SteeredEtcdClient(url.members)
    registrations = RegistrationKeeper(gateway, own, 60, daemon_session)

    def lose() -> None:
        single.ctl("del", f"{url.prefix}workers/w1/x")
        registrations.begin_anew()

    async with worker(url, "w2", gateway=gateway) as reader, asyncio.TaskGroup() as tasks:
        await reader.read()  # from now on the store has an origin
        keeping = tasks.create_task(registrations.keep())
        await registrations.register(wanted)
        gateway.lost = {"kv/txn"}  # from now on it has to read what the store holds
        with pytest.raises(StoreError):
            await registrations.register({})
        gateway.after = {"kv/range": lose}
        await registrations.register(wanted)
        async with asyncio.timeout(10):
            while (await reader.read()).records != RECORDS:
                await asyncio.sleep(0.05)
        keeping.cancel()
