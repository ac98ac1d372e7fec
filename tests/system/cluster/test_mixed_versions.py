"""A cluster with workers of two versions serves throughout: an upgrade worker by worker, and back again."""

import tarfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from tests.system.cluster.lab import CONTAINERS, Lab
from tests.system.cluster.load import Way, answering, load
from tests.system.cluster.workers import LISTEN, PUBLISHED, Worker, agree
from tests.system.e2e.programs import Program, eventually

EARLIER = Path(__file__).resolve().parents[2] / "data" / "version-0.1.0-f76dd97.tar.xz"
"""The packages `mesh` and `dns` of the last version that was released, as commit f76dd97 has them."""

pytestmark = pytest.mark.timeout(600)


@pytest.fixture
def earlier(tmp_path: Path) -> Path:
    """A directory with the code of the earlier version."""
    directory = tmp_path / "earlier"
    with tarfile.open(EARLIER) as archive:
        archive.extractall(directory, filter="data")
    return directory


@asynccontextmanager
async def serving(worker: Worker, code: Path | None) -> AsyncIterator[Program]:
    """The worker with this version of the code, once its kernel is programmed and its admin API answers."""
    async with worker.running(code) as program:
        await eventually(worker.status, bool, 60)
        yield program


async def one_view(workers: list[Worker]) -> None:
    """Until all kernels send to all endpoints, and all workers tell the same digest."""
    await agree(workers)

    async def digests() -> set[object]:
        return {(await worker.status()).get("digest") for worker in workers}

    await eventually(digests, lambda found: len(found) == 1 and None not in found, 60)


async def test_an_upgrade_worker_by_worker_and_back_fails_no_request(
    lab: Lab, workers: list[Worker], earlier: Path
) -> None:
    for worker in workers:
        # The earlier version opens no firewall: its documentation has this line.
        await lab.run(worker.name, "iptables", "-I", "DOCKER-USER", "-j", "ACCEPT")
    one, two, three = workers
    async with serving(two, earlier) as of_two, serving(three, earlier) as of_three:
        async with serving(one, earlier) as of_one:
            await one_view(workers)
            vip = await one.vip()
            assert vip is not None
            await of_one.end()
        ways = [
            Way("client", vip, LISTEN),
            Way("client", one.address, PUBLISHED),
            Way("client", two.address, PUBLISHED),
            Way("w2", vip, LISTEN),
            Way("w3", vip, LISTEN),
        ]
        async with load(lab, ways) as counted:
            async with serving(one, None) as of_one_again:
                await one_view(workers)
                assert await one.vip() == vip
                for way in ways:
                    assert await answering(lab, way, CONTAINERS) == set(CONTAINERS), way
                await of_two.end()
                async with serving(two, None) as of_two_again:
                    await one_view(workers)
                    two.offer(two.containers()[:1])  # what one version registers, the other one follows
                    fewer = frozenset(CONTAINERS.values()) - {two.containers()[1]}
                    await agree(workers, fewer)
                    two.offer(two.containers())
                    await one_view(workers)
                    await of_two_again.end()
                await of_one_again.end()
            async with serving(one, earlier), serving(two, earlier):
                await one_view(workers)
                assert {await worker.vip() for worker in workers} == {vip}
        assert counted.failures == []
        assert sum(counted.answers.values()) > 100
        await of_three.end()
