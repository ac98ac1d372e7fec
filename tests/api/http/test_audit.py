"""The lines of actions are written or the action is refused; those of refused requests are limited per client."""

import asyncio
import logging
import os
import re
import socket
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

import aiohttp
import pytest
from aiohttp.test_utils import make_mocked_request

from mesh.api.http import audit
from mesh.api.http.audit import AuditError, AuditLine, AuditTrail
from mesh.api.http.refusals import BURST, RefusalLog
from mesh.api.http.server import AdminApi, AdminListenConfig
from mesh.control.endpoint_actions import EndpointAction
from mesh.util.logging.handler import QueuedLogHandler
from tests.api.http.worker import TOKEN, client, serving
from tests.api.metrics.test_families import OBSERVED
from tests.system.e2e.programs import eventually, free_port


@pytest.fixture(autouse=True)
def _no_journal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(audit, "JOURNAL_SOCKET", tmp_path / "no-journal")


@contextmanager
def log_to_file(file: int) -> Iterator[None]:
    """The log of the daemon, written to this descriptor."""
    handler, root = QueuedLogHandler(file), logging.getLogger()
    level = root.level
    root.addHandler(handler)
    root.setLevel(logging.INFO)
    try:
        yield
    finally:
        root.removeHandler(handler)
        root.setLevel(level)
        handler.close()


@contextmanager
def full_disk() -> Iterator[None]:
    file = os.open("/dev/full", os.O_WRONLY)
    try:
        with log_to_file(file):
            yield
    finally:
        os.close(file)


async def drain(session: aiohttp.ClientSession, verb: str = "drain") -> tuple[int, str]:
    async with session.post(f"/v1/{verb}", json={"name": "web-1"}) as answer:
        return answer.status, f"{await answer.text()} {answer.headers.get('Vipmesh-Code')}"


@asynccontextmanager
async def worker(directory: Path, audit_file: Path | None = None) -> AsyncIterator[aiohttp.ClientSession]:
    entrance = AdminListenConfig(f"unix://{directory}/admin.sock", audit_file=audit_file)
    async with serving(entrance), client(directory) as session:
        yield session


async def test_no_line_of_many_actions_is_left_out(tmp_path: Path) -> None:
    log, copy = tmp_path / "log", tmp_path / "audit.log"
    with log.open("w") as file, log_to_file(file.fileno()):
        async with worker(tmp_path, copy) as session:
            for _ in range(150):  # more than the log lets pass of similar lines
                assert (await drain(session))[0] == 200
    for text in (log.read_text(), copy.read_text()):
        assert text.count('audit: drain "web-1" by uid') == 300
        assert text.count(" requested\n") == text.count(': "demo/web-1"\n') == 150
    assert copy.stat().st_mode & 0o777 == 0o600
    assert re.match(r'\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z audit: drain "web-1" by uid \d+', copy.read_text())


@pytest.mark.parametrize("verb", ["drain", "maintenance", "undrain", "stop", "test"])
async def test_an_action_that_leaves_no_line_is_refused(verb: str, tmp_path: Path) -> None:
    with full_disk():
        async with worker(tmp_path) as session:
            status, text = await drain(session, verb)
            assert (status, "can be written nowhere: the log" in text, "VM664" in text) == (409, True, True)
            async with session.get("/v1/status") as answer:
                assert answer.status == 200, "looking leaves no line"


async def test_the_lines_of_an_action_say_all_of_it(tmp_path: Path) -> None:
    async with worker(tmp_path, tmp_path / "audit.log") as session:
        for verb, more in (
            ("weight", {"weight": 5}),
            ("weight", {"weight": None}),
            ("drain", {"force": True}),
            ("stop", {"together": [{"worker": "w1", "endpoint": "a"}]}),
        ):
            async with session.post(f"/v1/{verb}", json={"name": "web-1", **more}) as answer:
                assert answer.status == 200
        async with session.post("/v1/workers/remove", json={"name": "w2", "force": True}) as answer:
            assert answer.status == 409, "this one removes none"
    found = re.findall(r"audit: (.*) by uid .* requested", (tmp_path / "audit.log").read_text())
    assert found == ['weight "web-1" to 5', 'weight "web-1" reset', 'drain "web-1" with force', 'stop "web-1"']


async def test_a_file_is_enough_and_so_is_the_log(tmp_path: Path) -> None:
    with full_disk():
        async with worker(tmp_path, tmp_path / "audit.log") as session:
            assert (await drain(session))[0] == 200
        assert (tmp_path / "audit.log").read_text().count("audit:") == 2
        async with worker(tmp_path, Path("/dev/full")) as session:
            status, text = await drain(session)
            assert (status, "the log: it cannot be written; audit_file: No space left on device" in text) == (409, True)
        async with worker(tmp_path, tmp_path / "none" / "audit.log") as session:
            assert "audit_file: No such file or directory" in (await drain(session))[1]
    async with worker(tmp_path, Path("/dev/full")) as session:
        assert (await drain(session))[0] == 200


