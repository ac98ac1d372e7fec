"""Lines by an engine that is a program of the test: which containers are asked, and what becomes of failures."""

import json
import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from aiohttp import web

from mesh.platform.logs.reading.cursors import InstanceCursor
from mesh.platform.logs.reading.engine_reader import EngineLogReader
from mesh.platform.logs.reading.query import LogQuery
from mesh.sources.docker.identity import LabelRules


class WrittenEngine:
    """An engine with containers and their lines."""

    def __init__(self) -> None:
        self.containers: dict[str, dict[str, str]] = {}
        self.asked: list[str] = []
        self.status = 200

    def add(self, id: str, service: str | None) -> None:
        labels = {"com.docker.compose.project": "shop", "com.docker.compose.service": service or "store"}
        self.containers[id] = labels | ({"mesh.routing.port_80": f"{service}.test"} if service else {})

    async def answer(self, request: web.Request) -> web.Response:
        self.asked.append(request.path_qs)
        if request.path.endswith("/version"):
            return web.json_response({"ApiVersion": "1.47", "MinAPIVersion": "1.24"})
        if request.path.endswith("/containers/json"):
            found = [
                {"Id": id, "State": "running", "Names": [f"/{id}"], "Labels": labels}
                for id, labels in self.containers.items()
            ]
            return web.Response(text=json.dumps(found), content_type="application/json")
        if request.path.endswith("/logs"):
            text = f"2026-11-30T12:00:01.000000001Z of {request.path.split('/')[-2]}\n".encode()
            return web.Response(body=struct.pack(">BxxxI", 1, len(text)) + text, status=self.status)
        return web.json_response({"message": "nothing"}, status=404)


@asynccontextmanager
async def engine(directory: Path) -> AsyncIterator[tuple[WrittenEngine, EngineLogReader]]:
    written = WrittenEngine()
    app = web.Application()
    app.router.add_get("/{path:.*}", written.answer)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.UnixSite(runner, str(directory / "engine.sock")).start()
    try:
        yield written, EngineLogReader(f"unix://{directory}/engine.sock", LabelRules(), "w1")
    finally:
        await runner.cleanup()


async def test_only_containers_of_the_service_with_a_label_of_the_mesh_are_asked(tmp_path: Path) -> None:
    async with engine(tmp_path) as (written, reader):
        written.add("web1", "web")
        written.add("db1", "db")
        written.add("store1", None)
        found = await reader.read(LogQuery("web"))
        assert [(line.text, line.container, line.stream) for line in found.lines] == [("of web1", "web1", "stdout")]
        assert [each.code for each in found.notes] == ["VM973"]
        assert (await reader.read(LogQuery("store"))).services == ()
        assert (await reader.read(LogQuery("shop/store"))).services == ()
        assert not any("db1/logs" in path or "store1/logs" in path for path in written.asked)


async def test_what_follows_is_asked_by_time_and_nothing_where_the_service_is_not(tmp_path: Path) -> None:
    async with engine(tmp_path) as (written, reader):
        written.add("web1", "web")
        at = 1_796_040_001_000_000_001
        found = await reader.read(LogQuery("web", after={"web1": InstanceCursor(None, at)}))
        assert found.lines == (), "it is the line that was seen"
        assert found.cursor == f"web1..0.{at}"
        assert any("since=1796040001.000000002" in path for path in written.asked)
        written.asked.clear()
        for _ in range(3):
            assert (await reader.read(LogQuery("other", after={}))).services == ()
        assert written.asked == [], "it was listed a moment ago"


async def test_failures_are_notes(tmp_path: Path) -> None:
    async with engine(tmp_path) as (written, reader):
        written.add("web1", "web")
        for status, code in ((500, "VM250"), (501, "VM975")):
            written.status = status
            found = await reader.read(LogQuery("web"))
            assert (found.lines, found.notes[-1].code) == ((), code)
    found = await reader.read(LogQuery("web"))
    assert (found.source, [each.code for each in found.notes]) == ("none", ["VM250"])
