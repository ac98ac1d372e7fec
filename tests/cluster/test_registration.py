"""Registration: the services and endpoints that a worker offers for its instances."""

import tracemalloc
from collections.abc import Mapping
from dataclasses import replace
from ipaddress import ip_network

from mesh.cluster.registration import MAX_LABEL_CHARACTERS, Registration, register_instances
from mesh.model.codes import Code
from mesh.model.service import Endpoint, Instance, Route, Transport
from tests.builders import WEB_LABELS, instance


def instance_on_port(number: int, labels: Mapping[str, str], owner: str = "demo/web") -> Instance:
    return instance(f"{owner}/{number}", labels, owner, f"10.2.0.{number}", port=8000 + number)


def offered(*instances: Instance) -> Registration:
    return register_instances(instances, worker="w1", domain="mesh.internal", pool=ip_network("10.112.0.0/16"))


def test_instances_of_one_owner_are_endpoints_of_one_service() -> None:
    found = offered(
        instance_on_port(2, {**WEB_LABELS, "mesh.routing.weight": "5", "mesh.routing.release": "v2"}),
        instance_on_port(1, WEB_LABELS),
    )
    (service,) = found.services
    assert (service.owner, service.routes) == ("demo/web", (Route("web.test", 80, Transport.TCP, 80),))
    assert found.endpoints == (
        Endpoint("demo/web/1", "demo/web", "w1", "10.2.0.1", 8001),
        Endpoint("demo/web/2", "demo/web", "w1", "10.2.0.2", 8002, 5, "v2"),
    )
    assert found.problems == ()


def test_an_instance_without_routes_is_no_endpoint_and_no_problem() -> None:
    assert offered(instance_on_port(1, {"com.example": "x"})) == Registration((), (), ())


def test_if_labels_differ_most_instances_count_and_the_others_carry_their_own_declaration() -> None:
    other = {"mesh.routing.port_80": "other.test"}
    found = offered(instance_on_port(1, WEB_LABELS), instance_on_port(2, other), instance_on_port(3, other))
    [service] = found.services
    assert service.name == "other.test"
    own = [endpoint.declared for endpoint in found.endpoints]
    assert own[1:] == [None, None]
    assert own[0] is not None
    assert own[0].name == "web.test"


def test_an_endpoint_with_another_probe_carries_its_own_declaration() -> None:
    probed = {**WEB_LABELS, "mesh.probe.url": "tcp://container:80"}
    found = offered(instance_on_port(1, WEB_LABELS), instance_on_port(2, WEB_LABELS), instance_on_port(3, probed))
    [service] = found.services
    assert service.probe is None
    assert [e.declared is not None and e.declared.probe is not None for e in found.endpoints] == [False, False, True]
    assert found.problems == (), "probes are each endpoint's own"


def test_one_mistake_of_all_instances_is_reported_once_per_owner() -> None:
    bad = {**WEB_LABELS, "mesh.routing.weight": "heavy"}
    found = offered(instance_on_port(1, bad), instance_on_port(2, bad), instance_on_port(3, bad, owner="other/web"))
    assert [(where.id, problem.label) for where, problem in found.problems] == [
        ("demo/web/1", "mesh.routing.weight"),
        ("other/web/3", "mesh.routing.weight"),
    ]
    assert {endpoint.weight for endpoint in found.endpoints} == {1}


def test_a_fixed_vip_outside_of_the_pool_is_reported() -> None:
    ((_, problem),) = offered(instance_on_port(1, {**WEB_LABELS, "mesh.routing.vip": "192.0.2.1"})).problems
    assert "10.112.0.0/16" in str(problem)


def test_an_instance_whose_run_no_record_can_have_is_reported_and_left_out() -> None:
    good = instance_on_port(2, WEB_LABELS)
    found = offered(replace(instance_on_port(1, WEB_LABELS), run="x" * 65), good)
    assert [endpoint.id for endpoint in found.endpoints] == [good.id]
    ((_, problem),) = found.problems
    assert (problem.code, "a run has more than 64 characters" in problem.reason) == (Code.CONTAINER_UNUSABLE, True)


def test_an_instance_with_too_many_characters_of_labels_is_refused_alone() -> None:
    longest = {f"mesh.probe.header.X-{n}": "x" * 1000 for n in range(MAX_LABEL_CHARACTERS // 1000)}
    found = offered(instance_on_port(1, {**WEB_LABELS, **longest}, "demo/long"), instance_on_port(2, WEB_LABELS))
    assert [endpoint.owner for endpoint in found.endpoints] == ["demo/web"]
    ((_, problem),) = found.problems
    assert problem.code is Code.CONTAINER_UNUSABLE
    assert "more than 262144 characters" in problem.reason
    others = {f"com.example.{n}": "x" * 1000 for n in range(MAX_LABEL_CHARACTERS // 1000)}
    assert not offered(instance_on_port(3, {**WEB_LABELS, **others})).problems, "labels of others are no concern"


def test_containers_with_ever_other_labels_do_not_fill_the_memory() -> None:
    tracemalloc.start()
    try:
        for number in range(1000):
            offered(instance_on_port(1, {**WEB_LABELS, "mesh.x": f"{number} " + "x" * 60_000}))
            offered(instance(f"{number}" + "x" * 60_000, WEB_LABELS, "demo/web"))
        grown, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert grown < 16 << 20


def test_a_name_with_control_characters_is_shown_on_one_line() -> None:
    found = offered(instance_on_port(1, WEB_LABELS, "demo/web\n\x1b[2Jerror: all is lost"))
    ((_, problem),) = found.problems
    assert str(problem).isprintable()


def test_half_of_a_surrogate_pair_refuses_its_label_alone() -> None:
    labels = {**WEB_LABELS, "mesh.probe.url": "udp://container:53", "mesh.probe.send": "\ud800", "mesh.\udfff": "x"}
    found = offered(instance_on_port(1, labels))
    assert not found.failed
    assert [service.name for service in found.services] == ["web.test"]
    texts = [str(problem) for _, problem in found.problems]
    assert sum("half of a surrogate pair" in text for text in texts) == 2, texts
    assert all(text.isprintable() and text.encode() for text in texts)
