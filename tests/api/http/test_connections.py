"""Connections of clients that have not authenticated: how many, for how long, and what their requests get."""

import asyncio
import json
import logging
import ssl
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from mesh.api.http import connections
from mesh.api.http.connections import MAX_UNAUTHENTICATED_PER_CLIENT, UnauthenticatedLimit, client_key
from mesh.api.http.server import AdminListenConfig
from mesh.util.bulkhead import INTERNAL_ERRORS
from tests.api.http.hostile_requests import HOSTILE_REQUESTS
from tests.api.http.worker import TOKEN, serving
from tests.store.etcd.certificates import authority, signed
from tests.system.e2e.programs import free_port

Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]
STATUS = b"GET /v1/status HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer %s\r\n\r\n" % TOKEN.encode()


@asynccontextmanager
async def admin_port(directory: Path, **files: Any) -> AsyncIterator[int]:
    """The port of an API over TCP, with the unix socket beside it."""
    token = directory / "token"
    token.write_text(TOKEN)
    token.chmod(0o600)
    port = free_port()
    async with serving(AdminListenConfig(f"unix://{directory}/admin.sock", f"127.0.0.1:{port}", token, **files)):
        yield port


async def head_of(reader: asyncio.StreamReader) -> tuple[int, bytes]:
    """The status and the body of a response that has a length."""
    async with asyncio.timeout(10):
        head = await reader.readuntil(b"\r\n\r\n")
        length = next(
            int(line.partition(b":")[2]) for line in head.split(b"\r\n") if line.lower().startswith(b"content-length:")
        )
        return int(head.split()[1]), await reader.readexactly(length)


async def is_closed(reader: asyncio.StreamReader) -> bool:
    """Wait until the connection is closed; returns False if it is still open after some seconds."""
    try:
        async with asyncio.timeout(10):
            await reader.read()
    except ConnectionError:
        return True
    except TimeoutError:
        return False
    return True


@pytest.mark.parametrize("over_tcp", [True, False])
async def test_hostile_requests_get_a_4xx_and_leave_no_traceback(
    over_tcp: bool, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    before = sum(INTERNAL_ERRORS.counts().values())
    async with admin_port(tmp_path) as port:
        for request in HOSTILE_REQUESTS:
            if over_tcp:
                reader, writer = await asyncio.open_connection("127.0.0.1", port)
            else:
                reader, writer = await asyncio.open_unix_connection(tmp_path / "admin.sock")
            writer.write(request)
            status, body = await head_of(reader)
            assert 400 <= status < 500, request
            assert b"Traceback" not in body
            if b"Expect:" not in request:
                assert json.loads(body)["error"], request
            writer.close()
    assert [r.getMessage() for r in caplog.records if r.exc_info or r.levelno >= logging.ERROR] == []
    assert sum(INTERNAL_ERRORS.counts().values()) == before


@pytest.mark.parametrize("start", [b"", b"GET /v1/status HTTP/1.1\r\nHost: loc", b"\r\n", b"\x16\x03\x01"])
@pytest.mark.parametrize("with_tls", [False, True])
async def test_an_unfinished_head_or_handshake_ends(
    start: bytes, with_tls: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connections, "HEAD_TIMEOUT", 0.05)
    async with admin_port(tmp_path, **(_certificate(tmp_path) if with_tls else {})) as port:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(start)
        assert await is_closed(reader)
        writer.close()


async def test_the_second_head_of_a_connection_has_a_deadline_too_and_a_request_has_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connections, "HEAD_TIMEOUT", 0.05)
    async with admin_port(tmp_path) as port:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"GET /v1/events HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer %s\r\n\r\n" % TOKEN.encode())
        async with asyncio.timeout(10):
            while b"event: flow" not in await reader.readline():
                pass  # a flow comes after two seconds: long after the deadline of a head
        writer.close()
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(STATUS)
        assert (await head_of(reader))[0] == 200
        writer.write(b"GET /v1/st")
        assert await is_closed(reader)
        writer.close()


