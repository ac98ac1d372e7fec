"""A stack becomes one engine service for each release."""

import re
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mesh.model.codes import Code
from mesh.platform.fleet.protocol import FleetContainer, FleetSpec
from mesh.platform.stacks.affinity import runs_label
from mesh.platform.stacks.digest import spec_digest
from mesh.platform.stacks.translate import engine_name, images_of, translate, with_digest_in_name
from tests.platform.stacks.stacks import SITE, desired_of, desired_web, service_text, stack_of

SECOND = 10**9
ROUTED = "labels: {mesh.routing.port_80: web}"
PINNED = {"shop/web:1": "shop/web:1@sha256:" + "a" * 64}


def test_the_engine_service_of_a_release() -> None:
    (web,) = desired_of(service_text(ROUTED), PINNED).services
    assert web.spec.name == f"shop_web--{web.digest[:8]}"
    assert web.release == web.digest[:8]
    assert web.spec.labels == {
        "mesh.stack": "shop",
        "mesh.service": "shop/web",
        "mesh.release": web.release,
        "mesh.digest": web.digest,
    }
    assert web.spec.container.labels == {
        "mesh.routing.port_80": "web",
        "mesh.routing.release": web.release,
        "mesh.service": "shop/web",
        "io.vipmesh.stop-grace": "40",
    }
    assert (web.image, web.spec.container.image) == ("shop/web:1", PINNED["shop/web:1"])
    assert (web.spec.container.stop_signal, web.spec.container.stop_grace) == ("SIGCONT", 40 * SECOND)
    assert (web.spec.container.nameservers, web.spec.container.search_domains) == (("10.112.0.1",), ("mesh.internal",))
    assert (web.spec.networks, web.spec.restart.condition) == ((), "any")


def test_a_release_of_the_file_names_the_engine_service() -> None:
    web = desired_web("labels: {aliyun.routing.port_80: web, aliyun.routing.release: v2}")
    assert (web.release, web.spec.name) == ("v2", "shop_web--v2")
    assert "mesh.routing.release" not in web.spec.container.labels
    assert with_digest_in_name(web, "shop").spec.name == f"shop_web--v2-{web.digest[:8]}"


@pytest.mark.parametrize(
    ("written", "signal", "grace"),
    [
        (ROUTED, "SIGCONT", 40),
        (f"{ROUTED}\nstop_grace_period: 5s", "SIGCONT", 35),
        (f"{ROUTED}\nstop_signal: SIGQUIT\nstop_grace_period: 5s", "SIGQUIT", 5),
        (f"{ROUTED}\nnetwork_mode: host", "SIGCONT", 40),
        ("stop_grace_period: 5s", "", 5),
        ("", "", 0),
    ],
)
def test_what_is_routed_to_drains_before_it_ends(written: str, signal: str, grace: int) -> None:
    container = desired_web(written).spec.container
    assert (container.stop_signal, container.stop_grace) == (signal, grace * SECOND)


@pytest.mark.parametrize(
    ("written", "nameservers", "domains", "codes"),
    [
        ("dns: 8.8.8.8", ("8.8.8.8",), (), [Code.STACK_KEY_IGNORED]),
        ("dns: [10.112.0.1, 8.8.8.8]", ("10.112.0.1", "8.8.8.8"), ("mesh.internal",), []),
        ("dns_search: x.test", ("10.112.0.1",), ("x.test", "mesh.internal"), []),
        ("dns_search: .", ("10.112.0.1",), (".",), []),
    ],
)
def test_the_resolver(written: str, nameservers: tuple[str, ...], domains: tuple[str, ...], codes: list[Code]) -> None:
    desired = desired_of(service_text(written))
    container = desired.services[0].spec.container
    assert (container.nameservers, container.search_domains) == (nameservers, domains)
    assert [problem.code for problem in desired.problems] == codes


CHANGES = [
    "environment: {A: 1}",
    "labels: {mesh.routing.port_81: web}",
    "labels: {other: x}",
    "mem_limit: 64m",
    "volumes: ['data:/x']",
    "command: x",
    "user: root",
    "environment: ['constraint:a==b']",
    "logging: {driver: local}",
]
NO_CHANGES = [
    "labels: {mesh.scale: 3}",
    "labels: {aliyun.scale: 3}",
    "deploy: {replicas: 5}",
    "labels: {mesh.rolling_updates: 'true'}",
    "labels: {mesh.latest_image: 'true'}",
    "depends_on: []",
    "x-anything: 1",
]


@pytest.mark.parametrize("written", CHANGES)
def test_what_makes_another_container_is_another_release(written: str) -> None:
    assert desired_web(written).digest != desired_web("").digest


def test_containers_are_told_that_they_are_measured_and_not_how() -> None:
    first, second = (desired_web(f"labels: {{mesh.auto_scaling.max_cpu: '{number}'}}") for number in (70, 80))
    assert first.digest == second.digest != desired_web("").digest
    assert first.spec.container.labels["io.vipmesh.scaled"] == "true"
    assert first.spec.labels["mesh.auto_scaling.max_cpu"] == "70"
    assert not any("auto_scaling" in key for key in first.spec.container.labels)


