"""The data path of every worker: containers, hosts and clients reach all endpoints by VIPs and published ports."""

import asyncio
import socket

import pytest

from tests.system.cluster.lab import CONTAINERS, Lab
from tests.system.cluster.load import Way, answering
from tests.system.cluster.workers import (
    LISTEN,
    LISTEN_UDP,
    NAME,
    PUBLISHED,
    PUBLISHED_UDP,
    SLOW,
    Worker,
    agree,
    all_running,
)
from tests.system.e2e.programs import eventually

pytestmark = [
    pytest.mark.timeout(1700),
    pytest.mark.parametrize("driver", ["nftables", pytest.param("ipvs", marks=pytest.mark.ipvs)]),
]


async def one_digest(workers: list[Worker], other_than: str = "") -> str:
    """The digest of all their tables, once it is the same, and another one, in the status and the metrics of each."""
    found = await eventually(
        lambda: asyncio.gather(*(worker.digests() for worker in workers)),
        lambda each: len(digests := {digest for pair in each for digest in pair}) == 1 and digests != {other_than},
        SLOW,
    )
    return found[0][0]


async def test_every_client_reaches_the_endpoints_of_every_worker(lab: Lab, workers: list[Worker], driver: str) -> None:
    async with all_running(workers, at_once=driver != "ipvs"):
        await agree(workers, seconds=SLOW)
        vips = {await worker.vip() for worker in workers}
        assert len(vips) == 1
        vip = vips.pop()
        assert vip is not None

        for place in ("w1", "w3", "1a", "2b", "client"):
            assert await answering(lab, Way(place, vip, LISTEN), CONTAINERS) == set(CONTAINERS), place
            over_udp = Way(place, vip, LISTEN_UDP, socket.SOCK_DGRAM)
            assert await answering(lab, over_udp, CONTAINERS) == set(CONTAINERS), place
        for worker in workers:
            for place in ("client", "w1", "3b"):
                for port, kind in ((PUBLISHED, socket.SOCK_STREAM), (PUBLISHED_UDP, socket.SOCK_DGRAM)):
                    way = Way(place, worker.address, port, kind)
                    assert await answering(lab, way, CONTAINERS) == set(CONTAINERS), way
        lab.client_goes_over(3)
        assert await answering(lab, Way("client", vip, LISTEN), CONTAINERS) == set(CONTAINERS)
        for place in ("1b", "2a", "w2"):
            server = "127.0.0.1" if place.startswith("w") else "10.112.0.1"
            assert (await lab.run(place, "dig", f"@{server}", "+short", NAME)).split() == [vip]
        for worker in workers:
            shown = await worker.status()
            assert (shown["data_plane"], shown["problems"], shown["failures"]) == (driver, [], [])
        whole = await one_digest(workers)
        workers[1].offer(workers[1].containers()[:1])
        await agree(workers, frozenset(CONTAINERS.values()) - {workers[1].containers()[1]}, seconds=SLOW)
        await one_digest(workers, other_than=whole)  # the kernel is programmed before the digest is told
        await asyncio.gather(*(worker.program.end() for worker in workers if worker.program))
