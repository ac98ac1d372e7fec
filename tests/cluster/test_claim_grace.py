"""Names that wait for their owners while others want them: several workers and one store, in virtual time."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from mesh.cluster.claims import ClaimRequest, plan_claims
from mesh.cluster.sync import ClusterSync
from mesh.control.conditions import LoopConditions
from mesh.model.claims import ClaimLimits
from mesh.model.problem import Problem
from mesh.model.service import Endpoint, PortPublication, Transport
from mesh.model.view import ClusterView
from mesh.testing.store import MemoryCluster, MemoryStore
from tests.builders import SMALL_POOL, service

pytestmark = pytest.mark.looptime

LIMITS = ClaimLimits(grace=600, keep=7200)
WEB = "web.test"


class ClaimingWorker:
    """A worker with at most one service, which declares `web.test` and port 8080."""

    def __init__(self, cluster: MemoryCluster, name: str, owner: str) -> None:
        self.name = name
        self.owner = owner
        self.view = ClusterView()
        self.conditions = LoopConditions()
        self.sync = ClusterSync(name, MemoryStore(cluster, name), self.conditions, self._decide, limits=LIMITS)

    def _decide(self, seen: ClusterView) -> tuple[tuple[ClaimRequest, ...], tuple[Problem, ...]]:
        return plan_claims(seen.services, seen.claims, pool=SMALL_POOL, ports=range(30000, 30010))

    def _see(self, seen: ClusterView) -> None:
        self.view = seen

    @asynccontextmanager
    async def running(self) -> AsyncIterator["ClaimingWorker"]:
        async with asyncio.TaskGroup() as tasks:
            task = tasks.create_task(self.sync.run(self._see, patient=False))
            yield self
            task.cancel()

    def starts(self, name: str = WEB) -> None:
        publishes = (PortPublication(80, Transport.TCP, 8080),)
        endpoint = Endpoint(f"{self.owner}/1", self.owner, self.name, "10.2.0.1")
        self.sync.offer((service(name, owner=self.owner, publishes=publishes),), (endpoint,))

    def stops(self) -> None:
        self.sync.offer((), ())

    @property
    def holder(self) -> str | None:
        return self.view.claims.owners.get(WEB)


@pytest.fixture
def cluster() -> MemoryCluster:
    return MemoryCluster()


async def test_who_waits_for_a_name_does_not_get_it_while_its_owner_restarts(cluster: MemoryCluster) -> None:
    async with (
        ClaimingWorker(cluster, "w1", "shop/web").running() as shop,
        ClaimingWorker(cluster, "w2", "thief/web").running() as thief,
    ):
        shop.starts()
        await asyncio.sleep(2)
        vip = shop.view.claims.vips[WEB]
        thief.starts()
        for pause in (0.1, 3, 60, 599):
            shop.stops()
            await asyncio.sleep(pause)
            shop.starts()
            await asyncio.sleep(2)
            assert thief.holder == shop.holder == "shop/web", pause
            assert shop.view.claims.vips == {WEB: vip}


@pytest.mark.parametrize(("owner", "waits"), [("shop/other", 600), ("thief/web", 7200)])
async def test_an_owner_that_is_gone_keeps_its_name(cluster: MemoryCluster, owner: str, waits: int) -> None:
    async with (
        ClaimingWorker(cluster, "w1", "shop/web").running() as shop,
        ClaimingWorker(cluster, "w2", owner).running() as other,
    ):
        shop.starts()
        await asyncio.sleep(2)
        vip = shop.view.claims.vips[WEB]
        shop.stops()
        other.starts()
        await asyncio.sleep(waits - 10)
        assert other.holder == "shop/web"
        await asyncio.sleep(20)
        assert other.holder == owner
        assert other.view.claims.vips == {WEB: vip}, "the VIP goes with its name"


async def test_an_owner_that_runs_without_the_name_has_given_it_up(cluster: MemoryCluster) -> None:
    async with (
        ClaimingWorker(cluster, "w1", "shop/web").running() as shop,
        ClaimingWorker(cluster, "w2", "other/web").running() as other,
    ):
        shop.starts()
        await asyncio.sleep(2)
        shop.starts("new.test")
        other.starts()
        await asyncio.sleep(590)
        assert other.holder == "shop/web"
        await asyncio.sleep(20)
        assert other.holder == "other/web"


async def test_the_time_while_the_store_is_away_does_not_count(cluster: MemoryCluster) -> None:
    async with ClaimingWorker(cluster, "w2", "shop/new").running() as other:
        async with ClaimingWorker(cluster, "w1", "shop/web").running() as shop:
            shop.starts()
            await asyncio.sleep(2)
            shop.stops()
            await asyncio.sleep(1)
        other.starts()
        await asyncio.sleep(300)
        cluster.out_of_reach = True
        await asyncio.sleep(3600)
        cluster.out_of_reach = False
        await asyncio.sleep(280)
        assert other.holder == "shop/web"
        await asyncio.sleep(40)
        assert other.holder == "shop/new"


async def test_the_time_that_counts_survives_every_daemon_and_a_lost_store(cluster: MemoryCluster) -> None:
    async with ClaimingWorker(cluster, "w1", "shop/web").running() as shop:
        shop.starts()
        await asyncio.sleep(2)
        shop.stops()
        await asyncio.sleep(4000)
    async with ClaimingWorker(cluster, "w2", "other/web").running() as other:
        other.starts()
        await asyncio.sleep(2)
        assert other.holder == "shop/web"
        cluster.lose_everything()
        await asyncio.sleep(3000)
        assert other.holder == "shop/web"
        await asyncio.sleep(600)
        assert other.holder == "other/web"
        assert other.view.claims.ports[Transport.TCP, 8080] == (WEB, 80)


async def test_nothing_is_written_while_every_claim_is_declared(cluster: MemoryCluster) -> None:
    async with ClaimingWorker(cluster, "w1", "shop/web").running() as shop:
        shop.starts()
        await asyncio.sleep(5)
        revision = cluster.revision
        await asyncio.sleep(3600)
        assert cluster.revision == revision
        assert not any(key.startswith(("claims/idle", "claims/clock")) for key in cluster.records)
