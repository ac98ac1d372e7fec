"""A request that raises ends alone, without a traceback for whoever sent it."""

import asyncio
import re
import socket
from pathlib import Path

import pytest
from aiohttp import web

from mesh.api.http.server import AdminApi
from mesh.control.endpoint_actions import EndpointAction
from mesh.control.snapshot import WorkerFacts, WorkerSnapshot
from mesh.model.part import DaemonPart
from mesh.util.bulkhead import INTERNAL_ERRORS
from tests.api.http.worker import client, socket_of

PARTS = {"file": "page.js", "worker": "w9", "project": "shop", "service": "web"}
"""What is asked for where a path has a part to fill in."""
OBSERVED = WorkerSnapshot(WorkerFacts("1", "w1", "fake", "a test"))


def errors() -> int:
    return INTERNAL_ERRORS.counts()[DaemonPart.ADMIN]


def break_route(route: web.AbstractRoute, monkeypatch: pytest.MonkeyPatch) -> None:
    async def fail(_: web.Request) -> web.StreamResponse:
        raise LookupError("with a secret in it")

    monkeypatch.setattr(route, "_handler", fail)


async def test_every_route_runs_in_the_bulkhead(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def verb(action: EndpointAction) -> str:
        return action.name

    async def explain(_: str) -> None:
        raise AssertionError

    api = AdminApi(socket_of(tmp_path), lambda: OBSERVED, {"drain": verb}, explain=explain)  # type: ignore[arg-type]
    await api.start()
    try:
        routes = [route for route in api.routes() if route.method != "HEAD"]
        assert len(routes) >= 8
        for route in routes:
            break_route(route, monkeypatch)
        async with client(tmp_path) as session:
            for number, route in enumerate(routes):
                assert route.resource is not None
                before = errors()
                path = re.sub(r"{(\w+)}", lambda part: PARTS[part[1]], route.resource.canonical)
                async with session.request(route.method, path) as answer:
                    assert answer.status == 500, path
                    text = await answer.text()
                assert "secret" not in text
                assert "Traceback" not in text
                assert answer.headers["Vipmesh-Code"] == "VM751"
                assert errors() == before + 1, number
    finally:
        await api.stop()


async def test_a_response_that_has_begun_is_broken_off(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    api = AdminApi(socket_of(tmp_path), lambda: OBSERVED)
    await api.start()
    try:
        (route,) = (r for r in api.routes() if r.method == "GET" and r.resource and r.resource.canonical == "/healthz")

        async def fail(request: web.Request) -> web.StreamResponse:
            response = web.StreamResponse()
            await response.prepare(request)
            await response.write(b"half of it")
            raise LookupError

        monkeypatch.setattr(route, "_handler", fail)
        reader, writer = await asyncio.open_unix_connection(tmp_path / "admin.sock")
        writer.write(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n")
        async with asyncio.timeout(10):
            received = await reader.read()
        assert received.count(b"HTTP/1.1") <= 1
        assert not received.endswith(b"0\r\n\r\n"), "it must not look complete"
        writer.close()
    finally:
        await api.stop()


async def test_a_client_that_leaves_is_no_internal_error(tmp_path: Path) -> None:
    api = AdminApi(socket_of(tmp_path), lambda: OBSERVED)
    await api.start()
    before = sum(INTERNAL_ERRORS.counts().values())
    try:
        for head in (
            b"GET /v1/events HTTP/1.1\r\nHost: localhost\r\n\r\n",
            b"GET /v1/status HTTP/1.1\r\nHost: localhost\r\n\r\n",
            b"POST /v1/drain HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100\r\n\r\n{",
        ):
            with socket.socket(socket.AF_UNIX) as sock:
                sock.connect(str(tmp_path / "admin.sock"))
                sock.sendall(head)
        async with client(tmp_path) as session, session.get("/healthz") as answer:
            assert answer.status == 200
    finally:
        await api.stop()
    assert sum(INTERNAL_ERRORS.counts().values()) == before
