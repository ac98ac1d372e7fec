"""Asks every cell of the matrix at once, on daemons that run in the lab."""

import asyncio
import os
import socket
import struct
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from itertools import cycle
from pathlib import Path

import aiohttp

from mesh.util.dns_query import decode_address_answer, encode_address_query
from tests.system.e2e.programs import eventually
from tests.system.hosts.daemons import DaemonStarter, ForkedDaemon
from tests.system.hosts.lab import ADDRESSES, ANSWERING, CONTAINERS, HOST_PORTS, HOSTS, POOL, HostKind, HostLab
from tests.system.hosts.matrix import CLIENTS, PASSES, TARGETS, TRANSPORTS, MatrixClient, MatrixLab, write_row
from tests.system.hosts.rule_sets import RULE_SETS

PUBLISHED = {"one": 30081, "two": 30082, "routed": 30083}
"""The published port of each service."""
ENDPOINTS = {
    "worker": {"one": "a", "two": "ab", "routed": "a"},
    "other worker": {"one": "c", "two": "cd", "routed": "a"},
}
"""The endpoints of each service as each worker knows them, by their letters.

A worker reaches its own endpoints at the container's address, as an engine without a cluster tells it. It reaches those
of another worker at that worker's address and the port that Docker publishes there, as in a cluster; those of `routed`,
and all where no Docker is, at the container's address.
"""
VIPS = {
    4: {"one": "10.112.0.11", "two": "10.112.0.12", "routed": "10.112.0.13"},
    6: {"one": "fd00:112::11", "two": "fd00:112::12", "routed": "fd00:112::13"},
}
LISTEN = 80
NAME_SERVER = ("127.0.0.1", 53)

EMULATED = "ON_IPVS_KERNEL" in os.environ
STARTS = 300.0 if EMULATED else 30.0
"""Seconds for a daemon to publish its names."""
LOST = 7.5 if EMULATED else 2.5
"""Seconds without an answer after which a request counts as lost; TCP tries again after one."""
SETTLES = 240.0 if EMULATED else 20.0
"""Seconds after which a cell that is expected to pass has passed: two audits of the daemon, and a busy processor."""
AT_ONCE = 16 if EMULATED else 64
"""Requests at the same time. This process asks and answers them all: if it is slower than `LOST`, every request counts
as lost and is sent again.
"""

_QUERY_NUMBERS = cycle(range(1 << 16))
_RETRANSMITTED = struct.Struct("@100xI")
"""`tcpi_total_retrans` in `struct tcp_info` (linux/tcp.h)."""

_SETTINGS = """
[node]
name = "{name}"
[vip]
pool = "{pool}"
[dataplane]
driver = "{plane}"
[dns]
listen = ["127.0.0.1:53"]
upstream = ["127.0.0.1:9"]
resolver = "off"
[source.compose]
files = ["{directory}/compose.yaml"]
[store]
url = "sqlite:///{directory}/store.db"
[admin]
listen = "unix://{directory}/admin.sock"
"""

_SERVICE = """
  {name}:
    x-endpoints: [{endpoints}]
    labels:
      mesh.routing.port_8080: http://{name}.matrix.test
      mesh.routing.port_8080/udp: udp://{name}.matrix.test:80
      mesh.routing.publish.port_8080: "{published}"
      mesh.routing.publish.port_8080/udp: "{published}"
      mesh.routing.vip: "{vip}"
      mesh.routing.scheduler: rr
"""


@dataclass(frozen=True)
class RunningWorker:
    """A worker of the lab with its daemon."""

    daemon: ForkedDaemon
    directory: Path

    async def problems(self) -> list[str]:
        """The problems that its status shows."""
        connector = aiohttp.UnixConnector(str(self.directory / "admin.sock"))
        async with aiohttp.ClientSession(connector=connector) as http, http.get("http://worker/v1/status") as answer:
            problems: list[str] = (await answer.json())["problems"]
        return problems


@asynccontextmanager
async def running_workers(
    lab: HostLab, case: MatrixLab, starter: DaemonStarter, directory: Path
) -> AsyncIterator[Mapping[str, RunningWorker]]:
    """Run a daemon on both workers, from when they have published their names.

    At the end their logs are printed, so that pytest shows them if anything fails.
    """
    workers: dict[str, RunningWorker] = {}
    try:
        for name in HOSTS:
            place = directory / name.replace(" ", "-")
            place.mkdir()
            settings = _SETTINGS.format(name=place.name, pool=POOL[case.version], plane=case.plane, directory=place)
            (place / "vipmesh.toml").write_text(settings)
            (place / "compose.yaml").write_text(_compose(name, case))
            workers[name] = RunningWorker(starter.start(lab.path(name), place / "vipmesh.toml"), place)
        await asyncio.gather(*(_serves(lab, name) for name in workers))
        yield workers
    finally:
        for name, worker in workers.items():
            await asyncio.to_thread(worker.daemon.end)
            sys.stdout.write(f"{name}:\n{worker.daemon.output()}\n")


def _compose(worker: str, case: MatrixLab) -> str:
    services = (
        _SERVICE.format(
            name=name,
            published=PUBLISHED[name],
            vip=VIPS[case.version][name],
            endpoints=", ".join(f'"{_endpoint(worker, name, endpoint, case)}"' for endpoint in endpoints),
        )
        for name, endpoints in ENDPOINTS[worker].items()
    )
    return "name: matrix\nservices:" + "".join(services)


