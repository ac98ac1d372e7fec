"""The verbs of stacks, on engines in memory: what people read, what programs get, and exit statuses."""

import argparse
import json
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import pytest

from mesh.cli import deploy as deploying
from mesh.cli import engine_listing, history, rebalance, scale, stack_access, stack_endpoints, worker_drain
from mesh.cli.main import main
from mesh.cli.parser import build_parser
from mesh.cli.stack_access import StackRequestError
from mesh.config.settings import parse_settings
from mesh.model.codes import Code
from mesh.model.errors import MeshError
from mesh.platform.fleet.protocol import Fleet
from mesh.platform.stacks.running import EndpointAnswer
from mesh.testing.fleet import FakeFleet, FakeImageRun, fake_worker

FILE = """
name: shop
services:
  server:
    image: test_service
    environment: {LEVEL: "%s"}
    labels:
      aliyun.routing.port_80: restserver.local
      aliyun.scale: "%s"
      aliyun.probe.url: http://container:80
"""
SETTINGS = parse_settings("", {}, hostname="w1", file="-")


class ServingReadiness:
    """Every task that runs serves, but those of broken images."""

    fleet: FakeFleet
    broken: set[str]
    error: MeshError | None

    def __init__(self, _: argparse.Namespace) -> None:
        pass

    async def answers(self) -> Mapping[str, EndpointAnswer]:
        """Return what is known of each task."""
        if self.error is not None:
            raise self.error
        images = {each.id: each.spec.container.image for each in await self.fleet.services()}
        return {
            task.id: EndpointAnswer(False, "unhealthy", "status 503")
            if images.get(task.service_id) in self.broken
            else EndpointAnswer(True, "healthy", "status 200")
            for task in await self.fleet.tasks()
        }


@pytest.fixture
def fleet(monkeypatch: pytest.MonkeyPatch) -> FakeFleet:
    fleet = FakeFleet([fake_worker("w1"), fake_worker("w2")])
    monkeypatch.setattr(ServingReadiness, "fleet", fleet, raising=False)
    monkeypatch.setattr(ServingReadiness, "broken", set(), raising=False)
    monkeypatch.setattr(ServingReadiness, "error", None, raising=False)
    monkeypatch.setattr(stack_access, "AdminReadiness", ServingReadiness)
    return fleet


def write(path: Path, level: int = 1, scale: int = 2) -> str:
    file = path / "shop.yaml"
    file.write_text(FILE % (level, scale))
    return str(file)


async def vipmesh(fleet: Fleet, *line: str) -> int:
    options = build_parser().parse_args(line)
    match options.verb:
        case "deploy":
            return await deploying.deploy_files(options, SETTINGS, fleet)
        case "undeploy":
            return await deploying.undeploy_project(options, fleet)
        case "scale":
            return await scale.scale_service(options, fleet)
        case "rebalance":
            return await rebalance.rebalance_services(options, fleet)
        case "drain":
            return await worker_drain.drain_worker(options, fleet)
        case "undrain":
            return await worker_drain.return_worker(options, fleet)
        case "history":
            return await history.list_deploys(options, fleet)
        case _:
            return await engine_listing.list_instances(options, fleet, ServingReadiness(options))


def read_json(capsys: pytest.CaptureFixture[str]) -> dict[str, Any]:
    document = json.loads(capsys.readouterr().out)
    assert isinstance(document, dict)
    return document


