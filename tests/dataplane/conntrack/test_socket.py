"""Lists of tracked connections as this kernel filters them: the same as every entry filtered here."""

import socket
from collections.abc import Iterator

import pytest

from mesh.dataplane.conntrack.messages import ConntrackEntry
from mesh.dataplane.conntrack.socket import NetfilterSocket
from mesh.model.service import Transport
from mesh.model.table import VirtualKey
from tests.netns import private_network, run_command

ADDRESSES = {4: ("127.0.0.1", "127.0.0.2"), 6: ("::1", "fd00::2")}
LISTENING, SILENT = 4001, 4002


class EveryKey:
    """Contains all keys."""

    def __contains__(self, key: object) -> bool:
        return True


@pytest.fixture(params=[4, 6])
def version(request: pytest.FixtureRequest) -> Iterator[int]:
    """Answered and unanswered flows to two addresses of this version."""
    version: int = request.param
    with private_network():
        family = socket.AF_INET6 if version == 6 else socket.AF_INET
        name = "ip6" if version == 6 else "ip"
        run_command("ip", "address", "add", "fd00::2/128", "dev", "lo", "nodad")
        # a rule about connections makes the kernel track them
        chain = "chain c { type filter hook input priority 0; ct state invalid drop; }"
        run_command("nft", "-f", "-", given=f"table {name} t {{ {chain}; }}")
        sockets = []
        for address in ADDRESSES[version]:
            server = socket.socket(family, socket.SOCK_DGRAM)
            server.bind((address, LISTENING))
            stream = socket.create_server((address, LISTENING), family=family)
            client = socket.socket(family, socket.SOCK_DGRAM)
            client.sendto(b"?", (address, LISTENING))
            server.sendto(b"!", server.recvfrom(9)[1])
            silent = socket.socket(family, socket.SOCK_DGRAM)
            silent.bind((address, SILENT))
            client.sendto(b"?", (address, SILENT))
            sockets += [server, stream, client, silent, socket.create_connection((address, LISTENING))]
        yield version
        for sock in sockets:
            sock.close()


def names(entries: list[ConntrackEntry]) -> set[bytes]:
    return {entry.handle for entry in entries}


async def test_every_filter_lists_what_it_should(version: int) -> None:
    netfilter = NetfilterSocket(version)
    addresses = ADDRESSES[version]
    keys = {
        VirtualKey(address, port, transport)
        for address in addresses
        for port, transport in ((LISTENING, Transport.UDP), (SILENT, Transport.UDP), (LISTENING, Transport.TCP))
    }
    everything = await netfilter.entries(
        [*keys, *(VirtualKey(addresses[0], port, Transport.TCP) for port in range(1, 20))]
    )
    assert {entry.virtual for entry in everything} == keys
    for key in keys:
        found = await netfilter.entries([key])
        assert found
        assert names(found) == names([entry for entry in everything if entry.virtual == key])
    silent = await netfilter.unanswered(EveryKey())
    assert {entry.virtual for entry in silent} == {key for key in keys if key.port == SILENT}
    for transport in (Transport.UDP, Transport.TCP):
        found = await netfilter.of_transport(transport, keys)
        assert names(found) == names([entry for entry in everything if entry.virtual.transport is transport])
    assert await netfilter.of_transport(Transport.UDP, set()) == []
    await netfilter.close()
