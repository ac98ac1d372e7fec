"""Features of IPVS beyond masquerading of TCP and UDP over IPv4, each with its effect on real connections."""

import asyncio
import socket
from collections.abc import AsyncIterator, Iterable
from ipaddress import ip_network

import pytest

from mesh.dataplane.diff import diff_tables
from mesh.dataplane.ipvs.plane import IpvsDataPlane
from mesh.host.vip_interface import MeshInterface
from mesh.model.service import Forwarding, Scheduler, SchedulerFlag, Transport
from mesh.model.table import RealKey, RealServer, Table, VirtualKey, VirtualServer
from tests.netns import run_command
from tests.system.ipvs.lab import BACKENDS, BACKENDS_6, PATIENCE, PORT, Client, Lab, Servers, ask_tcp, ask_udp

pytestmark = [pytest.mark.ipvs, pytest.mark.timeout(180)]

WEB = VirtualKey("10.112.0.7", PORT, Transport.TCP)
WEB_6 = VirtualKey("fd00:112::7", 80, Transport.TCP)
SCTP = 132
"""IPPROTO_SCTP; Python has no name for it on every platform."""
A, B = BACKENDS["a"], BACKENDS["b"]


@pytest.fixture
async def servers(lab: Lab) -> AsyncIterator[Servers]:
    async with Servers(lab) as servers:
        for name in BACKENDS:
            await servers.start(name)
            await servers.start(name, socket.AF_INET6)
        yield servers


@pytest.fixture
async def interface() -> AsyncIterator[MeshInterface]:
    interface = MeshInterface()
    yield interface
    await interface.close()


@pytest.fixture
async def plane(servers: Servers, interface: MeshInterface) -> AsyncIterator[IpvsDataPlane]:
    plane = IpvsDataPlane(ip_network("10.112.0.0/16"), interface)
    yield plane
    await plane.close()


async def want(plane: IpvsDataPlane, key: VirtualKey, server: VirtualServer) -> None:
    table = Table({key: server}, frozenset({key.address}))
    assert await plane.apply(diff_tables(await plane.read(), table)) == []
    assert await plane.read() == table


def alike(settings: RealServer, backends: Iterable[RealKey] = BACKENDS.values()) -> dict[RealKey, RealServer]:
    return dict.fromkeys(backends, settings)


async def test_ipv6(lab: Lab, servers: Servers, interface: MeshInterface) -> None:
    plane = IpvsDataPlane(ip_network("fd00:112::/64"), interface)
    names = VirtualKey(WEB_6.address, 53, Transport.UDP)
    server = VirtualServer(Scheduler.RR, 0, alike(RealServer(), BACKENDS_6.values()))
    table = Table({WEB_6: server, names: server}, frozenset({WEB_6.address}))
    assert await plane.apply(diff_tables(await plane.read(), table)) == []

    assert {await ask_tcp(lab, WEB_6) for _ in range(4)} == {"a", "b"}
    assert {await ask_udp(lab, names) for _ in range(4)} == {"a", "b"}
    await plane.close()


async def test_sctp(lab: Lab, plane: IpvsDataPlane) -> None:
    listening = lab.listen("a", protocol=SCTP)
    key = VirtualKey("10.112.0.7", 2905, Transport.SCTP)
    await want(plane, key, VirtualServer(real_servers={A: RealServer()}))
    assert "--sctp-service 10.112.0.7:2905" in run_command("ipvsadm", "-Sn")
    client = lab.client(protocol=SCTP)

    def talk() -> bytes:  # asyncio knows no SCTP
        for sock in (listening, client):
            sock.settimeout(PATIENCE)
        client.connect((key.address, key.port))
        accepted, _ = listening.accept()
        with accepted:
            accepted.sendall(b"through")
            return client.recv(100)

    assert await asyncio.to_thread(talk) == b"through"


@pytest.mark.parametrize("forwarding", [Forwarding.DIRECT, Forwarding.TUNNEL])
async def test_endpoints_that_reply_directly_to_the_client(
    lab: Lab, plane: IpvsDataPlane, forwarding: Forwarding
) -> None:
    lab.join_client_to_bridge()
    for name in BACKENDS:
        if forwarding is Forwarding.TUNNEL:
            run_command("modprobe", "ipip")
            lab.on_backend(name, "ip", "link", "set", "tunl0", "up")
            lab.on_backend(name, "sysctl", "-qw", "net.ipv4.conf.all.rp_filter=0", "net.ipv4.conf.tunl0.rp_filter=0")
        lab.on_backend(name, "ip", "address", "add", f"{WEB.address}/32", "dev", "lo")
    await want(plane, WEB, VirtualServer(Scheduler.RR, 0, alike(RealServer(1, forwarding))))
    assert {await ask_tcp(lab, WEB) for _ in range(4)} == {"a", "b"}

    for name in BACKENDS:
        lab.on_backend(name, "ip", "address", "delete", f"{WEB.address}/32", "dev", "lo")
    with pytest.raises((OSError, TimeoutError)):
        async with asyncio.timeout(3):
            await ask_tcp(lab, WEB)  # nobody rewrote the destination, so now it is nobody's


async def test_a_full_endpoint_gets_no_new_connection(lab: Lab, plane: IpvsDataPlane) -> None:
    await want(plane, WEB, VirtualServer(Scheduler.RR, 0, {A: RealServer(1, upper_threshold=1)}))
    first = Client(lab)
    await first.connect(WEB)
    assert await first.echo() == "a"
    with pytest.raises(OSError, match="Connect call failed"):
        await ask_tcp(lab, WEB)

    await want(plane, WEB, VirtualServer(Scheduler.RR, 0, {A: RealServer(1, upper_threshold=1), B: RealServer()}))
    assert [await ask_tcp(lab, WEB) for _ in range(3)] == ["b"] * 3
    assert await first.echo() == "a"
    await first.close()


@pytest.mark.parametrize("scheduler", [Scheduler.SH, Scheduler.MH])
async def test_the_flags_of_hashing(lab: Lab, plane: IpvsDataPlane, scheduler: Scheduler) -> None:
    both = alike(RealServer())
    await want(plane, WEB, VirtualServer(scheduler, 0, both))
    (own,) = {await ask_tcp(lab, WEB) for _ in range(6)}

    await want(plane, WEB, VirtualServer(scheduler, 0, both, frozenset({SchedulerFlag.PORT})))
    assert {await ask_tcp(lab, WEB) for _ in range(24)} == {"a", "b"}

    drained = {real: RealServer(0 if name == own else 1) for name, real in BACKENDS.items()}
    await want(plane, WEB, VirtualServer(scheduler, 0, drained, frozenset({SchedulerFlag.FALLBACK})))
    assert {await ask_tcp(lab, WEB) for _ in range(6)} == {"a", "b"} - {own}


async def test_every_scheduler_of_the_labels_carries_traffic(lab: Lab, plane: IpvsDataPlane) -> None:
    for scheduler in Scheduler:
        await want(plane, WEB, VirtualServer(scheduler, 0, alike(RealServer())))
        assert await ask_tcp(lab, WEB) in {"a", "b"}, scheduler