async def test_a_dry_run_shows_what_would_be_done_and_changes_nothing(
    fleet: FakeFleet, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert await vipmesh(fleet, "deploy", "--dry-run", write(tmp_path)) == 0
    assert "server: new service, 2 instances of test_service" in capsys.readouterr().out
    assert await fleet.services() == ()


async def test_a_deploy_a_second_one_and_a_scale(
    fleet: FakeFleet, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert await vipmesh(fleet, "deploy", write(tmp_path)) == 0
    assert "all is ready" in capsys.readouterr().out
    assert await vipmesh(fleet, "deploy", "--json", write(tmp_path)) == 0
    again = read_json(capsys)
    assert (again["steps"], [each["kind"] for each in again["changes"]]) == ([], ["nothing"])
    assert await vipmesh(fleet, "deploy", "--json", write(tmp_path, scale=3)) == 0
    assert [each["kind"] for each in read_json(capsys)["changes"]] == ["scale"]
    assert await vipmesh(fleet, "scale", "server=4") == 0
    assert [each.spec.instances for each in await fleet.services()] == [4]


async def test_another_environment_is_a_new_release_and_its_value_is_not_shown(
    fleet: FakeFleet, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    await vipmesh(fleet, "deploy", write(tmp_path, level=1))
    capsys.readouterr()
    assert await vipmesh(fleet, "deploy", write(tmp_path, level=987654)) == 0
    shown = capsys.readouterr().out
    assert "variable LEVEL has another value" in shown
    assert "(rolling: " in shown
    assert "987654" not in shown
    (service,) = await fleet.services()
    assert ("LEVEL", "987654") in service.spec.container.environment


async def test_what_did_not_become_ready_is_named_with_the_reason(
    fleet: FakeFleet, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    ServingReadiness.broken.add("test_service")
    assert await vipmesh(fleet, "deploy", "--wait", "0", write(tmp_path)) == 1
    assert "does not serve: status 503 [VM930]" in capsys.readouterr().err
    fleet.images.runs["test_service"] = FakeImageRun(pull_error="No such image: test_service")
    assert await vipmesh(fleet, "deploy", "--json", "--wait", "0", write(tmp_path, level=2)) == 1
    (failure,) = read_json(capsys)["failures"]
    assert (failure["service"], failure["wanted"]) == ("server", 2)
    assert "No such image" in failure["reasons"][0]


async def test_a_conflict_is_reported_as_such(
    fleet: FakeFleet, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    fleet.faults.conflicts = 1
    assert await vipmesh(fleet, "deploy", "--json", write(tmp_path)) == 1
    assert read_json(capsys)["code"] == str(Code.FLEET_CONFLICT)


async def test_no_swarm_is_refused_with_the_line_to_type_and_made_with_init(
    fleet: FakeFleet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    alone = FakeFleet()
    monkeypatch.setattr(ServingReadiness, "fleet", alone)
    with pytest.raises(StackRequestError, match="vipmesh deploy --init FILE"):
        await vipmesh(alone, "deploy", write(tmp_path))
    assert await vipmesh(alone, "deploy", "--dry-run", write(tmp_path)) == 0
    assert await vipmesh(alone, "deploy", "--init", write(tmp_path)) == 0
    with pytest.raises(StackRequestError, match="live-restore"):
        await vipmesh(FakeFleet(live_restore=True), "deploy", "--init", write(tmp_path))


async def test_ps_shows_what_runs_and_what_is_pending(
    fleet: FakeFleet, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    await vipmesh(fleet, "deploy", write(tmp_path))
    capsys.readouterr()
    assert await vipmesh(fleet, "ps") == 0
    row = capsys.readouterr().out.splitlines()[1].split()
    assert (row[0], row[2:5]) == ("shop/server", ["2", "2", "2"])
    assert await vipmesh(fleet, "ps", "--json", "shop") == 0
    (service,) = read_json(capsys)["services"]
    assert service["workers"] == {"w1": 1, "w2": 1}
    assert await vipmesh(fleet, "ps", "nobody") == 1
    assert "called nobody" in capsys.readouterr().err
    ServingReadiness.error = MeshError(Code.DAEMON_UNREACHABLE, "no daemon answers")
    assert await vipmesh(fleet, "ps") == 0
    shown = capsys.readouterr()
    assert "shop/server" in shown.out
    assert "what serves is not known: no daemon answers" in shown.err


async def test_ps_and_deploy_show_what_somebody_else_changed(
    fleet: FakeFleet, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from dataclasses import replace

    await vipmesh(fleet, "deploy", write(tmp_path))
    (service,) = await fleet.services()
    container = replace(service.spec.container, image="other:1")
    fleet.change_service(service.id, replace(service.spec, container=container))
    assert await vipmesh(fleet, "ps") == 0
    assert "changed outside vipmesh" in capsys.readouterr().out
    assert await vipmesh(fleet, "deploy", write(tmp_path)) == 0
    assert "changed outside vipmesh" in capsys.readouterr().out
    (service,) = await fleet.services()
    assert service.spec.container.image == "test_service"


async def test_history_says_who_deployed_what(
    fleet: FakeFleet, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for level in (1, 2):
        await vipmesh(fleet, "deploy", write(tmp_path, level=level))
    capsys.readouterr()
    assert await vipmesh(fleet, "history", "--json", "shop") == 0
    deploys = read_json(capsys)["deploys"]
    assert [(each["service"], each["image"]) for each in deploys] == [("server", "test_service")] * 2
    assert all("@" in each["by"] and each["at"].endswith("Z") for each in deploys)


async def test_undeploy_removes_the_project_and_names_the_volumes_that_stay(
    fleet: FakeFleet, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "db.yaml"
    file.write_text("name: shop\nservices: {db: {image: db, volumes: ['data:/data']}}\nvolumes: {data: }\n")
    assert await vipmesh(fleet, "deploy", str(file)) == 0
    assert await vipmesh(fleet, "undeploy", "shop") == 0
    assert "volumes that stay: shop_data" in capsys.readouterr().out
    assert await fleet.services() == ()
    with pytest.raises(StackRequestError, match="nothing of project shop"):
        await vipmesh(fleet, "undeploy", "shop")


async def test_a_refused_service_is_left_alone_and_the_others_are_deployed(
    fleet: FakeFleet, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "shop.yaml"
    file.write_text("name: shop\nservices: {a: {image: a}, b: {image: b, privileged: true}}\n")
    assert await vipmesh(fleet, "deploy", str(file)) == 1
    shown = capsys.readouterr()
    assert "privileged" in shown.err
    assert "b: is refused, and not started" in shown.out
    assert [each.spec.container.image for each in await fleet.services()] == ["a"]


@pytest.mark.parametrize("scaling", ["server", "server=", "=3", "server=x", "server=10000"])
def test_what_is_no_scaling_is_wrong_usage(scaling: str) -> None:
    with pytest.raises(SystemExit):
        build_parser().parse_args(["scale", scaling])


CROOKED = """
name: shop
services:
  server:
    image: test_service
    labels: {aliyun.routing.port_80: restserver.local, aliyun.scale: "4"}
  agent:
    image: agent
    labels: {aliyun.global: "true"}
  db:
    image: db
    volumes: ["data:/data"]
    labels: {aliyun.scale: "2"}
volumes: {data: {}}
"""


@pytest.fixture
def drained(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The tasks whose endpoints were drained or taken back."""
    found: list[str] = []

    async def change(_: object, verb: str, tasks: Collection[str]) -> tuple[str, ...]:
        found.extend(f"{verb} {task}" for task in tasks)
        return ()

    monkeypatch.setattr(stack_endpoints.AdminStackEndpoints, "_change", change)
    return found


async def deploy_crooked(fleet: FakeFleet, path: Path) -> None:
    """Deploy while `w2` is down, which is back then."""
    fleet.change_worker("w2-id", is_ready=False)
    file = path / "crooked.yaml"
    file.write_text(CROOKED)
    assert await vipmesh(fleet, "deploy", str(file)) == 0
    fleet.change_worker("w2-id", is_ready=True)


async def test_a_rebalancing_names_what_it_moves_and_leaves_data_and_global_services(
    fleet: FakeFleet, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    await deploy_crooked(fleet, tmp_path)
    capsys.readouterr()
    assert await vipmesh(fleet, "rebalance", "--dry-run", "--json") == 0
    planned = read_json(capsys)
    assert planned["moves"] == ["shop/server: an instance from w1 to w2"] * 2
    assert (planned["bound"], planned["everywhere"]) == (["shop/db"], ["shop/agent"])
    assert await vipmesh(fleet, "rebalance", "server") == 0
    assert (
        capsys.readouterr().out.splitlines()
        == [
            "shop/server: from 4 to 5 instances",
            "shop/server: from 5 to 4 instances",
        ]
        * 2
    )
    assert await vipmesh(fleet, "rebalance") == 0
    assert "all is spread evenly" in capsys.readouterr().out
    with pytest.raises(StackRequestError, match="no deployed service"):
        await vipmesh(fleet, "rebalance", "nobody")


async def test_a_drain_names_first_what_is_bound_and_does_nothing_unless_it_is_forced(
    fleet: FakeFleet, tmp_path: Path, capsys: pytest.CaptureFixture[str], drained: list[str]
) -> None:
    await deploy_crooked(fleet, tmp_path)
    capsys.readouterr()
    before = list(fleet.log)
    with pytest.raises(StackRequestError, match="bound to w1"):
        await vipmesh(fleet, "drain", "--worker", "w1")
    assert "shop/agent: has one instance on each worker; that of w1 ends" in capsys.readouterr().out
    assert await vipmesh(fleet, "drain", "--worker", "w1", "--dry-run", "--json") == 1
    assert read_json(capsys)["moves"] == ["shop/server: 4"]
    assert (fleet.log, drained) == (before, [])
    assert await vipmesh(fleet, "drain", "--worker", "w1", "--force") == 0
    assert "w1 is empty" in capsys.readouterr().out
    assert len(drained) == 4
    assert {task.worker_id for task in await fleet.tasks() if task.state == "running"} == {"w2-id"}
    assert await vipmesh(fleet, "undrain", "--worker", "w1-id", "--json") == 0
    assert read_json(capsys)["steps"] == ["w1: takes instances again"]


async def test_a_worker_that_the_swarm_does_not_have_is_named(fleet: FakeFleet) -> None:
    with pytest.raises(StackRequestError, match=r"its engines are: w1, w2$"):
        await vipmesh(fleet, "drain", "--worker", "w9")


def test_a_drain_of_nothing_is_wrong_usage(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["drain"]) == 2
    assert "ENDPOINT" in capsys.readouterr().err


async def test_a_swarm_without_a_leader_is_said_to_have_none(fleet: FakeFleet) -> None:
    fleet.faults.no_quorum = True
    for verb in (["ps"], ["scale", "server=2"]):
        options = build_parser().parse_args(verb)
        work = engine_listing.list_instances(options, fleet, ServingReadiness(options)) if verb == ["ps"] else None
        with pytest.raises(MeshError, match="start managers") as error:
            await (work or scale.scale_service(options, fleet))
        assert error.value.code is Code.FLEET_NO_QUORUM


async def test_a_service_whose_variables_are_not_known_is_refused_alone(
    fleet: FakeFleet, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "shop.yaml"
    file.write_text(
        "name: shop\nservices:\n  lost: {image: a, env_file: no.env}\n  whole: {image: a}\n"
        "  idle: {image: a, profiles: [debug], env_file: no.env}\n"
    )
    assert await vipmesh(fleet, "deploy", str(file)) == 1
    errors = capsys.readouterr().err
    assert "service lost, env_file" in errors
    assert "idle" not in errors
    assert [each.spec.container.image for each in await fleet.services()] == ["a"]
    assert [each.spec.name for each in await fleet.services() if "lost" in each.spec.name] == []
