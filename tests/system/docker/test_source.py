"""The source on a real engine: containers from start to end, and the last list while the engine is stopped."""

import asyncio
import json
import time
from collections.abc import AsyncIterator, Callable
from contextlib import aclosing, asynccontextmanager
from functools import partial
from pathlib import Path

from mesh.model.problem import Problem
from mesh.model.service import DrainReason, Health, Instance
from mesh.sources.docker.client import open_client, open_events
from mesh.sources.docker.instances import InstanceRules
from mesh.sources.docker.source import EVENT_FILTERS, DockerSource
from tests.system.docker.engine import Engine
from tests.system.e2e.programs import eventually

WEB = {"mesh.routing.port_80": "web.test"}
RULES = InstanceRules("mesh.internal", worker="192.0.2.11")


class Watched:
    """A source under watch: its last list, and waiting for the next."""

    def __init__(self, source: DockerSource) -> None:
        self.source = source
        self.instances: dict[str, Instance] = {}
        self.problems: tuple[Problem, ...] = ()
        self.lists = 0
        self._news = asyncio.Event()

    async def run(self) -> None:
        async with aclosing(self.source.watch()) as lists:
            async for instances, self.problems in lists:
                self.instances = {instance.name or instance.id: instance for instance in instances}
                self.lists += 1
                self._news.set()

    async def until(self, holds: Callable[[dict[str, Instance]], bool], seconds: float = 30) -> None:
        async with asyncio.timeout(seconds):
            while self.lists == 0 or not holds(self.instances):
                self._news.clear()
                await self._news.wait()


@asynccontextmanager
async def watching(source: DockerSource) -> AsyncIterator[Watched]:
    watched = Watched(source)
    async with asyncio.TaskGroup() as tasks:
        task = tasks.create_task(watched.run())
        yield watched
        task.cancel()


async def test_from_run_to_removal(engine: Engine) -> None:
    async with watching(DockerSource(engine.url, RULES)) as seen:
        await seen.until(lambda now: now == {})
        run = asyncio.to_thread(engine.run, "web-1", labels=WEB)
        await asyncio.gather(run, seen.until(lambda now: now.keys() == {"web-1"}))
        first = seen.instances["web-1"]
        assert first.address.startswith("172.29.0.")
        await engine.adocker("rename", "web-1", "web-2")
        await seen.until(lambda now: now.keys() == {"web-2"})
        assert seen.instances["web-2"].id == first.id
        await engine.adocker("pause", "web-2")
        await seen.until(lambda now: now["web-2"].drain is DrainReason.PAUSED)
        await engine.adocker("unpause", "web-2")
        await seen.until(lambda now: now["web-2"].drain is None)
        await asyncio.gather(
            engine.adocker("restart", "-t", "0", "web-2"),
            seen.until(lambda now: not now or now["web-2"].drain is not None),
        )
        await seen.until(lambda now: bool(now) and now["web-2"].drain is None)
        await engine.adocker("rm", "-f", "web-2")
        await seen.until(lambda now: now == {})


async def test_a_network_is_connected_and_disconnected(engine: Engine) -> None:
    await engine.adocker("network", "create", "--subnet", "172.30.1.0/24", "front")
    await asyncio.to_thread(engine.run, "web-1", "--network", "front", labels=WEB)
    async with watching(DockerSource(engine.url, RULES)) as seen:
        await seen.until(lambda now: now["web-1"].address.startswith("172.30.1."))
        await engine.adocker("network", "connect", "bridge", "web-1")
        await engine.adocker("network", "disconnect", "front", "web-1")
        await seen.until(lambda now: now["web-1"].address.startswith("172.29.0."))
        await engine.adocker("network", "disconnect", "bridge", "web-1")
        await seen.until(lambda now: now == {})
        assert "it has no IPv4 address" in str(seen.problems[0])


