"""A client sees how far its action is, and an action notices that its client has gone."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from mesh.api.http.server import AdminApi, AdminListenConfig
from mesh.control.endpoint_actions import EndpointAction
from mesh.model.codes import Code
from mesh.model.errors import ActionRefusedError
from tests.api.http.worker import client
from tests.api.metrics.test_families import OBSERVED
from tests.system.e2e.programs import eventually

LINES = {"Accept": "application/x-ndjson, application/json"}


class Draining:
    """A drain whose connections end as the test says."""

    def __init__(self) -> None:
        self.left: asyncio.Queue[int | None] = asyncio.Queue()
        self.began = asyncio.Event()
        self.waits = False

    async def act(self, action: EndpointAction) -> str:
        self.began.set()
        while (left := await self.left.get()) != 0:
            action.each_pass(left)
        if action.name == "refused":
            raise ActionRefusedError(Code.DRAIN_TIMEOUT, "it takes too long")
        return action.name


@asynccontextmanager
async def worker(directory: Path) -> AsyncIterator[Draining]:
    draining = Draining()
    entrance = AdminListenConfig(f"unix://{directory}/admin.sock", audit_file=directory / "audit.log")
    api = AdminApi(entrance, lambda: OBSERVED, {"stop": draining.act})
    await api.start()
    try:
        yield draining
    finally:
        await api.stop()


async def test_lines_come_while_it_lasts_and_the_last_one_is_the_answer(tmp_path: Path) -> None:
    async with worker(tmp_path) as draining, client(tmp_path) as session:
        for name, last in (
            ("web-1", {"endpoint": "web-1"}),
            ("refused", {"error": "it takes too long", "code": str(Code.DRAIN_TIMEOUT)}),
        ):
            draining.left.put_nowait(3)
            async with session.post("/v1/stop", json={"name": name}, headers=LINES) as answer:
                assert (answer.status, answer.content_type) == (200, "application/x-ndjson")
                assert json.loads(await answer.content.readline()) == {"connections": 3}
                draining.left.put_nowait(None)
                assert json.loads(await answer.content.readline()) == {"connections": None}
                draining.left.put_nowait(0)
                assert json.loads(await answer.content.readline()) == last
                assert await answer.content.readline() == b""


async def test_an_action_without_progress_has_the_ordinary_answer(tmp_path: Path) -> None:
    async with worker(tmp_path) as draining, client(tmp_path) as session:
        for name, status in (("web-1", 200), ("refused", 409)):
            draining.left.put_nowait(0)
            async with session.post("/v1/stop", json={"name": name}, headers=LINES) as answer:
                assert (answer.status, answer.content_type) == (status, "application/json")
        draining.left.put_nowait(3)
        draining.left.put_nowait(0)
        async with session.post("/v1/stop", json={"name": "web-1"}) as answer:
            assert await answer.json() == {"endpoint": "web-1"}, "it did not ask for lines"


async def test_an_action_whose_client_has_gone_ends_at_the_next_pass(tmp_path: Path) -> None:
    async with worker(tmp_path) as draining:
        _, writer = await asyncio.open_unix_connection(tmp_path / "admin.sock")
        body = b'{"name": "web-1"}'
        head = f"POST /v1/stop HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(body)}\r\n\r\n".encode()
        writer.write(head + body)
        async with asyncio.timeout(30):
            await draining.began.wait()
        writer.close()
        await writer.wait_closed()

        async def lines() -> list[str]:
            draining.left.put_nowait(2)
            return (tmp_path / "audit.log").read_text().splitlines()

        ended = await eventually(lines, lambda found: len(found) == 2)
    assert 'refused: "the client has gone: ' in ended[1]
