"""The socket of `vipmesh ship`: who may open it, what it answers, and that nobody holds shipping up there."""

import asyncio
import json
import os
import stat
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import aiohttp
import pytest

from mesh.config.labels.logs import LogLabels, LogPathLabel
from mesh.model.codes import Code
from mesh.model.errors import CodedText
from mesh.platform.logs import ship_server
from mesh.platform.logs.counters import LogCounters, render_counters
from mesh.platform.logs.documents import LogOrigin
from mesh.platform.logs.locate import LogFileSource
from mesh.platform.logs.reading.query import LogQuery
from mesh.platform.logs.reading.reader import ServiceLogReader
from mesh.platform.logs.reading.worker_reader import ShipSocketClient, ShipUnreachableError
from mesh.platform.logs.ship_server import ShipServer
from mesh.platform.logs.ship_state import ship_state
from mesh.platform.logs.targets import LogTarget
from tests.system.e2e.programs import free_port


class ShipBed:
    """Logs in a directory, and a server that reads them."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.socket = directory / "run" / "ship.sock"
        self.counters = LogCounters()
        self.waits: dict[str, CodedText] = {}
        self.reader = ServiceLogReader("w1")
        self.server = ShipServer(
            self.reader, lambda: ship_state(len(self.targets), self.counters, self.waits), self.metrics
        )
        self.targets: list[LogTarget] = []
        self.ship = ShipSocketClient(self.socket)

    def metrics(self) -> str:
        return render_counters(self.counters)

    def add(self, service: str, container: str, *texts: str, first: int = 0) -> None:
        path = self.directory / f"{container}.log"
        with path.open("a") as file:
            for number, text in enumerate(texts, first):
                entry = {"log": f"{text}\n", "stream": "stdout", "time": f"2026-11-30T12:00:{number:02d}.000000001Z"}
                file.write(json.dumps(entry) + "\n")
        if not any(each.origin.container == container for each in self.targets):
            origin = LogOrigin(f"{container}id", container, service, "w1")
            self.targets.append(LogTarget(origin, LogLabels("app"), str(path), runs=True))
        self.reader.update(self.targets)


@asynccontextmanager
async def answering(directory: Path) -> AsyncIterator[ShipBed]:
    bed = ShipBed(directory)
    await bed.server.listen(bed.socket)
    try:
        yield bed
    finally:
        await bed.server.close()
        bed.reader.close()


async def test_only_its_owner_may_open_the_socket(tmp_path: Path) -> None:
    async with answering(tmp_path) as bed:
        assert stat.S_IMODE(bed.socket.stat().st_mode) == 0o600
        again = ShipServer(bed.reader, lambda: ship_state(0, LogCounters(), {}), str)
        shared = tmp_path / "shared.sock"
        await again.listen(shared, "root" if os.getuid() == 0 else None)
        await again.close()
        with pytest.raises(OSError, match="no group"):
            await again.listen(shared, "no-such-group")


async def test_lines_of_one_service_merged_and_no_other_ones(tmp_path: Path) -> None:
    async with answering(tmp_path) as bed:
        bed.add("shop/web", "web1", "a", "b", "c")
        bed.add("shop/web", "web2", "d", first=1)
        bed.add("shop/db", "db1", "secret")
        found = await bed.ship.read(LogQuery("web"))
        assert [(each.text, each.container) for each in found.lines] == [
            ("a", "web1"),
            ("b", "web1"),
            ("d", "web2"),
            ("c", "web1"),
        ]
        assert (found.source, found.services, found.worker) == ("ship", ("shop/web",), "w1")
        found = await bed.ship.read(LogQuery("shop/web", 1, pattern="d"))
        assert [each.text for each in found.lines] == ["d"]
        for name in ("shop", "web1", "positions.json", "../db1.log", "/etc/passwd"):
            assert await bed.ship.read(LogQuery(name)) == await bed.ship.read(LogQuery("none/none"))
        bed.add("other/web", "web3", "not meant")
        found = await bed.ship.read(LogQuery("web"))
        assert (found.services, found.lines) == (("other/web", "shop/web"), ()), "the name means two"


async def test_an_instance_that_writes_to_files_alone_is_told_and_one_that_has_only_begun_is_not(
    tmp_path: Path,
) -> None:
    async with answering(tmp_path) as bed:
        bed.add("shop/web", "web1", "a")
        begun = replace(bed.targets[0], origin=replace(bed.targets[0].origin, container_id="b" * 64), path="")
        bed.targets.append(begun)
        bed.reader.update(bed.targets)
        found = await bed.ship.read(LogQuery("web"))
        assert ([each.text for each in found.lines], found.notes) == (["a"], ())
        bed.reader.update(
            [
                *bed.targets,
                replace(
                    begun, sources=(LogFileSource(LogPathLabel("app", ("var", "log", "x.log")), "/v", ("x.log",)),)
                ),
            ]
        )
        found = await bed.ship.read(LogQuery("web"))
        assert [each.text for each in found.lines] == ["a"]
        assert [each.code for each in found.notes] == [Code.LOG_LINES_LEFT_OUT.value]


async def test_what_follows_an_answer_also_of_an_instance_that_came_later(tmp_path: Path) -> None:
    async with answering(tmp_path) as bed:
        bed.add("shop/web", "web1", "a", "b")
        query = LogQuery("shop/web")
        found = await bed.ship.read(query)
        bed.add("shop/web", "web1", "c", first=2)
        bed.add("shop/web", "web2", "d", first=3)
        after = {"service": "shop/web", "after": found.cursor}
        document = json.loads(await get(bed, "/v1/logs", after))
        assert [line["text"] for line in document["lines"]] == ["c", "d"]
        assert document == json.loads(await get(bed, "/v1/logs", after)), "it keeps nothing of who asks"
        after = {"service": "shop/web", "after": document["cursor"]}
        assert json.loads(await get(bed, "/v1/logs", after))["lines"] == []
        # The daemon asked the engine while this process did not run: it knows times alone.
        by_time = "web1id..0.1796040000000000001"
        document = json.loads(await get(bed, "/v1/logs", {"service": "shop/web", "after": by_time}))
        assert [line["text"] for line in document["lines"]] == ["b", "c", "d"]


async def get(bed: ShipBed, path: str, query: dict[str, str], status: int = 200) -> str:
    async with (
        aiohttp.ClientSession("http://localhost", connector=aiohttp.UnixConnector(str(bed.socket))) as session,
        session.get(path, params=query) as answer,
    ):
        assert answer.status == status, await answer.text()
        assert answer.headers["Connection"] == "close"
        return await answer.text()


async def test_state_and_metrics(tmp_path: Path) -> None:
    async with answering(tmp_path) as bed:
        bed.add("shop/web", "web1", "a")
        counters = bed.counters.of("shop/web")
        counters.lines, counters.lost, counters.refused = 7, 2, 1
        bed.counters.lag_seconds = 12.3456
        bed.waits["store of logs"] = CodedText("it\x1b[2J does not answer", Code.LOG_STORE_UNREACHABLE)
        state = await bed.ship.state()
        assert (state.logs, state.lines, state.lost, state.refused, state.lag_seconds) == (1, 7, 2, 1, 12.346)
        assert [(each.part, each.text, each.code) for each in state.waits] == [
            ("store of logs", "it\\x1b[2J does not answer", "VM953")
        ]
        text = await get(bed, "/metrics", {})
        assert 'vipmesh_ship_lines_total{service="shop/web"} 7' in text
        assert "vipmesh_ship_lag_seconds 12.346" in text


async def test_an_exception_ends_one_request_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async with answering(tmp_path) as bed:
        with monkeypatch.context() as broken:
            broken.setattr(bed.counters, "services", None)
            with pytest.raises(ShipUnreachableError, match="500"):
                await bed.ship.state()
        assert (await bed.ship.state()).logs == 0
    assert "request on the socket" in caplog.text


async def test_metrics_alone_are_there_over_tcp(tmp_path: Path) -> None:
    async with answering(tmp_path) as bed, aiohttp.ClientSession() as session:
        bed.counters.of("shop/web").lines = 3
        port = free_port()
        await bed.server.listen_for_scrapes(f"127.0.0.1:{port}")
        async with session.get(f"http://127.0.0.1:{port}/metrics") as answer:
            assert 'vipmesh_ship_lines_total{service="shop/web"} 3' in await answer.text()
        for path in ("/v1/logs?service=web", "/v1/ship"):
            async with session.get(f"http://127.0.0.1:{port}{path}") as answer:
                assert answer.status == 404


async def test_a_request_out_of_bounds_is_refused(tmp_path: Path) -> None:
    async with answering(tmp_path) as bed:
        assert "service" in await get(bed, "/v1/logs", {}, 400)
        assert "since" in await get(bed, "/v1/logs", {"service": "web", "lines": "99999"}, 400)
        with pytest.raises(ShipUnreachableError, match="404"):
            await ShipSocketClient(bed.socket)._get("/v1/nothing", 10, 1000)  # noqa: SLF001 -- any path


async def test_connections_over_the_limit_are_closed_and_slow_ones_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ship_server, "CONNECTION_SECONDS", 1.0)
    async with answering(tmp_path) as bed, asyncio.timeout(30):
        idle = [await asyncio.open_unix_connection(bed.socket) for _ in range(ship_server.MAX_CONNECTIONS)]
        reader, writer = await asyncio.open_unix_connection(bed.socket)
        assert await reader.read() == b"", "one too many"
        writer.close()
        for reader, writer in idle:
            assert await reader.read() == b"", "aborted, whatever it does not send"
            writer.close()
        assert (await bed.ship.state()).logs == 0


async def test_a_client_says_why_there_is_no_answer(tmp_path: Path) -> None:
    with pytest.raises(ShipUnreachableError, match="No such file"):
        await ShipSocketClient(tmp_path / "none").state()

    answers: list[bytes] = []

    async def say(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n" + answers[-1])
        writer.close()

    server = await asyncio.start_unix_server(say, tmp_path / "other")
    async with server:
        for answer, reason in (
            (b"[" * 100_000, "more than"),
            (b"[" * 10_000, "cannot be read"),
            (b'{"lag_seconds": -1}', "cannot be read"),
            (b'{"lag_seconds": "x"}', "cannot be read"),
        ):
            answers.append(answer)
            with pytest.raises(ShipUnreachableError, match=reason):
                await ShipSocketClient(tmp_path / "other").state()


async def test_a_log_that_cannot_be_read_is_a_note_and_keeps_its_place(tmp_path: Path) -> None:
    async with answering(tmp_path) as bed:
        bed.add("shop/web", "web1", "a")
        bed.add("shop/web", "web2", "b", first=1)
        before = await bed.ship.read(LogQuery("shop/web"))
        (tmp_path / "web1.log").rename(tmp_path / "kept")
        (tmp_path / "web1.log").mkdir()
        document = json.loads(await get(bed, "/v1/logs", {"service": "shop/web", "after": before.cursor}))
        assert "container web1: its log cannot be read" in document["notes"][0]["text"]
        assert document["cursor"].split("~")[0] == before.cursor.split("~")[0]