def _endpoint(worker: str, service: str, endpoint: str, case: MatrixLab) -> str:
    """Where a worker reaches an endpoint: at the container, or at the port that Docker publishes on another worker."""
    container = CONTAINERS[endpoint]
    if worker == "worker" or service == "routed" or not RULE_SETS[case.rules].docker:
        return container.address6 if case.version == 6 else container.address
    host = ADDRESSES["worker"][case.version]
    return f"[{host}]:{HOST_PORTS[endpoint]}" if case.version == 6 else f"{host}:{HOST_PORTS[endpoint]}"


async def _serves(lab: HostLab, worker: str) -> None:
    """Wait until the name server of a worker has every name: it gets them after the data plane has the VIPs."""
    with lab.socket(worker, socket.SOCK_DGRAM, version=4) as sock:
        sock.connect(NAME_SERVER)

        async def resolved() -> set[str]:
            return {address for name in PUBLISHED for address in await _resolve(sock, f"{name}.matrix.test", lab.kind)}

        await eventually(resolved, lambda found: found == set(VIPS[lab.kind.version].values()), STARTS)


async def _resolve(sock: socket.socket, name: str, kind: HostKind) -> tuple[str, ...]:
    """Return the addresses of a name; empty while the name server does not answer or does not have the name."""
    loop, number = asyncio.get_running_loop(), next(_QUERY_NUMBERS)
    try:
        async with asyncio.timeout(LOST):
            await loop.sock_sendall(sock, encode_address_query(name, number, ipv6=kind.version == 6))
            while (answer := decode_address_answer(await loop.sock_recv(sock, 512), number)) is None:
                pass  # an answer to an earlier query
    except (TimeoutError, ConnectionRefusedError):
        return ()
    return answer.addresses


async def probe_cells(lab: HostLab, expected: Mapping[str, str]) -> dict[str, str]:
    """Ask every cell: those that are expected to pass, until they do; then all the others at once.

    `expected` has a row for each client; where it has none, every cell is expected to pass. Returns a row for each
    client, with `-` for a cell that does not pass.
    """
    cells = [(client, target, transport) for client in CLIENTS for target in TARGETS for transport in TRANSPORTS]
    width = len(TARGETS) * len(TRANSPORTS)
    rows = (expected.get(client.title, PASSES * width).replace(" ", "") for client in CLIENTS)
    passing = {cell for cell, mark in zip(cells, "".join(rows), strict=True) if mark == PASSES}
    found: dict[tuple[MatrixClient, str, str], bool] = {}
    # What is refused takes no time of this process, and is not asked again.
    for chosen, patience, at_once in ((passing, SETTLES, AT_ONCE), (set(cells) - passing, 0.0, len(cells))):
        turns = asyncio.Semaphore(at_once)
        outcomes = await asyncio.gather(*(_passes(lab, *cell, patience=patience, turns=turns) for cell in chosen))
        found |= dict(zip(chosen, outcomes, strict=True))
    marks = [PASSES if found[cell] else "-" for cell in cells]
    return {client.title: write_row(marks[i * width : (i + 1) * width]) for i, client in enumerate(CLIENTS)}


def _target(client: MatrixClient, target: str, version: int) -> tuple[str, int]:
    if target == "VIP":
        return VIPS[version][client.service], LISTEN
    worker = "worker" if target == TARGETS[1] else "other worker"
    return ADDRESSES[worker][version], PUBLISHED[client.service]


async def _passes(
    lab: HostLab, client: MatrixClient, target: str, transport: str, *, patience: float, turns: asyncio.Semaphore
) -> bool:
    """Whether as many requests as the service has endpoints are answered, each at its first attempt.

    They are sent again until it is so, for `patience` seconds, each time in one of the `turns`.
    """
    where = _target(client, target, lab.kind.version)
    place = client.place_for_other if target == TARGETS[2] and client.place_for_other else client.place
    requests = len(ENDPOINTS["worker"][client.service])
    kind = socket.SOCK_STREAM if transport == "TCP" else socket.SOCK_DGRAM
    loop = asyncio.get_running_loop()
    until = loop.time() + patience
    while True:
        async with turns:
            try:
                passed = all([await _answered_at_once(lab, place, kind, where) for _ in range(requests)])
            except (TimeoutError, OSError):
                passed = False
        if passed or loop.time() >= until:
            return passed
        await asyncio.sleep(0.2)  # a refusal comes at once


async def _answered_at_once(lab: HostLab, place: str, kind: socket.SocketKind, where: tuple[str, int]) -> bool:
    """Send a request; returns whether it was answered without a repetition. Raises `OSError` or `TimeoutError`."""
    loop = asyncio.get_running_loop()
    with lab.socket(place, kind) as sock:
        async with asyncio.timeout(LOST):
            await loop.sock_connect(sock, where)
            await loop.sock_sendall(sock, b"hello\n")
            answer = (await loop.sock_recv(sock, 100)).decode().split()
        repeated = kind is socket.SOCK_STREAM and _retransmissions(sock) > 0
    assert answer[0] in ANSWERING, answer
    return not repeated


def _retransmissions(sock: socket.socket) -> int:
    """How often TCP has repeated something on this connection."""
    info = sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _RETRANSMITTED.size)
    return int(_RETRANSMITTED.unpack(info)[0])
