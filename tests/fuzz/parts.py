"""Targets that are running parts of the daemon, with their bulkheads, on sockets of loopback and files of a directory.

A part is started once and gets one input after another, as a daemon does. Whatever it leaves behind counts against it:
an internal error, a turn of the event loop that takes long, memory.
"""

import asyncio
import json
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from contextlib import AbstractAsyncContextManager, aclosing, asynccontextmanager, contextmanager, suppress
from dataclasses import replace
from functools import partial
from ipaddress import ip_network
from pathlib import Path
from typing import cast

import h2.config
import h2.connection
from typing_extensions import override

from mesh.cluster.ping import listen_for_pings, ping_worker
from mesh.cluster.records.encode import build_view
from mesh.control.dns_zone import ZonePublisher
from mesh.health.checks.command import CommandCheck
from mesh.health.prober import Prober
from mesh.health.targets import ProbeTarget
from mesh.model.part import DaemonPart
from mesh.model.probe import Probe, ProbeKind
from mesh.model.service import Health, Instance
from mesh.model.table import RealKey
from mesh.sources.docker.source import DockerSource
from mesh.store import StoreError
from mesh.store.cached import CachedStore
from mesh.store.etcd.client import EtcdClient
from mesh.store.etcd.messages import RangeResponse, TransactionResponse
from mesh.testing.store import MemoryCluster, MemoryStore
from mesh.testing.worker import FakeWorker, WorkerBed
from mesh.util.bulkhead import INTERNAL_ERRORS, contain_event_loop
from meshdns import bulkhead as dns_bulkhead
from meshdns.forwarder import Forwarder
from meshdns.server import NameServer
from meshdns.service_records import DnsService
from meshdns.upstream_query import HedgingDelays
from meshdns.upstreams import Upstreams
from meshdns.zone import ZoneBuilder
from tests.api.http.worker import serving, socket_of
from tests.fuzz.choices import ByteChoices
from tests.fuzz.limits import CaughtErrors, TurnSelector, measured_loop
from tests.fuzz.parsers import RULES, check_shown, chosen_labels, chosen_records, saved_view
from tests.fuzz.seeds import CONTAINER, ENGINE_EVENT, ETCD_ANSWERS, INSPECTION, NETWORKS
from tests.meshdns.fuzz.target import ZONE
from tests.meshdns.upstream import question

Feed = Callable[[bytes], Awaitable[None]]
PATIENCE = 60.0
"""Seconds that a part may take for one input, beside other work on the machine."""
BRIEF = 0.3
"""Seconds for what is expected to get no answer."""


@contextmanager
def running(part: Callable[[], AbstractAsyncContextManager[Feed]]) -> Iterator[Callable[[bytes], float]]:
    """Run a part in an event loop, and yield a function that feeds it and returns the CPU seconds of the longest turn.

    It raises AssertionError if the input has left an internal error behind.
    """
    selector, errors = TurnSelector(), CaughtErrors()
    dns_bulkhead.report_to(partial(INTERNAL_ERRORS.caught, DaemonPart.NAMES))
    with asyncio.Runner(loop_factory=lambda: measured_loop(selector)) as runner, errors.attached():
        contain_event_loop(runner.get_loop())
        opened = part()
        feed = runner.run(opened.__aenter__())

        def check(data: bytes) -> float:
            selector.longest = 0.0
            runner.run(_fed(feed, data))
            errors.check()
            return selector.longest

        try:
            yield check
        finally:
            runner.run(opened.__aexit__(None, None, None))
            dns_bulkhead.report_to(dns_bulkhead.log_failure)


async def _fed(feed: Feed, data: bytes) -> None:
    async with asyncio.timeout(PATIENCE):
        await feed(data)


