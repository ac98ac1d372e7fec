"""`vipmesh test` on a real engine with its own packet filter in force: two networks, and what stands between them."""

import asyncio
import json
import shlex
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

from tests.system.docker.engine import Engine
from tests.system.docker.worker import Worker, worker
from tests.system.e2e.programs import VIPMESH, call, eventually, status

POOL = "10.113.0.0/16"
RESOLVER = "10.113.0.1"
SERVICE = {"mesh.routing.port_80": "web.test", "mesh.routing.publish.port_80": "30080"}
OPEN_THE_POOL = f"iptables -I DOCKER-USER -m conntrack --ctstate DNAT --ctorigdst {POOL} -j ACCEPT"
OPEN_THE_PORT = "iptables -I DOCKER-USER -m conntrack --ctstate DNAT -p tcp --ctorigdstport 30080 -j ACCEPT"
DESK = "network desk (container client-1)"


async def report_of(mesh: Worker, *options: str) -> tuple[int, dict[str, Any]]:
    """Exit status and document of `vipmesh test --json`, run by root in the engine's namespace."""
    arguments = ["test", "--json", "--admin", mesh.admin, *options]
    code, output = await call(*mesh.engine.inside, *VIPMESH, *arguments, seconds=55)
    return code, json.loads(output)


@asynccontextmanager
async def two_networks(engine: Engine, directory: Path, *on_shop: str, interval: str = "0") -> AsyncIterator[Worker]:
    """A worker whose service is on one Docker network with more containers, and a client on another one. They ask the
    mesh for names. `interval`: seconds between the daemon's own checks; 0: none.
    """
    for network in ("shop", "desk"):
        await engine.adocker("network", "create", network)
    options = ["--init", "--network", "desk", "--dns", RESOLVER]
    await asyncio.to_thread(engine.run, "server-1", "--network", "shop", "--dns", RESOLVER, labels=SERVICE)
    await asyncio.to_thread(engine.run, "client-1", *options, command=("sleep", "1000"))
    for name in on_shop:
        more = ["--init", "--network", "shop", "--dns", RESOLVER]
        await asyncio.to_thread(engine.run, name, *more, command=("sleep", "1000"))
    async with worker(
        engine,
        directory,
        plane="nftables",
        VIPMESH_HOST_ARRIVAL_INTERVAL=interval,
        VIPMESH_HOST_FIREWALL="report",
    ) as mesh:
        await mesh.serving("server-1")
        yield mesh
        await mesh.daemon.end()


@contextmanager
def rules(engine: Engine, *commands: str) -> Iterator[None]:
    """Rules of iptables, deleted at the end."""
    try:
        for command in commands:
            engine.namespace_output(*shlex.split(command))
        yield
    finally:
        for command in commands:
            engine.namespace_output(*shlex.split(command.replace(" -I ", " -D ")))


def rows(report: dict[str, Any], client: str) -> list[dict[str, Any]]:
    found = [row for row in report["rows"] if row["client"] == client]
    assert found, report
    return found


async def test_the_rule_that_drops_is_named_and_the_printed_line_opens_the_way(engine: Engine, tmp_path: Path) -> None:
    async with two_networks(engine, tmp_path, "cashier-1") as mesh:
        vip = await mesh.vip()
        code, report = await report_of(mesh)
        assert code == 1
        found = {row["destination"]: row for row in rows(report, DESK)}
        assert found.keys() >= {f"tcp://{vip}:80", "tcp://web.test:80"}
        for row in found.values():
            if row["state"] == "skipped":  # the name of the worker is none of the mesh
                continue
            assert (row["state"], row["outcome"], row["lost_cause"]) == ("failed", "no-answer", "rule")
            assert row["lost_at"].startswith("ip filter DOCKER-ISOLATION-STAGE-2: oifname ")
            assert row["remedy"] == (OPEN_THE_PORT if row["kind"] == "published" else OPEN_THE_POOL)
            assert not row["guess"]
        assert [row["state"] for row in rows(report, "host") if row["by"] == "address"] == ["ok", "ok"]
        remedies = {row["remedy"] for row in found.values()} - {None}
        with rules(engine, *remedies):
            code, report = await report_of(mesh, "web.test")
            assert code == 0
            assert [row["state"] for row in rows(report, DESK)] == ["ok", "ok", "ok", "skipped"]
            with rules(engine, "iptables -I DOCKER-USER -p tcp --dport 80 -j DROP"):
                code, report = await report_of(mesh)
                assert code == 1
                drop = rows(report, DESK)[0]
                assert drop["lost_at"].startswith("ip filter DOCKER-USER: ")
                assert "iptables -S DOCKER-USER" in drop["remedy"]
        assert "vipmesh_test" not in engine.namespace_output("nft", "list", "tables")


async def test_it_waits_until_the_way_is_open(engine: Engine, tmp_path: Path) -> None:
    async with two_networks(engine, tmp_path, "cashier-1") as mesh, asyncio.TaskGroup() as tasks:
        waiting = tasks.create_task(report_of(mesh, "--wait", "50"))
        code, _ = await report_of(mesh)
        assert (code, waiting.done()) == (1, False), "it has had the time for a test that failed"
        with rules(engine, OPEN_THE_POOL, OPEN_THE_PORT):
            code, _ = await waiting
        assert code == 0


async def test_a_container_that_calls_itself_is_told_from_a_missing_route(engine: Engine, tmp_path: Path) -> None:
    async with two_networks(engine, tmp_path) as mesh:
        _, report = await report_of(mesh)
        row = rows(report, "network shop (container server-1)")[0]
        assert (row["state"], row["lost_cause"]) in (("failed", "hairpin"), ("ok", None))


async def test_the_daemon_notices_by_itself_that_requests_do_not_arrive(engine: Engine, tmp_path: Path) -> None:
    async with two_networks(engine, tmp_path, interval="2") as mesh:

        async def unreached() -> list[str]:
            (service,) = (await status(mesh.admin))["services"]
            return list(service["not_arriving"])

        (network,) = await eventually(unreached, bool, 50)
        (problem,) = [line for line in (await status(mesh.admin))["problems"] if network in line]
        assert "lost at ip filter DOCKER-ISOLATION-STAGE-2: " in problem
        assert problem.endswith(OPEN_THE_POOL)
        code, explained = await call(*VIPMESH, "explain", "--admin", mesh.admin, "web.test")
        assert code == 1
        assert f"not-arriving: requests from {network} do not arrive" in explained
        with rules(engine, OPEN_THE_POOL):
            await eventually(unreached, lambda now: not now, 50)
            assert [line for line in (await status(mesh.admin))["problems"] if network in line] == []
            code, _ = await call(*VIPMESH, "explain", "--admin", mesh.admin, "web.test")
            assert code == 0
