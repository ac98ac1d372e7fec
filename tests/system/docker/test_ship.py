"""`vipmesh ship` beside a real engine: rotation, kills, a frozen store, containers that come and go."""

import asyncio
import json
import os
import shutil
import signal
import socket
import sys
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path

import aiohttp
import pytest

from tests.system.docker.engine import Engine
from tests.system.e2e.programs import VIPMESH

ROTATION = ("--log-opt", "max-size=10k", "--log-opt", "max-file=6")
"""All lines of a test fit into what the engine keeps, however slow the machine is: nothing may be lost then."""
PATIENCE = 60.0


class Ship:
    """A process of `vipmesh ship` that can be killed and started again."""

    def __init__(self, engine: Engine, directory: Path, settings: str) -> None:
        self._file = directory / "vipmesh.toml"
        self.socket = directory / "run" / "ship.sock"
        self._file.write_text(
            f'[node]\nname = "w1"\n[source.docker]\nsocket = "{engine.url}"\n'
            f'[ship]\nstate = "{directory}/state"\nsocket = "{self.socket}"\n{settings}\n'
        )
        self._log = directory / "ship.log"
        self.process: asyncio.subprocess.Process | None = None

    async def start(self) -> None:
        with self._log.open("ab") as log:
            self.process = await asyncio.create_subprocess_exec(*VIPMESH, "ship", "-c", str(self._file), stderr=log)

    async def kill(self, number: int = signal.SIGKILL) -> int:
        assert self.process is not None
        if self.process.returncode is None:
            self.process.send_signal(number)
        return await self.process.wait()

    @property
    def log(self) -> str:
        return self._log.read_text()


@asynccontextmanager
async def shipping(engine: Engine, directory: Path, settings: str) -> AsyncIterator[Ship]:
    ship = Ship(engine, directory, settings)
    await ship.start()
    try:
        yield ship
    finally:
        await ship.kill()


async def until(holds: Callable[[], object], ship: Ship) -> None:
    end = time.monotonic() + PATIENCE
    while not holds():
        assert time.monotonic() < end, ship.log[-4000:]
        await asyncio.sleep(0.2)


def messages(directory: Path, store: str) -> list[dict[str, str]]:
    file = directory / "out" / f"{store}.jsonl"
    return [json.loads(line) for line in file.read_bytes().splitlines()] if file.exists() else []


def has_lines(directory: Path, store: str, count: int) -> bool:
    return len(messages(directory, store)) >= count


def is_rotated(path: Path, inode: int) -> bool:
    return path.exists() and path.stat().st_ino != inode


def printing(lines: int, pause: float, word: str = "line") -> tuple[str, ...]:
    """A container's command: numbered lines, and then it waits."""
    loop = f"i=0; while test $i -lt {lines}; do i=$((i+1)); echo {word} $i; sleep {pause}; done"
    return "sh", "-c", f"{loop}; sleep 1000"


async def test_no_line_is_lost_and_none_is_twice_over_rotation_and_two_kills(engine: Engine, tmp_path: Path) -> None:
    names = ("one", "two", "three")
    async with shipping(engine, tmp_path, f'directory = "{tmp_path}/out"') as ship:
        for name in names:
            labels = {"aliyun.log_store_app": "stdout", "com.docker.compose.project": f"shop{name}"}
            labels |= {"com.docker.compose.service": "web"}
            engine.run(name, *ROTATION, labels=labels, command=printing(600, 0.02))
        for count in (100, 300):
            await until(partial(has_lines, tmp_path, "shopone-app", count), ship)
            await ship.kill()
            await ship.start()
        await until(lambda: all(len(messages(tmp_path, f"shop{name}-app")) >= 600 for name in names), ship)
        await ship.kill(signal.SIGTERM)
    for name in names:
        found = messages(tmp_path, f"shop{name}-app")
        assert [each["message"] for each in found] == [f"line {number + 1}" for number in range(600)]
        assert {(each["service"], each["worker"], each["stream"]) for each in found} == {
            (f"shop{name}/web", "w1", "stdout")
        }
    assert "LOST" not in ship.log
    assert engine.docker("inspect", "-f", "{{.LogPath}}", "one")
    assert Path(engine.docker("inspect", "-f", "{{.LogPath}}", "one") + ".1").exists(), "it was rotated"


JAVA = r"^\d{4}-\d{2}-\d{2} "


def rotating(file: str, lines: int, each: int) -> tuple[str, ...]:
    """A container's command: numbered lines into a file, which is renamed after `each` of them, and then it waits."""
    rotate = f"mv {file} {file}.$n"
    loop = (
        f"i=0; n=0; while test $i -lt {lines}; do i=$((i+1)); echo line $i >> {file}; "
        f"if test $((i % {each})) = 0; then n=$((n+1)); {rotate}; fi; sleep 0.02; done"
    )
    return "sh", "-c", f"{loop}; sleep 1000"