async def test_a_stopping_container_is_drained_before_it_has_ended(engine: Engine) -> None:
    """TERM is nothing to a process 1 that does not ask for it: the container is stopped, and still there."""
    await asyncio.to_thread(engine.run, "web-1", labels=WEB, command=("sleep", "1000"))
    async with watching(DockerSource(engine.url, RULES)) as seen:
        await seen.until(lambda now: now["web-1"].drain is None)
        stop = asyncio.create_task(engine.adocker("stop", "-t", "3", "web-1"))  # noqa: TID251
        await seen.until(lambda now: now["web-1"].drain is DrainReason.STOPPING, 2)
        assert not stop.done()
        await stop
        await seen.until(lambda now: now == {})


async def test_other_signals_change_nothing_and_a_survived_stop_signal_is_reverted(engine: Engine) -> None:
    await asyncio.to_thread(engine.run, "web-1", labels=WEB, command=("sleep", "1000"))
    source = DockerSource(engine.url, RULES)
    async with watching(source) as seen:
        await seen.until(lambda now: "web-1" in now)
        await engine.adocker("kill", "-s", "HUP", "web-1")
        await engine.adocker("kill", "-s", "TERM", "web-1")
        await seen.until(lambda now: now["web-1"].drain is DrainReason.STOPPING)
        assert seen.lists == 2
        source.forgive(seen.instances["web-1"].id)
        await seen.until(lambda now: now["web-1"].drain is None)


async def test_a_stop_that_began_before_the_daemon_started(engine: Engine) -> None:
    heard: list[tuple[str | None, float]] = []
    await asyncio.to_thread(engine.run, "web-1", labels=WEB, command=("sleep", "1000"))
    flags = ("--stop-signal", "CONT", "--stop-timeout", "300")
    await asyncio.to_thread(engine.run, "web-2", *flags, labels=WEB, command=("sleep", "1000"))
    await engine.adocker("kill", "-s", "TERM", "web-1")
    await engine.adocker("kill", "-s", "CONT", "web-2")
    source = DockerSource(engine.url, RULES, on_drain=lambda _, instance, seconds: heard.append((instance, seconds)))
    async with watching(source) as seen:
        await seen.until(lambda now: [i.drain for i in now.values()] == [DrainReason.STOPPING] * 2)
        ((instance, seconds),) = heard
        assert instance == seen.instances["web-2"].id
        assert 200 < seconds < 300


async def test_health_changes_are_reported_and_healthcheck_runs_are_not(engine: Engine) -> None:
    options = ("--health-cmd", "test -e /tmp/well", "--health-interval", "0.2s", "--health-retries", "2")
    await asyncio.to_thread(engine.run, "web-1", *options, labels=WEB)
    async with watching(DockerSource(engine.url, RULES)) as seen:
        await seen.until(lambda now: now["web-1"].health is Health.UNHEALTHY)
        await engine.adocker("exec", "web-1", "touch", "/tmp/well")
        await seen.until(lambda now: now["web-1"].health is Health.HEALTHY)
        lists = seen.lists
        await engine.adocker("exec", "web-1", "rm", "/tmp/well")
        await seen.until(lambda now: now["web-1"].health is Health.UNHEALTHY)
        assert seen.lists == lists + 1


async def test_the_engine_sends_only_subscribed_events(engine: Engine) -> None:
    """A HEALTHCHECK that runs five times a second tells of itself fifteen times a second to who asks for everything."""
    began = time.time()
    options = ("--init", "--health-cmd", "true", "--health-interval", "0.2s", "--health-retries", "1")
    await asyncio.to_thread(engine.run, "web-1", *options, labels=WEB)
    async with open_client(engine.url) as docker:

        async def told(filters: str) -> list[str]:
            async with open_events(docker, since=began, until=time.time(), filters=filters) as heard:
                return [event.action for event in await heard.all()]

        everything = json.dumps({"type": ["container", "network"]})
        await eventually(partial(told, everything), lambda said: sum("exec_die" in action for action in said) > 4)
        assert [action for action in await told(EVENT_FILTERS) if action != "connect"] == [
            "start",
            "health_status: healthy",
        ]


