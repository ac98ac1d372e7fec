"""What servers of the field send: the three HTTP checks beside curl, which gives its own verdict in the same test.

A check must not call an endpoint broken that works for everybody else, whichever way it looks at it. Where a check is
stricter or more lenient than curl, the row says why.
"""

import asyncio
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace

import pytest

from mesh.health.checks.batch import CheckBatch, PlainCheck
from mesh.health.checks.http import build_request, check_http
from mesh.health.checks.http_body import check_http_body
from mesh.health.checks.tcp import ResourceLackError
from mesh.health.state_machine import Verdict
from mesh.model.probe import Probe, ProbeKind
from tests.system.e2e.programs import call

PROBE = Probe(ProbeKind.HTTP, None, timeout=10.0)
TEXT = b"it is ready"


@dataclass(frozen=True)
class Row:
    """One response."""

    id: str
    sent: bytes
    """Everything that the server sends before it closes."""
    source: str
    """Where such a response comes from."""
    accepted: bool = True
    """Whether it is a response with status 200."""
    text: bool = True
    """Whether its body contains the text; only where it is accepted."""
    differs: str = ""
    """Why the verdict is not curl's; empty: it is."""
    plain: bool | None = None
    """The verdict of a check that reads no body, if that makes a difference; None: as `accepted`."""


OK = b"HTTP/1.1 200 OK\r\n"
BODY = b"\r\n" + TEXT
CHUNKED = OK + b"Transfer-Encoding: chunked\r\n"
ONE_CHUNK = b"\r\nb\r\n" + TEXT + b"\r\n0\r\n\r\n"


def lengths(*values: bytes) -> bytes:
    return OK + b"".join(b"Content-Length: %s\r\n" % value for value in values) + BODY