class RawServer:
    """Answers each request over HTTP with the bytes that are set for its path, whatever they are, and closes."""

    def __init__(self) -> None:
        self.answers: Callable[[str], list[bytes]] = lambda _: []
        """Returns the pieces of the response to a request for a path."""

    @asynccontextmanager
    async def listening(self, path: Path | None = None) -> AsyncIterator[int]:
        """Listen on a unix socket, or on a port of loopback, which is yielded (0: none)."""
        if path is not None:
            server = await asyncio.start_unix_server(self._serve, str(path))
        else:
            server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        async with server:
            yield 0 if path is not None else server.sockets[0].getsockname()[1]

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError, asyncio.LimitOverrunError, TimeoutError):
            async with asyncio.timeout(BRIEF):
                head = await reader.read(1 << 16)
                words = head.split(b"\r\n", 1)[0].split()
                for piece in self.answers(words[1].decode() if len(words) > 1 else ""):
                    writer.write(piece)
                    await writer.drain()
        writer.close()


def response(body: bytes, head: str = "200 OK\r\nContent-Type: application/json") -> bytes:
    """Return an HTTP response."""
    return f"HTTP/1.1 {head}\r\nContent-Length: {len(body)}\r\nConnection: close\r\n\r\n".encode() + body


def spoilt(choices: ByteChoices, sent: bytes) -> list[bytes]:
    """Return a response in pieces, which is sometimes cut, overwritten somewhere, or other bytes."""
    match choices.number(8):
        case 5:
            at = choices.number(len(sent) + 1)
            sent = sent[:at] + choices.raw() + sent[at + choices.number(32) :]
        case 6:
            sent = sent[: choices.number(len(sent) + 1)]
        case 7:
            sent = choices.raw() * (1 + choices.number(300))
        case _:
            pass
    return choices.pieces(sent)


@asynccontextmanager
async def engine_source() -> AsyncIterator[Feed]:
    """The source of an engine that answers anything. A source that has ended its first list has taken the input."""
    server = RawServer()
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / "docker.sock"

        async def feed(data: bytes) -> None:
            choices = ByteChoices(data)
            spoils = choices.pick(("", "/events", "/containers/json", "/networks", "/version", "/json"))
            event = choices.encoded(ENGINE_EVENT) + b"\n"
            bodies = {
                "/version": b'{"ApiVersion": "1.41"}',
                "/events": b"".join((event, json.dumps(ENGINE_EVENT).encode(), b"\n")),
                "/networks": choices.encoded(NETWORKS),
                "/containers/json": choices.encoded([CONTAINER]),
            }
            inspection = choices.encoded(INSPECTION)

            def answer(target: str) -> list[bytes]:
                place = (
                    "/" + target.partition("?")[0].partition("/v1.41")[2].lstrip("/") if "/v1." in target else target
                )
                sent = response(bodies.get(place, inspection))
                return spoilt(choices, sent) if spoils and place.endswith(spoils) else [sent]

            server.answers = answer
            source = DockerSource(f"unix://{path}", RULES, answer=BRIEF)
            async with aclosing(source.watch()) as lists:
                first = asyncio.ensure_future(anext(lists))
                while not first.done() and source.trouble is None:
                    await asyncio.wait([first], timeout=0.002)
                first.cancel()
                await asyncio.wait([first])
                if not first.cancelled() and first.exception() is None:
                    check_shown(first.result()[1])

        async with server.listening(path):
            yield feed


@asynccontextmanager
async def etcd_client() -> AsyncIterator[Feed]:
    """The client of an etcd that answers anything: an answer, or `StoreError`."""
    server = RawServer()
    async with server.listening() as port:

        async def feed(data: bytes) -> None:
            choices = ByteChoices(data)
            body = choices.encoded(choices.pick(ETCD_ANSWERS))
            head = choices.pick(
                ("200 OK", "400 Bad Request", "503 Service Unavailable", "204 No Content", "100 Continue")
            )
            sent = spoilt(choices, response(body + b"\n", f"{head}\r\nContent-Type: application/json"))
            server.answers = lambda path: [response(b"{}")] if path.endswith("/status") else sent
            client = EtcdClient((f"http://127.0.0.1:{port}",))
            try:
                for kind in (RangeResponse, TransactionResponse):
                    with suppress(StoreError):
                        await client.call("kv/range", {}, kind, within=0.0)
                with suppress(StoreError):
                    async with client.stream({}) as watch:
                        async for _ in watch:
                            pass
            finally:
                await client.close()

        yield feed


