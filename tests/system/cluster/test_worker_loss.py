"""A worker loses its power or only its daemon: when its endpoints are removed, and when they stay."""

import asyncio
import signal
from collections.abc import Sequence

import pytest

from tests.store.etcd.server import EtcdServer
from tests.system.cluster.lab import CONTAINERS, Lab
from tests.system.cluster.load import Way, load
from tests.system.cluster.workers import (
    ALL,
    PUBLISHED,
    Worker,
    agree,
    all_running,
    asked_endpoints_of,
    lease_of,
    met,
    seconds_until,
)
from tests.system.e2e.programs import eventually

pytestmark = pytest.mark.timeout(120)

ON_W3 = frozenset(address for name, address in CONTAINERS.items() if name.startswith("3"))
LEASE = 5
"""Seconds of a lease by default."""
LATE = 0.5
"""Seconds after a lease's end within which all others send elsewhere. What it takes is in docs/cluster.md."""
RUNS = 4
"""What takes the others longer on a busy machine is in runs of nft: a worker reads its table and writes it."""


async def out_within(seconds: float, worker: Worker, others: Sequence[Worker]) -> None:
    """A worker loses its power; within these seconds the kernel of each of the others sends nothing to it any more."""
    since = asyncio.get_running_loop().time()
    await worker.power_off()
    took = await asyncio.gather(*(seconds_until(other, lambda seen: seen == ALL - ON_W3, since) for other in others))
    assert all(lasted <= seconds + LATE + RUNS * slowest for lasted, slowest in took), took


class TestOthersNotice:
    @pytest.fixture
    def ttl(self) -> int:
        """Long: whatever happens meanwhile is not by the lease."""
        return 60

    @pytest.mark.parametrize("store_is_away", [False, True], ids=["before-its-lease-ends", "while-etcd-is-away"])
    async def test_endpoints_of_a_worker_without_power_are_removed(
        self, lab: Lab, workers: list[Worker], server: EtcdServer, store_is_away: bool
    ) -> None:
        first, second, third = workers
        async with all_running(workers):
            await agree(workers)
            await met(workers)
            if store_is_away:
                server.stop()
            ways = [Way(place, worker.address, PUBLISHED) for worker in (first, second) for place in ("client", "2a")]
            async with load(lab, ways) as counted:
                await out_within(LEASE, third, (first, second))
                out = asyncio.get_running_loop().time()
                if not store_is_away:
                    assert "/workers/w3/endpoints" in server.ctl("get", "--prefix", "--keys-only", "/vipmesh/"), (
                        "leased"
                    )
                assert [p for p in (await first.status())["problems"] if "worker w3: it does not answer" in p]
                drains = {e["worker"]: e["drain"] for e in (await first.status())["services"][0]["endpoints"]}
                assert drains == {"w1": None, "w2": None, "w3": "unreachable"}
                await asyncio.sleep(1)
            assert [failure for failure in counted.failures if failure[0] > out] == []
            assert counted.since(out) == {"1a", "1b", "2a", "2b"}

    async def test_a_killed_and_restarted_daemon_loses_no_endpoint(self, lab: Lab, workers: list[Worker]) -> None:
        """The others see its port refuse for seconds, and its endpoints answer."""
        first, third = workers[0], workers[2]
        ways = [Way("client", first.address, PUBLISHED), Way("2a", third.address, PUBLISHED)]
        async with all_running(workers[:2]), third.running() as program:
            await agree(workers)
            await met(workers)
            async with load(lab, ways) as counted:
                await program.end(signal.SIGKILL)
                until = asyncio.get_running_loop().time() + 3
                while asyncio.get_running_loop().time() < until:
                    assert await first.programmed() == ALL
                async with third.running():
                    await eventually(third.status, bool)
                    for _ in range(10):
                        assert [await worker.programmed() for worker in workers] == [ALL] * 3
                        await asyncio.sleep(0.1)
            assert counted.failures == []
            assert counted.answers.keys() == CONTAINERS.keys()
            assert (await first.status())["problems"] == []


class TestTheLeaseAlone:
    @pytest.fixture
    def ttl(self) -> int:
        return 3

    async def test_endpoints_of_a_worker_without_power_are_removed_with_its_lease(
        self, lab: Lab, workers: list[Worker], store: str, ttl: int
    ) -> None:
        first, second, third = workers
        third.configure(driver="nftables", store=store, ttl=ttl, more='[peers]\nlisten = "off"\n')
        async with all_running(workers):
            await agree(workers)
            await asked_endpoints_of(lab, third, (first, second))
            await out_within(ttl, third, (first, second))
            problems = (await first.status())["problems"]
            assert [p for p in problems if "worker w3: it does not answer this worker, nor do endpoints" in p]

    async def test_endpoints_that_answer_stay_in_traffic_without_their_daemon(
        self, lab: Lab, workers: list[Worker], server: EtcdServer
    ) -> None:
        """Its containers run on; the others go on with their probes."""
        first, third = workers[0], workers[2]
        async with all_running(workers[:2]), third.running() as program:
            await agree(workers)
            await met(workers)
            async with load(lab, [Way("client", first.address, PUBLISHED)]) as counted:
                await program.end(signal.SIGKILL)
                await eventually(lambda: lease_of("w3", server), lambda lease: lease == 0)
                for _ in range(30):
                    assert await first.programmed() == ALL
                    await asyncio.sleep(0.1)
            assert counted.failures == []
            assert counted.answers.keys() == CONTAINERS.keys()
            await eventually(
                first.status, lambda s: all(e["health"] == "healthy" for e in s["services"][0]["endpoints"])
            )
