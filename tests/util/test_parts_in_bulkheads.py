"""Parts of a worker that raise: a proxied connection, a ping, a drain, a lease, a save, an operation of the proxy."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from typing_extensions import override

from mesh.cluster.failure_detector import PingResult
from mesh.cluster.peer_monitor import PeerMonitor, Reachability
from mesh.cluster.ping import listen_for_pings, ping_worker
from mesh.control.drain_requests import DrainRequests
from mesh.control.graceful_stop import DrainSignals, GracefulStopper
from mesh.dataplane.operations import AddRealServer, AddVirtualServer, BindVip
from mesh.dataplane.userspace import UserspaceDataPlane
from mesh.dataplane.userspace.scheduler import RealServerScheduler
from mesh.dataplane.userspace.udp_proxy import UdpListener
from mesh.host.vip_interface import LoopbackAddresses
from mesh.model.codes import Code
from mesh.model.part import DaemonPart
from mesh.model.service import Scheduler, Transport
from mesh.model.table import RealKey, RealServer, VirtualKey
from mesh.store.cached import CachedStore
from mesh.store.etcd import EtcdClient
from mesh.store.etcd.messages import LeaseKeepAlive
from mesh.testing.store import MemoryCluster, MemoryStore
from mesh.util.bulkhead import INTERNAL_ERRORS
from tests.cluster.test_peer_monitor import W2, W3, Net
from tests.store.etcd.server import etcd, worker
from tests.system.e2e.programs import eventually, free_port


def failing(function: Callable[..., Any], times: int = 1) -> Callable[..., Any]:
    """The function, which raises at its first calls."""
    left = [times]

    def call(*args: Any, **kwargs: Any) -> Any:
        if left[0]:
            left[0] -= 1
            raise LookupError("on purpose")
        return function(*args, **kwargs)

    return call


def errors(part: DaemonPart) -> int:
    return INTERNAL_ERRORS.counts()[part]


@asynccontextmanager
async def proxied(transport: Transport) -> AsyncIterator[tuple[UserspaceDataPlane, VirtualKey]]:
    """A virtual server on loopback with one real server, which answers with what it gets."""

    async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(await reader.read(100))
        writer.close()

    class Echo(asyncio.DatagramProtocol):
        def __init__(self) -> None:
            self.out: asyncio.DatagramTransport | None = None

        @override
        def connection_made(self, transport: Any) -> None:
            self.out = transport

        @override
        def datagram_received(self, data: bytes, addr: Any) -> None:
            assert self.out is not None
            self.out.sendto(data, addr)

    server = await asyncio.start_server(echo, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    out, _ = await asyncio.get_running_loop().create_datagram_endpoint(Echo, local_addr=("127.0.0.1", port))
    plane = UserspaceDataPlane(LoopbackAddresses())
    key = VirtualKey("127.114.0.9", free_port(), transport)
    real = AddRealServer(key, RealKey("127.0.0.1", port), RealServer())
    assert not await plane.apply([AddVirtualServer(key, Scheduler.RR, 0), real, BindVip(key.address)])
    try:
        yield plane, key
    finally:
        await plane.close()
        server.close()
        out.close()


async def test_a_proxied_connection_that_raises_is_reset_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    before = errors(DaemonPart.DATA_PLANE)
    async with proxied(Transport.TCP) as (_, key):
        monkeypatch.setattr(RealServerScheduler, "pick", failing(RealServerScheduler.pick))
        reader, writer = await asyncio.open_connection(key.address, key.port)
        with pytest.raises(ConnectionResetError):
            await reader.read()
        writer.close()
        reader, writer = await asyncio.open_connection(key.address, key.port)
        writer.write(b"hello")
        assert await reader.read(100) == b"hello"
        writer.close()
    assert errors(DaemonPart.DATA_PLANE) == before + 1


async def test_a_datagram_that_raises_is_lost_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    before = errors(DaemonPart.DATA_PLANE)
    got = asyncio.Event()

    class Client(asyncio.DatagramProtocol):
        @override
        def datagram_received(self, data: bytes, addr: Any) -> None:
            got.set()

    async with proxied(Transport.UDP) as (_, key):
        monkeypatch.setattr(UdpListener, "_begin", failing(UdpListener._begin))  # noqa: SLF001
        out, _ = await asyncio.get_running_loop().create_datagram_endpoint(Client, remote_addr=(key.address, key.port))
        async with asyncio.timeout(20):
            while not got.is_set():
                out.sendto(b"hello")
                await asyncio.sleep(0.05)
        out.close()
    assert errors(DaemonPart.DATA_PLANE) == before + 1


async def test_an_operation_of_the_proxy_that_raises_fails_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    plane = UserspaceDataPlane(LoopbackAddresses())
    monkeypatch.setattr(plane, "_add", failing(plane._add))  # noqa: SLF001
    keys = [VirtualKey("127.114.0.9", free_port(), Transport.TCP) for _ in range(2)]
    failures = await plane.apply([AddVirtualServer(key, Scheduler.RR, 0) for key in keys])
    assert [failure.reason.code for failure in failures] == [Code.INTERNAL_ERROR]
    assert set((await plane.read()).virtual_servers) == {keys[1]}
    await plane.close()


@pytest.mark.looptime
async def test_a_ping_that_raises_says_nothing_of_its_target() -> None:
    net, reachability = Net(), Reachability()

    async def ping(real: RealKey, name: str | None) -> PingResult | None:
        if real == W2:
            raise LookupError("on purpose")
        return await net.question(real, name)

    before = errors(DaemonPart.PEERS)
    monitor = PeerMonitor(reachability, net, lambda: None, (), ping)
    async with asyncio.TaskGroup() as tasks:
        task = tasks.create_task(monitor.run())
        await asyncio.sleep(10)
        assert not task.done()
        task.cancel()
    assert errors(DaemonPart.PEERS) > before
    assert W3 in net.asked
    assert not reachability.state.lost


async def test_a_greeting_that_raises_ends_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    real = RealKey("127.0.0.1", free_port())
    server = await listen_for_pings(real, "w1")
    before = errors(DaemonPart.PEERS)
    monkeypatch.setattr(asyncio.StreamWriter, "write", failing(asyncio.StreamWriter.write))
    assert await ping_worker(real, "w1") in (PingResult.MUTE, PingResult.REFUSED)
    assert await ping_worker(real, "w1") is PingResult.ANSWERED
    assert errors(DaemonPart.PEERS) == before + 1
    server.close()


@pytest.mark.looptime
async def test_a_drain_that_raises_ends_alone() -> None:
    signalled: list[str] = []

    class Engine:
        def find(self, name: str) -> str | None:
            return None

        def forgive(self, endpoint: str) -> None:
            return None

        async def connections(self, endpoint: str) -> int | None:
            return None

        async def stop(self, endpoint: str) -> None:
            return None

        async def signal(self, container: str, signal: str) -> None:
            if container == "bad":
                raise LookupError("on purpose")
            signalled.append(container)

    signals = DrainSignals()
    stopper = GracefulStopper(DrainRequests(), [Engine()], 30.0, signals)
    before = errors(DaemonPart.CONTROL_LOOP)
    async with asyncio.TaskGroup() as tasks:
        task = tasks.create_task(stopper.run())
        for container in ("bad", "good"):
            signals.put(container, None, 10.0)
        await asyncio.sleep(60)
        assert not task.done()
        task.cancel()
    assert signalled == ["good"]
    assert errors(DaemonPart.CONTROL_LOOP) == before + 1


async def test_a_save_that_raises_is_made_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cluster, path = MemoryCluster(), tmp_path / "view.json"
    monkeypatch.setattr(CachedStore, "_save", failing(CachedStore._save))  # noqa: SLF001
    store = await CachedStore.open(MemoryStore(cluster, "w1"), path)
    before = errors(DaemonPart.STORE)

    async def follow() -> None:
        async for _ in store.watch():
            pass

    async with asyncio.TaskGroup() as tasks:
        running = [tasks.create_task(store.run()), tasks.create_task(follow())]
        await store.register({"workers/w1/x": b"1"})

        async def is_saved() -> bool:
            return path.exists()

        assert await eventually(is_saved, bool)
        for task in running:
            task.cancel()
    await store.close()
    assert errors(DaemonPart.STORE) == before + 1


async def test_a_lease_that_raises_is_kept_all_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = EtcdClient.call
    left = [3]

    async def call(self: EtcdClient, path: str, body: Any, type_: Any, within: float = 4.0) -> Any:
        if type_ is LeaseKeepAlive and left[0]:
            left[0] -= 1
            raise LookupError("on purpose")
        return await real(self, path, body, type_, within)

    with etcd(tmp_path) as server:
        url = server.fresh()
        before = errors(DaemonPart.STORE)
        async with worker(url, ttl=3) as store:
            await store.register({"workers/w1/x": b"1"})
            monkeypatch.setattr(EtcdClient, "call", call)

            async def all_raised() -> bool:
                return not left[0]

            await eventually(all_raised, bool)
            await asyncio.sleep(3.5)  # longer than the lease: nothing shows that it is kept but that it has not ended
            assert (await store.read()).records == {"workers/w1/x": b"1"}
    assert errors(DaemonPart.STORE) == before + 3