def grpc_answer(choices: ByteChoices) -> bytes:
    """Return what a server of gRPC sends, with chosen headers and message."""
    server = h2.connection.H2Connection(h2.config.H2Configuration(client_side=False, validate_outbound_headers=False))
    client = h2.connection.H2Connection()
    client.initiate_connection()
    client.send_headers(1, [(":method", "POST"), (":path", "/"), (":scheme", "http"), (":authority", "x")])
    server.initiate_connection()
    server.receive_data(client.data_to_send())
    name = choices.raw().lower() or b"grpc-status"
    server.send_headers(1, [(b":status", b"200"), (b"content-type", b"application/grpc"), (name, choices.raw())])
    server.send_data(1, choices.raw() or b"\0\0\0\0\2\x08\1")
    server.send_headers(1, [(b"grpc-status", choices.raw() or b"0")], end_stream=True)
    return server.data_to_send()


class AnyCommand:
    """Ends each command with the exit status and the output that are set."""

    def __init__(self) -> None:
        self.ended: tuple[int, str] | None = (0, "")

    async def run(self, key: str, command: str, timeout: float) -> tuple[int, str] | None:
        return self.ended


@asynccontextmanager
async def prober() -> AsyncIterator[Feed]:
    """The prober with a target of each kind, all of which answer the input. An endpoint beside them stays healthy."""
    server, good, command = RawServer(), RawServer(), AnyCommand()
    good.answers = lambda _: [response(b"ready")]

    class Echo(asyncio.DatagramProtocol):
        answer = b""

        @override
        def connection_made(self, transport: asyncio.BaseTransport) -> None:
            self.transport = cast(asyncio.DatagramTransport, transport)

        @override
        def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
            self.transport.sendto(self.answer, addr)

    loop = asyncio.get_running_loop()
    udp, echo = await loop.create_datagram_endpoint(Echo, ("127.0.0.1", 0))
    udp_port = udp.get_extra_info("sockname")[1]
    changed = asyncio.Event()
    probing = Prober(changed.set, commands=CommandCheck(command, rate=1e6))

    async with server.listening() as port, good.listening() as good_port, asyncio.TaskGroup() as tasks:
        task = tasks.create_task(probing.run())
        web, local = Probe(ProbeKind.HTTP, port, interval=600.0, timeout=1.0), "127.0.0.1"
        datagram = replace(web, kind=ProbeKind.UDP, port=udp_port, send=b"x")
        kinds = {
            "plain": ProbeTarget(web, local, port),
            "body": ProbeTarget(replace(web, expect_body="ready"), local, port),
            "moved": ProbeTarget(replace(web, follow_redirects=True), local, port),
            "grpc": ProbeTarget(replace(web, kind=ProbeKind.GRPC), local, port),
            "tcp": ProbeTarget(replace(web, kind=ProbeKind.TCP), local, port),
            "udp": ProbeTarget(datagram, local, udp_port),
            "command": ProbeTarget(replace(web, kind=ProbeKind.COMMAND, port=None, command="x"), local, port),
            "good": ProbeTarget(replace(web, port=good_port), local, good_port),
        }
        number = 0

        async def feed(data: bytes) -> None:
            nonlocal number
            number += 1
            choices = ByteChoices(data)
            status = choices.pick(("200 OK", "302 Found\r\nLocation: /" + choices.text(), choices.text()))
            body = choices.text().encode("utf-8", "replace")
            answer = (
                grpc_answer(choices)
                if choices.flag()
                else response(body, status.encode("latin-1", "replace").decode("latin-1"))
            )
            sent = spoilt(choices, answer)
            server.answers = lambda _: sent
            echo.answer = b"".join(sent)[:60_000]
            command.ended = (choices.number(256), choices.text())
            targets = {("w", f"{kind}/{number}"): target for kind, target in kinds.items()}
            probing.watch({})
            probing.watch(targets)
            for key in targets:
                probing._expect(probing._watched[key], loop.time())  # noqa: SLF001 -- the first check is due at once
            while any(not probing.history(key) for key in targets):
                changed.clear()
                with suppress(TimeoutError):
                    async with asyncio.timeout(0.01):
                        await changed.wait()
            check_shown(verdict.reason for key in targets for verdict in probing.history(key))
            assert probing.health()["w", f"good/{number}"] is Health.HEALTHY

        yield feed
        task.cancel()
    udp.close()


