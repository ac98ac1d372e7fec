"""Labels of images do not count, and labels of identity count only if the container has them itself."""

import asyncio
from collections.abc import Mapping
from contextlib import aclosing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mesh.model.codes import Code
from mesh.sources.docker.client import open_client, read_together
from mesh.sources.docker.identity import (
    LabelConstraint,
    LabelOrigins,
    LabelRules,
    counting_labels,
    identify_container,
    label_constraint,
    own_labels,
    unmet_constraints,
)
from mesh.sources.docker.instances import ContainerHistory, InstanceListing, InstanceRules, read_instances
from mesh.sources.docker.label_origins import OriginReader
from mesh.sources.docker.messages import ContainerSummary, HostConfig
from mesh.sources.docker.source import DockerSource
from tests.builders import WEB_LABELS
from tests.sources.docker.fake_engine import ID, IMAGE, FakeEngine

COMPOSE = {"com.docker.compose.project": "shop", "com.docker.compose.service": "web"}
WRITTEN_BY_COMPOSE = {**COMPOSE, "com.docker.compose.config-hash": "1f", "com.docker.compose.oneoff": "False"}
SWARM = {
    "com.docker.swarm.service.name": "shop_web",
    "com.docker.swarm.task.id": "t1",
    "com.docker.stack.namespace": "shop",
}
DEPLOYED = {"mesh.service": "shop/web"}
COUNT_OWN = LabelRules()
RULES = InstanceRules("mesh.internal", worker="192.0.2.11")


@pytest.mark.parametrize(
    ("labels", "image", "owner"),
    [
        pytest.param({}, {}, None, id="none"),
        pytest.param(WRITTEN_BY_COMPOSE, {}, ("shop", "web"), id="compose"),
        pytest.param(COMPOSE, {}, ("shop", "web"), id="by hand on the container"),
        pytest.param(COMPOSE, COMPOSE, None, id="in the image"),
        pytest.param({**COMPOSE, "com.docker.compose.service": "db"}, COMPOSE, None, id="one of two in the image"),
        pytest.param(WRITTEN_BY_COMPOSE, COMPOSE, ("shop", "web"), id="compose, over those of the image"),
        pytest.param(
            WRITTEN_BY_COMPOSE,
            {**WRITTEN_BY_COMPOSE, "com.docker.compose.config-hash": "2e"},
            ("shop", "web"),
            id="an image that was made of such a container",
        ),
        pytest.param(WRITTEN_BY_COMPOSE, WRITTEN_BY_COMPOSE, None, id="the image has all of them"),
        pytest.param(SWARM, {}, ("shop", "shop_web"), id="swarm"),
        pytest.param(SWARM, SWARM, None, id="swarm, in the image"),
        pytest.param(
            {k: v for k, v in SWARM.items() if "stack" not in k}, {}, ("swarm", "shop_web"), id="swarm without a stack"
        ),
        pytest.param(
            SWARM, {"com.docker.stack.namespace": "shop"}, ("swarm", "shop_web"), id="a stack that the image names"
        ),
        pytest.param(DEPLOYED, {}, ("shop", "web"), id="by a deployment"),
        pytest.param(DEPLOYED, DEPLOYED, None, id="by a deployment, in the image"),
        pytest.param({**DEPLOYED, **SWARM}, {}, ("shop", "web"), id="a deployment comes before swarm"),
        pytest.param({**DEPLOYED, **WRITTEN_BY_COMPOSE}, DEPLOYED, ("shop", "web"), id="compose, and one in the image"),
    ],
)
def test_the_service_of_a_container_without_a_manager(
    labels: Mapping[str, str], image: Mapping[str, str], owner: tuple[str, str] | None
) -> None:
    assert identify_container(labels, LabelOrigins(image)).owner == owner


