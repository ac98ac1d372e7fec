"""The role of each worker, in a real etcd with authentication: what it may write, and what it may not."""

import asyncio
import json
import shlex
from collections.abc import AsyncIterator, Iterator
from contextlib import aclosing, asynccontextmanager
from functools import partial
from pathlib import Path

import pytest

from mesh.cli.main import main
from mesh.cluster.claims import ClaimRequest, plan_claims
from mesh.cluster.sync import ClusterSync
from mesh.control.conditions import LoopConditions
from mesh.daemon.open_store import evidence_opener
from mesh.model.claims import ClaimLimits
from mesh.model.problem import Problem
from mesh.model.service import Endpoint, Health
from mesh.model.view import ClusterView, HealthReport
from mesh.platform.rollouts.evidence_records import evidence_key
from mesh.platform.stacks.history_keeper import DeployHistoryKeeper
from mesh.platform.stacks.kept_deploys import decode_deploys, stack_key
from mesh.platform.stacks.records import stamp
from mesh.store import ACTING_KEY, Store, StoreError
from mesh.testing.fleet import FakeFleet, fake_worker
from tests.builders import SMALL_POOL, service
from tests.platform.stacks.builders import desired_service
from tests.store.contract import watching
from tests.store.etcd.server import EtcdServer, etcd, until
from tests.store.etcd.test_auth import opened, settings


def printed(capsys: pytest.CaptureFixture[str], *arguments: str) -> list[str]:
    """The lines that `vipmesh cluster roles` prints."""
    assert main(["cluster", "roles", *arguments]) == 0
    return capsys.readouterr().out.splitlines()


