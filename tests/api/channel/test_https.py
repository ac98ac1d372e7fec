"""The channel over TLS on loopback: who answers shows that he is the worker that is asked, or gets no request."""

import asyncio
import ssl
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import uvloop
from typing_extensions import override

from mesh.api.channel import https
from mesh.api.channel.certificates import ChannelCertificates
from mesh.api.channel.https import HttpsWorkerChannel
from mesh.api.http.server import AdminListenConfig
from mesh.api.http.tls import check_revoked
from mesh.cli.certificates import issue, make_authority, read_pem, write_pem
from mesh.cli.certs import make_certificates, revoke_certificates
from mesh.model.codes import Code
from mesh.model.credential import CertificateHolder
from mesh.model.table import RealKey
from mesh.testing.channel import FakeDirectory
from tests.api.channel.contract import STATUS, WorkerChannelContract, refusal
from tests.api.http.worker import serving
from tests.system.e2e.programs import free_port

NAMES = ("w1", "w2", "w5", "w6")
PATIENCE = 30


def make(directory: Path) -> None:
    """The certificates of a cluster."""
    holders = [(CertificateHolder(name, is_worker=True), ["127.0.0.1"]) for name in NAMES]
    make_certificates(directory, [*holders, (CertificateHolder("alice", is_worker=False), ())], datetime.now(UTC), 90)


def certificates(directory: Path, name: str = "w1") -> ChannelCertificates:
    return ChannelCertificates(directory / f"{name}.pem", None, directory / "ca.pem")


def server_tls(directory: Path, name: str) -> ssl.SSLContext:
    """As an admin API with `client_ca` has it."""
    tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=str(directory / "ca.pem"))
    tls.verify_mode = ssl.CERT_REQUIRED
    tls.load_cert_chain(directory / f"{name}.pem")
    check_revoked(tls, directory / "ca.pem")
    return tls


class ScriptedWorker:
    """A worker that answers with given bytes, to each request on a connection."""

    def __init__(self, answer: bytes | None, *, endless: bool = False) -> None:
        """`answer` is None to never answer; `endless` repeats it until nobody reads."""
        self._answer = answer
        self._endless = endless
        self.requests: list[bytes] = []
        self.connections = 0
        self.closed = asyncio.Event()
        """A connection has ended."""
        self.sent = 0
        """Bytes of bodies that were sent."""

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        try:
            while head := await reader.readuntil(b"\r\n\r\n"):
                self.requests.append(head.partition(b"\r\n")[0])
                if self._answer is None:
                    await asyncio.Event().wait()
                    continue
                writer.write(self._answer)
                while self._endless:
                    writer.write(b"x" * 65536)
                    await writer.drain()
                    self.sent += 65536
        except (OSError, asyncio.IncompleteReadError):
            pass
        finally:
            self.closed.set()
            writer.transport.abort()


def with_body(body: bytes, head: bytes = b"200 OK", content_type: bytes = b"application/json") -> bytes:
    length = str(len(body)).encode()
    return b"HTTP/1.1 %b\r\nContent-Type: %b\r\nContent-Length: %b\r\n\r\n%b" % (head, content_type, length, body)


@asynccontextmanager
async def listening(worker: ScriptedWorker, tls: ssl.SSLContext | None) -> AsyncIterator[RealKey]:
    connections: set[asyncio.Task[None]] = set()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        connections.add(task)
        await worker.serve(reader, writer)

    server = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=tls)
    try:
        yield RealKey("127.0.0.1", server.sockets[0].getsockname()[1])
    finally:
        server.close()
        for task in connections:
            task.cancel()
        await asyncio.gather(*connections, return_exceptions=True)


@asynccontextmanager
async def asking(directory: Path, places: dict[str, RealKey], name: str = "w1") -> AsyncIterator[HttpsWorkerChannel]:
    channel = HttpsWorkerChannel(FakeDirectory(places), certificates(directory, name))
    try:
        yield channel
    finally:
        await channel.close()