@pytest.mark.parametrize(
    ("labels", "task", "owner", "unconfirmed"),
    [
        pytest.param(SWARM, {"com.docker.stack.namespace": "shop"}, ("shop", "shop_web"), None, id="a task"),
        pytest.param(SWARM, {}, ("swarm", "shop_web"), None, id="a stack that the service does not have"),
        pytest.param({**SWARM, **DEPLOYED}, DEPLOYED, ("shop", "web"), None, id="a task of a deployment"),
        pytest.param({**SWARM, **DEPLOYED}, {}, ("swarm", "shop_web"), None, id="a deployment that the service denies"),
        pytest.param(SWARM, None, None, "shop_web", id="no task"),
        pytest.param(DEPLOYED, None, None, "shop/web", id="a deployment without a task"),
        pytest.param(WRITTEN_BY_COMPOSE, None, ("shop", "web"), None, id="compose beside a swarm"),
    ],
)
def test_a_manager_knows_its_tasks(
    labels: Mapping[str, str], task: Mapping[str, str] | None, owner: tuple[str, str] | None, unconfirmed: str | None
) -> None:
    found = identify_container(labels, LabelOrigins(asks_manager=True, task=task))
    assert (found.owner, found.unconfirmed) == (owner, unconfirmed)


def test_a_manager_does_not_mind_labels_of_swarm_in_an_image() -> None:
    assert identify_container(SWARM, LabelOrigins(SWARM, asks_manager=True)).owner is None


@pytest.mark.parametrize("bad", ["", "a/b", "../x", "x" * 200, "a b", "-"])
def test_a_name_that_no_service_can_have_is_refused(bad: str) -> None:
    with pytest.raises(ValueError, match="is not valid"):
        identify_container({**COMPOSE, "com.docker.compose.service": bad}, LabelOrigins())


LABELS = st.dictionaries(
    st.sampled_from([*WRITTEN_BY_COMPOSE, *SWARM, *DEPLOYED, *WEB_LABELS]), st.sampled_from(["a", "b", "a/b"])
)


@given(LABELS)
def test_an_image_alone_decides_nothing(image: Mapping[str, str]) -> None:
    """Whatever an image has as labels: a container that adds none is no instance of any project."""
    origins = LabelOrigins(image)
    assert identify_container(image, origins).owner is None
    assert counting_labels(image, origins, LabelRules()) == {}


@given(LABELS, LABELS)
def test_labels_of_the_container_alone_all_count(own: Mapping[str, str], image: Mapping[str, str]) -> None:
    assert own_labels({**image, **own}, image) == {k: v for k, v in own.items() if image.get(k) != v}


@pytest.mark.parametrize(
    ("text", "labels", "met"),
    [
        ("env", {"env": "x"}, True),
        ("env", {}, False),
        ("env=production", {"env": "production"}, True),
        ("env=production", {"env": "test"}, False),
        ("env=", {"env": ""}, True),
        ("env=", {"env": "x"}, False),
        ("env=a=b", {"env": "a=b"}, True),
    ],
)
def test_a_required_label(text: str, labels: Mapping[str, str], met: bool) -> None:
    constraint = label_constraint(text)
    assert str(constraint) == text
    assert constraint.is_met_by(labels) is met


def test_labels_of_an_image_meet_no_requirement_unless_they_count() -> None:
    required, origins = (LabelConstraint("env"),), LabelOrigins({"env": "x"})
    assert unmet_constraints({"env": "x"}, origins, LabelRules(require=required)) == required
    assert unmet_constraints({"env": "x"}, origins, LabelRules(True, required)) == ()
    assert unmet_constraints({"env": "y"}, origins, LabelRules(require=required)) == ()


def listed(
    labels: Mapping[str, str], image: Mapping[str, str], rules: LabelRules = COUNT_OWN, **known: Any
) -> InstanceListing:
    container = ContainerSummary(
        id=ID, state="running", names=["/web-1"], labels=labels, image_id=IMAGE, host_config=HostConfig("host")
    )
    history = ContainerHistory(images={IMAGE: image}, **known)
    return read_instances([container], {}, replace(RULES, labels=rules), history)


def test_a_container_whose_labels_are_all_of_its_image_is_no_instance_and_reported() -> None:
    found = listed(WEB_LABELS, WEB_LABELS)
    assert found.instances == ()
    [problem] = found.problems
    assert problem.code is Code.IMAGE_LABELS_IGNORED
    assert "its image has the labels mesh.routing.port_80 with the same values" in str(problem)
    [instance] = listed(WEB_LABELS, WEB_LABELS, LabelRules(image_labels=True)).instances
    assert instance.owner == "docker/web.test"


