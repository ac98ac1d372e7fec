"""The worker's own endpoints in the cluster view, before the store confirms them."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mesh.control.local_overlay import LocalOverlay
from mesh.model.service import DrainReason, Endpoint, EndpointKey, Health, Instance
from mesh.model.view import ClusterView
from tests.builders import endpoint, instance

A, B = endpoint(), endpoint("b", address="10.2.0.2")
OTHER = Endpoint("a", "demo/web", "w2", "10.2.0.3")
ELSE = Endpoint("c", "demo/shop", "w2", "10.2.0.4")
VIEW = ClusterView(endpoints=(A, OTHER, B, ELSE), health={A.key: Health.HEALTHY, OTHER.key: Health.HEALTHY})
HEALTH = {"a": Health.HEALTHY, "b": Health.STARTING}


def seen(instances: list[Instance] | None, health: dict[str, Health], view: ClusterView = VIEW) -> ClusterView:
    return LocalOverlay("w1").after(view, here(instances), of_w1(health)).overlaid()


def of_w1(health: dict[str, Health]) -> dict[EndpointKey, Health]:
    return {("w1", id): said for id, said in health.items()}


def here(instances: list[Instance] | None) -> dict[str, Instance] | None:
    return None if instances is None else {instance.id: instance for instance in instances}


def test_without_differences_the_view_is_the_same_object() -> None:
    assert seen([instance("a"), instance("b")], HEALTH) is VIEW
    assert seen(None, HEALTH) is VIEW, "not all sources have answered"


def test_a_stopped_instance_is_removed_and_another_workers_endpoint_with_its_id_is_not() -> None:
    assert seen([instance("b")], HEALTH).endpoints == (OTHER, B, ELSE)


def test_a_drain_and_the_health_from_the_engine_apply_at_once() -> None:
    now = seen([instance(drain=DrainReason.STOPPING, health=Health.UNHEALTHY), instance("b")], HEALTH)
    assert now.endpoints == (replace(A, drain=DrainReason.STOPPING, health=Health.UNHEALTHY), OTHER, B, ELSE)


@pytest.mark.parametrize(
    ("health", "then"),
    [
        pytest.param({"a": Health.UNHEALTHY}, {A.key: Health.UNHEALTHY, OTHER.key: Health.HEALTHY}, id="failed"),
        pytest.param({"a": Health.STARTING}, {OTHER.key: Health.HEALTHY}, id="starting is not told"),
        pytest.param({}, {OTHER.key: Health.HEALTHY}, id="of a former life"),
        pytest.param(
            {"a": Health.HEALTHY, "b": Health.UNHEALTHY},
            {A.key: Health.HEALTHY, B.key: Health.UNHEALTHY, OTHER.key: Health.HEALTHY},
            id="new",
        ),
    ],
)
def test_own_probes_decide_for_own_endpoints(health: dict[str, Health], then: dict[tuple[str, str], Health]) -> None:
    assert seen(None, health).health == then


def test_unaffected_endpoints_stay_the_same_objects() -> None:
    now = seen(None, {"a": Health.UNHEALTHY})
    assert now.endpoints is VIEW.endpoints
    assert now.groups["demo/shop"] is VIEW.groups["demo/shop"]
    assert now.groups["demo/web"].verdicts == (Health.UNHEALTHY, Health.HEALTHY, None)


@given(
    st.lists(
        st.builds(instance, st.sampled_from("ab"), st.sampled_from([None, *DrainReason])), unique_by=lambda i: i.id
    ),
    st.dictionaries(st.sampled_from("ab"), st.sampled_from(Health)),
)
def test_groups_match_the_endpoints(instances: list[Instance], health: dict[str, Health]) -> None:
    now = seen(instances, health)
    assert now.groups == replace(now).groups


@given(
    st.lists(
        st.tuples(
            st.none() | st.lists(st.builds(instance, st.sampled_from("abc"), st.sampled_from([None, *DrainReason]))),
            st.dictionaries(st.sampled_from("abc"), st.sampled_from(Health)),
            st.lists(st.sampled_from([A, B, OTHER, ELSE, replace(A, weight=7)]), unique_by=lambda e: e.key),
            st.dictionaries(st.sampled_from([A.key, B.key, OTHER.key, ("w1", "x")]), st.sampled_from(Health)),
        )
    )
)
def test_incremental_updates_equal_a_fresh_overlay(
    steps: list[tuple[list[Instance] | None, dict[str, Health], list[Endpoint], dict[tuple[str, str], Health]]],
) -> None:
    local = LocalOverlay("w1")
    for instances, probed, endpoints, health in steps:
        ordered = tuple(sorted(endpoints, key=lambda endpoint: (endpoint.id, endpoint.worker)))
        view = ClusterView(endpoints=ordered, health=health)
        local = local.after(view, here(instances), of_w1(probed))
        assert local.overlaid() == LocalOverlay("w1").after(view, here(instances), of_w1(probed)).overlaid()
        again = local.after(view, local.instances, of_w1(probed))
        assert (again.endpoints, again.verdicts) == (local.endpoints, local.verdicts)