@asynccontextmanager
async def name_server() -> AsyncIterator[Feed]:
    """The name server between a client that sends anything and an upstream that answers anything."""

    class Upstream(asyncio.DatagramProtocol):
        answer = b""

        @override
        def connection_made(self, transport: asyncio.BaseTransport) -> None:
            self.transport = cast(asyncio.DatagramTransport, transport)

        @override
        def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
            end = data.find(b"\0", 12) + 5
            known = data[:2] + self.answer[2:12] + data[12:end] if len(self.answer) % 2 else data[:2]
            self.transport.sendto(known + self.answer[12:], addr)

    loop = asyncio.get_running_loop()
    transport, upstream = await loop.create_datagram_endpoint(Upstream, ("127.0.0.1", 0))
    where = transport.get_extra_info("sockname")
    brief = HedgingDelays(first=0.02, next=0.02, budget=0.06)
    server = NameServer([("127.0.0.1", 0)], ZONE, Forwarder(Upstreams([where]), patience=brief))
    await server.start()
    host, port = server.addresses[0]
    own, number = question("web.mesh.internal"), 0

    async def over_tcp(sent: list[bytes], answers: int, limit: float) -> bytes:
        reader, writer = await asyncio.open_connection(host, port)
        received = b""
        try:
            with suppress(OSError, TimeoutError):
                async with asyncio.timeout(limit):
                    for piece in sent:
                        writer.write(piece)
                        await writer.drain()
                    while answers and (data := await reader.read(1 << 16)):
                        received += data
                        answers -= 1
        finally:
            writer.transport.abort()
        return received

    async def feed(data: bytes) -> None:
        nonlocal number
        number += 1
        choices = ByteChoices(data)
        upstream.answer = choices.raw() * (1 + choices.number(20))
        udp, _ = await loop.create_datagram_endpoint(asyncio.DatagramProtocol, remote_addr=(host, port))
        udp.sendto(question(f"n{number}.example"))
        packet = choices.raw()
        if packet:
            udp.sendto(packet)
        framed = len(packet).to_bytes(2) + packet if choices.flag() else choices.raw()
        await over_tcp(choices.pieces(framed + choices.rest()), choices.number(3), 0.03)
        answer = await over_tcp([len(own).to_bytes(2) + own], 1, PATIENCE)
        assert bytes((10, 112, 0, 7)) in answer, "an own name is answered all the same"
        udp.close()

    yield feed
    await server.stop()
    transport.close()