@pytest.mark.parametrize("written", NO_CHANGES)
def test_the_count_and_what_is_kept_beside_it_is_the_same_release(written: str) -> None:
    assert desired_web(written).digest == desired_web("").digest


def test_another_image_of_the_same_tag_is_another_release() -> None:
    stack = stack_of(service_text(ROUTED))
    images = [{"shop/web:1": f"shop/web:1@sha256:{digit * 64}"} for digit in "ab"]
    names = {translate(stack, known, SITE, {}).services[0].spec.name for known in images}
    assert len(names) == 2


def test_a_global_service_is_another_release_than_one_with_instances() -> None:
    assert desired_web("labels: {mesh.global: 'true'}").digest != desired_web("").digest


def test_the_number_in_force_goes_before_that_of_the_file() -> None:
    stack = stack_of(service_text("scale: 2"))
    (web,) = translate(stack, {}, SITE, {"web": 7}).services
    assert (web.spec.instances, web.written_instances) == (7, 2)
    every = stack_of(service_text("deploy: {mode: global}"))
    assert translate(every, {}, SITE, {"web": 7}).services[0].is_global


def test_the_digest_is_the_same_in_each_version() -> None:
    """It is kept in the engine: another one would make a new release of every service at the next deploy."""
    assert desired_web("").digest == "a9e985472b9f175bacdddabfa16455e0294ddb8d8cf833e3a7cf8f533379cc2e"


def test_the_digest_does_not_know_the_order_of_the_file() -> None:
    one = desired_web("environment: {A: 1, B: 2}\nlabels: {a: 1, b: 2}\nvolumes: ['data:/x', '/y']\nports: ['1', '2']")
    two = desired_web("ports: ['2', '1']\nvolumes: ['/y', 'data:/x']\nlabels: {b: 2, a: 1}\nenvironment: [B=2, A=1]")
    assert one.digest == two.digest


@given(st.dictionaries(st.text(), st.text()), st.dictionaries(st.text(), st.text()), st.integers(1, 1000))
def test_name_count_and_bookkeeping_are_no_part_of_the_digest(
    labels: dict[str, str], bookkeeping: dict[str, str], count: int
) -> None:
    spec = FleetSpec("a", FleetContainer("x", labels=labels))
    turned = dict(reversed(labels.items()))
    other = replace(spec, name="b", labels=bookkeeping, instances=count, container=FleetContainer("x", labels=turned))
    assert spec_digest(spec) == spec_digest(other)
    assert spec_digest(replace(spec, container=FleetContainer("y", labels=labels))) != spec_digest(spec)


@given(
    st.from_regex(r"[a-z0-9][a-z0-9_-]{0,80}", fullmatch=True),
    st.from_regex(r"[A-Za-z0-9._-]{1,80}", fullmatch=True),
    st.from_regex(r"[A-Za-z0-9._-]{1,64}", fullmatch=True),
)
def test_each_name_is_one_that_the_engine_takes(project: str, service: str, release: str) -> None:
    name = engine_name(project, service, release)
    assert re.fullmatch(r"[a-zA-Z0-9](?:[-_]*[A-Za-z0-9]+)*", name)
    assert len(name) <= 63
    assert engine_name(project, service, f"{release}x") != name


def test_names_that_are_made_to_fit_stay_different() -> None:
    assert engine_name("p", "a.b", "v1") != engine_name("p", "a-b", "v1")


def test_images_are_looked_up_once_and_asked_for_if_one_service_wants_it() -> None:
    text = "services: {a: {image: x}, b: {image: x, pull_policy: always}, c: {image: y}}"
    assert images_of(stack_of(text)) == {"x": True, "y": False}


def affinities_of(**written: list[str]) -> dict[str, tuple[tuple[str, ...], int]]:
    lines = "".join(f"  {name}: {{image: x, environment: {entries}}}\n" for name, entries in written.items())
    desired = desired_of(f"services:\n{lines}")
    return {service.name: (service.spec.constraints, service.spec.most_per_worker) for service in desired.services}


def test_affinities_are_constraints_over_what_workers_run() -> None:
    found = affinities_of(db=[], web=["affinity:service!=db", "affinity:a==b"], near=["affinity:service==db"])
    assert found["web"] == (
        tuple(sorted(("node.labels.mesh.runs.shop.db!=true", f"node.labels.{runs_label('a', 'b')}==true"))),
        0,
    )
    assert found["near"] == (("node.labels.mesh.runs.shop.db==true",), 0)


def test_a_service_that_avoids_itself_has_one_instance_on_a_worker() -> None:
    assert affinities_of(web=["affinity:service!=web"]) == {"web": ((), 1)}


def test_of_two_that_avoid_each_other_the_later_one_gives_way() -> None:
    found = affinities_of(a=["affinity:service!=b"], b=["affinity:service!=a"])
    assert found == {"a": ((), 0), "b": (("node.labels.mesh.runs.shop.a!=true",), 0)}


def test_zones_are_a_spread() -> None:
    assert desired_web("environment: ['availability:az==~2']").spec.spreads == ("node.labels.az",)


def test_a_service_with_data_is_marked_as_one_that_stays() -> None:
    assert desired_web("volumes: ['data:/x']").spec.labels["mesh.moves"] == "false"
