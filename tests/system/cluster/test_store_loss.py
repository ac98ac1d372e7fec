"""etcd loses its leader, its majority or all members, or becomes unreachable: what continues, and what waits."""

import asyncio
import signal
from functools import partial

import pytest

from tests.store.etcd.server import EtcdServer
from tests.system.cluster.lab import CONTAINERS, Lab
from tests.system.cluster.load import Way, load
from tests.system.cluster.workers import ALL, LISTEN, NAME, PUBLISHED, Worker, agree, all_running, met
from tests.system.e2e.programs import VIPMESH, call, eventually

pytestmark = pytest.mark.timeout(180)

AWAY = 20.0
"""Seconds without any etcd: four leases."""

DB = """
  db:
    x-endpoints: ["{address}"]
    labels:
      mesh.routing.port_8080: tcp://db.shop.test:5432
"""


async def ways(workers: list[Worker]) -> list[Way]:
    vip = await workers[0].vip()
    assert vip is not None
    published = [Way("client", worker.address, PUBLISHED) for worker in workers]
    return [*published, Way("1a", vip, LISTEN), Way("2b", vip, LISTEN), Way("w3", vip, LISTEN)]


async def frozen(worker: Worker) -> str:
    """What `vipmesh status` says of it."""
    code, said = await call(*VIPMESH, "status", "--admin", f"unix://{worker.directory}/admin.sock")
    assert code == 0, said
    return next((line for line in said.splitlines() if line.startswith("error: frozen: ")), "")


async def has_thawed(worker: Worker) -> None:
    await eventually(lambda: frozen(worker), lambda line: not line)


async def is_frozen(worker: Worker) -> None:
    await eventually(lambda: frozen(worker), lambda line: line.startswith("error: frozen: since 20"))


class TestEtcdDies:
    @pytest.fixture
    def members(self) -> int:
        return 3

    async def test_no_request_fails_without_leader_majority_or_any_member(
        self, lab: Lab, workers: list[Worker], server: EtcdServer
    ) -> None:
        first, second, third = workers
        async with all_running(workers[:2]), third.running() as program:
            await agree(workers)
            vip = await first.vip()
            async with load(lab, await ways(workers)) as counted:
                killed = server.leader()
                killed.kill()
                second.offer(second.containers()[:1])
                await agree(workers, ALL - {"10.21.2.2"})
                await asyncio.to_thread(server.start, [killed])

                gone = [server.leader(), *(member for member in server.members if member is not server.leader())][:2]
                for member in gone:
                    member.kill()
                second.offer(second.containers())
                await agree([second])
                assert await first.programmed() == ALL - {"10.21.2.2"}, "it is told once there is a majority again"
                await is_frozen(first)
                await asyncio.to_thread(server.start, gone)
                await agree(workers)

                await eventually(third.saved, lambda records: "health/w2/shop%2Fweb%2F10.21.2.2" in records)

                server.stop()
                until = asyncio.get_running_loop().time() + AWAY
                third.offer(third.containers(), DB.format(address="10.20.3.1"))
                second.offer(second.containers(), DB.format(address="10.20.2.1"))
                for worker in workers:
                    await is_frozen(worker)
                    assert await worker.resolve() == vip
                await program.end(signal.SIGKILL)
                async with third.running() as successor:
                    await successor.line("starting with the view saved in")
                    await eventually(third.status, lambda shown: bool(shown and shown["services"]))
                    assert await third.vip() == vip
                    assert await third.resolve() == vip
                    await asyncio.sleep(until - asyncio.get_running_loop().time())
                    for worker in workers:
                        assert (await worker.vip("db.shop.test"), await worker.programmed()) == (None, ALL)

                    await asyncio.to_thread(server.start)
                    for worker in workers:
                        await has_thawed(worker)
                        await eventually(partial(worker.vip, "db.shop.test"), bool)
                    given = {name: {await w.vip(name) for w in workers} for name in (NAME, "db.shop.test")}
                    assert given[NAME] == {vip}
                    assert len(given["db.shop.test"] | {vip}) == 2, "one, the same for all, and nobody else's"
                    await agree(workers)
            assert counted.failures == []
            assert counted.answers.keys() == CONTAINERS.keys()
            assert counted.answers.total() > 1000

    async def test_probes_continue_for_the_local_data_plane(
        self, lab: Lab, workers: list[Worker], server: EtcdServer
    ) -> None:
        first = workers[0]
        first.offer(first.containers(), patience=0.5)
        async with first.running():
            await agree([first], frozenset(first.containers()))
            server.stop()
            await eventually(first.status, lambda shown: bool(shown["frozen"]))
            lab.stop("1b")
            await agree([first], frozenset({"10.20.1.1"}))
            await lab.start("1b")
            await agree([first], frozenset(first.containers()))
            assert (await first.status())["frozen"]


class TestTheWayToEtcdIsCut:
    @pytest.fixture
    def ttl(self) -> int:
        return 3

    async def test_a_worker_that_answers_pings_is_kept_by_others(
        self, lab: Lab, workers: list[Worker], server: EtcdServer, ttl: int
    ) -> None:
        first, second, third = workers

        def leased() -> bool:
            return "workers/w3" in server.ctl("get", "--prefix", "--keys-only", "/vipmesh/")

        async def lease_ended() -> bool:
            return not await asyncio.to_thread(leased)

        async with all_running(workers):
            await agree(workers)
            await met(workers)
            async with load(lab, await ways(workers)) as counted:
                lab.cut_from_etcd("w3")
                await eventually(lease_ended, bool)
                await eventually(
                    first.status, lambda shown: any("worker w3: its lease in the store" in p for p in shown["problems"])
                )
                await is_frozen(third)
                await asyncio.sleep(ttl)
                assert [await worker.programmed() for worker in workers] == [ALL] * 3
                assert counted.answers.keys() == CONTAINERS.keys()
            assert counted.failures == []

            lab.stop("3b")
            await agree([first, second], ALL - {"10.21.3.2"})
            await lab.start("3b")
            await agree([first, second])
            third.offer(["10.20.3.1"])
            await agree([third], ALL - {"10.21.3.2"})
            assert await first.programmed() == ALL, "which it cannot be told"

            lab.heal_to_etcd("w3")
            await agree(workers, ALL - {"10.21.3.2"})
            await has_thawed(third)
            await eventually(first.status, lambda shown: shown["problems"] == [])