class Answering404(ScriptedWorker):
    """It knows one path."""

    def __init__(self) -> None:
        super().__init__(b"")

    @override
    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while head := await reader.readuntil(b"\r\n\r\n"):
                known = head.startswith(b"GET /v1/status ")
                writer.write(with_body(STATUS) if known else with_body(b'{"error": "no such path"}', b"404 Not Found"))
        except (OSError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.transport.abort()


class TestHttpsWorkerChannel(WorkerChannelContract):
    @pytest.fixture
    async def channel(self, tmp_path: Path) -> AsyncIterator[HttpsWorkerChannel]:
        make(tmp_path)
        async with AsyncExitStack() as stack:
            w2 = await stack.enter_async_context(listening(Answering404(), server_tls(tmp_path, "w2")))
            w5 = await stack.enter_async_context(listening(ScriptedWorker(None), server_tls(tmp_path, "w5")))
            refused = {"192.0.2.4": "its address 192.0.2.4 is in the VIP pool"}
            places = {"w2": w2, "w4": RealKey("192.0.2.4", 9780), "w5": w5}
            made = HttpsWorkerChannel(FakeDirectory(places, frozenset({"w3"}), refused), certificates(tmp_path))
            stack.push_async_callback(made.close)
            yield made


async def test_a_real_admin_api_answers_a_worker(tmp_path: Path) -> None:
    make(tmp_path)
    port = free_port()
    config = AdminListenConfig(
        f"unix://{tmp_path}/admin.sock", f"127.0.0.1:{port}", cert=tmp_path / "w2.pem", client_ca=tmp_path / "ca.pem"
    )
    async with serving(config), asking(tmp_path, {"w2": RealKey("127.0.0.1", port)}) as channel:
        answer = await channel.ask("w2", "/v1/status", deadline=PATIENCE)
        assert answer.body.startswith(b"{")
        error = await refusal(channel, "w2", "/v1/nothing")
        assert (error.code, error.status) == (Code.CHANNEL_REFUSED, 404)
        assert "no such path; /v1/openapi.yaml lists all paths" in str(error)


@pytest.mark.parametrize(
    ("shown", "asked"),
    [("w6", "w2"), ("alice", "w2"), ("w2", "w2.host"), ("w2", "127.0.0.1"), ("w2", "W2")],
)
async def test_who_shows_another_name_gets_no_request(tmp_path: Path, shown: str, asked: str) -> None:
    """A worker's certificate has further names of its host, which are no workers."""
    make(tmp_path)
    holders = [(CertificateHolder("w2", is_worker=True), ["127.0.0.1", "w2.host"])]
    make_certificates(tmp_path, holders, datetime.now(UTC), 90)
    worker = ScriptedWorker(with_body(STATUS))
    async with listening(worker, server_tls(tmp_path, shown)) as at, asking(tmp_path, {asked: at}) as channel:
        error = await refusal(channel, asked)
        assert error.code is Code.CHANNEL_TLS
        assert worker.requests == []


async def test_the_right_name_in_a_certificate_of_a_stranger_is_refused(tmp_path: Path) -> None:
    make(tmp_path)
    stranger = make_authority(datetime.now(UTC))
    issued = issue(stranger, CertificateHolder("w2", is_worker=True), ["127.0.0.1"], datetime.now(UTC), 9)
    (tmp_path / "w2.pem").write_bytes(write_pem(issued))
    worker = ScriptedWorker(with_body(STATUS))
    async with listening(worker, server_tls(tmp_path, "w2")) as at, asking(tmp_path, {"w2": at}) as channel:
        error = await refusal(channel, "w2")
        assert error.code is Code.CHANNEL_TLS
        assert worker.requests == []


async def test_an_expired_certificate_is_refused(tmp_path: Path) -> None:
    make(tmp_path)
    authority = read_pem((tmp_path / "ca.key").read_bytes())
    then = datetime.now(UTC) - timedelta(days=9)
    issued = issue(authority, CertificateHolder("w2", is_worker=True), ["127.0.0.1"], then, 3)
    (tmp_path / "w2.pem").write_bytes(write_pem(issued))
    worker = ScriptedWorker(with_body(STATUS))
    async with listening(worker, server_tls(tmp_path, "w2")) as at, asking(tmp_path, {"w2": at}) as channel:
        error = await refusal(channel, "w2")
        assert error.code is Code.CHANNEL_TLS
        assert "expired" in str(error)
        assert worker.requests == []


async def test_a_revoked_worker_is_refused_as_soon_as_the_list_is_there(tmp_path: Path) -> None:
    make(tmp_path)
    tls, worker = server_tls(tmp_path, "w2"), ScriptedWorker(with_body(STATUS))
    async with listening(worker, tls) as at, asking(tmp_path, {"w2": at}) as channel:
        assert (await channel.ask("w2", "/v1/status", deadline=PATIENCE)).body == STATUS
        revoke_certificates(tmp_path, ["w2"], datetime.now(UTC))
        error = await refusal(channel, "w2")
        assert error.code is Code.CHANNEL_TLS
        assert "revoked" in str(error)
        assert len(worker.requests) == 1, "not on the connection from before either"


async def test_a_worker_whose_own_certificate_is_refused_is_told_so(tmp_path: Path) -> None:
    make(tmp_path)
    copy = (tmp_path / "w1.pem").read_bytes()
    revoke_certificates(tmp_path, ["w1"], datetime.now(UTC))
    (tmp_path / "w1.pem").write_bytes(copy)
    worker = ScriptedWorker(with_body(STATUS))
    async with listening(worker, server_tls(tmp_path, "w2")) as at, asking(tmp_path, {"w2": at}) as channel:
        error = await refusal(channel, "w2")
        assert error.code is Code.CHANNEL_TLS
        assert worker.requests == []


async def test_a_renewed_certificate_needs_no_restart(tmp_path: Path) -> None:
    make(tmp_path)
    worker = ScriptedWorker(with_body(STATUS))
    async with listening(worker, server_tls(tmp_path, "w2")) as at, asking(tmp_path, {"w2": at}) as channel:
        await channel.ask("w2", "/v1/status", deadline=PATIENCE)
        make_certificates(
            tmp_path, [(CertificateHolder("w1", is_worker=True), None)], datetime.now(UTC), 90, renew=True
        )
        await channel.ask("w2", "/v1/status", deadline=PATIENCE)
        assert worker.connections == 2, "the new one is shown"
        (tmp_path / "w1.pem").write_bytes(b"broken")
        assert (await channel.ask("w2", "/v1/status", deadline=PATIENCE)).body == STATUS


async def test_without_certificates_nobody_is_asked(tmp_path: Path) -> None:
    places = {"w2": RealKey("127.0.0.1", 9)}
    missing = ChannelCertificates(tmp_path / "w1.pem", None, tmp_path / "ca.pem")
    for own, text in ((None, "vipmesh cluster certs"), (missing, "w1.pem")):
        channel = HttpsWorkerChannel(FakeDirectory(places), own)
        error = await refusal(channel, "w2")
        assert error.code is Code.CHANNEL_WITHOUT_CERTIFICATE
        assert text in str(error)
        await channel.close()


async def test_an_answer_without_end_is_not_read_on(tmp_path: Path) -> None:
    make(tmp_path)
    head = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 100000000\r\n\r\n"
    worker = ScriptedWorker(head, endless=True)
    async with listening(worker, server_tls(tmp_path, "w2")) as at, asking(tmp_path, {"w2": at}) as channel:
        error = await refusal(channel, "w2", most=1 << 20)
        assert error.code is Code.CHANNEL_NO_ANSWER
        async with asyncio.timeout(PATIENCE):
            await worker.closed.wait()
        assert worker.sent < 50_000_000


@pytest.mark.parametrize(
    "answer",
    [
        b"SSH-2.0-OpenSSH\r\n\r\n",
        with_body(b"<html>", content_type=b"text/html"),
        b"HTTP/1.1 200 OK\r\n" + b"X: " + b"y" * 100_000 + b"\r\n\r\n",
        with_body(b"", b"302 Found\r\nLocation: https://192.0.2.1/"),
        with_body(b'{"error": 5}', b"500 Internal Server Error"),
        with_body(b"[" * 4000, b"500 Internal Server Error"),
    ],
)
async def test_an_answer_that_is_none_is_a_coded_refusal(tmp_path: Path, answer: bytes) -> None:
    make(tmp_path)
    worker = ScriptedWorker(answer)
    async with listening(worker, server_tls(tmp_path, "w2")) as at, asking(tmp_path, {"w2": at}) as channel:
        error = await refusal(channel, "w2")
        assert error.code in (Code.CHANNEL_NO_ANSWER, Code.CHANNEL_REFUSED)
        assert str(error).isprintable()
        assert len(str(error)) < 1000


async def test_a_port_without_tls_and_a_closed_one(tmp_path: Path) -> None:
    make(tmp_path)
    plain = ScriptedWorker(with_body(STATUS))
    places = {"w5": RealKey("127.0.0.1", free_port())}
    async with listening(plain, None) as at, asking(tmp_path, {"w2": at} | places) as channel:
        plain_error = await refusal(channel, "w2", deadline=1)
        assert plain_error.code in (Code.CHANNEL_TLS, Code.CHANNEL_NO_ANSWER)
        assert plain.requests == []
        assert (await refusal(channel, "w5")).code is Code.CHANNEL_NO_ANSWER


async def test_one_connection_serves_several_questions_and_ends_when_idle(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(https, "IDLE_TIMEOUT", 0.3)
    make(tmp_path)
    worker = ScriptedWorker(with_body(STATUS))
    async with listening(worker, server_tls(tmp_path, "w2")) as at, asking(tmp_path, {"w2": at}) as channel:
        await asyncio.gather(*(channel.ask("w2", "/v1/status", deadline=PATIENCE) for _ in range(5)))
        assert (worker.connections, len(worker.requests)) == (1, 5)
        async with asyncio.timeout(PATIENCE):
            await worker.closed.wait()


async def test_many_hung_workers_delay_a_question_no_longer_than_its_deadline(tmp_path: Path) -> None:
    make(tmp_path)
    hung = ScriptedWorker(None)
    async with listening(hung, server_tls(tmp_path, "w5")) as at, asking(tmp_path, {"w5": at}) as channel:
        asked = [channel.ask("w5", "/v1/status", deadline=0.5) for _ in range(2 * https.MAX_ASKED)]
        async with asyncio.timeout(PATIENCE):
            found: Sequence[object] = await asyncio.gather(*asked, return_exceptions=True)
    assert {getattr(each, "code", None) for each in found} == {Code.CHANNEL_NO_ANSWER}


async def test_over_ipv6(tmp_path: Path) -> None:
    make(tmp_path)
    worker = ScriptedWorker(with_body(STATUS))
    server = await asyncio.start_server(worker.serve, "::1", 0, ssl=server_tls(tmp_path, "w2"))
    at = RealKey("::1", server.sockets[0].getsockname()[1])
    async with server, asking(tmp_path, {"w2": at}) as channel:
        assert (await channel.ask("w2", "/v1/status", deadline=PATIENCE)).body == STATUS
        await channel.close()
        async with asyncio.timeout(PATIENCE):
            await worker.closed.wait()


def test_on_the_event_loop_of_the_daemon(tmp_path: Path) -> None:
    make(tmp_path)
    holders = [(CertificateHolder("w2", is_worker=True), ["127.0.0.1", "w2.host"])]
    make_certificates(tmp_path, holders, datetime.now(UTC), 90)

    async def ask() -> None:
        worker = ScriptedWorker(with_body(STATUS))
        async with AsyncExitStack() as stack:
            at = await stack.enter_async_context(listening(worker, server_tls(tmp_path, "w2")))
            channel = await stack.enter_async_context(asking(tmp_path, {"w2": at, "w2.host": at}))
            assert (await refusal(channel, "w2.host")).code is Code.CHANNEL_TLS
            assert worker.requests == []
            assert (await channel.ask("w2", "/v1/status", deadline=PATIENCE)).body == STATUS

    uvloop.run(ask())
