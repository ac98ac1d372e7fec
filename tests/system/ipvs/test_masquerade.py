"""Source NAT on real IPVS: each of its three cases works only with its rule, and no other traffic is rewritten."""

import asyncio
import json
import socket
from collections.abc import AsyncIterator
from typing import Any

import pytest

from mesh.dataplane.diff import diff_tables
from mesh.dataplane.ipvs.plane import IpvsDataPlane
from mesh.host.masquerade import Masquerade
from mesh.host.vip_interface import MeshInterface
from mesh.model.claims import Claims
from mesh.model.service import Forwarding, Transport
from mesh.model.table import RealKey, RealServer, Table, VirtualKey, VirtualServer
from tests.builders import POOL
from tests.netns import run_command
from tests.system.ipvs.endpoints import filter_bridged
from tests.system.ipvs.lab import BACKENDS, PATIENCE, PORT, Lab

pytestmark = [pytest.mark.ipvs, pytest.mark.timeout(180)]

WEB = VirtualKey("10.112.0.7", PORT, Transport.TCP)
OWN = "10.1.0.1"
PUBLISHED = VirtualKey(OWN, 30080, Transport.TCP)
CLAIMS = Claims(ports={(Transport.TCP, PUBLISHED.port): ("web.local", PORT)})
CLIENT = "10.1.0.2"
BRIDGE = "10.2.0.254"
MOMENT = 2.0
"""Seconds in which a connection that works is made, and one that cannot work has not been."""


class Peers:
    """Backends that answer a connection with the address it came from."""

    def __init__(self, lab: Lab) -> None:
        self._lab = lab
        self._servers: list[asyncio.Server] = []

    async def start(self, name: str) -> None:
        self._servers.append(await asyncio.start_server(_whoever, sock=self._lab.listen(name)))

    async def close(self) -> None:
        for server in self._servers:
            server.close()


async def _whoever(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.write(writer.get_extra_info("peername")[0].encode())
    writer.close()


class Worker:
    """IPVS and source NAT, as a daemon holds them."""

    def __init__(self, lab: Lab) -> None:
        self.lab = lab
        self.interface = MeshInterface()
        self.plane = IpvsDataPlane(POOL, self.interface, lambda key: key == PUBLISHED)
        self.nat = Masquerade(POOL)

    async def serve(self, backend: RealKey, forwarding: Forwarding = Forwarding.MASQUERADE) -> None:
        """The VIP and the published port lead to this backend alone."""
        reals = {backend: RealServer(1, forwarding)}
        table = Table(dict.fromkeys((WEB, PUBLISHED), VirtualServer(real_servers=reals)), frozenset({WEB.address}))
        assert await self.plane.apply(diff_tables(await self.plane.read(), table)) == []
        await self.nat.repair(frozenset({OWN, BRIDGE}), CLAIMS)

    async def close(self) -> None:
        await self.plane.close()
        await self.interface.close()


@pytest.fixture
async def worker(lab: Lab) -> AsyncIterator[Worker]:
    filter_bridged("0")  # what source NAT does alone; where they are filtered, hairpin flags are needed as well
    peers = Peers(lab)
    for name in BACKENDS:
        await peers.start(name)
    worker = Worker(lab)
    yield worker
    await worker.close()
    await peers.close()


async def seen_from(sock: socket.socket, key: VirtualKey, seconds: float = PATIENCE) -> str:
    """The address that the backend sees. Raises `TimeoutError` if no answer comes back."""
    loop = asyncio.get_running_loop()
    sock.setblocking(False)
    with sock:
        async with asyncio.timeout(seconds):
            await loop.sock_connect(sock, (key.address, key.port))
            return (await loop.sock_recv(sock, 100)).decode()


def delete_rules(comment: str) -> None:
    """Take the rules of one kind out of our table."""
    listed: list[dict[str, Any]] = json.loads(run_command("nft", "-j", "list", "table", "ip", "vipmesh"))["nftables"]
    handles = [entry["rule"]["handle"] for entry in listed if entry.get("rule", {}).get("comment") == comment]
    assert handles
    for handle in handles:
        run_command("nft", "delete", "rule", "ip", "vipmesh", "translated", "handle", str(handle))


async def test_a_remote_client_of_a_local_container_keeps_its_address(lab: Lab, worker: Worker) -> None:
    await worker.serve(BACKENDS["a"])
    assert await seen_from(lab.client(), WEB) == CLIENT
    assert await seen_from(lab.client(), PUBLISHED) == CLIENT


@pytest.mark.parametrize("key", [WEB, PUBLISHED], ids=["VIP", "published port"])
async def test_a_remote_endpoint_needs_its_rule(lab: Lab, worker: Worker, key: VirtualKey) -> None:
    backend = lab.add_elsewhere()
    peers = Peers(lab)
    await peers.start("c")
    await worker.serve(backend)
    assert await seen_from(lab.client(), key) == "10.3.0.254"

    delete_rules("endpoints elsewhere")
    with pytest.raises((TimeoutError, OSError)):
        await seen_from(lab.client(), key, MOMENT)
    assert await worker.nat.repair(frozenset({OWN, BRIDGE}), CLAIMS) == ["nftables table ip vipmesh was changed"]
    assert await seen_from(lab.client(), key) == "10.3.0.254"
    await peers.close()


@pytest.mark.parametrize("to", ["a", "b"], ids=["to itself", "to its neighbour"])
async def test_a_container_as_client_of_the_vip_needs_its_rule(lab: Lab, worker: Worker, to: str) -> None:
    await worker.serve(BACKENDS[to])
    assert await seen_from(lab.on_backend_socket("a"), WEB) == BRIDGE

    delete_rules("hairpin")
    with pytest.raises((TimeoutError, OSError)):
        await seen_from(lab.on_backend_socket("a"), WEB, MOMENT)


async def test_the_host_itself_needs_its_rule(lab: Lab, worker: Worker) -> None:
    lab.on_backend("a", "ip", "route", "delete", "default")  # as in a container on an internal network
    await worker.serve(BACKENDS["a"])
    assert await seen_from(socket.socket(), WEB) == BRIDGE
    assert await seen_from(socket.socket(), PUBLISHED) == BRIDGE

    delete_rules("the host itself")
    with pytest.raises((TimeoutError, OSError)):
        await seen_from(socket.socket(), WEB, MOMENT)


async def test_direct_forwarding_is_left_alone(lab: Lab, worker: Worker) -> None:
    lab.join_client_to_bridge()
    lab.on_backend("a", "ip", "address", "add", f"{WEB.address}/32", "dev", "lo")
    await worker.serve(BACKENDS["a"], Forwarding.DIRECT)
    assert await seen_from(lab.client(), WEB) == CLIENT
