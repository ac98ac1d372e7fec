"""The attacks: each a coroutine that goes on until it is cancelled, at a rate that one core sustains."""

import asyncio
import base64
import itertools
import json
import os
import random
import socket
import struct
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import aiohttp
from aiohttp import web

from mesh.sources.compose.limits import DEFAULT_LIMITS
from tests.fuzz.dense_files import DENSE_FILES

GOOD_ENDPOINTS = 3
"""The endpoints of the daemon's own compose file, which count beside those of the attack."""
TICK = 0.02
"""Seconds between two bursts."""


@dataclass(frozen=True)
class Surface:
    """Where the daemon can be reached, and what it reads."""

    dns: int
    admin_tcp: int
    admin_socket: Path
    peers: int
    etcd: str
    compose: Path
    """A second compose file of the daemon."""
    probed: int
    """The port at which the hostile endpoints are probed."""
    engine: "HostileEngine"


@dataclass
class HostileEngine:
    """An engine whose containers and events are those of the attack."""

    containers: list[Any] = field(default_factory=list)
    listeners: list[asyncio.Queue[bytes]] = field(default_factory=list)

    def tell(self, lines: bytes) -> None:
        """Send these events to those who listen, unless they are far behind."""
        for listener in self.listeners:
            if listener.qsize() < 100:
                listener.put_nowait(lines)

    async def answer(self, request: web.Request) -> web.StreamResponse:
        """Answer as an engine does."""
        path = request.path.removeprefix("/v1.41")
        if path == "/version":
            return web.json_response({"ApiVersion": "1.41", "MinAPIVersion": "1.24"})
        if path == "/networks":
            return web.json_response([{"Name": "bridge", "Driver": "bridge"}])
        if path == "/containers/json":
            return web.json_response(self.containers)
        if path == "/events":
            return await self._events(request)
        if path.startswith("/containers/"):
            return web.json_response({"Id": path.split("/")[2], "Config": {}, "State": {}})
        return web.json_response({"message": "page not found"}, status=404)

    async def _events(self, request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        if "until" in request.query:
            return response
        heard: asyncio.Queue[bytes] = asyncio.Queue()
        self.listeners.append(heard)
        try:
            with suppress(ConnectionError):
                while True:
                    await response.write(await heard.get())
        finally:
            self.listeners.remove(heard)
        return response


def container(number: int, labels: Mapping[str, str], address: str = "127.0.3.1") -> dict[str, Any]:
    """An entry of the engine's list."""
    return {
        "Id": f"{number:064x}",
        "Names": [f"/evil-{number}"],
        "State": "running",
        "Labels": labels,
        "HostConfig": {"NetworkMode": "default"},
        "NetworkSettings": {"Networks": {"bridge": {"IPAddress": address}}},
    }


def event(action: str, number: int, **attributes: str) -> bytes:
    """One event of the engine, as a line."""
    actor = {"ID": f"{number:064x}", "Attributes": attributes}
    return json.dumps({"Type": "container", "Action": action, "Actor": actor, "timeNano": 1}).encode() + b"\n"


def evil_labels(chance: random.Random) -> dict[str, str]:
    """Many labels, most of them wrong, some of them long."""
    labels = {f"mesh.routing.port_{chance.randrange(70_000)}": f"evil{chance.random()}.bench.test" for _ in range(20)}
    labels |= {f"mesh.{chance.random()}": "x" * chance.choice((1, 100, 2000)) for _ in range(40)}
    return labels | {"mesh.probe.url": "http://container:" + "9" * 500, "mesh.routing.vip": "\u202e" * 1000}


async def label_floods(at: Surface) -> None:
    """A hundred containers that start again with other labels five times a second."""
    chance = random.Random(1)
    while True:
        at.engine.containers = [container(number, evil_labels(chance)) for number in range(100)]
        at.engine.tell(event("start", 1))
        await asyncio.sleep(0.2)


async def huge_compose_file(at: Surface) -> None:
    """A compose file of almost four megabytes, of another kind each second."""
    services = "".join(
        f"  evil{n}:\n    x-endpoints: ['127.0.4.1:1']\n    labels: {{mesh.routing.port_80: evil{n}.bench.test}}\n"
        for n in range(30_000)
    )
    texts = itertools.cycle(
        (
            ("services:\n" + services)[: 31 << 17] + "\n",
            "a: " + "[" * (3 << 20),
            "x: &a [x]\n" + "y: [" + "*a, " * (7 << 17) + "]\n",
            "#" * (31 << 17),
        )
    )
    for text in texts:
        new = at.compose.with_suffix(".new")
        new.write_text(text)
        new.replace(at.compose)
        await asyncio.sleep(1.0)


DENSE_ENDPOINTS = 500
_SHAPES = itertools.cycle(DENSE_FILES.values())
"""Goes on from round to round, after the one with the most services."""


async def dense_compose_files(at: Surface) -> None:
    """A compose file just inside the default bounds, of each shape in turn, written anew, and gone again.

    Of endpoints it has `DENSE_ENDPOINTS`: each of them costs the daemon some 40 kB wherever it comes from.
    """
    limits = replace(DEFAULT_LIMITS, endpoints=DENSE_ENDPOINTS)
    for shape in itertools.chain([DENSE_FILES["services"]], _SHAPES):
        text = shape(limits)
        for each in (text, text + "# the same again\n", "services: {}\n"):
            new = at.compose.with_suffix(".new")
            new.write_text(each)
            new.replace(at.compose)
            await asyncio.sleep(2.0)


async def engine_event_storm(at: Surface) -> None:
    """Twenty thousand events a second, some of a megabyte, some that cannot be read."""
    chance = random.Random(1)
    while True:
        lines = [event(chance.choice(("start", "kill", "die", "x")), chance.randrange(1000)) for _ in range(300)]
        lines += [b"\xff" * 2000 + b"\n", b"[" * 5000 + b"\n"] * 50
        if chance.random() < 0.1:
            lines.append(event("kill", 1, signal="9" * (1 << 20)))
        at.engine.tell(b"".join(lines))
        await asyncio.sleep(TICK)


async def etcd_record_flood(at: Surface) -> None:
    """Two hundred records a second of up to 300 KiB, under the name of a worker that sorts first."""
    chance = random.Random(1)
    service = {"v": 1, "owner": "shop/evil", "name": "evil.bench.test", "routes": [["evil.bench.test", 80, "tcp", 80]]}
    async with aiohttp.ClientSession() as session:
        for number in itertools.count():
            key = f"bench/workers/a0/services/shop%2Fevil{number % 100}"
            match number % 4:
                case 0:
                    value = json.dumps(service | {"more": chance.randbytes(50_000).hex()}).encode()
                case 1:
                    value = chance.randbytes(150_000)
                case 2:
                    value = b"[" * 100_000
                case _:
                    value = json.dumps({**service, "weight": chance.random()}).encode()
            body = {"key": base64.b64encode(key.encode()).decode(), "value": base64.b64encode(value).decode()}
            async with session.post(f"{at.etcd}/v3/kv/put", json=body) as response:
                await response.read()
            await asyncio.sleep(0.005)


async def hostile_probe_answers(at: Surface) -> None:
    """A hundred endpoints, probed each second, that answer without end, in bytes, with huge heads, or not at all."""
    kinds = itertools.cycle(range(5))

    async def answer(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        kind = next(kinds)
        with suppress(OSError):
            if kind != 4:
                writer.write(b"HTTP/1.1 200 OK\r\n")
            for _step in range(2000):
                match kind:
                    case 0:
                        writer.write(b"X-A: " + b"y" * 60_000)
                    case 1:
                        writer.write(b"\r\n" + b"z" * 60_000)
                    case 2:
                        writer.write(b"X")
                    case 3:
                        writer.write(b"HTTP/1.1 100 Continue\r\n\r\n" * 2000)
                    case _:
                        pass
                await writer.drain()
                await asyncio.sleep(0.002)
        writer.close()

    labels = {
        "mesh.probe.interval_seconds": "1",
        "mesh.probe.timeout_seconds": "1",
        "mesh.probe.expect_body": "never",
    }
    probes = (f"http://container:{at.probed}/", f"grpc://container:{at.probed}", f"tcp://container:{at.probed}")
    at.engine.containers = [
        container(
            number,
            {**labels, "mesh.routing.port_80": f"evil{number}.bench.test", "mesh.probe.url": probes[number % 3]}
            if number % 3 == 0
            else {
                "mesh.probe.interval_seconds": "1",
                "mesh.routing.port_80": f"evil{number}.bench.test",
                "mesh.probe.url": probes[number % 3],
            },
            f"127.0.3.{1 + number}",
        )
        for number in range(100)
    ]
    at.engine.tell(event("start", 1))
    async with await asyncio.start_server(answer, "0.0.0.0", at.probed, backlog=1000) as server:
        await server.serve_forever()


def dns_packet(name: str, kind: int = 1) -> bytes:
    """A question."""
    labels = b"".join(bytes([len(label)]) + label.encode() for label in name.split("."))
    return os.urandom(2) + b"\1\0\0\1\0\0\0\0\0\0" + labels + b"\0" + struct.pack("!HH", kind, 1)


async def _datagrams(at: Surface, packets: Callable[[], Iterator[bytes]]) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.setblocking(False)
        sock.connect(("127.0.0.1", at.dns))
        while True:
            for packet in packets():
                with suppress(OSError):
                    sock.send(packet)
            await asyncio.sleep(TICK)


async def dns_random_names(at: Surface) -> None:
    """Five thousand questions a second for own names that do not exist, and packets that are none."""
    chance = random.Random(1)
    await _datagrams(
        at,
        lambda: (
            dns_packet(f"{chance.randbytes(8).hex()}.mesh.internal") if n % 4 else chance.randbytes(60)
            for n in range(100)
        ),
    )


async def dns_forwarded_names(at: Surface) -> None:
    """A thousand questions a second for other names, which no upstream answers."""
    chance = random.Random(1)
    await _datagrams(at, lambda: (dns_packet(f"{chance.randbytes(8).hex()}.example") for _ in range(20)))


async def _connections(count: int, open_one: Callable[[], Awaitable[None]]) -> None:
    async def again() -> None:
        while True:
            with suppress(OSError, TimeoutError):
                async with asyncio.timeout(3):
                    await open_one()
            await asyncio.sleep(0.05)

    async with asyncio.TaskGroup() as tasks:
        for _ in range(count):
            tasks.create_task(again())


async def dns_tcp_slow_readers(at: Surface) -> None:
    """Three hundred connections that ask and do not read, or send half of a question."""
    chance = random.Random(1)
    packet = dns_packet("good0.bench.test")

    async def one() -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", at.dns, limit=1024)
        reader._transport.pause_reading()  # type: ignore[attr-defined]  # noqa: SLF001 -- it never reads
        try:
            writer.write((len(packet).to_bytes(2) + packet) * (200 if chance.random() < 0.5 else 1) + b"\0\xff")
            await asyncio.sleep(2)
        finally:
            writer.transport.abort()

    await _connections(300, one)


async def admin_slow_heads(at: Surface) -> None:
    """Two hundred connections to each entrance of the admin API whose heads come in bytes."""

    async def one(over_tcp: bool) -> None:
        if over_tcp:
            _, writer = await asyncio.open_connection("127.0.0.1", at.admin_tcp)
        else:
            _, writer = await asyncio.open_unix_connection(str(at.admin_socket))
        try:
            writer.write(b"GET /v1/status HTTP/1.1\r\nX: ")
            for _ in range(100):
                writer.write(b"y")
                await asyncio.sleep(0.02)
        finally:
            writer.transport.abort()

    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(_connections(200, lambda: one(over_tcp=True)))
        tasks.create_task(_connections(200, lambda: one(over_tcp=False)))


async def peers_port_garbage(at: Surface) -> None:
    """Two hundred connections at a time that send a hundred kilobytes of noise and are reset."""
    noise = os.urandom(100_000)

    async def one() -> None:
        _, writer = await asyncio.open_connection("127.0.0.1", at.peers)
        try:
            writer.write(noise)
            await asyncio.sleep(0.1)
        finally:
            writer.transport.abort()

    await _connections(200, one)


ATTACKS: Mapping[str, Callable[[Surface], Awaitable[None]]] = {
    "label floods": label_floods,
    "a huge compose file": huge_compose_file,
    "a dense compose file": dense_compose_files,
    "an engine event storm": engine_event_storm,
    "an etcd record flood": etcd_record_flood,
    "probe answers without end": hostile_probe_answers,
    "DNS, random names": dns_random_names,
    "DNS, forwarded names": dns_forwarded_names,
    "DNS over TCP, slow readers": dns_tcp_slow_readers,
    "admin API, slow heads": admin_slow_heads,
    "garbage at the port for peers": peers_port_garbage,
}
