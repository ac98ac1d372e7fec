"""Engines that refuse, hang, lie or are away: each is one of three errors, with the engine's own reason."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import aclosing
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from mesh.platform.fleet.encode import encode_spec
from mesh.platform.fleet.engine_objects import decode_service, decode_state, decode_task, decode_worker
from mesh.platform.fleet.errors import (
    FleetConflictError,
    FleetError,
    FleetNoQuorumError,
    FleetRefusedError,
    FleetUnavailableError,
)
from mesh.platform.fleet.protocol import FleetAvailability, FleetContainer, FleetSpec
from mesh.platform.fleet.refusals import refusal
from mesh.platform.fleet.swarm import SwarmFleet, changed_object
from mesh.sources.docker.messages import DockerEvent, EventActor

SPEC = FleetSpec("web", FleetContainer("web:1"))
DIGEST = "sha256:" + "a" * 64
NO_LEADER = "rpc error: code = Unknown desc = The swarm does not have a leader. It's possible that too few managers..."


@dataclass
class ScriptedEngine:
    """Answers what the test says, by method and path without the version; everything else is 404."""

    url: str
    answers: dict[str, tuple[int, Any]] = field(default_factory=dict)
    requests: list[tuple[str, dict[str, str], Any]] = field(default_factory=list)
    hangs: bool = False
    hanging: frozenset[str] = frozenset()
    """The paths that are not answered."""

    async def answer(self, request: web.Request) -> web.StreamResponse:
        if request.path == "/version":
            return web.json_response({"ApiVersion": "1.41", "MinAPIVersion": "1.12"})
        if self.hangs or request.path.removeprefix("/v1.41/") in self.hanging:
            await asyncio.Event().wait()
        what = f"{request.method} {request.path.removeprefix('/v1.41/')}"
        body = await request.read()
        self.requests.append(
            (what, dict(request.query), json.loads(body) if body.strip() not in (b"", b"null") else None)
        )
        status, data = self.answers.get(what, (404, {"message": "not found"}))
        return web.json_response(data, status=status)


@pytest.fixture
async def engine(tmp_path: Path) -> AsyncIterator[ScriptedEngine]:
    scripted = ScriptedEngine(f"unix://{tmp_path}/engine.sock")
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", scripted.answer)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    await web.UnixSite(runner, f"{tmp_path}/engine.sock").start()
    yield scripted
    await runner.cleanup()


def service(spec: FleetSpec, version: int = 7, **more: Any) -> dict[str, Any]:
    return {"ID": "s1", "Version": {"Index": version}, "Spec": {**encode_spec(spec), **more}}


@pytest.mark.parametrize(
    ("status", "message", "error", "reason"),
    [
        (500, "rpc error: code = Unknown desc = update out of sequence", FleetConflictError, "update out of sequence"),
        (404, "service web not found", FleetConflictError, "service web not found"),
        (409, "rpc error: code = AlreadyExists desc = name conflicts", FleetConflictError, "name conflicts"),
        (503, "This node is not a swarm manager.", FleetUnavailableError, "This node is not a swarm manager."),
        (500, NO_LEADER, FleetNoQuorumError, "the swarm has no leader: The swarm does not have a leader; containers"),
        (500, "rpc error: code = DeadlineExceeded desc = context deadline exceeded", FleetUnavailableError, "context"),
        (900, "Cannot connect", FleetUnavailableError, "Cannot connect"),
        (400, "rpc error: code = InvalidArgument desc = invalid cpu value", FleetRefusedError, "invalid cpu value"),
        (500, "line\n\x1b[31m" + "x" * 1000, FleetRefusedError, "line "),
    ],
)
def test_what_an_answer_means(status: int, message: str, error: type[FleetError], reason: str) -> None:
    found = refusal(status, message)
    assert type(found) is error
    assert str(found).startswith(reason)
    assert str(found).isprintable()
    assert len(str(found)) < 320


async def test_an_engine_that_hangs_is_unavailable_in_time(engine: ScriptedEngine) -> None:
    engine.hangs = True
    with pytest.raises(FleetUnavailableError, match=r"no answer in 0\.3 s"):
        await SwarmFleet(engine.url, answer=0.3).services()


@pytest.mark.parametrize("path", ["services", "info"])
async def test_an_engine_that_answers_but_not_for_its_swarm_has_no_quorum(engine: ScriptedEngine, path: str) -> None:
    engine.hanging = frozenset({path})
    engine.answers["GET containers/json"] = 200, []
    fleet = SwarmFleet(engine.url, answer=0.3)
    with pytest.raises(FleetNoQuorumError, match="more than half"):
        await (fleet.services() if path == "services" else fleet.state())


async def test_a_registry_that_does_not_answer_is_no_matter_of_the_swarm(
    engine: ScriptedEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mesh.platform.fleet.swarm.REGISTRY_TIMEOUT", 0.3)
    engine.hanging = frozenset({"distribution/web:1/json"})
    engine.answers["GET containers/json"] = 200, []
    with pytest.raises(FleetRefusedError, match=r"no answer in 0\.3 s"):
        await SwarmFleet(engine.url).resolve_image("web:1", pull=True)


async def test_an_engine_that_is_away_is_unavailable(tmp_path: Path) -> None:
    with pytest.raises(FleetUnavailableError, match="does not answer"):
        await SwarmFleet(f"unix://{tmp_path}/nothing.sock").state()


@pytest.mark.parametrize("body", [{"not": "a list"}, None, "text", 3])
async def test_an_answer_that_is_no_list_is_no_empty_list(engine: ScriptedEngine, body: Any) -> None:
    engine.answers = {f"GET {path}": (200, body) for path in ("services", "nodes", "tasks")}
    fleet = SwarmFleet(engine.url)
    for ask in (fleet.services, fleet.workers, fleet.tasks):
        with pytest.raises(FleetUnavailableError, match="no list"):
            await ask()


async def test_live_restore_is_refused_with_the_line_to_type(engine: ScriptedEngine) -> None:
    engine.answers["GET info"] = 200, {"LiveRestoreEnabled": True, "Swarm": {"LocalNodeState": "inactive"}}
    fleet = SwarmFleet(engine.url)
    assert (await fleet.state()).live_restore
    with pytest.raises(FleetRefusedError, match="systemctl restart docker"):
        await fleet.initialize()
    assert {what for what, _, _ in engine.requests} == {"GET info"}


async def test_a_fleet_is_made_on_loopback_with_a_heartbeat_of_two_seconds(engine: ScriptedEngine) -> None:
    engine.answers = {"GET info": (200, {"Swarm": {"LocalNodeState": "inactive"}}), "POST swarm/init": (200, "w1")}
    await SwarmFleet(engine.url).initialize()
    (body,) = [body for what, _, body in engine.requests if what == "POST swarm/init"]
    assert (body["ListenAddr"], body["AdvertiseAddr"]) == ("127.0.0.1:2377", "127.0.0.1")
    assert body["Spec"] == {"Dispatcher": {"HeartbeatPeriod": 2_000_000_000}}


async def test_a_scale_keeps_what_others_set_and_any_other_change_takes_it(engine: ScriptedEngine) -> None:
    drifted = service(SPEC, UpdateConfig={"Parallelism": 2})
    drifted["Spec"]["TaskTemplate"]["ForceUpdate"] = 4
    engine.answers = {"GET services/s1": (200, drifted), "POST services/s1/update": (200, {})}
    fleet = SwarmFleet(engine.url)

    async def sent(spec: FleetSpec) -> Any:
        engine.requests.clear()
        await fleet.replace("s1", 7, spec)
        ((_, query, body),) = [each for each in engine.requests if each[0].startswith("POST")]
        assert query == {"version": "7"}
        return body

    scaled = await sent(replace(SPEC, instances=9))
    assert scaled == {**drifted["Spec"], "Mode": {"Replicated": {"Replicas": 9}}}
    for spec in (SPEC, replace(SPEC, container=FleetContainer("web:2"))):
        whole = await sent(spec)
        assert "UpdateConfig" not in whole
        assert whole["TaskTemplate"]["ForceUpdate"] == 4, "another number would make other containers"
    with pytest.raises(FleetConflictError, match="since version 6"):
        await fleet.replace("s1", 6, SPEC)


async def test_a_worker_keeps_its_role_and_its_name(engine: ScriptedEngine) -> None:
    spec = {"Role": "manager", "Name": "n", "Availability": "active", "Labels": {"old": "1"}}
    engine.answers = {"GET nodes/w1": (200, {"ID": "w1", "Spec": spec}), "POST nodes/w1/update": (200, None)}
    await SwarmFleet(engine.url).set_worker("w1", 3, {"az": "1"}, FleetAvailability.PAUSE)
    assert engine.requests[-1] == (
        "POST nodes/w1/update",
        {"version": "3"},
        {**spec, "Labels": {"az": "1"}, "Availability": "pause"},
    )


async def test_an_image_that_is_here_is_pinned_without_the_registry(engine: ScriptedEngine) -> None:
    here = {"RepoDigests": ["other@sha256:" + "b" * 64, f"shop/web@{DIGEST}"]}
    engine.answers["GET images/shop/web:1/json"] = 200, here
    engine.answers["GET distribution/shop/web:1/json"] = 200, {"Descriptor": {"digest": "sha256:" + "c" * 64}}
    fleet = SwarmFleet(engine.url)
    assert await fleet.resolve_image("shop/web:1", pull=False) == f"shop/web:1@{DIGEST}"
    assert [what for what, _, _ in engine.requests] == ["GET images/shop/web:1/json"]
    assert await fleet.resolve_image("shop/web:1", pull=True) == f"shop/web:1@sha256:{'c' * 64}"
    engine.answers["GET images/docker.io/library/web:1/json"] = 200, {"RepoDigests": [f"web@{DIGEST}"]}
    assert await fleet.resolve_image("docker.io/library/web:1", pull=False) == f"docker.io/library/web:1@{DIGEST}"


async def test_a_digest_that_is_none_is_not_taken(engine: ScriptedEngine) -> None:
    engine.answers["GET distribution/web:1/json"] = 200, {"Descriptor": {"digest": "sha256:../../x"}}
    assert await SwarmFleet(engine.url).resolve_image("web:1", pull=False) == "web:1"


async def test_networks_are_called_by_their_names(engine: ScriptedEngine) -> None:
    engine.answers["GET services"] = 200, [service(replace(SPEC, networks=("n1", "gone")))]
    engine.answers["GET networks/n1"] = 200, {"Name": "host"}
    (found,) = await SwarmFleet(engine.url).services()
    assert found.spec.networks == ("host", "gone")


async def test_changes_come_again_after_a_gap(engine: ScriptedEngine) -> None:
    engine.answers["GET events"] = 200, {"Type": "service", "Action": "update", "Actor": {"ID": "s1"}}
    async with asyncio.timeout(30), aclosing(SwarmFleet(engine.url).changes()) as changes:  # type: ignore[type-var]
        assert [await anext(changes) for _ in range(4)] == ["", "s1", "", "s1"]


def test_only_containers_of_tasks_are_changes() -> None:
    task = EventActor("c1", {"com.docker.swarm.task.id": "t1"})
    assert changed_object(DockerEvent("container", "start", task)) == "c1"
    assert changed_object(DockerEvent("container", "start", EventActor("c2"))) == ""
    assert changed_object(DockerEvent("node", "update", EventActor("w1"))) == "w1"


@pytest.mark.parametrize("decode", [decode_service, decode_worker, decode_task])
@pytest.mark.parametrize("raw", [None, [], 3, {}, {"ID": 3}, {"ID": "x" * 100_000}, {"ID": ""}])
def test_an_object_without_an_id_is_none(decode: Callable[[object], object], raw: object) -> None:
    assert decode(raw) is None


def test_fields_of_another_type_count_as_missing() -> None:
    worker = decode_worker(
        {"ID": "w", "Version": 3, "Spec": {"Labels": [], "Availability": "later"}, "Status": "ready"}
    )
    assert worker is not None
    assert (worker.version, worker.labels, worker.is_ready) == (0, {}, False)
    assert worker.availability is FleetAvailability.PAUSE
    task = decode_task({"ID": "t", "ServiceID": "s", "Slot": "1", "Status": {"Timestamp": "never", "State": "failed"}})
    assert task is not None
    assert (task.slot, task.since, task.exit_code) == (0, 0.0, 0)


@pytest.mark.parametrize(
    ("swarm", "active", "can_act", "reason"),
    [
        (None, False, False, "not part of a swarm"),
        ({"LocalNodeState": "inactive"}, False, False, "not part of a swarm"),
        ({"LocalNodeState": "locked"}, False, False, "locked"),
        ({"LocalNodeState": "active", "ControlAvailable": True}, True, True, ""),
        ({"LocalNodeState": "active", "ControlAvailable": False}, True, False, "no manager"),
        ({"LocalNodeState": "active", "ControlAvailable": True, "Error": "no leader"}, True, False, "no leader"),
    ],
)
def test_what_the_engine_is_to_the_fleet(swarm: object, active: bool, can_act: bool, reason: str) -> None:
    state = decode_state({"Swarm": swarm})
    assert (state.is_active, state.can_act) == (active, can_act)
    assert reason in state.reason
    assert bool(state.reason) is not can_act
