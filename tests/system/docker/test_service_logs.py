"""`vipmesh logs` beside a real engine: from the files by `vipmesh ship`, and from the engine without it."""

import asyncio
import json
import os
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from mesh.api.http.past_events import PastEventsHandler
from mesh.daemon.ship_monitor import ShipMonitor
from mesh.model.collected_logs import CollectedLogs
from mesh.model.problem import Problem
from mesh.platform.logs.reading.engine_reader import EngineLogReader
from mesh.platform.logs.reading.worker_reader import ShipSocketClient, WorkerLogReader
from mesh.platform.logs.wanted import WantedLogFinder
from mesh.sources.docker.identity import LabelRules
from tests.api.http.worker import serving, socket_of
from tests.system.docker.engine import Engine
from tests.system.docker.test_ship import PATIENCE, ROTATION, Ship, messages, printing, shipping, until
from tests.system.e2e.programs import VIPMESH, call

LINES = 60


def labels(service: str) -> dict[str, str]:
    return {
        "aliyun.log_store_app": "stdout",
        "com.docker.compose.project": "shop",
        "com.docker.compose.service": service,
    }


@asynccontextmanager
async def reading(engine: Engine, directory: Path, ship: Path) -> AsyncIterator[None]:
    """The admin API of a worker with this engine, and with `vipmesh ship` at a socket."""
    reader = WorkerLogReader("w1", ShipSocketClient(ship), EngineLogReader(engine.url, LabelRules(), "w1"))
    async with serving(socket_of(directory), past=PastEventsHandler(lambda: "w1"), logs=reader):
        yield


async def logs(directory: Path, *options: str) -> dict[str, Any]:
    code, text = await call(*VIPMESH, "logs", *options, "--json", "--admin", f"unix://{directory}/admin.sock")
    assert code == 0, text
    found: dict[str, Any] = json.JSONDecoder().raw_decode(text)[0]  # notes follow, of standard error
    return found


def texts(document: dict[str, Any]) -> dict[str, list[str]]:
    """The lines of each container."""
    found: dict[str, list[str]] = {}
    for line in document["lines"]:
        found.setdefault(line["container"], []).append(line["text"])
    return found


async def is_shipped(directory: Path, ship: Ship, count: int) -> None:
    await until(lambda: len(messages(directory, "shop-app")) >= count, ship)


async def test_lines_of_one_service_by_ship_and_by_the_engine(engine: Engine, tmp_path: Path) -> None:
    for name, service in (("web1", "web"), ("web2", "web"), ("db1", "db")):
        engine.run(name, *ROTATION, labels=labels(service), command=printing(LINES, 0.01, f"{name} says"))
    engine.run("store", command=("sh", "-c", "echo of no service; sleep 1000"))
    expected = {name: [f"{name} says {number + 1}" for number in range(LINES)] for name in ("web1", "web2")}
    async with (
        shipping(engine, tmp_path, f'directory = "{tmp_path}/out"') as ship,
        reading(engine, tmp_path, ship.socket),
    ):
        await is_shipped(tmp_path, ship, 3 * LINES)
        document = await logs(tmp_path, "web", "-n", "1000")
        assert texts(document) == expected
        assert [line["time"] for line in document["lines"]] == sorted(line["time"] for line in document["lines"])
        assert document["workers"] == [{"worker": "w1", "source": "ship", "error": None, "code": None, "notes": []}]
        found = await logs(tmp_path, "shop/web", "--grep", "web2 says 7")
        assert texts(found) == {"web2": ["web2 says 7"]}
        code, text = await call(*VIPMESH, "logs", "store", "--admin", f"unix://{tmp_path}/admin.sock")
        assert (code, "[VM974]" in text) == (1, True)
        # Without it, the engine has the same lines, also of a container that has ended.
        await ship.kill()
        engine.docker("stop", "-t", "0", "web2")
        document = await logs(tmp_path, "web", "-n", "1000")
        assert texts(document) == expected
        (worker,) = document["workers"]
        assert (worker["source"], [note["code"] for note in worker["notes"]]) == ("engine", ["VM973"])


async def test_the_daemon_knows_which_services_ask_and_that_nothing_answers(engine: Engine, tmp_path: Path) -> None:
    engine.run("web1", labels=labels("web"), command=("sh", "-c", "sleep 1000"))
    engine.run("db1", labels={"mesh.log_ttl_app": "3"}, command=("sh", "-c", "sleep 1000"))
    finder = WantedLogFinder(engine.url, LabelRules())
    assert await finder.find() == ("shop/web",)
    told: list[tuple[CollectedLogs | None, list[str | None]]] = []

    def tell(collected: CollectedLogs | None, problems: Sequence[Problem]) -> None:
        told.append((collected, [each.owner for each in problems]))

    async with shipping(engine, tmp_path, f'directory = "{tmp_path}/out"') as ship:
        await until(ship.socket.exists, ship)
        monitor = ShipMonitor(ShipSocketClient(ship.socket), finder.find, tell)
        async with asyncio.timeout(PATIENCE):
            while not told or told[-1][0] is None or not told[-1][0].logs:
                await monitor.ask()
        await ship.kill()
        await monitor.ask()
    assert told[-1] == (CollectedLogs(False), ["shop/web"])


async def test_who_follows_gets_each_line_once_while_ship_is_killed_and_the_log_is_rotated(
    engine: Engine, tmp_path: Path
) -> None:
    count = 400
    async with shipping(engine, tmp_path, f'directory = "{tmp_path}/out"') as ship:
        engine.run("web1", *ROTATION, labels=labels("web"), command=printing(count, 0.02))
        await is_shipped(tmp_path, ship, 5)
        async with reading(engine, tmp_path, ship.socket), asyncio.timeout(3 * PATIENCE):
            address = f"unix://{tmp_path}/admin.sock"
            options = ("logs", "web", "-f", "-n", "1000", "--json", "--admin", address)
            follower = await asyncio.create_subprocess_exec(*VIPMESH, *options, stdout=asyncio.subprocess.PIPE)
            assert follower.stdout is not None
            seen: list[str] = []
            try:
                while len(seen) < count:
                    seen.append(json.loads(await follower.stdout.readline())["text"])
                    if len(seen) in (50, 200):
                        await ship.kill()
                    if len(seen) in (100, 250):
                        await ship.start()
            finally:
                follower.kill()
                await follower.wait()
    assert seen == [f"line {number + 1}" for number in range(count)]


async def test_a_reader_that_is_stuck_does_not_delay_shipping(engine: Engine, tmp_path: Path) -> None:
    async with shipping(engine, tmp_path, f'directory = "{tmp_path}/out"') as ship:
        engine.run("web1", labels=labels("web"), command=printing(LINES, 0.0))
        await is_shipped(tmp_path, ship, LINES)
        assert os.stat(ship.socket).st_mode & 0o777 == 0o600  # noqa: PTH116 -- of a socket
        stuck = [await asyncio.open_unix_connection(ship.socket, limit=1) for _ in range(8)]
        for _, writer in stuck:
            writer.write(b"GET /v1/logs?service=web&lines=10000 HTTP/1.1\r\nHost: localhost\r\n\r\n")
        engine.run("web2", labels=labels("web"), command=printing(LINES, 0.0))
        await is_shipped(tmp_path, ship, 2 * LINES)
        for _, writer in stuck:
            writer.close()
