"""Real connections through real IPVS, beyond the common contract."""

import errno
from collections.abc import AsyncIterator

import pytest

from mesh.dataplane.diff import diff_tables
from mesh.dataplane.ipvs.plane import IpvsDataPlane
from mesh.host.vip_interface import MeshInterface
from mesh.model.service import Scheduler
from mesh.model.table import RealServer, Table, VirtualServer
from tests.builders import POOL, WEB_KEY
from tests.system.ipvs.lab import BACKENDS, Client, Lab, Servers, ask_tcp

pytestmark = [pytest.mark.ipvs, pytest.mark.timeout(180)]


class Worker:
    """A driver and its interface, as a daemon holds them."""

    def __init__(self) -> None:
        self.interface = MeshInterface()
        self.plane = IpvsDataPlane(POOL, self.interface)

    async def want(self, table: Table) -> int:
        """Make it so; returns how many operations it took."""
        operations = diff_tables(await self.plane.read(), table)
        assert await self.plane.apply(operations) == []
        return len(operations)

    async def close(self) -> None:
        await self.plane.close()
        await self.interface.close()


def web(scheduler: Scheduler = Scheduler.RR, persistence: int = 0) -> Table:
    """The web VIP before both backends."""
    return Table(
        {WEB_KEY: VirtualServer(scheduler, persistence, dict.fromkeys(BACKENDS.values(), RealServer(1)))},
        frozenset({WEB_KEY.address}),
    )


@pytest.fixture
async def worker(lab: Lab) -> AsyncIterator[Worker]:
    worker = Worker()
    async with Servers(lab) as servers:
        for name in BACKENDS:
            await servers.start(name)
        yield worker
    await worker.close()


async def test_a_restarted_daemon_adopts_the_existing_table(lab: Lab, worker: Worker) -> None:
    established = Client(lab)
    await worker.want(web())
    await established.connect(WEB_KEY)
    served_by = await established.echo()
    await worker.close()
    assert await established.echo() == served_by  # while no daemon runs

    successor = Worker()
    assert await successor.plane.read() == web()
    assert await successor.want(web()) == 0

    assert await established.echo() == served_by
    await established.close()
    await successor.close()


async def test_a_change_of_scheduler_keeps_connections(lab: Lab, worker: Worker) -> None:
    established = Client(lab)
    await worker.want(web(Scheduler.RR))
    await established.connect(WEB_KEY)
    served_by = await established.echo()

    await worker.want(web(Scheduler.WRR, 60))

    assert await established.echo() == served_by
    await established.close()


async def test_persistence_keeps_a_client_with_its_server(lab: Lab, worker: Worker) -> None:
    await worker.want(web(persistence=300))
    assert len({await ask_tcp(lab, WEB_KEY) for _ in range(4)}) == 1

    await worker.want(web(persistence=0))
    assert len({await ask_tcp(lab, WEB_KEY) for _ in range(4)}) == 2


async def test_without_the_vip_nothing_answers(lab: Lab, worker: Worker) -> None:
    await worker.want(web())
    await worker.want(Table())

    with pytest.raises(OSError, match="Connect call failed") as raised:
        await ask_tcp(lab, WEB_KEY)
    assert raised.value.errno == errno.ENETUNREACH  # says the director, which knows no way to it any more
