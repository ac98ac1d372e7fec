"""Stacks in the admin API and by `vipmesh ps`, `scale` and `history`, on engines in memory."""

import argparse
import asyncio
import json
import re
import shlex
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import aiohttp
import msgspec
import pytest
from jsonschema import Draft202012Validator

from mesh.api.channel.worker_channel import ChannelReply, WorkerChannel
from mesh.api.http import stacks as stacks_module
from mesh.api.http.server import AdminApi, AdminListenConfig
from mesh.api.stack_readiness import endpoint_answers
from mesh.api.status import worker_status
from mesh.cli import deploy as deploying
from mesh.cli import engine_listing, history, ps, rebalance, scale, worker_drain
from mesh.cli.certs import make_certificates
from mesh.cli.parser import build_parser
from mesh.config.settings import parse_settings
from mesh.model.codes import Code
from mesh.model.credential import CertificateHolder
from mesh.model.table import RealKey
from mesh.platform.fleet.errors import FleetUnavailableError
from mesh.platform.fleet.protocol import Fleet, FleetContainer
from mesh.platform.stacks.errors import StackRequestError
from mesh.platform.stacks.history_keeper import DeployHistoryKeeper
from mesh.platform.stacks.operations import StackOperations
from mesh.platform.stacks.records import stamp
from mesh.platform.stacks.rows import ReleaseRow, StackHistoryDocument, StacksDocument
from mesh.testing.channel import FakeDirectory, FakeWorkerChannel
from mesh.testing.fleet import FakeFleet, FakeImageRun, fake_worker
from mesh.testing.readiness import FakeReadiness
from mesh.testing.store import MemoryCluster, MemoryStore
from tests.api.http.test_openapi import DESCRIBED
from tests.api.http.worker import TOKEN, client, socket_of
from tests.api.metrics.test_families import OBSERVED
from tests.platform.stacks.builders import desired_service
from tests.system.e2e.programs import free_port

AT = 1_800_000_000
NO_SWARM = "the engine is a worker of the swarm, and no manager"


def manager() -> FakeFleet:
    return FakeFleet([fake_worker("w1"), fake_worker("w2")])


def no_manager() -> FakeFleet:
    return FakeFleet([fake_worker("w9", role="worker")])


async def deploy(fleet: FakeFleet, name: str = "web", project: str = "shop", instances: int | None = 2) -> None:
    await fleet.create(stamp(desired_service(name, f"{name}:1", instances, project=project).spec, (), AT, "kim@w1"))


def operations(fleet: FakeFleet | None, cluster: MemoryCluster | None = None) -> StackOperations:
    readiness = FakeReadiness(fleet if fleet is not None else FakeFleet(), lambda: float(AT))
    return StackOperations(fleet, readiness, MemoryStore(cluster or MemoryCluster(), "w1"))


@asynccontextmanager
async def served(
    entrance: AdminListenConfig,
    stacks: StackOperations | None,
    *,
    channel: WorkerChannel | None = None,
    worker: str = "w1",
) -> AsyncIterator[AdminApi]:
    """The admin API of a worker."""
    observed = replace(OBSERVED, facts=replace(OBSERVED.facts, worker=worker))
    api = AdminApi(entrance, lambda: observed, stacks=stacks, channel=channel)
    await api.start()
    try:
        yield api
    finally:
        await api.stop()


async def get(tmp_path: Path, path: str, status: int = 200) -> Any:
    async with client(tmp_path) as session, session.get(path) as answer:
        assert answer.status == status, await answer.text()
        return await answer.json()


async def post(tmp_path: Path, path: str, body: Any) -> tuple[int, Any, str | None]:
    async with client(tmp_path) as session, session.post(path, json=body) as answer:
        return answer.status, await answer.json(), answer.headers.get("Vipmesh-Code")


