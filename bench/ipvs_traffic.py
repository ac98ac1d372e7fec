"""Connections and bulk transfer from a client through a VIP to a backend, each in a network namespace, and peers.

    client 10.1.0.2 -- 10.1.0.1 director 10.2.0.254 -- 10.2.0.1 backend

The same client connects to the backend directly (routed by the director), through a table that ipvsadm made, and
through ours, in turn and in random order. The VIP is routed to the director and bound there, as on a worker.
"""

import asyncio
import multiprocessing
import random
import socket
import statistics
import struct
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from ipaddress import ip_network
from multiprocessing.process import BaseProcess
from pathlib import Path

import ipvs_peers as peers

from harness import Row, ratio
from mesh.dataplane.diff import diff_tables
from mesh.dataplane.ipvs.plane import IpvsDataPlane
from mesh.host.vip_interface import MeshInterface
from mesh.model.service import Scheduler, Transport
from mesh.model.table import RealKey, RealServer, Table, VirtualKey, VirtualServer
from mesh.testing.netns import Namespace, run_ip

PORT = 8080
BACKEND = RealKey("10.2.0.1", PORT)
CONNECTIONS, BULK = 300, 32 << 20
"""In one measurement: how many, one after the other; how many bytes over one."""
WAYS = ("direct", "hand-made", "ours")
PATIENCE = 30.0


def traffic(rounds: int, sizes: Sequence[int], table: Callable[[int, int], Table]) -> list[Row]:
    """The rows for tables of so many services."""
    rows: list[Row] = []
    with network() as (client, _server):
        for size in sizes:
            wanted = with_backend(table(size, 2))
            rows += _rows(size, _measured(rounds, client, wanted))
    return rows


def _rows(size: int, figures: dict[str, dict[str, list[float]]]) -> Iterator[Row]:
    for what, rates in figures.items():
        for peer, goal in (("hand-made", 0.98), ("direct", 0.9)):
            middle, spread = ratio(rates["ours"], rates[peer])
            ours, theirs = (f"{statistics.median(rates[way]):.0f}/s" for way in ("ours", peer))
            name = f"{what} through a VIP among {size}, beside {'a table by ipvsadm' if peer != 'direct' else peer}"
            yield Row(name, ours, theirs, middle, spread, f">= {goal}" if peer != "direct" else "-", middle >= goal)


def _measured(rounds: int, client: Namespace, wanted: Table) -> dict[str, dict[str, list[float]]]:
    figures: dict[str, dict[str, list[float]]] = {
        what: {way: [] for way in WAYS} for what in ("connections", "MB of bulk")
    }
    (vip,) = wanted.vips
    for _ in range(rounds * 3):
        for way in random.sample(WAYS, len(WAYS)):
            target = (BACKEND.address, PORT) if way == "direct" else (vip, 80)
            asyncio.run(_program(wanted if way == "ours" else Table({}, wanted.vips)))
            if way == "hand-made":
                peers.ipvsadm(wanted)
            with client.entered():
                connections(target, 20)  # the first ones fill caches
                figures["connections"][way].append(CONNECTIONS / connections(target, CONNECTIONS))
                figures["MB of bulk"][way].append(BULK / 1e6 / bulk(target))
            peers.flush()
    return figures


async def _program(wanted: Table) -> None:
    interface = MeshInterface()
    plane = IpvsDataPlane(ip_network("10.112.0.0/12"), interface)
    failures = await plane.apply(diff_tables(await plane.read(), wanted))
    assert not failures, failures[0]
    await plane.close()
    await interface.close()


def with_backend(filler: Table) -> Table:
    """The table and one service more, before the backend."""
    key = VirtualKey("10.127.0.1", 80, Transport.TCP)
    server = VirtualServer(Scheduler.RR, 0, {BACKEND: RealServer()})
    others = dict(list(filler.virtual_servers.items())[:-1])
    return Table({**others, key: server}, frozenset({key.address}))


def connections(target: tuple[str, int], count: int) -> float:
    """Seconds for so many connections, one question and one answer each; reset, so that no port is left waiting."""
    start = time.perf_counter()
    for _ in range(count):
        with socket.create_connection(target, PATIENCE) as sock:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            sock.sendall(b"?")
            assert sock.recv(1) == b"!"
    return time.perf_counter() - start


def bulk(target: tuple[str, int]) -> float:
    """Seconds for transferring `BULK` bytes over one connection."""
    start = time.perf_counter()
    with socket.create_connection(target, PATIENCE) as sock:
        sock.sendall(b"B")
        buffer, left = bytearray(1 << 18), BULK
        while left > 0:
            got = sock.recv_into(buffer)
            assert got, "the backend ended early"
            left -= got
    return time.perf_counter() - start


@contextmanager
def network() -> Iterator[tuple[Namespace, BaseProcess]]:
    """The client's namespace and the backend's server, around the namespace that the caller is in."""
    client, backend = Namespace(), Namespace()
    run_ip(
        "link set lo up",
        f"link add c1 type veth peer name c0 netns {client.path}",
        "address add 10.1.0.1/24 dev c1",
        "link set c1 up",
        f"link add b1 type veth peer name b0 netns {backend.path}",
        "address add 10.2.0.254/24 dev b1",
        "link set b1 up",
    )
    client.ip("address add 10.1.0.2/24 dev c0", "link set c0 up", "route add default via 10.1.0.1")
    backend.ip("address add 10.2.0.1/24 dev b0", "link set b0 up", "route add default via 10.2.0.254")
    Path("/proc/sys/net/ipv4/ip_forward").write_text("1")
    with backend.entered():
        listening = socket.create_server(("", PORT), backlog=512)
        server = multiprocessing.get_context("fork").Process(target=_serve, args=(listening,), daemon=True)
        server.start()
    try:
        yield client, server
    finally:
        server.kill()
        server.join()
        listening.close()
        client.close()
        backend.close()


def _serve(listening: socket.socket) -> None:
    chunk = bytes(1 << 18)
    while True:
        accepted, _ = listening.accept()
        with accepted:
            try:
                if accepted.recv(1) == b"?":
                    accepted.sendall(b"!")
                    accepted.recv(1)  # until the client has reset it
                else:
                    for _ in range(BULK // len(chunk)):
                        accepted.sendall(chunk)
            except ConnectionError:
                continue