@asynccontextmanager
async def admin_api() -> AsyncIterator[Feed]:
    """The admin API on its socket. A request beside the input is answered."""
    with tempfile.TemporaryDirectory() as directory:
        path = f"{directory}/admin.sock"

        async def ask(sent: list[bytes], limit: float) -> bytes:
            reader, writer = await asyncio.open_unix_connection(path)
            received = b""
            try:
                with suppress(OSError, TimeoutError):
                    async with asyncio.timeout(limit):
                        for piece in sent:
                            writer.write(piece)
                            await writer.drain()
                        while data := await reader.read(1 << 16):
                            received += data
            finally:
                writer.transport.abort()
            return received

        async def feed(data: bytes) -> None:
            choices = ByteChoices(data)
            path = choices.pick(
                ("/v1/status", "/v1/explain?query=", "/v1/drain", "/metrics", "/v1/test", "/", "/v1/events")
            )
            path += "" if choices.flag() else choices.text().encode("utf-8", "replace").decode()[:3000]
            body = choices.encoded({"name": "web-1"})
            head = f"{choices.pick(('GET', 'POST', 'PUT', 'HEAD'))} {path} HTTP/1.1\r\nHost: localhost\r\n"
            head += f"Connection: close\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n"
            if choices.flag():
                head += f"{choices.text()[:3000]}: {choices.text()[:3000]}\r\n"
            request = head.encode("utf-8", "replace") + b"\r\n" + body
            await ask(spoilt(choices, request), 0.05)
            answer = await ask([b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"], PATIENCE)
            assert answer.startswith(b"HTTP/1.1 200"), answer[:200]

        async with serving(socket_of(Path(directory))):
            yield feed


@asynccontextmanager
async def peers() -> AsyncIterator[Feed]:
    """The listener for pings with clients that send anything, and a ping of a host that answers anything."""
    said = [b""]

    async def say(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(said[0])
        writer.close()

    other = await asyncio.start_server(say, "127.0.0.1", 0)
    port = other.sockets[0].getsockname()[1]
    listener = await listen_for_pings(RealKey("127.0.0.1", 0), "w1")
    mine = RealKey("127.0.0.1", listener.sockets[0].getsockname()[1])
    async with listener, other:

        async def feed(data: bytes) -> None:
            choices = ByteChoices(data)
            pieces = choices.pieces(choices.raw() * (1 + choices.number(2000)))
            _, writer = await asyncio.open_connection(mine.address, mine.port)
            with suppress(OSError):
                for piece in pieces:
                    writer.write(piece)
                    await writer.drain()
            writer.transport.abort()
            said[0] = choices.raw() or b"vipmesh w1"
            await ping_worker(RealKey("127.0.0.1", port), "w2")
            assert str(await ping_worker(mine, "w1")) == "answered"

        yield feed


@asynccontextmanager
async def saved_views() -> AsyncIterator[Feed]:
    """The saved view with a file that has anything in it: a view, or none."""
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / "view.json"
        store = await CachedStore.open(MemoryStore(MemoryCluster(), "w1"), path)

        async def feed(data: bytes) -> None:
            path.write_bytes(saved_view(ByteChoices(data)))
            saved = await store.saved()
            if saved is not None:
                check_shown(build_view(saved.records)[1])

        yield feed
        await store.close()


@asynccontextmanager
async def worker() -> AsyncIterator[Feed]:
    """A whole worker on fakes, whose store and containers have anything in them. A service beside them is served."""
    cluster, published = MemoryCluster(), asyncio.Event()
    builder = ZoneBuilder(["mesh.internal"])
    names: set[str] = set()

    def publish(services: Mapping[str, DnsService]) -> None:
        builder.update(services)
        names.clear()
        names.update(services)
        published.set()

    one = FakeWorker(
        "w1", MemoryStore(cluster, "w1"), WorkerBed(ip_network("10.112.0.0/24")), publish=ZonePublisher(publish)
    )
    number = 0

    async with asyncio.TaskGroup() as tasks:
        task = tasks.create_task(one.run())

        async def feed(data: bytes) -> None:
            nonlocal number
            number = (number + 1) % 100
            choices = ByteChoices(data)
            before = cluster.records
            added = {key: value for key, value in chosen_records(choices).items() if not key.startswith("workers/w1/")}
            labels, runs_commands = chosen_labels(choices), choices.flag()
            marker = f"good{number}.test"
            cluster.change({key: value for key, value in added.items() if marker.encode() not in value})
            one.runs(
                [
                    Instance("shop/good/1", "shop/good", "10.1.0.9", {"mesh.routing.port_80": marker}),
                    Instance("shop/web/1", "shop/web", "10.1.0.1", labels, runs_commands=runs_commands),
                ]
            )
            try:
                while marker not in names:
                    published.clear()
                    await published.wait()
            except BaseException:
                print("STATE", marker, sorted(names)[:5], len(cluster.records), vars(one), flush=True)
                raise
            cluster.change({key: before.get(key) for key in added})

        yield feed
        task.cancel()
