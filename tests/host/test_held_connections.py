"""The table in which new connections wait: what it drops and lets pass, and that it ends by itself."""

import asyncio
import shutil
import socket
from collections.abc import Iterator
from contextlib import suppress

import pytest

from mesh.host import HostError
from mesh.host.held_connections import HeldConnections
from mesh.model.service import Transport
from mesh.model.table import VirtualKey
from tests.netns import private_network, run_command
from tests.system.e2e.programs import CI

TCP, UDP = VirtualKey("127.0.0.2", 8080, Transport.TCP), VirtualKey("127.0.0.2", 8080, Transport.UDP)
V6 = VirtualKey("::1", 8080, Transport.TCP)


@pytest.fixture
def network() -> Iterator[None]:
    if not CI and not (shutil.which("nft") or shutil.which("/usr/sbin/nft")):
        pytest.skip("needs nft: apt-get install nftables")
    with private_network():
        yield


async def refused(address: str, port: int = 8080) -> bool:
    """Whether a new connection is refused; false if it has no answer."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with socket.socket(family) as sock, suppress(TimeoutError):
        sock.setblocking(False)
        async with asyncio.timeout(0.5):
            try:
                await asyncio.get_running_loop().sock_connect(sock, (address, port))
            except ConnectionRefusedError:
                return True
            raise AssertionError("somebody listens")
    return False


@pytest.mark.usefixtures("network")
async def test_new_connections_wait_and_those_of_other_ports_do_not() -> None:
    holds = HeldConnections()
    assert await refused("127.0.0.2")
    await holds.keep({TCP: 30, V6: 30})
    assert not await refused("127.0.0.2")
    assert not await refused("::1")
    assert await refused("127.0.0.2", 8081)
    assert await refused("127.0.0.3")
    await holds.keep({V6: 30})
    assert await refused("127.0.0.2"), "let go"
    await holds.keep({})
    assert await refused("::1")
    assert "vipmesh_hold" not in run_command("nft", "list", "tables")
    await holds.keep({})


@pytest.mark.usefixtures("network")
async def test_a_connection_that_waits_is_answered_once_it_is_let_go() -> None:
    loop, holds = asyncio.get_running_loop(), HeldConnections()
    with socket.create_server(("127.0.0.2", 8080)), socket.socket() as client:
        client.setblocking(False)
        await holds.keep({TCP: 30})
        connecting = loop.create_task(loop.sock_connect(client, ("127.0.0.2", 8080)))
        done, _ = await asyncio.wait({connecting}, timeout=0.3)
        assert not done
        await holds.keep({})
        await asyncio.wait_for(connecting, 30)


@pytest.mark.usefixtures("network")
async def test_established_connections_pass() -> None:
    loop, holds = asyncio.get_running_loop(), HeldConnections()
    with socket.create_server(("127.0.0.2", 8080)) as server, socket.create_connection(("127.0.0.2", 8080)) as client:
        accepted, _ = server.accept()
        with accepted:
            await holds.keep({TCP: 30})
            client.setblocking(False)
            accepted.sendall(b"hello")
            assert await asyncio.wait_for(loop.sock_recv(client, 5), 30) == b"hello"


@pytest.mark.usefixtures("network")
async def test_datagrams_wait_and_the_table_ends_by_itself() -> None:
    loop, holds = asyncio.get_running_loop(), HeldConnections()
    with socket.socket(type=socket.SOCK_DGRAM) as server, socket.socket(type=socket.SOCK_DGRAM) as client:
        server.bind(("127.0.0.2", 8080))
        server.setblocking(False)
        await holds.keep({UDP: 1})
        client.connect(("127.0.0.2", 8080))
        with pytest.raises(PermissionError):
            client.send(b"lost")
        async with asyncio.timeout(30):
            while "elements" in run_command("nft", "list", "table", "inet", "vipmesh_hold"):
                await asyncio.sleep(0.05)
        client.send(b"arrives")
        assert await asyncio.wait_for(loop.sock_recv(server, 16), 30) == b"arrives"


@pytest.mark.usefixtures("network")
async def test_removing_says_what_was_there() -> None:
    holds = HeldConnections()
    assert await holds.remove() == []
    await holds.keep({TCP: 30})
    assert await holds.remove() == ["delete nftables table inet vipmesh_hold"]


async def test_a_host_without_nft_says_that_clients_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mesh.util.nft.ADMIN_PATH", "/nowhere")
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(HostError, match="clients are refused"):
        await HeldConnections().keep({TCP: 30})
