"""register: what a worker offers of the instances it runs."""

from ipaddress import ip_network

from mesh.cluster.registration import Registration, register_instances
from mesh.model.service import Endpoint, Instance, Route, Transport

WEB = {"mesh.routing.port_80": "web.test"}


def instance(number: int, labels: dict[str, str], owner: str = "demo/web") -> Instance:
    return Instance(f"{owner}/{number}", owner, f"10.2.0.{number}", labels, port=8000 + number)


def offered(*instances: Instance) -> Registration:
    return register_instances(instances, worker="w1", domain="mesh.internal", pool=ip_network("10.112.0.0/16"))


def test_instances_of_one_owner_are_endpoints_of_one_service() -> None:
    found = offered(instance(2, {**WEB, "mesh.routing.weight": "5", "mesh.routing.release": "v2"}), instance(1, WEB))
    (service,) = found.services
    assert (service.owner, service.routes) == ("demo/web", (Route("web.test", 80, Transport.TCP, 80),))
    assert found.endpoints == (
        Endpoint("demo/web/1", "demo/web", "w1", "10.2.0.1", 8001),
        Endpoint("demo/web/2", "demo/web", "w1", "10.2.0.2", 8002, 5, "v2"),
    )
    assert found.problems == ()


def test_what_nothing_routes_to_is_no_endpoint_and_no_problem() -> None:
    assert offered(instance(1, {"com.example": "x"})) == Registration((), (), ())


def test_while_labels_differ_the_first_instance_counts_and_it_is_told_once() -> None:
    other = {"mesh.routing.port_80": "other.test"}
    found = offered(instance(1, WEB), instance(2, other), instance(3, other))
    assert [service.name for service in found.services] == ["web.test"]
    assert len(found.endpoints) == 3
    ((where, problem),) = found.problems
    assert where.id == "demo/web/2"
    assert "declare another service than those of demo/web/1, which count" in str(problem)


def test_the_same_mistake_of_all_instances_is_told_once_per_owner() -> None:
    bad = {**WEB, "mesh.routing.weight": "heavy"}
    found = offered(instance(1, bad), instance(2, bad), instance(3, bad, owner="other/web"))
    assert [(where.id, problem.label) for where, problem in found.problems] == [
        ("demo/web/1", "mesh.routing.weight"),
        ("other/web/3", "mesh.routing.weight"),
    ]
    assert {endpoint.weight for endpoint in found.endpoints} == {1}


def test_a_fixed_vip_outside_of_the_pool_is_told() -> None:
    ((_, problem),) = offered(instance(1, {**WEB, "mesh.routing.vip": "192.0.2.1"})).problems
    assert "10.112.0.0/16" in str(problem)