async def test_a_body_has_a_deadline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connections, "BODY_TIMEOUT", 0.05)
    async with admin_port(tmp_path):
        reader, writer = await asyncio.open_unix_connection(tmp_path / "admin.sock")
        writer.write(b"POST /v1/drain HTTP/1.1\r\nHost: localhost\r\nContent-Length: 10\r\n\r\n{")
        status, body = await head_of(reader)
        assert (status, "within" in json.loads(body)["error"]) == (408, True)
        writer.close()


@pytest.mark.parametrize("with_tls", [False, True])
async def test_one_client_opens_a_limited_number_of_connections(
    with_tls: bool, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with admin_port(tmp_path, **(_certificate(tmp_path) if with_tls else {})) as port, AsyncExitStack() as stack:
        held = [await _open(port, stack) for _ in range(MAX_UNAUTHENTICATED_PER_CLIENT)]
        reader, _ = await _open(port, stack)
        assert await is_closed(reader)
        assert "too many are open without a valid token" in caplog.text
        held[0][1].close()
        if not with_tls:
            reader, writer = await asyncio.open_unix_connection(tmp_path / "admin.sock")
            writer.write(STATUS)
            assert (await head_of(reader))[0] == 200, "the unix socket has no part in it"
            writer.close()


async def test_clients_that_authenticate_are_not_counted(tmp_path: Path) -> None:
    async with admin_port(tmp_path) as port, AsyncExitStack() as stack:
        for _ in range(MAX_UNAUTHENTICATED_PER_CLIENT + 5):
            reader, writer = await _open(port, stack)
            writer.write(STATUS)
            assert (await head_of(reader))[0] == 200
        for _ in range(MAX_UNAUTHENTICATED_PER_CLIENT):
            reader, writer = await _open(port, stack)
            writer.write(STATUS.replace(TOKEN.encode(), b"wrong"))
            assert (await head_of(reader))[0] == 401
        reader, _ = await _open(port, stack)
        assert await is_closed(reader), "a wrong token is no token"


async def test_tls_with_the_token_works(tmp_path: Path) -> None:
    files = _certificate(tmp_path)
    async with admin_port(tmp_path, **files) as port:
        trusting = ssl.create_default_context(cafile=str(tmp_path / "ca.pem"))
        reader, writer = await asyncio.open_connection("127.0.0.1", port, ssl=trusting)
        writer.write(STATUS)
        assert (await head_of(reader))[0] == 200
        writer.close()


def test_the_limit_counts_in_all_and_per_client() -> None:
    limit = UnauthenticatedLimit(total=3, per_client=2)
    assert [limit.admit(client) for client in "aaab"] == [True, True, False, True]
    assert not limit.admit("c"), "three are open"
    assert limit.refused == 2
    limit.release("a")
    assert limit.admit("c")
    for client in "abc":
        limit.release(client)
    assert [limit.admit("d") for _ in range(3)] == [True, True, False]


@pytest.mark.parametrize(
    ("address", "key"),
    [
        ("192.0.2.7", "192.0.2.7"),
        ("2001:db8:1:2:3::4", "2001:db8:1:2::/64"),
        ("::ffff:192.0.2.7", "192.0.2.7"),
        ("fe80::1%eth0", "fe80::/64"),
    ],
)
def test_a_client_is_an_address_or_a_network_of_its_own(address: str, key: str) -> None:
    assert client_key(address) == key


async def _open(port: int, stack: AsyncExitStack) -> Streams:
    """A connection that is closed at the end, and that the API has accepted or refused."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    stack.callback(writer.close)
    return reader, writer


def _certificate(directory: Path) -> dict[str, Path]:
    cert, key = signed(authority(directory), "server", "/CN=worker-1", "IP:127.0.0.1", "serverAuth")
    return {"cert": cert, "key": key}
