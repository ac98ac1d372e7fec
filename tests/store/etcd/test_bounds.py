"""Large values below the prefix cost their own record alone."""

from contextlib import aclosing
from pathlib import Path

from mesh.store.etcd.mirror import MAX_VALUE_BYTES
from tests.store.contract import watching
from tests.store.etcd.server import etcd, until, worker


async def test_values_that_no_page_can_hold_are_read_one_by_one_and_count_as_empty(tmp_path: Path) -> None:
    with etcd(tmp_path) as server:
        url = server.fresh()
        async with worker(url) as store, worker(url, "w2") as other:
            await store.register({"workers/w1/x": b"1"})
            for number in range(12):
                await other.claim({f"claims/large/{number}": b"x" * 700_000})
            await other.claim({"claims/allowed": b"y" * MAX_VALUE_BYTES})
            records = (await store.read()).records
            assert records["workers/w1/x"] == b"1"
            assert records["claims/allowed"] == b"y" * MAX_VALUE_BYTES
            assert {records[f"claims/large/{number}"] for number in range(12)} == {b""}
            async with aclosing(watching(store)) as snapshots:
                await until(snapshots, lambda seen: "claims/allowed" in seen)
                await other.claim({"claims/one more": b"z" * 700_000})
                seen = await until(snapshots, lambda seen: "claims/one more" in seen)
                assert seen.records["claims/one more"] == b""
