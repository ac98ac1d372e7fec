"""An engine that restarts without live-restore: what serves before it answers, and never at another one's address."""

import asyncio
import json
import signal
import socket
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import pytest

from mesh.model.service import Instance
from mesh.sources.docker.source import DockerSource
from tests.netns import Namespace
from tests.system.docker.engine import Engine
from tests.system.docker.test_source import RULES, WEB, Watched, watching
from tests.system.docker.worker import worker
from tests.system.e2e.programs import call, eventually

OPTIONS = ("--network", "shop", "--init", "--restart", "always")


class Relay:
    """A socket that leads to the engine while it is open: so long does the engine answer."""

    def __init__(self, engine: Engine, path: Path) -> None:
        self._engine = engine
        self._path = path
        self.url = f"unix://{path}"
        self._open: list[asyncio.StreamWriter] = []
        self._server: asyncio.Server | None = None

    async def start(self) -> None:
        self._server = await asyncio.start_unix_server(self._relay, self._path)

    async def close(self) -> None:
        assert self._server is not None
        self._server.close()
        self._path.unlink(missing_ok=True)
        for writer in self._open:
            writer.close()
        self._open.clear()

    async def _relay(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError):
            there, back = await asyncio.open_unix_connection(self._engine.socket)
            self._open += [writer, back]
            await asyncio.gather(_copy(reader, back), _copy(there, writer))
        writer.close()


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with suppress(OSError):
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()
    writer.close()


@asynccontextmanager
async def away(relay: Relay, seen: Watched) -> AsyncIterator[None]:
    """The engine does not answer while the block runs."""
    await relay.close()
    try:
        await eventually(lambda: _trouble(seen), lambda trouble: trouble)
        yield
        assert await _trouble(seen)
    finally:
        await relay.start()
    await eventually(lambda: _trouble(seen), lambda trouble: not trouble)


async def _trouble(seen: Watched) -> bool:
    return seen.source.trouble is not None


def swap_addresses(engine: Engine, addresses: Mapping[str, str]) -> None:
    """While the engine is stopped: let the containers ask for each other's address at their next start."""
    for id, address in addresses.items():
        file = engine.directory / "data/containers" / id / "config.v2.json"
        config = json.loads(file.read_text())
        config["NetworkSettings"]["Networks"]["shop"]["IPAMConfig"] = {"IPv4Address": address}
        file.write_text(json.dumps(config))


def answering(engine: Engine, address: str) -> str:
    """The beginning of the ID of the container that answers at an address."""
    return engine.namespace_output("curl", "-s", "--max-time", "5", f"http://{address}/cgi-bin/who").strip()


async def answers(engine: Engine, instance: Instance) -> bool:
    """Whether the instance's own container answers at its address. No other one may."""
    who = ""
    with suppress(AssertionError):  # nothing listens yet
        who = await asyncio.to_thread(answering, engine, instance.address)
    assert who in ("", instance.id.rpartition("/")[2]), f"{who} answers at the address of {instance}"
    return who != ""


async def test_containers_that_swap_their_addresses_are_found_before_the_engine_answers(
    engine: Engine, tmp_path: Path
) -> None:
    """Neither is ever told at the other one's address."""
    await engine.adocker("network", "create", "--subnet", "172.30.7.0/24", "shop")
    ids = {name: await asyncio.to_thread(engine.run, name, *OPTIONS, labels=WEB) for name in ("web-1", "web-2")}
    relay = Relay(engine, tmp_path / "docker.sock")
    await relay.start()
    async with watching(DockerSource(relay.url, RULES)) as seen:
        await seen.until(lambda now: now.keys() == ids.keys())
        before = dict(seen.instances)
        async with away(relay, seen):
            await asyncio.to_thread(engine.end)
            await seen.until(lambda now: now == {})
            others = {"web-1": before["web-2"].address, "web-2": before["web-1"].address}
            await asyncio.to_thread(swap_addresses, engine, {ids[name]: others[name] for name in ids})
            starting = asyncio.get_running_loop().run_in_executor(None, engine.start)
            await seen.until(lambda now: now.keys() == ids.keys(), 60)
            assert {name: instance.address for name, instance in seen.instances.items()} == others
            assert {instance.run for instance in seen.instances.values()} == {None}
            for instance in seen.instances.values():
                await eventually(lambda instance=instance: answers(engine, instance), bool)  # type: ignore[misc]
            await starting
        await seen.until(lambda now: now.keys() == ids.keys() and all(each.run for each in now.values()))
        assert {name: instance.address for name, instance in seen.instances.items()} == others
        assert all(seen.instances[name].run != before[name].run for name in ids)
    await relay.close()