def throwing(file: str, events: int) -> tuple[str, ...]:
    """A container's command: events of three lines, as Java has them."""
    event = "echo 2026-12-01 event $i; echo java.lang.Exception; echo '\tat x'; sleep 0.02; i=$((i+1))"
    return "sh", "-c", f"i=1; while test $i -le {events}; do {event}; done >> {file}; sleep 1000"


@pytest.mark.timeout(240)
async def test_files_are_collected_through_rotation_and_two_kills(engine: Engine, tmp_path: Path) -> None:
    """Standard output, a directory in the layer, a file in a volume, and events of Java."""
    async with shipping(engine, tmp_path, f'directory = "{tmp_path}/out"') as ship:
        labels = {"mesh.log_store_app": "stdout"}
        engine.run("plain", *ROTATION, labels=labels, command=printing(400, 0.02))
        labels = {"mesh.log_store_app": "/tmp/"}
        engine.run("layer", labels=labels, command=rotating("/tmp/app.log", 400, 37))
        labels = {"aliyun.log_store_app": "/var/log/app/app.log"}
        volume = ("-v", "logs:/var/log/app")
        engine.run("volume", *volume, labels=labels, command=rotating("/var/log/app/app.log", 400, 37))
        labels = {"mesh.log_store_app": "/tmp/*.log", "mesh.log.multiline": JAVA}
        engine.run("java", labels=labels, command=throwing("/tmp/java.log", 200))
        for count in (50, 150):
            await until(partial(has_lines, tmp_path, "layer-app", count), ship)
            await ship.kill()
            await ship.start()
        expected = {"plain": 400, "layer": 400, "volume": 400, "java": 200}
        for name, count in expected.items():
            await until(partial(has_lines, tmp_path, f"{name}-app", count), ship)
        await ship.kill(signal.SIGTERM)
    assert engine.docker("exec", "layer", "test", "-e", "/tmp/app.log.10") == "", "it was rotated"
    lines = sorted(f"line {number + 1}" for number in range(400))
    for name in ("plain", "layer", "volume"):
        assert sorted(each["message"] for each in messages(tmp_path, f"{name}-app")) == lines, name
    assert [each["message"] for each in messages(tmp_path, "java-app")] == [
        f"2026-12-01 event {number + 1}\njava.lang.Exception\n\tat x" for number in range(200)
    ]
    assert "LOST" not in ship.log


async def test_the_last_lines_of_a_file_in_the_layer_of_a_removed_container_are_read(
    engine: Engine, tmp_path: Path
) -> None:
    async with shipping(engine, tmp_path, f'directory = "{tmp_path}/out"') as ship:
        command = ("sh", "-c", "echo first > /tmp/x.log; sleep 1000")
        engine.run("gone", labels={"mesh.log_store_app": "/tmp/x.log"}, command=command)
        await until(lambda: messages(tmp_path, "gone-app"), ship)
        assert ship.process is not None
        ship.process.send_signal(signal.SIGSTOP)
        engine.docker("exec", "gone", "sh", "-c", "echo last >> /tmp/x.log")
        engine.docker("rm", "-f", "gone")
        ship.process.send_signal(signal.SIGCONT)
        await until(lambda: len(messages(tmp_path, "gone-app")) == 2, ship)
    assert [each["message"] for each in messages(tmp_path, "gone-app")] == ["first", "last"]


async def test_a_tmpfs_is_named_and_a_link_out_of_a_volume_is_not_followed(engine: Engine, tmp_path: Path) -> None:
    async with shipping(engine, tmp_path, f'directory = "{tmp_path}/out"') as ship:
        command = ("sh", "-c", "echo x > /run/x.log; sleep 1000")
        engine.run("memory", "--tmpfs", "/run", labels={"mesh.log_store_app": "/run/*.log"}, command=command)
        bind = tmp_path / "bound"
        bind.mkdir()
        (tmp_path / "secret").write_text("secret\n")
        (bind / "led.log").symlink_to("../secret")
        (bind / "good.log").write_text("good\n")
        command = ("sh", "-c", "sleep 1000")
        mount = ("-v", f"{bind}:/logs")
        engine.run("leading", *mount, labels={"mesh.log_store_app": "/logs/"}, command=command)
        await until(lambda: messages(tmp_path, "leading-app"), ship)
        await until(lambda: "VM960" in ship.log and "VM961" in ship.log, ship)
    assert [each["message"] for each in messages(tmp_path, "leading-app")] == ["good"]
    assert "/run is a tmpfs, which only the container has; mount a volume at /run" in ship.log
    assert "/logs/led.log: it is a link" in ship.log


