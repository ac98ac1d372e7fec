"""The gRPC check: what status does the server's health service report?

The protocol is grpc.health.v1.Health, method Check: github.com/grpc/grpc/blob/master/doc/health-checking.md. The
library h2 implements HTTP/2 without sockets, so the connection is ours as in every other check: made within the timeout
and closed by a reset. grpcio would add 12 MB, its own threads, and connections that it keeps, repairs and retries by
itself. The two messages have one field each and are encoded here (protobuf.dev/programming-guides/encoding).
"""

import asyncio
import ssl
import struct
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from urllib.parse import unquote

from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.errors import ErrorCodes
from h2.events import ConnectionTerminated, DataReceived, Event, ResponseReceived, StreamEnded, StreamReset
from h2.events import TrailersReceived as Trailers
from h2.exceptions import ProtocolError

from mesh import __version__
from mesh.health.checks.tcp import await_verdict, tls_server_name
from mesh.health.state_machine import Verdict
from mesh.model.probe import Probe, ProbeKind
from mesh.model.service import Address
from mesh.model.table import RealKey
from mesh.util.sockets import connect_socket

_METHOD = "/grpc.health.v1.Health/Check"
_STATUSES = {0: "UNKNOWN", 1: "SERVING", 2: "NOT_SERVING", 3: "SERVICE_UNKNOWN"}
_LIMIT = 16384
"""Bytes within which the response must end."""
MAX_STATUS_DIGITS = 9
"""The most digits of `grpc-status`; the highest status is 16."""
_WIRE_LENGTH, _WIRE_VARINT = 2, 0
_SURPRISES = (ValueError, LookupError, TypeError, AttributeError, AssertionError, OverflowError)
"""What h2 and hpack raise beside `ProtocolError`, such as for a header that is not UTF-8."""


async def check_grpc(address: Address, port: int, probe: Probe, *, tls: ssl.SSLContext | None = None) -> Verdict:
    """Succeed if the health service reports SERVING for the service named by `probe.path` within `probe.timeout`.

    `/` asks about the server as a whole. `tls` is the context for TLS, with `h2` as its ALPN protocol; None: no TLS.
    """
    return await await_verdict(_ask(address, port, probe, tls), probe.timeout)


async def _ask(address: Address, port: int, probe: Probe, tls: ssl.SSLContext | None) -> tuple[bool, str]:
    sock = await connect_socket(address, port)
    try:
        reader, writer = await asyncio.open_connection(
            sock=sock,
            ssl=tls,
            server_hostname=tls_server_name(address, probe) if tls else None,
            ssl_handshake_timeout=probe.timeout + 1 if tls else None,  # never the first to fire
        )
    except BaseException:
        sock.close()
        raise
    try:
        return await _GrpcCall(probe, str(RealKey(address, port))).run(reader, writer)
    finally:
        writer.transport.abort()


@dataclass(slots=True)
class _GrpcResponse:
    """The part of the response received so far."""

    headers: dict[str, str] = field(default_factory=dict)
    """Trailers included."""
    body: bytearray = field(default_factory=bytearray)
    ended: bool = False