HEADS = [
    Row("a length", lengths(b"11"), "nearly every server"),
    Row("no length", OK + BODY, "servers of HTTP/1.0 and scripts behind a CGI"),
    Row("HTTP/1.0", b"HTTP/1.0 200 OK\r\n" + BODY, "one-file servers of standard libraries"),
    Row("no reason", b"HTTP/1.1 200\r\n" + BODY, "proxies that drop the reason phrase, as HTTP/2 has none"),
    Row("empty reason", b"HTTP/1.1 200 \r\n" + BODY, "what the grammar asks for where there is no reason"),
    Row("reason in UTF-8", "HTTP/1.1 200 In Größe\r\n".encode() + BODY, "frameworks that let programs set the reason"),
    Row("long reason", b"HTTP/1.1 200 " + b"x" * 20_000 + b"\r\n" + BODY, "an exception's text as the reason"),
    Row("two spaces", b"HTTP/1.1  200 OK\r\n" + BODY, "format strings with a width in embedded servers"),
    Row("lower case", b"http/1.1 200 OK\r\n" + BODY, "hand-written embedded servers"),
    Row("version 2 in text", b"HTTP/2 200\r\n" + BODY, "gateways that copy the line of the server behind them"),
    Row("bare line feeds", b"HTTP/1.1 200 OK\nX: y\n\n" + TEXT, "shell scripts behind netcat"),
    Row("mixed line ends", b"HTTP/1.1 200 OK\r\nX: y\n\r\n" + TEXT, "CGI scripts whose headers are passed on"),
    Row("a line of 60,000 bytes", OK + b"X: " + b"a" * 60_000 + b"\r\n" + BODY, "security policies, tokens in cookies"),
    Row("a line of 99,000 bytes", OK + b"X: " + b"a" * 99_000 + b"\r\n" + BODY, "the longest that curl reads"),
    Row("500 headers", OK + b"".join(b"X-%d: y\r\n" % n for n in range(500)) + BODY, "tracing and debugging headers"),
    Row("5,000 headers", OK + b"".join(b"X-%d: y\r\n" % n for n in range(5000)) + BODY, "one cookie for each item"),
    Row("endless headers", OK + b"X-Header: y\r\n" * 30_000 + BODY, "a loop", accepted=False, plain=True),
    Row(
        "endless line", OK + b"X: " + b"a" * 400_000 + b"\r\n" + BODY, "a server in a loop", accepted=False, plain=True
    ),
    Row("a space in a name", OK + b"X Y: z\r\n" + BODY, "headers made of titles that people typed"),
    Row("brackets in a name", OK + b"X(Y)[Z]{}/: z\r\n" + BODY, "headers named after metrics or array fields"),
    Row("UTF-8 in a name", OK + "Größe: z\r\n".encode() + BODY, "headers named in the language of the program"),
    Row("Latin-1", OK + b"\xdc: \xff\xfe\r\n" + BODY, "old application servers"),
    Row("an empty name", OK + b": y\r\n" + BODY, "a header whose name variable is not set"),
    Row("a space before the colon", OK + b"X : y\r\n" + BODY, "aligned by hand"),
    Row("an underscore and a dot", OK + b"x_y.z: 1\r\n" + BODY, "names of environment variables and properties"),
    Row("control characters", OK + b"X: a\x01\x7fb\r\n" + BODY, "binary cookies"),
    Row("a bare CR in a value", OK + b"X: a\rb\r\n" + BODY, "text of another system's line ends in a header"),
    Row("a folded value", OK + b"X: a\r\n b\r\n" + BODY, "mail-like folding of long values by old frameworks"),
    Row("cut off after the status", OK, "a server that closes at once", text=False),
    Row("cut off in a header", OK + b"X: y", "a crash while it answers", text=False),
    Row("encoded content", OK + b"Content-Encoding: br\r\n" + BODY, "static files that are stored compressed"),
    # Not HTTP, or not safe.
    Row("HTTP/0.9", TEXT, "an echo server", accepted=False),
    Row("another protocol", b"SSH-2.0-OpenSSH_9.2\r\n", "the wrong port", accepted=False),
    Row("a radio stream", b"ICY 200 OK\r\n" + BODY, "streaming servers", accepted=False),
    Row("an empty line first", b"\r\n" + OK + BODY, "the rest of a response before", accepted=False),
    Row("four digits", b"HTTP/1.1 2000 OK\r\n" + BODY, "a broken format string", accepted=False),
    Row("two digits", b"HTTP/1.1 20 OK\r\n" + BODY, "a broken format string", accepted=False),
    Row("no code", b"HTTP/1.1 OK\r\n" + BODY, "a broken format string", accepted=False),
    Row("no space", b"HTTP/1.1200 OK\r\n" + BODY, "a broken format string", accepted=False),
    Row("version 1.2", b"HTTP/1.2 200 OK\r\n" + BODY, "nothing known", accepted=False),
    Row("version 3 in text", b"HTTP/3 200\r\n" + BODY, "nothing known", accepted=False),
    Row("a NUL in a value", OK + b"X: a\0b\r\n" + BODY, "memory that was never written", accepted=False),
    Row("a NUL in the reason", b"HTTP/1.1 200 O\0K\r\n" + BODY, "memory that was never written", accepted=False),
    Row("a line without a colon", OK + b"warning\r\nX: y\r\n" + BODY, "a debugging print", accepted=False),
    Row("the status line twice", OK + OK + BODY, "a framework inside a CGI", accepted=False),
    Row("a fold of nothing", OK + b" a: b\r\nX: y\r\n" + BODY, "an attack on parsers", accepted=False),
    # Interim responses.
    Row("100 first", b"HTTP/1.1 100 Continue\r\n\r\n" + OK + BODY, "servers that answer Expect before it is asked"),
    Row("103 first", b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n" + OK + BODY, "servers that send early hints"),
    Row("100 fifty times", b"HTTP/1.1 100 Continue\r\n\r\n" * 50 + OK + BODY, "progress of slow work"),
    Row("100 with a length", b"HTTP/1.1 100 X\r\nContent-Length: 3\r\n\r\n" + OK + BODY, "headers for all responses"),
    Row("100 with line feeds", b"HTTP/1.1 100 Continue\n\n" + OK + BODY, "shell scripts"),
    Row("100 and no more", b"HTTP/1.1 100 Continue\r\n\r\n", "a crash after the interim response", accepted=False),
    Row("100 and nonsense", b"HTTP/1.1 100 Continue\r\n\r\nfoo\r\n\r\n", "a broken proxy", accepted=False),
]

LENGTHS = [
    Row("twice the same", lengths(b"11", b"11"), "a proxy that adds the length once more"),
    Row("the same in a list", lengths(b"11, 11"), "a proxy that joins equal headers"),
    Row("the same with a zero", lengths(b"11", b"011"), "two parts that format numbers in their own way"),
    Row("spaces and a tab", lengths(b" \t 11 \t"), "aligned by hand"),
    Row("too long for 64 bits", lengths(b"9" * 25), "a length of -1 without its sign", text=True),
    Row("longer than the body", lengths(b"50"), "a wrong count", differs="the text came all the same"),
    Row("shorter than the body", lengths(b"5"), "a length counted in characters", text=False),
    Row("zero", lengths(b"0"), "a body that must not be there", text=False),
    Row("negative", lengths(b"-1"), "a length that is not known", accepted=False),
    Row("none", lengths(b""), "a variable that is not set", accepted=False),
    Row("a word", lengths(b"eleven"), "an object in place of its size", accepted=False),
    Row("folded", OK + b"Content-Length:\r\n 11\r\n" + BODY, "an attack on parsers", accepted=False),
    *(
        Row(
            name,
            lengths(*values),
            "an attack on parsers, or a proxy that changes the body",
            accepted=False,
            differs=why,
        )
        for name, values, why in (
            ("two that differ", (b"11", b"9"), "two readers would see different bodies"),
            ("two that differ, short first", (b"3", b"11"), "two readers would see different bodies"),
            ("a list that differs", (b"11, 9",), "two readers would see different bodies"),
            ("a plus", (b"+11",), "not a number for other readers"),
            ("hexadecimal", (b"0xb",), "not a number for other readers"),
            ("a fraction", (b"11.0",), "not a number for other readers"),
            ("a unit", (b"11 bytes",), "not a number for other readers"),
        )
    ),
]

CODINGS = [
    Row("chunks", CHUNKED + ONE_CHUNK, "nearly every application server"),
    Row("upper case", OK + b"TRANSFER-ENCODING: CHUNKED\r\n" + ONE_CHUNK, "old application servers"),
    Row("bare line feeds", CHUNKED + b"\r\nb\n" + TEXT + b"\n0\n\n", "scripts that write chunks by hand"),
    Row(
        "a bare line feed after the data",
        CHUNKED + b"\r\nb\r\n" + TEXT + b"\n0\r\n\r\n",
        "scripts that write chunks by hand",
    ),
    Row("an extension", CHUNKED + b"\r\nb;x=y\r\n" + TEXT + b"\r\n0\r\n\r\n", "servers that sign chunks"),
    Row("spaces after the size", CHUNKED + b"\r\nb     \r\n" + TEXT + b"\r\n0\r\n\r\n", "sizes of a fixed width"),
    Row("leading zeros", CHUNKED + b"\r\n0000000b\r\n" + TEXT + b"\r\n0\r\n\r\n", "sizes of a fixed width"),
    Row("in two chunks", CHUNKED + b"\r\n6\r\nit is \r\n5\r\nready\r\n0\r\n\r\n", "templates that are flushed"),
    Row("a trailer", CHUNKED + b"\r\nb\r\n" + TEXT + b"\r\n0\r\nX: y\r\n\r\n", "checksums after the body"),
    Row("HTTP/1.0", b"HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n" + ONE_CHUNK, "proxies that lower the version"),
    Row("said twice", CHUNKED + b"Transfer-Encoding: chunked\r\n" + ONE_CHUNK, "an application and its server"),
    Row("beside a length", CHUNKED + b"Content-Length: 3\r\n" + ONE_CHUNK, "an application that sets a length itself"),
    Row("identity", OK + b"Transfer-Encoding: identity\r\n" + BODY, "drafts of HTTP/1.1 that had it"),
    Row("an unknown coding", OK + b"Transfer-Encoding: xchunked\r\n" + BODY, "an attack on parsers", accepted=False),
    Row("compressed", OK + b"Transfer-Encoding: gzip, chunked\r\n" + ONE_CHUNK, "nobody asked for it", accepted=False),
    *(
        Row(name, CHUNKED + b"\r\n" + size + b"\r\n" + TEXT + b"\r\n0\r\n\r\n", source, accepted=False, plain=True)
        for name, size, source in (
            ("no size", b"", "a count that is one line off"),
            ("a size that is none", b"xyz", "a body that is not in chunks"),
            ("a negative size", b"-b", "an attack on parsers"),
            ("a size of 68 bits", b"f" * 17, "an attack on parsers"),
            ("a size of 64 bits", b"f" * 16, "an attack on parsers"),
            ("a space before the size", b" b", "an attack on parsers"),
            ("a prefix", b"0xb", "a size formatted for people"),
        )
    ),
]


@asynccontextmanager
async def server(sent: bytes) -> AsyncIterator[int]:
    """Yields the port of a server that gives this response to every request, and then closes."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await reader.readuntil(b"\r\n\r\n")
            writer.write(sent)
            await writer.drain()
            writer.write_eof()
            await reader.read()
        except OSError:
            pass  # the client has read enough, and resets
        finally:
            writer.transport.abort()

    async with await asyncio.start_server(answer, "127.0.0.1", 0) as listener:
        yield listener.sockets[0].getsockname()[1]


async def batched(port: int) -> Verdict:
    """The plain check, as the prober runs it."""
    batch, found = CheckBatch(), list[Verdict | ResourceLackError]()
    try:
        batch.begin(PlainCheck(PROBE, build_request("127.0.0.1", port, PROBE), found.append), "127.0.0.1", port)
        while not found:
            batch.look()
            batch.expire()
            await asyncio.sleep(0.001)
    finally:
        batch.close()
    (verdict,) = found
    assert isinstance(verdict, Verdict)
    return verdict


async def curls(port: int) -> tuple[bool, bool]:
    """Whether curl is content, and whether the body that it prints contains the text."""
    curl = shutil.which("curl")
    assert curl is not None, "install curl"
    url = f"http://127.0.0.1:{port}/"
    code, output = await call(curl, "--silent", "--max-time", "20", "--write-out", "\n%{http_code}", url, seconds=30)
    return code == 0 and output.endswith("\n200"), TEXT.decode() in output


@pytest.mark.parametrize("row", [pytest.param(row, id=row.id) for row in [*HEADS, *LENGTHS, *CODINGS]])
async def test_every_check_accepts_what_curl_accepts(row: Row) -> None:
    assert row.source
    async with server(row.sent) as port:
        accepted, text = await curls(port)
        plain = [await batched(port), await check_http("127.0.0.1", port, PROBE)]
        plain.append(await check_http_body("127.0.0.1", port, replace(PROBE, follow_redirects=True)))
        body = await check_http_body("127.0.0.1", port, replace(PROBE, expect_body=TEXT.decode()))
    expected = row.accepted if row.plain is None else row.plain
    assert [verdict.ok for verdict in plain] == [expected] * 3, plain
    assert body.ok is (row.accepted and row.text), body
    if not row.differs:
        assert accepted is row.accepted
        assert not accepted or text is row.text
    else:
        assert (accepted, text) != (row.accepted, row.text), "curl agrees by now"


@pytest.mark.parametrize("status", [204, 304])
async def test_a_status_without_a_body_has_none(status: int) -> None:
    probe = replace(PROBE, expect_body=TEXT.decode())
    async with server(b"HTTP/1.1 %d X\r\nContent-Length: 11\r\n" % status + BODY) as port:
        verdict = await check_http_body("127.0.0.1", port, probe)
        _, text = await curls(port)
    assert (verdict.reason, text) == (f"status {status}, but the body does not contain 'it is ready'", False)


async def test_a_response_to_head_has_no_body() -> None:
    probe = replace(PROBE, method="HEAD", expect_body=TEXT.decode())
    async with server(lengths(b"11")) as port:
        verdict = await check_http_body("127.0.0.1", port, probe)
    assert verdict.reason == "status 200, but the body does not contain 'it is ready'"