def test_only_the_own_labels_of_a_container_declare_its_service() -> None:
    image = {"mesh.routing.port_80": "victim.test", "mesh.routing.weight": "100", **COMPOSE}
    own = {"mesh.routing.port_8080": "own.test"}
    found = listed({**image, **own}, image)
    [instance] = found.instances
    assert (instance.owner, dict(instance.labels)) == ("docker/own.test", own)
    assert [problem.code for problem in found.problems] == [Code.IMAGE_LABELS_IGNORED]


def test_image_labels_that_count_still_say_nothing_of_identity() -> None:
    image = {**WEB_LABELS, **COMPOSE}
    [instance] = listed(image, image, LabelRules(image_labels=True)).instances
    assert instance.owner == "docker/web.test"


def test_a_container_without_a_required_label_is_left_out_with_a_reason() -> None:
    rules = LabelRules(require=(LabelConstraint("env", "production"),))
    [problem] = listed(WEB_LABELS, {}, rules).problems
    assert problem.code is Code.REQUIRED_LABEL_MISSING
    assert "env=production" in str(problem)
    [instance] = listed({**WEB_LABELS, "env": "production"}, {}, rules).instances
    assert instance.name == "web-1"


def test_the_label_of_a_deployment_is_no_unknown_label() -> None:
    found = listed({**WEB_LABELS, **DEPLOYED}, {})
    [instance] = found.instances
    assert (instance.owner, dict(instance.labels)) == ("shop/web", dict(WEB_LABELS))
    assert found.problems == ()


def test_a_container_that_no_task_has_is_left_out_by_a_manager() -> None:
    found = listed({**WEB_LABELS, **SWARM}, {}, tasks={})
    assert found.instances == ()
    [problem] = found.problems
    assert problem.code is Code.SWARM_TASK_UNKNOWN
    assert listed({**WEB_LABELS, **SWARM}, {}, tasks={}, awaited=[ID]) == InstanceListing()
    [instance] = listed({**WEB_LABELS, **SWARM}, {}, tasks={ID: {"com.docker.stack.namespace": "shop"}}).instances
    assert instance.owner == "shop/shop_web"


async def first_list(engine: FakeEngine, place: Path, rules: LabelRules = COUNT_OWN) -> tuple[list[str], list[Code]]:
    """The owners and the codes of problems in the first list of a source."""
    async with engine.listening(place) as url:
        source = DockerSource(url, replace(RULES, labels=rules))
        async with aclosing(source.watch()) as lists:
            instances, problems = await anext(lists)
    return [instance.owner for instance in instances], [problem.code for problem in problems]


async def test_the_engine_tells_the_labels_of_an_image(tmp_path: Path) -> None:
    engine = FakeEngine()
    engine.labels = {**WEB_LABELS, **COMPOSE}
    engine.image = dict(COMPOSE)
    assert await first_list(engine, tmp_path / "socket") == (["docker/web.test"], [])
    engine.image = None
    assert await first_list(engine, tmp_path / "socket") == (["shop/web"], []), "an image that is gone says nothing"
    engine.image = dict(WEB_LABELS)
    assert await first_list(engine, tmp_path / "socket") == ([], [Code.IMAGE_LABELS_IGNORED])


async def test_a_manager_is_asked_for_the_task_of_a_container(tmp_path: Path) -> None:
    engine = FakeEngine()
    engine.labels = {**WEB_LABELS, **SWARM}
    assert (await first_list(engine, tmp_path / "socket"))[0] == ["shop/shop_web"], "no manager to ask"
    engine.tasks = []
    assert await first_list(engine, tmp_path / "socket") == ([], []), "its manager may learn of it yet"
    spec = {"ContainerSpec": {"Labels": {"com.docker.stack.namespace": "shop"}}}
    engine.tasks = [{"Spec": spec, "Status": {"ContainerStatus": {"ContainerID": ID}}}, {"Status": {}}]
    assert await first_list(engine, tmp_path / "socket") == (["shop/shop_web"], [])