@pytest.fixture
def guarded(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Iterator[EtcdServer]:
    """An etcd with the roles of two workers; the password of each user is `word`."""
    file = tmp_path / "vipmesh.toml"
    with etcd(tmp_path / "etcd", 1, ["--bcrypt-cost", "4"]) as server:
        file.write_text(f'[store]\nurl = "etcd://{server.urls[0].partition("//")[2]}/vipmesh"\n')
        for line in printed(capsys, "-c", str(file), "w1", "w2"):
            program, *arguments = shlex.split(line)
            assert program == "etcdctl"
            if arguments[:2] == ["user", "add"]:
                arguments[2] += ":word"
            server.ctl(*arguments)
        server.ctl("user", "add", "root:secret")
        server.ctl("user", "grant-role", "root", "root")
        server.ctl("auth", "enable")
        server.tls = ["--user", "root:secret"]
        yield server


@asynccontextmanager
async def worker(server: EtcdServer, tmp_path: Path, name: str) -> AsyncIterator[Store]:
    directory = tmp_path / name
    directory.mkdir()
    own = settings(server, directory, node_name=name, store_user=f"vipmesh-{name}", store_password="word")
    async with opened(own) as store:
        yield store


async def test_a_worker_with_its_role_does_all_that_it_has_to(guarded: EtcdServer, tmp_path: Path) -> None:
    views: dict[str, ClusterView] = {}

    def decide(seen: ClusterView) -> tuple[tuple[ClaimRequest, ...], tuple[Problem, ...]]:
        return plan_claims(seen.services, seen.claims, pool=SMALL_POOL, ports=range(30000, 30010))

    async with worker(guarded, tmp_path, "w1") as one, worker(guarded, tmp_path, "w2") as two:
        async with asyncio.TaskGroup() as tasks:
            running, conditions = [], LoopConditions()
            for name, store in (("w1", one), ("w2", two)):
                sync = ClusterSync(name, store, conditions, decide, limits=ClaimLimits(grace=1))
                sync.offer((service("web.test"),), (Endpoint(f"e{name}", "demo/web", name, "10.2.0.1"),))
                mine, others = (name, f"e{name}"), ("w3", "e")  # in the place of another worker, too
                sync.judge(dict.fromkeys((mine, others), HealthReport(Health.HEALTHY)))
                running.append(tasks.create_task(sync.run(partial(views.__setitem__, name), patient=False)))
            async with asyncio.timeout(20):
                while (
                    not all(
                        len(view.endpoints) == 2 and view.claims.vips and len(view.health) == 3
                        for view in views.values()
                    )
                    or len(views) < 2
                ):
                    await asyncio.sleep(0.05)
            for task in running:
                task.cancel()
        assert conditions.frozen == {}
        assert await one.hold(ACTING_KEY, b"w1") == b"w1"
        assert await two.hold(ACTING_KEY, b"w2") == b"w1"
        await one.release(ACTING_KEY, b"w1")
        assert await two.hold(ACTING_KEY, b"w2") == b"w2"
        assert await one.change({"claims/x": None}, {"claims/x": b"1"})
        assert await two.change({"claims/x": b"1"}, {"claims/x": None})


@pytest.mark.parametrize(
    "key", ["workers/w2/x", "health/w2/x", "workers/w", "workers/w11/x", "x", "origin/x", "acting/x"]
)
async def test_a_worker_writes_nothing_in_the_name_of_another(guarded: EtcdServer, tmp_path: Path, key: str) -> None:
    guarded.ctl("put", f"/vipmesh/{key}", "before")
    async with worker(guarded, tmp_path, "w1") as store:
        with pytest.raises(StoreError, match="permission"):
            await store.replace(key, b"before", b"after")
        with pytest.raises(StoreError, match="permission"):
            await store.change({key: b"before"}, {key: None})
        assert (await store.read()).records[key] == b"before", "it reads everything"
        async with aclosing(watching(store)) as snapshots:
            await store.register({"workers/w1/x": b"1", "health/w1/x": b"2"})
            await until(snapshots, lambda seen: seen.keys() >= {"workers/w1/x", "health/w1/x", key})


async def test_a_worker_writes_the_last_deploys_and_without_the_right_to_it_nothing_freezes(
    guarded: EtcdServer, tmp_path: Path
) -> None:
    fleet = FakeFleet([fake_worker("w1")])
    await fleet.create(stamp(desired_service("web", "web:1").spec, (), 1_800_000_000, "kim@w1"))
    async with worker(guarded, tmp_path, "w1") as store:
        await DeployHistoryKeeper(fleet, store).copy()
        key = stack_key("shop")
        (deploy,) = decode_deploys((await store.read()).records[key])
        assert deploy.by == "kim@w1"
        await fleet.create(stamp(desired_service("db", "db:1").spec, (), 1_800_000_100, "kim@w1"))
        guarded.ctl("role", "revoke-permission", "vipmesh-w1", "--prefix=true", "/vipmesh/stacks/")
        with pytest.raises(StoreError, match="permission"):
            await DeployHistoryKeeper(fleet, store).copy()
        assert store.trouble is None
        assert (await store.read()).records.keys() >= {key}


def test_the_lines_are_for_the_workers_and_the_prefix_of_the_settings(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "vipmesh.toml"
    file.write_text('[node]\nname = "w9"\n[store]\nurl = "etcd://h1:2379/a/b"\n')
    lines = printed(capsys, "-c", str(file))
    assert lines[:3] == [
        "etcdctl role add a-b-w9",
        "etcdctl role grant-permission a-b-w9 --prefix=true read /a/b/",
        "etcdctl role grant-permission a-b-w9 --prefix=true readwrite /a/b/workers/w9/",
    ]
    assert json.loads("\n".join(printed(capsys, "-c", str(file), "--json"))) == {"lines": lines}
    assert len(printed(capsys, "-c", str(file), "x", "y", "z")) == 3 * len(lines)


@pytest.mark.parametrize(
    ("url", "workers", "reason"),
    [
        ("sqlite:////tmp/x.db", [], "is the file of one worker and has no roles"),
        ("etcd://h1:2379", ["w 1"], "is not a host name"),
        ("etcd://h1:2379", ["w1;reboot"], "is not a host name"),
        ("etcd://h1:2379", ["w1", "../w2"], "is not a host name"),
    ],
)
def test_what_has_no_role_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], url: str, workers: list[str], reason: str
) -> None:
    file = tmp_path / "vipmesh.toml"
    file.write_text(f'[store]\nurl = "{url}"\n')
    assert main(["cluster", "roles", "-c", str(file), *workers]) == 1
    out, err = capsys.readouterr()
    assert (out, reason in err, "[VM233]" in err) == ("", True, True)


async def test_a_worker_tells_its_own_evidence_alone_and_reads_that_of_all(guarded: EtcdServer, tmp_path: Path) -> None:
    stores = {}
    for name in ("w1", "w2"):
        own = settings(guarded, tmp_path, node_name=name, store_user=f"vipmesh-{name}", store_password="word")
        stores[name] = await evidence_opener(own)()
    try:
        for name, store in stores.items():
            await store.write(evidence_key(name), name.encode())
        assert await stores["w1"].read() == {evidence_key("w1"): b"w1", evidence_key("w2"): b"w2"}
        with pytest.raises(StoreError, match="permission"):
            await stores["w1"].write(evidence_key("w2"), b"w1")
    finally:
        for store in stores.values():
            await store.close()
