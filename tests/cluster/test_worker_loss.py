"""A worker loses its power, or its daemon alone: when its endpoints are out everywhere, and not before."""

import asyncio
import signal

import pytest

from tests.cluster.lab import CONTAINERS, Lab
from tests.cluster.load import Way, load
from tests.cluster.workers import ALL, PUBLISHED, Worker, agree, all_running, seconds_until
from tests.e2e.programs import eventually
from tests.store.etcd_server import EtcdServer

pytestmark = pytest.mark.timeout(120)

ON_W3 = frozenset(address for name, address in CONTAINERS.items() if name.startswith("3"))
TTL = 5
NOTICED = 3.0
"""Seconds in which the other workers notice by themselves: five rounds, and half a second for a busy machine."""


async def test_a_worker_without_power_is_out_before_its_lease_ends(
    lab: Lab, workers: list[Worker], server: EtcdServer
) -> None:
    first, second, third = workers
    async with all_running(workers):
        await agree(workers)
        await eventually(first.programmed, lambda seen: seen == ALL)
        await asyncio.sleep(1)  # two rounds: the workers have met
        ways = [Way(place, worker.address, PUBLISHED) for worker in (first, second) for place in ("client", "2a")]
        async with load(lab, ways) as counted:
            begun = asyncio.get_running_loop().time()
            await third.power_off()
            took = await asyncio.gather(*(seconds_until(w, lambda seen: seen == ALL - ON_W3) for w in (first, second)))
            out = asyncio.get_running_loop().time()
            assert max(took) < NOTICED
            assert "/workers/w3/endpoints" in server.ctl("get", "--prefix", "--keys-only", "/vipmesh/"), "leased still"
            assert [p for p in (await first.status())["problems"] if "worker w3" in p]
            await eventually(
                first.status, lambda shown: len(shown["services"][0]["endpoints"]) == 4, TTL + 0.5 - (out - begun)
            )
            await eventually(first.status, lambda shown: shown["problems"] == [], 2)
        assert [failure for failure in counted.failures if failure[0] > out + 0.1] == []
        assert counted.since(out + 0.1) == {"1a", "1b", "2a", "2b"}


async def test_a_daemon_that_is_killed_loses_nothing_within_its_lease(lab: Lab, workers: list[Worker]) -> None:
    first, third = workers[0], workers[2]
    ways = [Way("client", first.address, PUBLISHED), Way("2a", third.address, PUBLISHED)]
    async with all_running(workers[:2]), third.running() as program:
        await agree(workers)
        await asyncio.sleep(1)
        async with load(lab, ways) as counted:
            killed = asyncio.get_running_loop().time()
            await program.end(signal.SIGKILL)
            while asyncio.get_running_loop().time() < killed + TTL - 2:
                assert await first.programmed() == ALL
            async with third.running():
                await agree(workers)
                while asyncio.get_running_loop().time() < killed + TTL + 2:
                    assert [await worker.programmed() for worker in workers] == [ALL] * 3
        assert counted.failures == []
        assert counted.answers.keys() == CONTAINERS.keys()
        assert (await first.status())["problems"] == []