async def test_what_runs_is_listed_with_the_reasons_of_the_engine(tmp_path: Path) -> None:
    fleet = manager()
    await deploy(fleet)
    fleet.images.runs["db:1"] = FakeImageRun(pull_error="No such image: db:1")
    await deploy(fleet, "db", "other", instances=1)
    await deploy(fleet, "agent", "other", instances=None)
    async with served(socket_of(tmp_path), operations(fleet)):
        found = await get(tmp_path, "/v1/stacks")
        other = await get(tmp_path, "/v1/stacks/other")
        nobody = await get(tmp_path, "/v1/stacks/nobody", 404)
    assert (found["worker"], found["error"]) == ("w1", None)
    agent, db, web = found["services"]
    assert (web["project"], web["service"]) == ("shop", "shop/web")
    assert (web["desired"], web["running"], web["ready"]) == (2, 2, 2)
    assert (web["workers"], web["pending"], web["outside"]) == ({"w1": 1, "w2": 1}, [], [])
    assert (db["running"], db["ready"]) == (0, 0)
    assert "No such image: db:1" in " ".join(db["pending"])
    assert (agent["desired"], agent["running"]) == (None, 2)
    assert other["services"] == [agent, db]
    assert "nothing of project nobody" in nobody["error"]


async def test_somebody_elses_service_update_is_shown_as_drift(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    fleet = manager()
    await deploy(fleet)
    (service,) = await fleet.services()
    container: FleetContainer = replace(service.spec.container, image="web:evil")
    fleet.change_service(service.id, replace(service.spec, container=container), ("TaskTemplate.Runtime",))
    async with served(socket_of(tmp_path), operations(fleet)):
        (row,) = (await get(tmp_path, "/v1/stacks"))["services"]
        assert await vipmesh(tmp_path, fleet, "ps") == 0
    release = row["release"]
    assert row["outside"] == [
        f"release {release} is not what was deployed as it any more: image web:1 -> web:evil",
        "field TaskTemplate.Runtime",
    ]
    shown = capsys.readouterr().out
    assert all(f"changed outside vipmesh: {each}; deploy again to undo it" in shown for each in row["outside"])


async def test_the_number_of_instances_is_changed_with_two_audit_lines(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    fleet = manager()
    await deploy(fleet)
    caplog.set_level("INFO")
    async with served(socket_of(tmp_path), operations(fleet)):
        status, answer, _ = await post(tmp_path, "/v1/stacks/shop/scale", {"service": "web", "instances": 4})
        again = await post(tmp_path, "/v1/stacks/shop/scale", {"service": "web", "instances": 4, "wait": 1})
    assert (status, answer["failures"]) == (200, [])
    assert len(answer["steps"]) == 1
    assert again[1]["steps"] == []
    assert [each.spec.instances for each in await fleet.services()] == [4]
    lines = [each.getMessage() for each in caplog.records if each.getMessage().startswith("audit:")]
    assert re.fullmatch(r'audit: scale "shop/web" to 4 by uid \d+ \(pid \d+\) requested', lines[0])
    assert "done after" in lines[1]
    assert "1 steps, 0 not ready" in lines[1]


async def test_what_does_not_become_ready_is_told_with_the_reason(tmp_path: Path) -> None:
    fleet = manager()
    await deploy(fleet)
    fleet.images.runs["web:1"] = FakeImageRun(pull_error="No such image: web:1")
    async with served(socket_of(tmp_path), operations(fleet)):
        status, answer, _ = await post(tmp_path, "/v1/stacks/shop/scale", {"service": "web", "instances": 3, "wait": 0})
    (failure,) = answer["failures"]
    assert (status, failure["service"], failure["ready"], failure["wanted"]) == (200, "web", 2, 3)
    assert "No such image" in failure["reasons"][0]


@pytest.mark.parametrize(
    ("path", "body", "status", "code"),
    [
        ("shop", {"service": "web"}, 400, None),
        ("shop", {"service": "web", "instances": -1}, 400, None),
        ("shop", {"service": "web", "instances": 10_000}, 400, None),
        ("shop", {"service": "web", "instances": True}, 400, None),
        ("shop", {"service": "web", "instances": 1, "wait": float("inf")}, 400, None),
        ("shop", {"service": "web", "instances": 1, "image": "evil"}, 400, None),
        ("shop", {"service": "nobody", "instances": 1}, 409, Code.STACK_UNKNOWN),
        ("nobody", {"service": "web", "instances": 1}, 409, Code.STACK_UNKNOWN),
        ("shop", {"service": "agent", "instances": 1}, 409, Code.STACK_NOT_SCALED),
        ("shop%2Fweb%0a", {"service": "x\x1b", "instances": 1}, 409, Code.STACK_UNKNOWN),
    ],
)
async def test_a_request_that_cannot_be_met_changes_nothing(
    tmp_path: Path, path: str, body: Mapping[str, Any], status: int, code: Code | None
) -> None:
    fleet = manager()
    await deploy(fleet)
    await deploy(fleet, "agent", instances=None)
    done = [*fleet.log]
    async with served(socket_of(tmp_path), operations(fleet)):
        found = await post(tmp_path, f"/v1/stacks/{path}/scale", body)
    assert (found[0], found[2]) == (status, None if code is None else str(code))
    assert found[1]["error"]
    assert fleet.log == done


async def test_only_an_operator_scales(tmp_path: Path) -> None:
    fleet, port = manager(), free_port()
    await deploy(fleet)
    for name, token in (("token", TOKEN), ("reads", "fedcba9876543210")):
        (tmp_path / name).touch(0o600)
        (tmp_path / name).write_text(token)
    entrance = replace(
        socket_of(tmp_path),
        tcp=f"127.0.0.1:{port}",
        token_file=tmp_path / "token",
        read_token_file=tmp_path / "reads",
    )
    done = [*fleet.log]
    async with served(entrance, operations(fleet)):
        for headers, status in (({}, 401), ({"Authorization": "Bearer fedcba9876543210"}, 403)):
            url = f"http://127.0.0.1:{port}/v1/stacks/shop/scale"
            async with (
                aiohttp.ClientSession() as over_tcp,
                over_tcp.post(url, json={"service": "web", "instances": 9}, headers=headers) as answer,
            ):
                assert answer.status == status
    assert fleet.log == done


@pytest.mark.parametrize(
    ("path", "schema"),
    [
        ("/v1/stacks", StacksDocument),
        ("/v1/stacks/shop", StacksDocument),
        ("/v1/stacks/shop/history", StackHistoryDocument),
    ],
)
async def test_answers_match_the_description(tmp_path: Path, path: str, schema: type) -> None:
    fleet = manager()
    await deploy(fleet)
    async with served(socket_of(tmp_path), operations(fleet)):
        found = await get(tmp_path, path)
    described = {**DESCRIBED, "$ref": f"#/components/schemas/{schema.__name__}"}
    Draft202012Validator(described).validate(found)
    msgspec.convert(found, schema)


# -------------------------------------------------------------------------------- workers whose engine is no manager


async def test_a_worker_whose_engine_is_no_manager_says_so(tmp_path: Path) -> None:
    for stacks in (operations(no_manager()), operations(None), None):
        async with served(socket_of(tmp_path), stacks):
            found = await get(tmp_path, "/v1/stacks")
            status, answer, code = await post(tmp_path, "/v1/stacks/shop/scale", {"service": "web", "instances": 1})
        assert (found["services"], found["worker"], found["code"]) == ([], None, str(Code.STACK_NO_MANAGER))
        assert (status, code) == (409, str(Code.STACK_NO_MANAGER))
        assert answer["error"]


def documented(worker: str, *, error: str | None = None, project: str = "shop") -> ChannelReply:
    row = ReleaseRow(f"{project}/web", "r", "web:1", 1, 1, 1, (), {"w2": 1}, (), project, 1)
    known = (row,) if error is None else ()
    code = None if error is None else str(Code.STACK_NO_MANAGER)
    return ChannelReply(msgspec.json.encode(StacksDocument(worker, known, error, code)))


def channel_to(*names: str) -> FakeWorkerChannel:
    return FakeWorkerChannel(FakeDirectory({name: RealKey("192.0.2.9", 9780) for name in names}))


async def test_another_worker_answers_and_is_asked_first_from_then_on(tmp_path: Path) -> None:
    channel = channel_to("w2", "w3", "w4", "w5")
    asked = "/v1/stacks?here=true"
    channel.answers["w2", asked] = documented("w2", error=NO_SWARM)
    channel.answers["w3", asked] = ChannelReply(b"[[[")
    channel.answers["w4", asked] = documented("somebody else")
    channel.hung.add("w5")
    async with served(socket_of(tmp_path), operations(no_manager()), channel=channel):
        found = await get(tmp_path, "/v1/stacks")
        project = await get(tmp_path, "/v1/stacks/shop")
    assert (found["worker"], found["error"]) == ("w4", None), "its certificate says who it is, not its answer"
    assert [row["service"] for row in project["services"]] == ["shop/web"]
    assert channel.asked[-1] == ("w4", asked)
    assert channel.asked.count(("w2", asked)) == 1


async def test_a_question_is_not_passed_on_twice(tmp_path: Path) -> None:
    channel = channel_to("w2")
    channel.answers["w2", "/v1/stacks?here=true"] = documented("w2")
    async with served(socket_of(tmp_path), operations(no_manager()), channel=channel):
        found = await get(tmp_path, "/v1/stacks?here=true")
    assert (found["worker"], channel.asked) == (None, [])


async def test_workers_that_do_not_answer_are_not_asked_at_each_look(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    channel = channel_to(*(f"w{n}" for n in range(2, 40)))
    async with served(socket_of(tmp_path), operations(no_manager()), channel=channel):
        for _ in range(3):
            assert (await get(tmp_path, "/v1/stacks"))["code"] == str(Code.STACK_NO_MANAGER)
        assert len(channel.asked) == 38
        monkeypatch.setattr(stacks_module, "NOBODY_LASTS", 0.0)
    assert len(set(channel.asked)) == 38


async def test_the_history_is_known_on_every_worker(tmp_path: Path) -> None:
    cluster, fleet = MemoryCluster(), manager()
    await deploy(fleet)
    await DeployHistoryKeeper(fleet, MemoryStore(cluster, "w1")).copy()
    for stacks in (operations(fleet, cluster), operations(no_manager(), cluster), operations(None, cluster)):
        async with served(socket_of(tmp_path), stacks):
            (row,) = (await get(tmp_path, "/v1/stacks/shop/history"))["deploys"]
            await get(tmp_path, "/v1/stacks/nobody/history", 404)
        assert (row["service"], row["by"], row["at"]) == ("web", "kim@w1", "2027-01-15T08:00:00Z")
        assert len(row["digest"]) == 64
    cluster.out_of_reach = True
    async with served(socket_of(tmp_path), operations(no_manager(), cluster)):
        assert "out of reach" in (await get(tmp_path, "/v1/stacks/shop/history", 503))["error"]
    async with served(socket_of(tmp_path), operations(fleet, cluster)):
        assert (await get(tmp_path, "/v1/stacks/shop/history"))["deploys"][0]["image"] == "web:1"


def test_what_serves_is_known_by_the_ids_of_tasks() -> None:
    status = worker_status(OBSERVED)
    (service, *_) = status.services
    (endpoint, *_) = service.endpoints
    named = replace(endpoint, name="shop_web--r.1.task1", serving=True, health="healthy", last_probe=None)
    found = endpoint_answers(replace(status, services=(replace(service, endpoints=(named,)),)))
    assert found["task1"].serving
    assert (found["task1"].health, found["task1"].last_probe) == ("healthy", "")
    assert endpoint_answers(replace(status, services=(replace(service, endpoints=(replace(named, name=None),)),))) == {}


# ---------------------------------------------------------------------------------------------------------- the verbs


async def vipmesh(tmp_path: Path, fleet: Fleet, *line: str) -> int:
    """Run a verb with this engine on this host, and the daemon behind the socket."""
    options = build_parser().parse_args([*line, "--admin", socket_of(tmp_path).listen])
    match options.verb:
        case "scale":
            return await scale.scale_service(options, fleet)
        case "history":
            return await history.list_deploys(options, fleet)
        case _:
            return await engine_listing.list_instances(options, fleet, FakeReadiness(FakeFleet(), lambda: float(AT)))


async def test_ps_and_history_are_answered_by_the_daemon_where_the_engine_cannot(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    channel, cluster, fleet = channel_to("w2"), MemoryCluster(), manager()
    channel.answers["w2", "/v1/stacks?here=true"] = documented("w2")
    await deploy(fleet)
    await DeployHistoryKeeper(fleet, MemoryStore(cluster, "w2")).copy()
    here = no_manager()
    async with served(socket_of(tmp_path), operations(here, cluster), channel=channel):
        assert await vipmesh(tmp_path, here, "ps", "shop") == 0
        shown = capsys.readouterr().out.splitlines()
        assert (shown[1].split()[0], shown[-1]) == ("shop/web", "from the engine of w2")
        assert await vipmesh(tmp_path, here, "ps", "--json") == 0
        assert json.loads(capsys.readouterr().out)["worker"] == "w2"
        assert await vipmesh(tmp_path, here, "ps", "nobody") == 1
        assert "called nobody" in capsys.readouterr().err
        assert await vipmesh(tmp_path, here, "history", "shop") == 0
        assert re.fullmatch(r"2027-01-15T08:00:00Z  kim@w1  web  [0-9a-f]{8}\n", capsys.readouterr().out)
        assert await vipmesh(tmp_path, FakeFleet(), "history", "--json", "shop") == 0
        (row,) = json.loads(capsys.readouterr().out)["deploys"]
        assert (row["release"], row["image"], len(row["digest"])) == (None, None, 64)


async def test_ps_is_answered_by_the_daemon_of_this_host_as_by_its_engine(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    fleet = manager()
    await deploy(fleet)
    entrance = socket_of(tmp_path)
    async with served(entrance, operations(fleet)):
        for line in (["ps"], ["ps", "--json"], ["ps", "web"], ["ps", "nobody"], ["ps", "nobody", "--json"]):
            options = build_parser().parse_args([*line, "--admin", entrance.listen])
            by_daemon = await asyncio.to_thread(ps.ps, options), capsys.readouterr()
            readiness = FakeReadiness(fleet, lambda: float(AT))
            by_engine = await engine_listing.list_instances(options, fleet, readiness), capsys.readouterr()
            assert by_daemon == by_engine


async def test_a_daemon_that_does_not_tell_what_runs_leaves_it_to_the_engine(tmp_path: Path) -> None:
    entrance = socket_of(tmp_path)
    options = build_parser().parse_args(["ps", "--admin", entrance.listen])
    assert ps.ask_own_daemon(options) is None  # nobody listens
    channel = channel_to("w2")
    channel.answers["w2", "/v1/stacks?here=true"] = documented("w2")
    async with served(entrance, operations(no_manager()), channel=channel):
        assert await asyncio.to_thread(ps.ask_own_daemon, options) is None
    assert not channel.asked
    over_tcp = build_parser().parse_args(["ps", "--admin", "http://127.0.0.1:1"])
    assert ps.ask_own_daemon(over_tcp) is None


async def test_without_any_answer_the_verbs_say_why(tmp_path: Path) -> None:
    here = no_manager()
    with pytest.raises(FleetUnavailableError, match="no manager"):
        await vipmesh(tmp_path, here, "ps")
    async with served(socket_of(tmp_path), operations(here), channel=channel_to("w2")):
        for line in (("ps",), ("scale", "web=1")):
            with pytest.raises(StackRequestError, match="ask a worker whose engine is a manager") as raised:
                await vipmesh(tmp_path, here, *line)
            assert raised.value.code is Code.STACK_NO_MANAGER
        with pytest.raises(StackRequestError, match="vipmesh deploy --init") as raised:
            await vipmesh(tmp_path, FakeFleet(), "ps")
        assert raised.value.code is Code.STACK_NO_SWARM


@pytest.mark.parametrize("here", [no_manager(), FakeFleet()], ids=["no manager", "no swarm"])
async def test_verbs_of_managers_name_one_and_the_line_to_type_there(tmp_path: Path, here: FakeFleet) -> None:
    channel = channel_to("w2")
    channel.answers["w2", "/v1/stacks?here=true"] = documented("w2")
    file = tmp_path / "a shop.yaml"
    file.write_text("services: {web: {image: shop}}")
    settings = parse_settings("", {}, hostname="w1", file="-")

    before = await here.state()

    async def deploy_here(options: argparse.Namespace, fleet: Fleet) -> int:
        return await deploying.deploy_files(options, settings, fleet)

    lines = {
        f"deploy --prune --wait 5 --project shop '{file}'": deploy_here,
        "undeploy shop": deploying.undeploy_project,
        "rebalance --dry-run shop/web": rebalance.rebalance_services,
        "drain --worker w1": worker_drain.drain_worker,
        "undrain --worker w1": worker_drain.return_worker,
    }
    async with served(socket_of(tmp_path), operations(here), channel=channel):
        for line, run in lines.items():
            options = build_parser().parse_args([*shlex.split(line), "--admin", socket_of(tmp_path).listen])
            with pytest.raises(StackRequestError) as raised:
                await run(options, here)
            assert raised.value.code is Code.STACK_ON_MANAGER
            assert "that of w2 is; type on w2" in str(raised.value)
            assert str(raised.value).endswith(f": vipmesh {line}")
    assert await here.state() == before


async def test_a_daemon_scales_for_a_user_who_may_not_ask_the_engine(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    fleet, closed = manager(), manager()
    closed.faults.unreachable = "the engine: permission denied"
    await deploy(fleet)
    async with served(socket_of(tmp_path), operations(fleet)):
        assert await vipmesh(tmp_path, closed, "scale", "shop/web=3") == 0
        assert "by w1" in capsys.readouterr().out
        assert await vipmesh(tmp_path, closed, "scale", "--json", "web=3") == 0
    document = json.loads(capsys.readouterr().out)
    assert (document["project"], document["worker"], document["steps"]) == ("shop", "w1", [])
    assert [each.spec.instances for each in await fleet.services()] == [3]


class TwoWorkers:
    """`w1`, whose engine is no manager, and `w2`, whose engine is one."""

    def __init__(self, tmp_path: Path) -> None:
        self.fleet = manager()
        self.port = free_port()
        self.certs = tmp_path / "certs"
        self._directory = tmp_path
        holders = [
            (CertificateHolder("w2", is_worker=True), ["127.0.0.1"]),
            (CertificateHolder("kim", is_worker=False), []),
        ]
        make_certificates(self.certs, holders, datetime.now(UTC), 90)

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        channel = FakeWorkerChannel(FakeDirectory({"w2": RealKey("127.0.0.1", self.port)}))
        document = StacksDocument("w2", await operations(self.fleet).list())
        channel.answers["w2", "/v1/stacks?here=true"] = ChannelReply(msgspec.json.encode(document))
        there = AdminListenConfig(
            f"unix://{self._directory}/w2.sock",
            f"127.0.0.1:{self.port}",
            cert=self.certs / "w2.pem",
            client_ca=self.certs / "ca.pem",
        )
        async with AsyncExitStack() as stack:
            await stack.enter_async_context(served(there, operations(self.fleet), worker="w2"))
            here = served(socket_of(self._directory), operations(no_manager()), channel=channel)
            await stack.enter_async_context(here)
            yield


async def test_another_worker_scales_with_the_certificate_of_whoever_types_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    two = TwoWorkers(tmp_path)
    await deploy(two.fleet)
    own = ("--cert", str(two.certs / "kim.pem"), "--ca", str(two.certs / "ca.pem"))
    caplog.set_level("INFO")
    async with two.running():
        assert await vipmesh(tmp_path, no_manager(), "scale", "web=5", *own) == 0
        assert "by w2" in capsys.readouterr().out
        assert [each.spec.instances for each in await two.fleet.services()] == [5]
        assert any('audit: scale "shop/web" to 5 by "kim" at 127.0.0.1' in each.getMessage() for each in caplog.records)
        with pytest.raises(StackRequestError, match="no deployed service"):
            await vipmesh(tmp_path, no_manager(), "scale", "nobody=5", *own)


async def test_without_a_certificate_of_ones_own_the_worker_that_can_do_it_is_named(tmp_path: Path) -> None:
    two = TwoWorkers(tmp_path)
    await deploy(two.fleet)
    async with two.running():
        with pytest.raises(StackRequestError, match=r"the engine of w2 can do it.* --cert and --ca") as raised:
            await vipmesh(tmp_path, no_manager(), "scale", "web=5")
    assert raised.value.code is Code.STACK_ELSEWHERE
    assert [each.spec.instances for each in await two.fleet.services()] == [2]
