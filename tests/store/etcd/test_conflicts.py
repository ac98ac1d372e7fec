"""Many workers claim one name, one VIP or one published port of a real etcd at the same instant: one succeeds."""

import asyncio
import logging
from collections.abc import Iterator
from contextlib import AsyncExitStack
from dataclasses import replace
from pathlib import Path

import pytest

from mesh.cluster.claims import ClaimRequest, plan_claims
from mesh.cluster.records.encode import build_view
from mesh.cluster.sync import ClusterSync
from mesh.config.etcd_url import EtcdUrl
from mesh.control.conditions import LoopConditions
from mesh.model.claims import ClaimLimits
from mesh.model.problem import Problem
from mesh.model.service import Endpoint, PortPublication, Service, Transport
from mesh.model.view import ClusterView
from tests.builders import SMALL_POOL, service
from tests.store.etcd.server import EtcdServer, etcd, worker

PORTS = range(30000, 30010)
WORKERS = 12
FIXED = "10.112.0.50"


@pytest.fixture(params=[1, 3], ids=["one-member", "three-members"])
def server(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[EtcdServer]:
    with etcd(tmp_path, request.param) as server:
        yield server


def services(number: int) -> tuple[Service, ...]:
    """What one worker claims: a name, a VIP and a port that all claim."""
    project = f"shop{number:02}"
    return (
        service("same.test", owner=f"{project}/name"),
        service(f"v{number}.test", owner=f"{project}/vip", fixed_vip=FIXED),
        service(f"p{number}.test", owner=f"{project}/port", publishes=(PortPublication(80, Transport.TCP, 30000),)),
    )


class Claimant:
    """One worker, without a data plane."""

    def __init__(self, number: int) -> None:
        self.name = f"w{number}"
        self.number = number
        self.journal = LoopConditions()
        self.view = ClusterView()

    async def run(self, url: EtcdUrl, instant: asyncio.Event) -> None:
        async with worker(url, self.name) as store:
            share = ClusterSync(self.name, store, self.journal, self._decide, limits=ClaimLimits())
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(share.run(self._see, patient=False))
                await instant.wait()
                own = services(self.number)
                share.offer(own, tuple(Endpoint(s.owner, s.owner, self.name, f"10.2.0.{self.number}") for s in own))

    def _see(self, seen: ClusterView) -> None:
        self.view = seen

    def _decide(self, seen: ClusterView) -> tuple[tuple[ClaimRequest, ...], tuple[Problem, ...]]:
        return plan_claims(seen.services, seen.claims, pool=SMALL_POOL, ports=PORTS)

    @property
    def told(self) -> tuple[str, ...]:
        return tuple(map(str, self.journal.problems.get("claims", ())))


async def test_one_claim_wins_on_all_workers_and_the_others_learn_the_holder(
    server: EtcdServer, caplog: pytest.LogCaptureFixture
) -> None:
    url, instant = server.fresh(), asyncio.Event()
    claimants = [Claimant(number) for number in range(1, WORKERS + 1)]
    async with AsyncExitStack() as stack:
        tasks = await stack.enter_async_context(asyncio.TaskGroup())
        running = [tasks.create_task(one.run(url, instant)) for one in claimants]
        with caplog.at_level(logging.ERROR, "vipmesh"):
            instant.set()
            async with asyncio.timeout(30):
                while not all(len(one.told) == 3 * (WORKERS - 1) for one in claimants):
                    await asyncio.sleep(0.05)
        async with worker(url, "reader") as store, asyncio.timeout(30):
            claims = build_view((await store.read()).records)[0].claims
            # The last claims may be on their way. How long claims have not been declared is each worker's own.
            while not all(replace(one.view.claims, lapsed=None) == claims for one in claimants):
                await asyncio.sleep(0.05)
                claims = build_view((await store.read()).records)[0].claims
        for task in running:
            task.cancel()

    assert len({one.told for one in claimants}) == 1, "all come to the same"
    told = claimants[0].told
    owner, vip_holder = claims.owners["same.test"], claims.holders[FIXED]
    port_holder, _ = claims.ports[Transport.TCP, 30000]
    held_by = [f"the name same.test is held by {owner}", f"the VIP {FIXED} is held by {vip_holder}"]
    held_by.append(f"the published tcp port 30000 is held by {port_holder}")
    for words in held_by:
        losers = [line for line in told if words in line]
        assert len(losers) == WORKERS - 1, words
        assert all(line in caplog.text for line in losers)
    assert len(set(claims.vips.values())) == len(claims.vips), "no VIP twice"
    assert claims.vips == {name: vip for vip, name in claims.holders.items()}