async def test_a_container_that_ends_while_the_engine_is_away_is_left_out_at_once(
    engine: Engine, tmp_path: Path
) -> None:
    id = await asyncio.to_thread(engine.run, "web-1", labels=WEB)
    await asyncio.to_thread(engine.run, "web-2", labels=WEB)
    pid = await engine.adocker("inspect", "-f", "{{.State.Pid}}", id)
    relay = Relay(engine, tmp_path / "docker.sock")
    await relay.start()
    async with watching(DockerSource(relay.url, RULES)) as seen:
        await seen.until(lambda now: now.keys() == {"web-1", "web-2"})
        async with away(relay, seen):
            await asyncio.to_thread(engine.namespace_output, "kill", "-KILL", pid)
            await seen.until(lambda now: now.keys() == {"web-2"})
    await relay.close()


@pytest.mark.timeout(180)
async def test_a_new_connection_waits_for_what_the_engine_starts_again(
    engine: Engine, client: Namespace, tmp_path: Path
) -> None:
    """It is opened while nothing serves, and nobody refuses it."""
    loop = asyncio.get_running_loop()
    await engine.adocker("network", "create", "shop")
    await asyncio.to_thread(engine.run, "web", *OPTIONS, labels={**WEB, "mesh.probe.url": "http://container:80/"})
    async with worker(engine, tmp_path, plane="nftables", VIPMESH_DATAPLANE_HOLD="60") as mesh:
        await mesh.serving("web")
        vip = await mesh.vip()
        await asyncio.to_thread(engine.end)
        await eventually(lambda: _held(engine), lambda held: vip in held)
        with client.entered():
            sock = socket.socket()
        with sock:
            sock.setblocking(False)
            async with asyncio.timeout(90), asyncio.TaskGroup() as tasks:
                connecting = tasks.create_task(loop.sock_connect(sock, (vip, 80)))
                await asyncio.to_thread(engine.start)
                await connecting
            await loop.sock_sendall(sock, b"GET / HTTP/1.0\r\n\r\n")
            assert await asyncio.wait_for(loop.sock_recv(sock, 4096), 30)
        await eventually(lambda: _held(engine), lambda held: held == "")


@pytest.mark.timeout(240)
async def test_a_daemon_that_is_killed_while_connections_wait_leaves_nothing_that_drops(
    engine: Engine, client: Namespace, tmp_path: Path
) -> None:
    await engine.adocker("network", "create", "shop")
    await asyncio.to_thread(engine.run, "web", *OPTIONS, labels={**WEB, "mesh.probe.url": "http://container:80/"})
    async with worker(engine, tmp_path, plane="nftables", teardown=False, VIPMESH_DATAPLANE_HOLD="4") as mesh:
        await mesh.serving("web")
        vip = await mesh.vip()
        await asyncio.to_thread(engine.end)
        await eventually(lambda: _held(engine), lambda held: vip in held)
        await mesh.daemon.end(signal.SIGKILL)
    assert await _held(engine), "it is not the daemon that ends it"
    async with worker(engine, tmp_path, plane="nftables", VIPMESH_DATAPLANE_HOLD="4") as mesh:
        await asyncio.to_thread(engine.start)
        await mesh.serving("web")
        command = ("nsenter", f"--net={client.path}", "curl", "-s", "-m", "20", f"http://{vip}/cgi-bin/who")
        code, who = await call(*command, seconds=30)
        assert (code, bool(who.strip())) == (0, True)
        await eventually(lambda: _held(engine), lambda held: held == "", 60)


async def _held(engine: Engine) -> str:
    """The table in which connections wait; empty if there is none."""
    with suppress(AssertionError):
        return await asyncio.to_thread(engine.namespace_output, "nft", "list", "table", "inet", "vipmesh_hold")
    return ""
