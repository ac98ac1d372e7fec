"""The admin API on real sockets: where it listens, and its errors when it cannot."""

import asyncio
import os
import stat
from pathlib import Path

import aiohttp
import pytest
from prometheus_client.parser import text_string_to_metric_families

from mesh.api.http.server import AdminApi, AdminApiError, AdminListenConfig
from mesh.control.snapshot import WorkerFacts, WorkerSnapshot
from tests.api.http.worker import client, serving, socket_of
from tests.system.e2e.programs import free_port

OBSERVED = WorkerSnapshot(WorkerFacts("1", "w1", "fake", "a test", ("127.0.0.1:53",)))


async def test_on_a_unix_socket_that_only_owner_and_group_may_use(tmp_path: Path) -> None:
    deep = tmp_path / "deep"
    before = os.umask(0)
    os.umask(before)
    async with serving(socket_of(deep), OBSERVED), client(deep) as session:
        assert stat.S_IMODE((deep / "admin.sock").stat().st_mode) == 0o660
        async with session.get("/v1/status") as answer:
            assert (await answer.json())["worker"] == "w1"
            assert answer.headers["Cache-Control"] == "no-store"
            assert answer.headers["X-Content-Type-Options"] == "nosniff"
        async with session.get("/healthz") as answer:
            assert (answer.status, await answer.text()) == (200, "ok\n")
    assert os.umask(before) == before, "the process's own mask is as it was"
    async with serving(socket_of(deep), OBSERVED):
        pass  # the socket of a former life is in nobody's way


async def test_metrics_have_the_worker_and_its_process(tmp_path: Path) -> None:
    async with serving(socket_of(tmp_path)), client(tmp_path) as session, session.get("/metrics") as answer:
        assert answer.headers["Content-Type"] == "text/plain; version=0.0.4; charset=utf-8"
        families = {f.name for f in text_string_to_metric_families(await answer.text())}
    assert {"vipmesh_info", "vipmesh_passes", "process_resident_memory_bytes", "process_open_fds"} <= families


async def test_a_port_in_use_is_reported_and_nothing_stays_open(tmp_path: Path) -> None:
    token = tmp_path / "token"
    token.write_text("0123456789abcdef\n")
    taken = AdminListenConfig(f"unix://{tmp_path}/first.sock", f"127.0.0.1:{free_port()}", token)
    other = AdminListenConfig(f"unix://{tmp_path}/admin.sock", taken.tcp, token)
    async with serving(taken, OBSERVED):
        with pytest.raises(AdminApiError, match=rf"cannot listen on {taken.tcp}: .*; set \[admin\] tcp to a free port"):
            await AdminApi(other, lambda: OBSERVED).start()
        with pytest.raises(aiohttp.ClientConnectorError):
            async with client(tmp_path) as session:
                await session.get("/healthz")
    async with serving(other, OBSERVED):
        pass


@pytest.mark.parametrize(
    ("entrance", "words"),
    [
        (
            {"token_file": Path("none")},
            r"none: No such file or directory; write a token with `openssl rand -hex 32 > none`",
        ),
        (
            {"cert": Path("none.pem")},
            r"No such file or directory in one of none\.pem; \[admin\] cert, key and client_ca",
        ),
        ({"cert": Path(__file__)}, r"in one of .*test_server\.py; \[admin\] cert, key and client_ca must be PEM files"),
    ],
)
async def test_unreadable_files_are_named(entrance: dict[str, Path], words: str, tmp_path: Path) -> None:
    with pytest.raises(AdminApiError, match=words):
        await AdminApi(AdminListenConfig(f"unix://{tmp_path}/admin.sock", **entrance), lambda: OBSERVED).start()  # type: ignore[arg-type]


async def test_what_is_not_http_is_answered_and_leaves_no_line_in_the_log(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Whoever reaches the port, without a token, could fill the log with tracebacks."""
    async with serving(socket_of(tmp_path), OBSERVED):
        for request in (b"GET /\x00 HTTP/1.1\r\n\r\n", b"GET / HTTP/1.1\r\nX\xff: y\r\n\r\n", b"\x16\x03\x01\r\n\r\n"):
            reader, writer = await asyncio.open_unix_connection(str(tmp_path / "admin.sock"))
            writer.write(request)
            assert (await reader.readline()).startswith(b"HTTP/1.0 400")
            writer.close()
    assert caplog.records == []
