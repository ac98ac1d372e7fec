"""A worker is isolated from all others, or loses its lease while it runs: what serves, and what healing changes."""

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from itertools import pairwise

import pytest

from tests.store.etcd.server import EtcdServer
from tests.system.cluster.lab import Lab
from tests.system.cluster.load import Way, ask, load
from tests.system.cluster.test_worker_loss import ON_W3
from tests.system.cluster.workers import ALL, LISTEN, PUBLISHED, Worker, agree, all_running, lease_of, met
from tests.system.e2e.programs import eventually
from tests.system.ipvs.lab import PATIENCE, name_in

pytestmark = pytest.mark.timeout(120)


@pytest.fixture
def ttl() -> int:
    return 3


@asynccontextmanager
async def recorded(workers: list[Worker]) -> AsyncIterator[dict[str, list[frozenset[str]]]]:
    """What the kernels send to, each change of it, by worker."""
    seen: dict[str, list[frozenset[str]]] = {worker.name: [] for worker in workers}
    enough = asyncio.Event()

    async def look(worker: Worker) -> None:
        while not enough.is_set():
            now = await worker.programmed()
            if seen[worker.name][-1:] != [now]:
                seen[worker.name].append(now)
            await asyncio.sleep(0.02)

    async with asyncio.TaskGroup() as tasks:
        for worker in workers:
            tasks.create_task(look(worker))
        try:
            yield seen
        finally:
            enough.set()


async def connected_to(lab: Lab, way: Way, worker: str) -> tuple[socket.socket, str]:
    """A connection to a container of this worker, and which one it is."""
    loop = asyncio.get_running_loop()
    while True:
        sock = lab.socket(way.place)
        async with asyncio.timeout(PATIENCE):
            await loop.sock_connect(sock, (way.address, way.port))
            await loop.sock_sendall(sock, b"hello\n")
            name = name_in(await loop.sock_recv(sock, 100))
        if name.startswith(worker):
            return sock, name
        sock.close()


async def test_an_isolated_worker_serves_reachable_endpoints_and_healing_causes_no_flapping(
    lab: Lab, workers: list[Worker], server: EtcdServer
) -> None:
    first, second, third = workers
    async with all_running(workers):
        await agree(workers)
        await met(workers)
        vip = await third.vip()
        assert vip is not None
        loop = asyncio.get_running_loop()
        lasting, met_abroad = await connected_to(lab, Way("client", first.address, PUBLISHED), "3")
        with lasting:
            lab.cut("w3")
            await asyncio.gather(agree([first, second], ALL - ON_W3), agree([third], ON_W3))
            here = [Way("3a", vip, LISTEN), Way("w3", third.address, PUBLISHED)]
            there = [Way("client", first.address, PUBLISHED), Way("2a", vip, LISTEN)]
            async with load(lab, [*here, *there]) as counted:
                cut = "this worker: it may be cut off"
                await eventually(third.status, lambda s: any(cut in problem for problem in s["problems"]))
                await eventually(third.status, lambda s: any("since 20" in line for line in s["frozen"]))
                assert await third.resolve() == vip
                await eventually(lambda: lease_of("w3", server), lambda lease: lease == 0)
                assert await third.programmed() == ON_W3
            assert counted.failures == []

            async with recorded(workers) as seen, load(lab, [*here, *there]) as counted:
                lab.heal("w3")
                await agree(workers)
                await eventually(third.status, lambda s: (s["problems"], s["frozen"]) == ([], []))
                await asyncio.sleep(1)
            assert counted.failures == []
            for name, steps in seen.items():
                assert all(before < after for before, after in pairwise(steps)), (name, steps)
            async with asyncio.timeout(PATIENCE):
                await loop.sock_sendall(lasting, b"hello\n")
                assert name_in(await loop.sock_recv(lasting, 100)) == met_abroad, "it outlived the cut"


async def test_a_lost_lease_changes_nothing_on_other_workers(
    lab: Lab, workers: list[Worker], server: EtcdServer
) -> None:
    first, _, third = workers

    async def lease() -> int:
        return await lease_of("w3", server)

    async with all_running(workers):
        await agree(workers)
        await met(workers)
        monitor = await asyncio.create_subprocess_exec(
            *lab.inside("w1"), "nft", "monitor", stdout=asyncio.subprocess.PIPE, stdin=asyncio.subprocess.DEVNULL
        )
        assert monitor.stdout is not None
        before = await lease()
        await asyncio.to_thread(server.ctl, "lease", "revoke", f"{before:x}")
        await eventually(lease, lambda now: now not in (0, before))
        await asyncio.sleep(1)
        assert await ask(lab, Way("client", first.address, PUBLISHED))
        third.offer(["10.20.3.1"])
        await agree([first], ALL - {"10.21.3.2"})
        monitor.terminate()
        changes = (await monitor.stdout.read()).decode()
        await monitor.wait()
        assert "10.20.3.1" in changes, "it shows what is changed"
        assert all("10.20.3.1" in line for line in changes.splitlines() if "dnat" in line), "and w3 never went"
