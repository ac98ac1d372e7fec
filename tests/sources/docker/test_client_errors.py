"""A Docker socket with another program or an engine that does not answer: reported, and never the end of the daemon."""

import asyncio
import json
import random
from collections.abc import AsyncIterator, Callable
from contextlib import aclosing, asynccontextmanager
from functools import partial
from pathlib import Path

import pytest
from aiohttp import web

from mesh.sources.docker.engine import DockerEngine
from mesh.sources.docker.exec import DockerExec
from mesh.sources.docker.source import DockerSource
from tests.builders import WEB_LABELS
from tests.fuzz.limits import MAX_TURN, TurnSelector, measured_loop
from tests.system.docker.test_source import RULES, trouble, watching

ID = "f" * 64
CONTAINER = {
    "Id": ID,
    "Names": ["/web-1"],
    "State": "running",
    "Labels": WEB_LABELS,
    "NetworkSettings": {"Networks": {"bridge": {"IPAddress": "172.29.0.2"}}},
}
SENSE = {
    "version": {"ApiVersion": "1.41"},
    "containers/json": [CONTAINER],
    "networks": [{"Name": "bridge", "Driver": "bridge"}],
    f"containers/{ID}/json": {"Id": ID},
}
NONSENSE = {
    "nothing": b"",
    "null": b"null",
    "a number": b"3",
    "numbers": b"[3]",
    "a list": b"[{}]",
    "lists": b"[[1, 2]]",
    "another object": b'{"hello": "world"}',
    "cut off": b'{"Id": "ff',
    "no text": b"\xff\xfe",
    "a page": b"<html>It works!</html>",
    "as deep as a well": b"[" * 100_000,
}


class Fake:
    """Speaks as an engine does, but for one path."""

    def __init__(self) -> None:
        self.instead: dict[str, tuple[str, bytes]] = {}
        """Path -> what is answered there, and of which type."""
        self.silent: set[str] = set()
        self._end = asyncio.Event()

    async def answer(self, request: web.Request) -> web.StreamResponse:
        path = request.path.removeprefix("/v1.41").strip("/")
        if path in self.silent:
            await self._end.wait()
        if path in self.instead:
            kind, body = self.instead[path]
            return web.Response(body=body, content_type=kind)
        if path == "events":
            return await self._events(request)
        return web.json_response(SENSE[path])

    async def _events(self, request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        if "until" not in request.query:
            await self._end.wait()
        return response

    @asynccontextmanager
    async def listening(self, path: Path) -> AsyncIterator[str]:
        """Its URL while the block runs."""
        app = web.Application()
        app.router.add_route("*", "/{path:.*}", self.answer)
        runner = web.AppRunner(app, shutdown_timeout=0.1)
        await runner.setup()
        await web.UnixSite(runner, path).start()
        try:
            yield f"unix://{path}"
        finally:
            self._end.set()
            await runner.cleanup()


async def either(source: DockerSource, holds: Callable[[], bool]) -> None:
    async with asyncio.timeout(10):
        while not holds() and source.trouble is None:
            await asyncio.sleep(0.01)


@pytest.mark.parametrize("kind", ["application/json", "text/html"])
@pytest.mark.parametrize("body", NONSENSE.values(), ids=NONSENSE)
@pytest.mark.parametrize("path", [*SENSE, "events"])
async def test_invalid_responses_are_reported_until_valid_ones_arrive(
    tmp_path: Path, path: str, body: bytes, kind: str
) -> None:
    fake = Fake()
    fake.instead[path] = kind, body
    async with fake.listening(tmp_path / "docker.sock") as url:
        source = DockerSource(url, RULES, answer=5.0)
        async with watching(source) as seen:
            await either(source, lambda: seen.lists > 0)
            assert seen.lists == 0 or seen.instances.keys() == {"web-1"}, "nonsense is no empty list"
            fake.instead.clear()
            source.touch()
            await seen.until(lambda now: now.keys() == {"web-1"})
            await trouble(source, None)


async def test_another_program_on_the_socket_is_recognised(tmp_path: Path) -> None:
    fake = Fake()
    fake.instead["version"] = "application/json", b'{"hello": "world"}'
    async with fake.listening(tmp_path / "docker.sock") as url:
        source = DockerSource(url, RULES)
        async with watching(source):
            await trouble(source, "check that it is a Docker engine with API 1.41 or later")


@pytest.mark.parametrize("path", [*SENSE, "events"])
async def test_an_engine_that_hangs_from_the_start_is_reported(tmp_path: Path, path: str) -> None:
    fake = Fake()
    fake.silent.add(path)
    async with fake.listening(tmp_path / "docker.sock") as url:
        source = DockerSource(url, RULES, answer=0.2)
        async with watching(source):
            await trouble(source, "no answer in 0.2 s")


@pytest.mark.parametrize("body", NONSENSE.values(), ids=NONSENSE)
async def test_failed_commands_stops_and_signals_have_a_reason(tmp_path: Path, body: bytes) -> None:
    fake = Fake()
    paths = [f"containers/{ID}/{verb}" for verb in ("exec", "stop", "kill")]
    fake.instead.update(dict.fromkeys(paths, ("application/json", body)))
    async with fake.listening(tmp_path / "docker.sock") as url:
        assert await DockerExec(url).run(f"docker/web.test/{ID}", "true", 1) is None
        engine = DockerEngine(url, DockerSource(url, RULES), LookupError)
        await engine.signal(ID, "SIGTERM")
        await engine.stop(f"docker/web.test/{ID}")


@pytest.mark.filterwarnings("ignore:.*Stream.__del__")  # the client cannot close a stream that has not begun
@pytest.mark.parametrize("body", NONSENSE.values(), ids=NONSENSE)
@pytest.mark.parametrize("path", ["exec/1/json", "exec/1/start"])
async def test_an_unparsable_command_response_is_no_verdict(tmp_path: Path, path: str, body: bytes) -> None:
    fake = Fake()
    process = {"ProcessConfig": {"tty": False}, "ExitCode": 0}
    fake.instead[f"containers/{ID}/exec"] = "application/json", b'{"Id": "1"}'
    fake.instead["exec/1/json"] = "application/json", json.dumps(process).encode()
    fake.instead[path] = "application/json", body
    async with fake.listening(tmp_path / "docker.sock") as url:
        assert await DockerExec(url).run(f"docker/web.test/{ID}", "true", 1) is None


def test_containers_with_labels_that_mean_nothing_do_not_hold_the_loop(tmp_path: Path) -> None:
    chance = random.Random(1)

    def containers() -> list[object]:
        labels = [{**WEB_LABELS, **{f"mesh.{chance.random()}": "" for _ in range(20)}} for _ in range(60)]
        return [
            {**CONTAINER, "Id": f"{n:064x}", "Names": [f"/evil-{n}"], "Labels": each} for n, each in enumerate(labels)
        ]

    async def listed() -> int:
        fake = Fake()
        fake.instead["containers/json"] = "application/json", json.dumps(containers()).encode()
        for n in range(60):
            fake.instead[f"containers/{n:064x}/json"] = "application/json", json.dumps({"Id": f"{n:064x}"}).encode()
        async with fake.listening(tmp_path / "docker.sock") as url, aclosing(DockerSource(url, RULES).watch()) as lists:
            return len((await anext(lists))[0])

    turns = []
    for _ in range(3):  # other work on the machine is no failure
        selector = TurnSelector()
        with asyncio.Runner(loop_factory=partial(measured_loop, selector)) as runner:
            assert runner.run(listed()) == 60
        turns.append(selector.longest)
    assert min(turns) < MAX_TURN, turns