async def test_a_restarted_engine_is_found_again_with_its_containers(engine: Engine) -> None:
    await asyncio.to_thread(engine.run, "web-1", "--init", "--restart", "always", labels=WEB)
    await asyncio.to_thread(engine.run, "web-2", "--init", labels=WEB)
    source = DockerSource(engine.url, RULES)
    async with watching(source) as seen:
        await seen.until(lambda now: now.keys() == {"web-1", "web-2"})
        await asyncio.to_thread(engine.end)
        await trouble(source, "it does not answer; start it, or set [source.docker] socket")
        await asyncio.to_thread(engine.start)
        await seen.until(lambda now: now.keys() == {"web-1"})
        await trouble(source, None)


async def test_while_the_engine_is_stopped_the_last_list_and_health_stay(engine: Engine) -> None:
    """With --live-restore containers outlive the engine, which counts their health anew when it comes back."""
    options = ("--init", "--health-cmd", "true", "--health-interval", "2s")
    source = DockerSource(engine.url, RULES)
    async with watching(source) as seen:
        try:
            await asyncio.to_thread(engine.end)
            await asyncio.to_thread(engine.start, "--live-restore")
            await asyncio.to_thread(engine.run, "web-1", *options, labels=WEB)
            await seen.until(lambda now: bool(now) and now["web-1"].health is Health.HEALTHY)
            lists = seen.lists
            await asyncio.to_thread(engine.end)
            await trouble(source, "it does not answer")
            assert seen.instances.keys() == {"web-1"}
            await asyncio.to_thread(engine.start, "--live-restore")
            await asyncio.to_thread(engine.run, "web-2", labels=WEB)
            await seen.until(lambda now: "web-2" in now)
            assert seen.lists == lists + 1, "nothing else was told meanwhile"
            assert seen.instances["web-1"].health is Health.HEALTHY
        finally:
            await asyncio.to_thread(engine.remove_all)
            await asyncio.to_thread(engine.end)
            await asyncio.to_thread(engine.start)


async def test_a_missing_socket_is_reported_with_a_remedy() -> None:
    source = DockerSource("unix:///nonexistent/docker.sock", RULES)
    async with watching(source) as seen:
        await trouble(source, "unix:///nonexistent/docker.sock: it does not answer; start it")
        assert seen.lists == 0, "nothing is not an empty list"


async def test_a_socket_that_is_removed_and_returns(engine: Engine, tmp_path: Path) -> None:
    socket = tmp_path / "docker.sock"
    await asyncio.to_thread(engine.run, "web-1", "--init", "--restart", "always", labels=WEB)
    source = DockerSource(f"unix://{socket}", RULES)
    async with watching(source) as seen:
        await trouble(source, "it does not answer")
        socket.symlink_to(engine.socket)
        await seen.until(lambda now: now.keys() == {"web-1"})
        socket.unlink()
        await asyncio.to_thread(engine.end)
        await asyncio.to_thread(engine.start)
        await trouble(source, "it does not answer")
        await asyncio.to_thread(engine.run, "web-2", "--init", labels=WEB)
        await seen.until(lambda now: now.keys() == {"web-1"})  # it has begun again, and what is new is not known
        socket.symlink_to(engine.socket)
        await seen.until(lambda now: now.keys() == {"web-1", "web-2"})
        await trouble(source, None)


async def test_a_hanging_engine_is_reported(engine: Engine) -> None:
    """Stopped in its tracks the engine still has its socket; only lists that do not come tell of it."""
    source = DockerSource(engine.url, RULES, relist=0.3, answer=1.0)
    async with watching(source) as seen:
        await seen.until(lambda now: now == {})
        engine.pause()
        try:
            await trouble(source, "no answer in 1 s")
        finally:
            engine.go_on()
        await trouble(source, None)


async def trouble(source: DockerSource, says: str | None, seconds: float = 30) -> None:
    """Wait until the source is in this trouble, or in none."""
    async with asyncio.timeout(seconds):
        while source.trouble is not None if says is None else says not in str(source.trouble):
            await asyncio.sleep(0.02)
