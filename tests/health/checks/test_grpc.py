"""The gRPC check: its messages, its verdicts, and its behaviour over real sockets against a server built on h2."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, replace

import pytest
from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.errors import ErrorCodes
from h2.events import RequestReceived, StreamEnded
from hpack import Encoder
from hyperframe.frame import HeadersFrame, SettingsFrame
from hypothesis import given, settings
from hypothesis import strategies as st

from mesh.health.checks import network_checks
from mesh.health.checks.grpc import check_grpc, health_request, judge_response, serving_status
from mesh.model.probe import Probe, ProbeKind
from tests.health.checks.endpoints import TIME_WAIT, Script, closes, endpoint, hangs, says, socket_states, until
from tests.health.checks.test_tls import trusting

PROBE = Probe(ProbeKind.GRPC, None, timeout=2.0)
SERVING = b"\0\0\0\0\2\x08\1"
OK = (("grpc-status", "0"),)


def test_request_and_response_messages_follow_the_protocol() -> None:
    assert health_request("") == b"\0\0\0\0\0"
    assert health_request("shop.Cart") == b"\0\0\0\0\x0b\x0a\x09shop.Cart"
    assert health_request("x" * 200)[5:8] == b"\x0a\xc8\x01"
    assert serving_status(SERVING) == 1
    assert serving_status(b"\0\0\0\0\0") == 0


@given(st.binary(max_size=12))
def test_only_the_serving_response_counts_as_serving(frame: bytes) -> None:
    assert serving_status(frame) != 1 or frame == SERVING


@pytest.mark.parametrize(
    ("headers", "body", "verdict"),
    [
        ({}, SERVING, (True, "gRPC health: SERVING")),
        ({}, b"\0\0\0\0\2\x08\2", (False, "gRPC health: NOT_SERVING")),
        ({}, b"\0\0\0\0\0", (False, "gRPC health: UNKNOWN")),
        ({}, b"\0\0\0\0\2\x08\7", (False, "gRPC health: 7")),
        ({}, b"", (False, "gRPC health: invalid response")),
        ({"grpc-status": "5"}, b"", (False, "gRPC health: the server does not know this service")),
        ({"grpc-status": "12"}, b"", (False, "gRPC health: the server has no health service")),
        ({"grpc-status": "14", "grpc-message": "try%20later"}, b"", (False, "gRPC status 14: 'try later'")),
        ({":status": "502"}, b"", (False, "not gRPC: HTTP status 502")),
        ({"grpc-status": "x"}, b"", (False, "not gRPC: the answer has no grpc-status")),
        ({"error": "code 2"}, SERVING, (False, "the server ended the call: code 2")),
    ],
)
def test_verdict_of_a_response(headers: dict[str, str], body: bytes, verdict: tuple[bool, str]) -> None:
    assert judge_response({":status": "200", "grpc-status": "0", **headers}, body) == verdict


@dataclass
class Server:
    """A script that speaks HTTP/2: answers each call with the body and the trailers."""

    body: bytes = SERVING
    trailers: Sequence[tuple[str, str]] = OK
    reset: bool = False
    goaway: bool = False
    """Instead of an answer."""

    def __post_init__(self) -> None:
        self.calls: list[dict[str, str]] = []
        self.http: H2Connection | None = None
        self.fed = 0

    def script(self, requests: list[bytes], transport: asyncio.Transport) -> None:
        if self.http is None:
            self.http = H2Connection(H2Configuration(client_side=False, header_encoding="utf-8"))
            self.http.initiate_connection()
        for data in requests[self.fed :]:
            for event in self.http.receive_data(data):
                if isinstance(event, RequestReceived):
                    self.calls.append({str(name): str(value) for name, value in event.headers})
                if isinstance(event, StreamEnded):
                    self.answer(event.stream_id)
        self.fed = len(requests)
        transport.write(self.http.data_to_send())

    def answer(self, stream: int) -> None:
        assert self.http is not None
        if self.reset:
            self.http.reset_stream(stream, ErrorCodes.REFUSED_STREAM)
            return
        if self.goaway:
            self.http.close_connection(last_stream_id=stream)
            return
        self.http.send_headers(stream, [(":status", "200"), ("content-type", "application/grpc")])
        if self.body:
            self.http.send_data(stream, self.body)
        self.http.send_headers(stream, list(self.trailers), end_stream=True)


async def ask(server: Server, probe: Probe = PROBE) -> tuple[bool, str]:
    received: list[list[bytes]] = []
    async with endpoint(lambda transport: server.script(received[0], transport)) as (port, requests, open_ones):
        received.append(requests)
        verdict = await check_grpc("127.0.0.1", port, probe)
        await until(lambda: not open_ones)
    assert TIME_WAIT not in socket_states(port)
    return verdict.ok, verdict.reason


@pytest.mark.parametrize(
    ("server", "verdict"),
    [
        pytest.param(Server(), (True, "gRPC health: SERVING"), id="serving"),
        pytest.param(Server(b"\0\0\0\0\2\x08\2"), (False, "gRPC health: NOT_SERVING"), id="not serving"),
        pytest.param(
            Server(b"", (("grpc-status", "12"),)), (False, "gRPC health: the server has no health service"), id="none"
        ),
        pytest.param(Server(reset=True), (False, "the server ended the call: REFUSED_STREAM"), id="reset"),
        pytest.param(Server(goaway=True), (False, "the server ended the call: NO_ERROR"), id="goes away"),
    ],
)
async def test_a_call_over_a_real_socket(server: Server, verdict: tuple[bool, str]) -> None:
    assert await ask(server) == verdict
    [call] = server.calls
    assert call[":path"] == "/grpc.health.v1.Health/Check"
    assert call["user-agent"].startswith("vipmesh-probe/")


async def test_service_and_authority_come_from_the_probe() -> None:
    server = Server()
    assert (await ask(server, replace(PROBE, path="/shop.Cart", host="shop.example")))[0]
    assert server.calls[0][":authority"] == "shop.example"


@pytest.mark.parametrize(
    ("script", "reason"),
    [
        pytest.param(hangs, "no answer in 0.2 s", id="silent"),
        pytest.param(closes, "closed before an answer", id="closes"),
        pytest.param(says(b"HTTP/1.1 400 Bad Request\r\n\r\n"), "not HTTP/2: 'HTTP/1.1 400 Bad Request'", id="HTTP/1"),
    ],
)
async def test_an_endpoint_that_does_not_speak_grpc_is_unhealthy(script: Script, reason: str) -> None:
    async with endpoint(script) as (port, _, open_ones):
        verdict = await check_grpc("127.0.0.1", port, replace(PROBE, timeout=0.2))
        await until(lambda: not open_ones)
    assert (verdict.ok, verdict.reason) == (False, reason)
    assert TIME_WAIT not in socket_states(port)


@pytest.mark.parametrize(
    "headers",
    [
        [(b":status", b"200"), (b"x", b"\xff\xfe")],
        [(b":status", b"200"), (b"grpc-status", b"9" * 5000)],
        [(b":status", b"\xb2")],
        [(b":status", b"200"), (b"\xff", b"x")],
        [(b"grpc-status", b"0")],
        [(b":status", b"200"), (b":status", b"200")],
        [(b":status", b"200"), (b"grpc-message", b"%ff%fe%"), (b"grpc-status", b"2")],
    ],
    ids=["value", "digits", "status", "name", "no status", "twice", "message"],
)
async def test_hostile_headers_are_a_failed_check_and_no_internal_error(headers: list[tuple[bytes, bytes]]) -> None:
    frames = HeadersFrame(1, Encoder().encode(headers), flags=["END_HEADERS", "END_STREAM"])
    async with endpoint(says(SettingsFrame(0).serialize() + frames.serialize())) as (port, _, _):
        verdict = await check_grpc("127.0.0.1", port, PROBE)
    assert not verdict.ok
    assert verdict.reason.isprintable()


@settings(max_examples=50)
@given(garbage=st.binary(min_size=1) | st.binary().map(lambda more: b"\0\0\0\4\0\0\0\0\0" + more))
def test_garbage_is_a_failed_check_and_never_an_exception(garbage: bytes) -> None:
    def script(transport: asyncio.Transport) -> None:
        transport.write(garbage)
        transport.close()

    async def one() -> None:
        async with endpoint(script) as (port, _, _):
            verdict = await check_grpc("127.0.0.1", port, replace(PROBE, timeout=0.5))
        assert not verdict.ok

    asyncio.run(one())


async def test_over_tls() -> None:
    server = Server()
    received: list[list[bytes]] = []
    script: Script = lambda transport: server.script(received[0], transport)  # noqa: E731  as `endpoint` wants it
    async with endpoint(script, tls=True) as (port, requests, open_ones):
        received.append(requests)
        probe = replace(PROBE, kind=ProbeKind.GRPCS)
        verdict = await check_grpc("127.0.0.1", port, probe, tls=trusting())
        assert (verdict.ok, verdict.reason) == (True, "gRPC health: SERVING")
        assert server.calls[0][":scheme"] == "https"
        verdict = await network_checks()[ProbeKind.GRPCS]("127.0.0.1", port, probe)
        assert verdict.reason == "certificate refused: self-signed certificate"
        await until(lambda: not open_ones)
    assert TIME_WAIT not in socket_states(port)