async def test_an_image_is_read_once_and_a_task_is_not_forgotten(tmp_path: Path) -> None:
    engine, reader = FakeEngine(), OriginReader()
    engine.tasks = [{"Status": {"ContainerStatus": {"ContainerID": ID}}}]
    container = ContainerSummary(id=ID, state="running", labels=SWARM, image_id=IMAGE)
    async with engine.listening(tmp_path / "socket") as url, open_client(url) as docker:
        assert not await reader.update(docker, [container])
        engine.tasks = []
        assert not await reader.update(docker, [container])
        assert (reader.tasks, engine.images_read) == ({ID: {}}, 1)
        other = ContainerSummary(id="1" * 64, state="running", labels=SWARM, image_id=IMAGE)
        assert await reader.update(docker, [container, other]), "its manager may learn of it yet"
        assert reader.tasks is not None
        assert other.id not in reader.tasks
        assert not await reader.update(docker, [])
        assert reader.images == {}


async def test_without_a_leader_of_the_swarm_containers_come_and_go_and_only_new_tasks_wait(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mesh.sources.docker.label_origins.SWARM_ANSWER", 0.3)
    engine, reader = FakeEngine(), OriginReader()
    engine.tasks = [{"Status": {"ContainerStatus": {"ContainerID": ID}}}]
    known = ContainerSummary(id=ID, state="running", labels=SWARM, image_id=IMAGE)
    new = ContainerSummary(id="1" * 64, state="running", labels=SWARM, image_id=IMAGE)
    async with engine.listening(tmp_path / "socket") as url, open_client(url) as docker:
        assert not await reader.update(docker, [known])
        engine.is_leaderless = True
        assert await reader.update(docker, [known, new]), "it is asked again"
        assert (reader.tasks, reader.awaited) == ({ID: {}}, frozenset({new.id}))
        engine.is_leaderless = False
        engine.tasks.append({"Status": {"ContainerStatus": {"ContainerID": new.id}}})
        assert not await reader.update(docker, [known, new])
        assert (reader.tasks, reader.awaited) == ({ID: {}, new.id: {}}, frozenset())
        engine.is_leaderless = True
        with pytest.raises(TimeoutError):
            await OriginReader().update(docker, [known])


async def test_without_a_leader_of_the_swarm_a_list_does_not_wait_for_networks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mesh.sources.docker.source.SWARM_ANSWER", 0.3)
    engine = FakeEngine()
    async with (
        engine.listening(tmp_path / "socket") as url,
        asyncio.timeout(40),
        aclosing(DockerSource(url, RULES).watch()) as lists,
    ):
        instances, _ = await anext(lists)
        assert [instance.drain for instance in instances] == [None]
        engine.is_leaderless = True
        engine.labels = {"other": "1"}
        engine.tell("start")
        instances, _ = await anext(lists)
        assert instances == (), "the container has no label any more"


async def test_a_task_that_its_manager_learns_of_late_becomes_an_instance(tmp_path: Path) -> None:
    engine = FakeEngine()
    engine.labels, engine.tasks = {**WEB_LABELS, **SWARM}, []
    async with (
        engine.listening(tmp_path / "socket") as url,
        asyncio.timeout(20),
        aclosing(DockerSource(url, RULES).watch()) as lists,
    ):
        instances, _ = await anext(lists)
        assert instances == ()
        engine.tasks = [{"Status": {"ContainerStatus": {"ContainerID": ID}}}]
        instances, _ = await anext(lists)
        assert [instance.owner for instance in instances] == ["swarm/shop_web"]


async def test_an_error_of_one_request_leaves_none_under_way() -> None:
    ended: list[str] = []

    async def fails() -> str:
        raise OSError("the engine is gone")

    async def slow() -> str:
        await asyncio.sleep(0)
        ended.append("slow")
        return "slow"

    assert await read_together([slow(), slow()]) == ["slow", "slow"]
    ended.clear()
    with pytest.raises(OSError, match="the engine is gone"):
        await read_together([fails(), slow(), fails()])
    assert ended == ["slow"]
