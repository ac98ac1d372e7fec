"""`vipmesh events` against an admin API with a ring of past events."""

import asyncio
import json
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from mesh.api.http.past_events import PastEventsHandler
from mesh.api.http.server import AdminApi
from mesh.cli.parser import build_parser
from mesh.model.past_event import EventKind, NumberedEvent, PastEvent
from mesh.store.event_ring import RingBatch, RingLimits
from mesh.testing.event_ring import FakeEventRing
from tests.api.http.worker import client, socket_of, until
from tests.api.metrics.test_families import OBSERVED
from tests.system.e2e.programs import VIPMESH, call


def event(text: str, at: float | None = None, owner: str = "shop/web") -> PastEvent:
    return PastEvent(
        at=time.time() if at is None else at,
        kind=EventKind.ENDPOINT_GONE,
        code="VM780",
        text=text,
        owner=owner,
        service="web.test",
    )


class EventsWorker:
    """A worker that keeps events."""

    def __init__(self, directory: Path) -> None:
        self.ring = FakeEventRing(RingLimits(100, 1e10))
        self.api = AdminApi(
            socket_of(directory), lambda: OBSERVED, past=PastEventsHandler(lambda: "w1", "mesh.internal", self.ring)
        )

    async def keeps(self, *events: PastEvent) -> None:
        first = await self.ring.write(RingBatch(time.time(), events))
        self.api.feed.happened([NumberedEvent(first + n, each) for n, each in enumerate(events)])


@asynccontextmanager
async def worker(directory: Path) -> AsyncIterator[EventsWorker]:
    there = EventsWorker(directory)
    await there.api.start()
    async with asyncio.TaskGroup() as tasks:
        feed = tasks.create_task(there.api.feed.run())
        try:
            yield there
        finally:
            await there.api.stop()
            feed.cancel()


async def ask(directory: Path, *options: str) -> tuple[int, str]:
    return await call(*VIPMESH, "events", *options, "--admin", f"unix://{directory}/admin.sock")


async def test_events_are_lines_with_time_kind_and_code(tmp_path: Path) -> None:
    async with worker(tmp_path) as there:
        await there.keeps(event("endpoint a is gone", at=0.0), event("endpoint \x1b[2J is gone", owner="shop/db"))
        code, output = await ask(tmp_path)
        first, second = output.splitlines()
        assert code == 0
        assert first.startswith("1970-01-01 ")
        assert first.endswith("  endpoint-gone       endpoint a is gone [VM780]")
        assert "endpoint \\x1b[2J is gone" in second
        _, output = await ask(tmp_path, "shop/db", "--since", "1h")
        assert output == f"{second}\n"
        assert await ask(tmp_path, "nothing") == (0, "worker w1 has kept no events about nothing\n")


async def test_json_is_the_document_of_the_api(tmp_path: Path) -> None:
    async with worker(tmp_path) as there:
        await there.keeps(event("a", at=5.0))
        code, output = await ask(tmp_path, "--json")
    document = json.loads(output)
    assert (code, document["worker"]) == (0, "w1")
    assert [(each["number"], each["event"]["text"]) for each in document["events"]] == [(1, "a")]
    assert abs(document["now"] - time.time()) < 60


async def test_follow_prints_each_event_once_and_only_those_about_the_name(tmp_path: Path) -> None:
    async with worker(tmp_path) as there:
        await there.keeps(event("a"), event("b", owner="x/y"))
        process = await asyncio.create_subprocess_exec(
            *VIPMESH,
            *("events", "shop/web", "-f", "--json", "--admin", f"unix://{tmp_path}/admin.sock"),
            stdout=asyncio.subprocess.PIPE,
        )
        assert process.stdout is not None
        async with asyncio.timeout(60):
            found = [json.loads(await process.stdout.readline())]
            await there.keeps(event("c", owner="x/y"), event("d"))
            await there.keeps(event("e"))
            found += [json.loads(await process.stdout.readline()) for _ in range(2)]
            process.terminate()
            await process.wait()
    assert [each["event"]["text"] for each in found] == ["a", "d", "e"]


async def test_a_watcher_of_the_stream_is_sent_events_as_they_are_kept(tmp_path: Path) -> None:
    async with worker(tmp_path) as there, client(tmp_path) as session, session.get("/v1/events") as answer:
        await until(answer, "ready")
        await there.keeps(event("a", at=5.0))
        name, data = (await until(answer, "happened"))[-1]
        assert (name, data["number"], data["event"]["text"]) == ("happened", 1, "a")


async def test_no_daemon_is_status_1(tmp_path: Path) -> None:
    code, output = await ask(tmp_path, "--json")
    assert (code, json.loads(output)["codes"]) == (1, ["VM651"])


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("30m", -1800.0),
        ("2h", -7200.0),
        ("7d", -604800.0),
        ("90s", -90.0),
        ("2026-11-30T14:00+00:00", 1796047200.0),
        ("1950-01-01", 0.0),
    ],
)
def test_ages_and_times(text: str, seconds: float) -> None:
    assert build_parser().parse_args(["events", "--since", text]).since == seconds


def test_a_time_with_an_offset() -> None:
    assert build_parser().parse_args(["events", "--since", "2026-11-30T14:00+00:00"]).since == 1796047200.0


@pytest.mark.parametrize("text", ["", "h", "1w", "yesterday", "99999999999d", "\u0663h"])
def test_what_is_no_time_is_wrong_usage(text: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        build_parser().parse_args(["events", "--since", text])
    assert end.value.code == 2
    assert "30m, 2h or 7d" in capsys.readouterr().err


async def test_it_imports_no_more_than_it_needs(tmp_path: Path) -> None:
    script = (
        "import sys; from mesh.cli.main import main; main(sys.argv[1:]); "
        "print([name for name in sys.modules if name.startswith('mesh.') and name.count('.') > 1])"
    )
    _, output = await call(sys.executable, "-c", script, "events", "--admin", f"unix://{tmp_path}/nobody.sock")
    assert "mesh.api" not in output
