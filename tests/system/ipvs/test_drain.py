"""Connections of a removed real server, on real IPVS."""

import asyncio
import socket
from collections.abc import AsyncIterator

import pytest

from mesh.dataplane.diff import diff_tables
from mesh.dataplane.drain import drain_removed
from mesh.model.service import Transport
from mesh.model.table import RealServer, Table, VirtualKey, VirtualServer
from tests.builders import WEB_KEY
from tests.system.ipvs.lab import BACKENDS, PATIENCE, Client, Lab, Servers, ask_tcp, name_in
from tests.system.ipvs.test_traffic import Worker

pytestmark = [pytest.mark.ipvs, pytest.mark.timeout(180)]

NAMES = VirtualKey(WEB_KEY.address, 53, Transport.UDP)
A, B = BACKENDS["a"], BACKENDS["b"]


def behind(key: VirtualKey, **weights: int) -> Table:
    """A virtual server before the backends that are named."""
    reals = {BACKENDS[name]: RealServer(weight) for name, weight in weights.items()}
    return Table({key: VirtualServer(real_servers=reals)}, frozenset({key.address}))


@pytest.fixture
async def worker(lab: Lab) -> AsyncIterator[Worker]:
    worker = Worker()
    async with Servers(lab) as servers:
        for name in BACKENDS:
            await servers.start(name)
        yield worker
    await worker.close()


async def test_a_drained_real_server_is_removed_with_its_last_connection(lab: Lab, worker: Worker) -> None:
    await worker.want(behind(WEB_KEY, a=0, b=1))
    established = Client(lab)
    await established.connect(WEB_KEY)
    assert await established.echo() == "b"

    async def step(now: float) -> Table:
        observed, counts = await worker.plane.read(), await worker.plane.connections()
        wanted = behind(WEB_KEY, a=1)
        drained = drain_removed(observed, wanted, failed=(), connections=counts, since={(WEB_KEY, B): 0.0}, now=now)
        assert not await worker.plane.apply(diff_tables(observed, drained.table))
        return await worker.plane.read()

    assert await step(0.0) == behind(WEB_KEY, a=1, b=0)
    assert [await ask_tcp(lab, WEB_KEY) for _ in range(3)] == ["a"] * 3
    assert await established.echo() == "b"
    await established.close()
    async with asyncio.timeout(PATIENCE):
        while await step(1.0) != behind(WEB_KEY, a=1):
            await asyncio.sleep(0.1)  # the end is on the wire; nothing tells when the kernel has counted it


async def test_a_connection_to_a_deleted_real_server_is_reset_and_does_not_hang(lab: Lab, worker: Worker) -> None:
    await worker.want(behind(WEB_KEY, a=0, b=1))
    established = Client(lab)
    await established.connect(WEB_KEY)
    assert await established.echo() == "b"
    await worker.want(behind(WEB_KEY, a=1))
    with pytest.raises(ConnectionError):
        await _speak_on(established)
    await established.close()


async def test_a_udp_client_moves_to_another_server_with_the_same_source_port(lab: Lab, worker: Worker) -> None:
    await worker.want(behind(NAMES, a=0, b=1))
    loop = asyncio.get_running_loop()
    with lab.client(socket.SOCK_DGRAM) as client:
        client.connect((NAMES.address, NAMES.port))

        async def ask() -> str:
            await loop.sock_sendall(client, b"hello\n")
            async with asyncio.timeout(3):
                return name_in(await loop.sock_recv(client, 100))

        assert await ask() == "b"
        await worker.want(behind(NAMES, a=1))
        answers: list[str] = []
        for _ in range(4):
            try:
                answers.append(await ask())
            except TimeoutError:
                continue  # the packet that made the kernel forget the old one
        assert set(answers) == {"a"}
        assert len(answers) >= 3


async def _speak_on(established: Client) -> None:
    for _ in range(5):  # the first packet after the end may be dropped, and is sent again
        await established.echo()