class _GrpcCall:
    """One call over one connection."""

    def __init__(self, probe: Probe, authority: str) -> None:
        self._http = H2Connection(H2Configuration(client_side=True, header_encoding="utf-8"))
        self._http.initiate_connection()
        scheme = "https" if probe.kind is ProbeKind.GRPCS else "http"
        self._http.send_headers(
            1,
            [
                (":method", "POST"),
                (":scheme", scheme),
                (":path", _METHOD),
                (":authority", probe.host or authority),
                ("te", "trailers"),
                ("content-type", "application/grpc"),
                ("user-agent", f"vipmesh-probe/{__version__}"),
            ],
        )
        self._http.send_data(1, health_request(unquote(probe.path[1:])), end_stream=True)

    async def run(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> tuple[bool, str]:
        """Return (ok, reason). Raises `OSError`."""
        answer, received = _GrpcResponse(), 0
        while not answer.ended:
            writer.write(self._http.data_to_send())
            data = await reader.read(_LIMIT)
            received += len(data)
            if not data:
                return False, "closed before an answer"
            if received == len(data) and data.startswith(b"HTTP/1"):  # h2 would take it for the head of a 4 MB frame
                return False, f"not HTTP/2: {data[:40].decode('latin-1').strip()!r}"
            if received > _LIMIT:
                return False, f"no answer in {_LIMIT} bytes"
            try:
                self._take(answer, self._http.receive_data(data))
            except (ProtocolError, *_SURPRISES) as error:
                return False, f"not HTTP/2: {_printable(str(error)[:80]) or type(error).__name__}"
        return judge_response(answer.headers, bytes(answer.body))

    def _take(self, answer: _GrpcResponse, events: Iterable[Event]) -> None:
        for event in events:
            match event:
                case ResponseReceived(headers=headers) | Trailers(headers=headers):
                    answer.headers |= {_text(name): _text(value) for name, value in headers or ()}
                case DataReceived(data=data, flow_controlled_length=length):
                    answer.body += data or b""
                    self._http.acknowledge_received_data(length or 0, 1)
                case StreamEnded():
                    answer.ended = True
                case StreamReset(error_code=code) | ConnectionTerminated(error_code=code):
                    answer.ended = True  # after ConnectionTerminated h2 accepts no data, even if a response follows
                    answer.headers["error"] = code.name if isinstance(code, ErrorCodes) else f"code {code}"


def _printable(text: str) -> str:
    """Return a library's words, which may quote what was received, for a reason of one line."""
    return "".join(c if c.isprintable() else "?" for c in text)


def health_request(service: str) -> bytes:
    """Return a HealthCheckRequest in a gRPC frame: not compressed, its length, the message."""
    name = service.encode()
    request = bytes([1 << 3 | _WIRE_LENGTH]) + _varint(len(name)) + name if name else b""
    return struct.pack(">BI", 0, len(request)) + request


def serving_status(frame: bytes) -> int | None:
    """Return the status in a HealthCheckResponse, or None if the frame is not a complete one."""
    if len(frame) < 5 or frame[0] != 0 or len(frame) != 5 + int.from_bytes(frame[1:5]):
        return None
    body = frame[5:]
    if not body:
        return 0  # proto3 omits a field that is 0
    if len(body) != 2 or body[0] != 1 << 3 | _WIRE_VARINT:
        return None
    return body[1]


def judge_response(headers: Mapping[str, str], body: bytes) -> tuple[bool, str]:
    """Return whether a response says SERVING, and its meaning in words."""
    if "error" in headers:
        return False, f"the server ended the call: {headers['error']}"
    if headers.get(":status") != "200":
        return False, f"not gRPC: HTTP status {headers.get(':status')}"
    code = headers.get("grpc-status", "")
    if not code.isdecimal() or len(code) > MAX_STATUS_DIGITS:
        return False, "not gRPC: the answer has no grpc-status"
    match int(code):  # github.com/grpc/grpc/blob/master/doc/statuscodes.md
        case 0:
            status = serving_status(body)
            words = "invalid response" if status is None else _STATUSES.get(status, str(status))
            return status == 1, f"gRPC health: {words}"
        case 5:
            return False, "gRPC health: the server does not know this service"
        case 12:
            return False, "gRPC health: the server has no health service"
    return False, f"gRPC status {int(code)}: {unquote(headers.get('grpc-message', ''))[:60]!r}"


def _varint(number: int) -> bytes:
    encoded = bytearray()
    while number > 0x7F:
        encoded.append(number & 0x7F | 0x80)
        number >>= 7
    return bytes([*encoded, number])


def _text(value: str | bytes) -> str:
    return value if isinstance(value, str) else value.decode("utf-8", "replace")