async def test_a_log_that_nobody_reads_refuses_the_action_in_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(audit, "WRITE_TIMEOUT", 0.1)
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    while True:
        try:
            os.write(writing, b"x" * 4096)
        except BlockingIOError:
            break
    os.set_blocking(writing, True)
    try:
        with log_to_file(writing):
            async with worker(tmp_path) as session:
                status, text = await drain(session)
                assert (status, "the log: its reader takes nothing for 0.1 s" in text) == (409, True)
            os.set_blocking(reading, False)
            await asyncio.to_thread(_empty, reading)
    finally:
        os.close(reading)
        os.close(writing)


def _empty(file: int) -> None:
    """Let the stuck writer go on."""
    read = b""
    while b"audit: " not in read:
        try:
            read += os.read(file, 65536)
        except BlockingIOError:
            continue


async def test_the_journal_is_the_last_resort(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "journal"
    monkeypatch.setattr(audit, "JOURNAL_SOCKET", path)
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as journal, full_disk():
        journal.bind(str(path))
        journal.setblocking(False)
        async with worker(tmp_path) as session:
            assert (await drain(session))[0] == 200
        lines = [journal.recv(4096).decode() for _ in range(2)]
    assert lines[0].startswith('MESSAGE=audit: drain "web-1" by uid ')
    assert lines[0].endswith(" requested\nPRIORITY=6\nSYSLOG_IDENTIFIER=vipmesh\n")
    assert " done after " in lines[1]


async def test_the_end_of_an_action_is_written_as_soon_as_that_is_possible(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(audit, "RETRY_INTERVAL", 0.01)
    folder = tmp_path / "folder"
    trail = AuditTrail(folder / "audit.log")

    async def read() -> str:
        return (folder / "audit.log").read_text() if (folder / "audit.log").exists() else ""

    with full_disk():
        with pytest.raises(AuditError, match="can be written nowhere"):
            await trail.begin(AuditLine("drain requested"))
        await trail.end(AuditLine("drain done"))
        folder.mkdir()
        await eventually(read, lambda text: "audit: drain done\n" in text)
        await trail.close()
    assert (folder / "audit.log").read_text().count("audit:") == 1


async def test_an_action_that_the_end_of_the_daemon_cuts_off_has_its_second_line(tmp_path: Path) -> None:
    begun = asyncio.Event()

    async def never(_: EndpointAction) -> str:
        begun.set()
        await asyncio.Event().wait()
        raise AssertionError

    entrance = AdminListenConfig(f"unix://{tmp_path}/admin.sock", audit_file=tmp_path / "audit.log")
    api = AdminApi(entrance, lambda: OBSERVED, {"drain": never})
    await api.start()
    _, writer = await asyncio.open_unix_connection(tmp_path / "admin.sock")
    writer.write(b'POST /v1/drain HTTP/1.1\r\nHost: localhost\r\nContent-Length: 16\r\n\r\n{"name":"web-1"}')
    async with asyncio.timeout(10):
        await begun.wait()
    await api.stop()
    writer.close()
    lines = (tmp_path / "audit.log").read_text().splitlines()
    assert [line.rpartition(")")[2] for line in lines] == [" requested", " not finished: CancelledError [VM654]"]


def test_refusals_are_limited_per_client_and_counted(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    now = [0.0]
    refusals = RefusalLog(lambda: now[0])
    noisy, other = (make_mocked_request("GET", "/").clone(remote=address) for address in ("192.0.2.1", "192.0.2.2"))
    for _ in range(500):
        refusals.note(noisy, "of the noisy one", 401)
    refusals.note(other, "of 100% another %s one", 403)
    assert caplog.text.count("of the noisy one") == BURST
    assert "of 100% another %s one" in caplog.text
    now[0] += 5.1
    refusals.note(noisy, "later", 400)
    assert f"later ({500 - BURST} more of this client since the last line)" in caplog.text
    assert refusals.counts() == {"unauthenticated": 500, "forbidden": 1, "invalid": 1}


async def test_refused_requests_are_in_the_metrics(tmp_path: Path) -> None:
    token = tmp_path / "token"
    token.write_text(TOKEN)
    token.chmod(0o600)
    port = free_port()
    entrance = AdminListenConfig(f"unix://{tmp_path}/admin.sock", f"127.0.0.1:{port}", token)
    async with serving(entrance), aiohttp.ClientSession(f"http://127.0.0.1:{port}") as session:
        for _ in range(3):
            assert (await session.get("/v1/status")).status == 401
        async with session.get("/metrics", headers={"Authorization": f"Bearer {TOKEN}"}) as answer:
            assert 'vipmesh_admin_refused_requests_total{reason="unauthenticated"} 3' in await answer.text()