async def test_the_last_lines_of_a_removed_container_are_read(engine: Engine, tmp_path: Path) -> None:
    async with shipping(engine, tmp_path, f'directory = "{tmp_path}/out"') as ship:
        command = ("sh", "-c", "echo first; sleep 1000")
        engine.run("gone", labels={"mesh.log_store_app": "stdout"}, command=command)
        engine.run("other", command=("sh", "-c", "echo not collected; sleep 1000"))
        await until(lambda: messages(tmp_path, "gone-app"), ship)
        assert ship.process is not None
        ship.process.send_signal(signal.SIGSTOP)
        engine.docker("exec", "gone", "sh", "-c", "echo last > /proc/1/fd/1; echo no feed > /proc/1/fd/2")
        path = Path(engine.docker("inspect", "-f", "{{.LogPath}}", "gone"))
        await until(lambda: all(line in path.read_bytes() for line in (b"last", b"no feed")), ship)
        engine.docker("rm", "-f", "gone")
        ship.process.send_signal(signal.SIGCONT)
        await until(lambda: len(messages(tmp_path, "gone-app")) == 3, ship)
        positions = tmp_path / "state" / "positions.json"
        await until(lambda: path.exists() is False and positions.exists(), ship)
    # The engine copies the two streams side by side: only the lines of one have an order.
    lines = [(each["stream"], each["message"]) for each in messages(tmp_path, "gone-app")]
    assert [text for stream, text in lines if stream == "stdout"] == ["first", "last"]
    assert [text for stream, text in lines if stream == "stderr"] == ["no feed"]
    assert [file.name for file in (tmp_path / "out").iterdir()] == ["gone-app.jsonl"]


async def test_a_container_with_another_log_driver_is_named(engine: Engine, tmp_path: Path) -> None:
    engine.run("quiet", "--log-driver", "local", labels={"mesh.log_store_app": "stdout"})
    async with shipping(engine, tmp_path, f'directory = "{tmp_path}/out"') as ship:
        await until(lambda: "VM951" in ship.log, ship)
    assert "container quiet: it logs by the driver local" in ship.log


class Elasticsearch:
    """A program of others that speaks Elasticsearch, in a process group that can be frozen."""

    def __init__(self, url: str, group: int) -> None:
        self.url = url
        self._group = group

    def signal(self, number: int) -> None:
        os.killpg(self._group, number)

    async def get(self, path: str) -> dict[str, dict[str, list[dict[str, dict[str, str]]]]]:
        async with aiohttp.ClientSession() as session, session.get(f"{self.url}{path}") as response:
            found: dict[str, dict[str, list[dict[str, dict[str, str]]]]] = await response.json()
            return found

    async def messages(self, index: str) -> list[str]:
        """All messages of an index by their time, after a refresh."""
        await self.get(f"/{index}/_refresh")
        found = await self.get(f"/{index}/_search?size=10000")
        hits = [hit["_source"] for hit in found.get("hits", {}).get("hits", [])]
        return [hit["message"] for hit in sorted(hits, key=lambda hit: hit["@timestamp"])]


@asynccontextmanager
async def elasticsearch(directory: Path) -> AsyncIterator[Elasticsearch]:
    program = shutil.which("noida-db", path=f"{Path(sys.executable).parent}:{os.environ['PATH']}")
    if program is None:
        pytest.skip("needs noida-db: pip install -e .[test]")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    options = ("--data-dir", str(directory / "data"), "--only", "elasticsearch", "--elasticsearch-port", str(port))
    with (directory / "store.log").open("wb") as log:
        process = await asyncio.create_subprocess_exec(
            program, "start", *options, stdout=log, stderr=log, start_new_session=True
        )
    store = Elasticsearch(f"http://127.0.0.1:{port}", process.pid)
    try:
        end = time.monotonic() + PATIENCE
        while True:
            try:
                await store.get("/")
                break
            except aiohttp.ClientError:
                assert time.monotonic() < end, (directory / "store.log").read_text()
            await asyncio.sleep(0.2)
        yield store
    finally:
        store.signal(signal.SIGKILL)
        await process.wait()


async def test_elasticsearch_that_freezes_has_each_line_once(engine: Engine, tmp_path: Path) -> None:
    async with (
        elasticsearch(tmp_path) as store,
        shipping(engine, tmp_path, f'elasticsearch = ["{store.url}"]') as ship,
    ):
        engine.run("loud", *ROTATION, labels={"mesh.log_store_app": "stdout"}, command=printing(600, 0.02))
        path = Path(engine.docker("inspect", "-f", "{{.LogPath}}", "loud"))
        end = time.monotonic() + PATIENCE
        while len(await store.messages("vipmesh-loud-app")) < 50:
            assert time.monotonic() < end, ship.log
            await asyncio.sleep(0.2)
        for _ in range(2):
            store.signal(signal.SIGSTOP)
            inode = path.stat().st_ino
            await until(partial(is_rotated, path, inode), ship)
            await ship.kill()
            await ship.start()
            store.signal(signal.SIGCONT)
        while len(found := await store.messages("vipmesh-loud-app")) < 600:
            assert time.monotonic() < end + PATIENCE, ship.log
            await asyncio.sleep(0.5)
        assert found == [f"line {number + 1}" for number in range(600)]
        assert "LOST" not in ship.log
