"""Instances from the container list of an engine (20.10, API 1.41), and from variations of it."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import pytest

from mesh.config.settings import EndpointAddress
from mesh.model.service import DrainReason, Health, HostPort, Transport
from mesh.sources.docker.inspection import ContainerInspection
from mesh.sources.docker.instances import (
    MAX_LABELS,
    TEST_LABEL,
    ContainerHistory,
    InstanceListing,
    InstanceRules,
    read_instances,
)
from mesh.sources.docker.messages import ContainerSummary
from tests.builders import WEB_LABELS

CAPTURED = json.loads((Path(__file__).parent / "data" / "containers.json").read_text())
DRIVERS = {"bridge": "bridge", "front": "bridge", "inner": "bridge", "six": "bridge", "host": "host", "lan": "macvlan"}
RULES = InstanceRules("mesh.internal", worker="192.0.2.11")
OTHERS = replace(RULES, alone=False)
NO_HISTORY = ContainerHistory()


def listing(containers: Any, rules: InstanceRules = RULES, known: ContainerHistory = NO_HISTORY) -> InstanceListing:
    return read_instances(msgspec.convert(containers, list[ContainerSummary]), DRIVERS, rules, known)


def captured(name: str) -> dict[str, Any]:
    found: dict[str, Any] = next(c for c in CAPTURED if c["Names"] == [f"/{name}"])
    return found


def container(name: str = "web-1", **changes: Any) -> dict[str, Any]:
    """One container on the default bridge."""
    id = name.encode().hex().ljust(64, "0")
    networks = {"bridge": {"IPAddress": "172.29.0.2", "GlobalIPv6Address": ""}}
    return {
        "Id": id,
        "Names": [f"/{name}"],
        "State": "running",
        "Status": "Up 3 seconds",
        "Labels": WEB_LABELS,
        "Ports": [],
        "HostConfig": {"NetworkMode": "default"},
        "NetworkSettings": {"Networks": networks},
        **changes,
    }


def networks(**addresses: str) -> dict[str, Any]:
    return {"Networks": {name: {"IPAddress": address} for name, address in addresses.items()}}


def port(private: int, public: int | None, ip: str = "0.0.0.0", kind: str = "tcp") -> dict[str, Any]:
    return {"IP": ip, "PrivatePort": private, "PublicPort": public, "Type": kind}


def test_a_list_of_a_real_engine() -> None:
    found = listing(CAPTURED)
    places = {i.name: (i.owner, i.address, i.drain) for i in found.instances}
    assert places == {
        "plain": ("docker/web.test", "172.29.0.2", None),
        "pub": ("docker/web.test", "172.29.0.3", None),
        "two": ("docker/web.test", "172.30.1.2", None),
        "hostnet": ("docker/web.test", "192.0.2.11", None),
        "six6": ("docker/web.test", "172.30.2.2", None),
        "share": ("docker/web.test", "172.29.0.2", None),
        "comp": ("shop/web", "172.29.0.4", None),
        "paused": ("docker/web.test", "172.29.0.5", DrainReason.PAUSED),
    }
    (problem,) = found.problems
    assert str(problem) == (
        "error: container none: it has no IPv4 address that this worker can reach; "
        "attach it to a network that gives it an IPv4 address, or publish its ports"
    )
    assert sorted(found.instances, key=lambda i: i.id) == list(found.instances)
    assert len({i.id for i in found.instances}) == 8


def test_ipv6_vips_take_ipv6_addresses() -> None:
    (six,) = listing([captured("six6")], replace(RULES, version=6)).instances
    assert six.address == "fd00:77::2"
    assert "IPv6" in str(listing([captured("plain")], replace(RULES, version=6)).problems[0])


@pytest.mark.parametrize(
    ("given", "rules", "address", "ports"),
    [
        pytest.param({}, RULES, "172.29.0.2", (), id="alone: the container's"),
        pytest.param(
            {"Ports": [port(80, 8080)]},
            OTHERS,
            "192.0.2.11",
            (HostPort(Transport.TCP, 80, 8080),),
            id="with other workers: the worker's",
        ),
        pytest.param(
            {"Ports": [port(80, 8080)]},
            replace(RULES, endpoint_address=EndpointAddress.HOST),
            "192.0.2.11",
            (HostPort(Transport.TCP, 80, 8080),),
            id="asked for the worker's",
        ),
        pytest.param(
            {},
            replace(OTHERS, endpoint_address=EndpointAddress.CONTAINER),
            "172.29.0.2",
            (),
            id="asked for the container's",
        ),
        pytest.param(
            {"NetworkSettings": networks(lan="192.0.2.77")}, OTHERS, "192.0.2.77", (), id="macvlan: all can reach it"
        ),
        pytest.param(
            {"NetworkSettings": networks(bridge="172.29.0.2", lan="192.0.2.77")},
            OTHERS,
            "192.0.2.77",
            (),
            id="of two networks the one that all can reach",
        ),
        pytest.param(
            {
                "NetworkSettings": networks(inner="172.30.3.2", front="172.30.1.2"),
                "HostConfig": {"NetworkMode": "inner"},
            },
            RULES,
            "172.30.3.2",
            (),
            id="of two networks the one it was created on",
        ),
        pytest.param(
            {
                "NetworkSettings": networks(inner="172.30.3.2", front="172.30.1.2"),
                "HostConfig": {"NetworkMode": "gone"},
            },
            RULES,
            "172.30.1.2",
            (),
            id="of two networks else the first by name",
        ),
        pytest.param(
            {
                "Labels": {"mesh.routing.port_53/udp": "ns.test"},
                "Ports": [port(53, 1, kind="tcp"), port(53, 5353, kind="udp")],
            },
            OTHERS,
            "192.0.2.11",
            (HostPort(Transport.UDP, 53, 5353),),
            id="the port of the same transport",
        ),
        pytest.param(
            {"Ports": [port(80, 8081, ip="127.0.0.1"), port(80, 8082, ip="192.0.2.11")]},
            OTHERS,
            "192.0.2.11",
            (HostPort(Transport.TCP, 80, 8082),),
            id="published on the worker's address only",
        ),
    ],
)
def test_the_address_of_an_instance(
    given: dict[str, Any], rules: InstanceRules, address: str, ports: tuple[HostPort, ...]
) -> None:
    (instance,) = listing([container(**given)], rules).instances
    assert (instance.address, instance.host_ports) == (address, ports)


@pytest.mark.parametrize(
    ("given", "rules", "says"),
    [
        pytest.param({}, OTHERS, "its port 80 is not published on 192.0.2.11; run it with -p 80", id="not published"),
        pytest.param(
            {"Ports": [port(80, 8081, ip="127.0.0.1")]}, OTHERS, "its port 80 is not published", id="on loopback only"
        ),
        pytest.param(
            {"Ports": [port(80, 8080)]}, replace(OTHERS, worker=None), "set [node] address", id="worker unknown"
        ),
        pytest.param(
            {"HostConfig": {"NetworkMode": "container:" + "f" * 64}, "NetworkSettings": {"Networks": {}}},
            RULES,
            "the container whose network it shares does not run",
            id="shares a network that is gone",
        ),
        pytest.param(
            {"HostConfig": {"NetworkMode": "container:" + b"web-1".hex().ljust(64, "0")}},
            RULES,
            "the container whose network it shares does not run",
            id="shares its own network",
        ),
        pytest.param(
            {"Labels": {**WEB_LABELS, "com.docker.compose.project": "a/b", "com.docker.compose.service": "web"}},
            RULES,
            "its project or service name 'a/b' is not valid",
            id="a project that looks like a path",
        ),
        pytest.param(
            {"Labels": {f"mesh.routing.port_{n}": f"n{n}.test" for n in range(1, 10_001)}},
            RULES,
            f"it has 10000 labels of the mesh, or one of them is too long; give it at most {MAX_LABELS}",
            id="10,000 routing labels",
        ),
        pytest.param(
            {"Labels": {"mesh.routing.port_80": "x" * 1_000_000}}, RULES, "one of them is too long", id="a huge label"
        ),
    ],
)
def test_unreachable_or_invalid_containers_are_left_out_and_reported(
    given: dict[str, Any], rules: InstanceRules, says: str
) -> None:
    found = listing([container(**given), container("good", NetworkSettings=networks(lan="192.0.2.78"))], rules)
    assert [i.name for i in found.instances] == ["good"], "the others go on"
    (problem,) = found.problems
    assert says in str(problem)
    assert str(problem).startswith("error: container web-1: ")
    assert len(str(problem)) < 500


@pytest.mark.parametrize(
    ("given", "why"),
    [
        ({"Labels": {"other": "label"}}, "not labelled"),
        ({"Labels": None}, "no labels at all"),
        ({"State": "restarting"}, "between two lives"),
        ({"State": "created"}, "not started"),
        ({"Labels": {**WEB_LABELS, "com.docker.compose.oneoff": "True"}}, "docker compose run"),
    ],
)
def test_containers_that_are_no_instances(given: dict[str, Any], why: str) -> None:
    assert listing([container(**given)]) == InstanceListing(), why


def test_labels_that_route_nothing_are_reported_with_the_container() -> None:
    found = listing([container(Labels={"mesh.routing.prot_80": "web.test"})])
    assert found.instances == ()
    assert "container web-1: warning: service web-1, label mesh.routing.prot_80: there is no such label" in str(
        found.problems[0]
    )


@pytest.mark.parametrize(
    ("labels", "owner"),
    [
        ({**WEB_LABELS, "com.docker.compose.project": "shop", "com.docker.compose.service": "web"}, "shop/web"),
        (
            {**WEB_LABELS, "com.docker.swarm.service.name": "shop_web", "com.docker.stack.namespace": "shop"},
            "shop/shop_web",
        ),
        ({**WEB_LABELS, "com.docker.swarm.service.name": "web"}, "swarm/web"),
        (WEB_LABELS, "docker/web.test"),
        ({"aliyun.routing.port_8080": "web"}, "docker/web.mesh.internal"),
        ({"mesh.routing.publish.port_80": "auto"}, "docker/web-1"),
    ],
)
def test_the_owner_of_an_instance(labels: dict[str, str], owner: str) -> None:
    (instance,) = listing([container(Labels=labels)]).instances
    assert instance.owner == owner
    assert instance.id == f"{owner}/{b'web-1'.hex().ljust(64, '0')[:12]}", "a container that is renamed stays itself"


@pytest.mark.parametrize(
    ("status", "health"),
    [
        ("Up 3 seconds", None),
        ("Up 3 seconds (healthy)", Health.HEALTHY),
        ("Up 2 hours (unhealthy)", Health.UNHEALTHY),
        ("Up 1 second (health: starting)", Health.STARTING),
        ("Up 1 second (Paused)", None),
    ],
)
def test_health(status: str, health: Health | None) -> None:
    (instance,) = listing([container(Status=status)]).instances
    assert instance.health == health


def test_a_restarted_healthcheck_does_not_reset_a_healthy_instance() -> None:
    starting = container(Status="Up 1 hour (health: starting)")
    assert listing([starting], known=ContainerHistory(healthy=[starting["Id"]])).instances[0].health is Health.HEALTHY
    failing = container(Status="Up 1 hour (unhealthy)")
    assert listing([failing], known=ContainerHistory(healthy=[failing["Id"]])).instances[0].health is Health.UNHEALTHY


def test_names_of_links_are_not_the_name_of_a_container() -> None:
    assert listing([container(Names=["/app/db", "/db-1"])]).instances[0].name == "db-1"


RUN, LATER = "2026-11-30T11:59:16.358097495Z", "2026-11-30T11:59:16.3581Z"
"""Two times of start, 2,505 ns apart: Go leaves out zeros at the end."""


def inspected(**runs: str) -> ContainerHistory:
    """The runs of containers, by their names."""
    return ContainerHistory(
        inspected={container(name.replace("_", "-"))["Id"]: ContainerInspection(run=run) for name, run in runs.items()}
    )


def lent(name: str, lender: str, **changes: Any) -> dict[str, Any]:
    """A container that uses the network of another one."""
    shared = {"HostConfig": {"NetworkMode": f"container:{container(lender)['Id']}"}, "NetworkSettings": networks()}
    return container(name, **{**shared, **changes})


def test_the_run_of_an_instance_is_its_time_of_start() -> None:
    assert listing([container()], known=inspected(web_1=RUN)).instances[0].run == RUN
    assert listing([container()]).instances[0].run is None


@pytest.mark.parametrize(
    ("lender", "borrower", "is_lost"),
    [
        (RUN, LATER, False),
        (RUN, RUN, False),
        (LATER, RUN, True),
        ("2026-11-30T12:59:16Z", "2026-11-30T13:59:16+02:00", True),  # an hour earlier
        ("2026-11-30T11:59:16Z", "2026-11-30T07:59:16-05:00", False),
        ("0001-01-01T00:00:00Z", RUN, False),
        ("nonsense", RUN, False),
        (LATER, "", False),
    ],
)
def test_a_container_whose_network_has_gone_with_its_lenders_former_process(
    lender: str, borrower: str, is_lost: bool
) -> None:
    containers = [container("db", Labels={}), lent("web-1", "db")]
    found = listing(containers, known=inspected(db=lender, web_1=borrower))
    assert bool(found.instances) is not is_lost
    lost = "error: container web-1: it has no network since the container whose network it shares, db, has restarted"
    assert [str(problem) for problem in found.problems] == ([f"{lost}; restart web-1"] if is_lost else [])


def test_a_network_that_was_lent_on_is_lost_too() -> None:
    containers = [container("db", Labels={}), lent("mid", "db", Labels={}), lent("web-1", "mid")]
    (problem,) = listing(containers, known=inspected(db=LATER, mid=RUN, web_1=LATER)).problems
    assert problem.remedy == "restart mid"
    (problem,) = listing(containers, known=inspected(db=RUN, mid=LATER, web_1=RUN)).problems
    assert problem.remedy == "restart web-1"
    assert listing(containers, known=inspected(db=RUN, mid=RUN, web_1=LATER)).instances[0].address == "172.29.0.2"


def test_the_hosts_network_is_not_lost_with_a_container() -> None:
    lender = container("db", Labels={}, HostConfig={"NetworkMode": "host"}, NetworkSettings=networks(host=""))
    (found,) = listing([lender, lent("web-1", "db")], known=inspected(db=LATER, web_1=RUN)).instances
    assert found.address == "192.0.2.11"


def test_podmans_list_lacks_what_its_inspection_tells() -> None:
    bare = {name: value for name, value in container().items() if name != "HostConfig"}
    lending = ContainerInspection(network_mode=f"container:{container('db')['Id']}")
    for told, address, health in (
        (ContainerInspection(network_mode="host"), "192.0.2.11", None),
        (ContainerInspection(network_mode="bridge", health=Health.UNHEALTHY), "172.29.0.2", Health.UNHEALTHY),
        (lending, "172.29.0.9", None),
    ):
        db = container("db", Labels={}, NetworkSettings=networks(podman="172.29.0.9"))
        (found,) = listing([bare, db], known=ContainerHistory(inspected={bare["Id"]: told})).instances
        assert (found.address, found.health) == (address, health)
    known = ContainerHistory(inspected={bare["Id"]: ContainerInspection(health=Health.UNHEALTHY)})
    assert listing([container()], known=known).instances[0].health is None, "Docker's list tells the health"


def test_a_container_of_a_test_is_never_an_endpoint_whatever_labels_its_image_has() -> None:
    assert listing([container(Labels={**WEB_LABELS, TEST_LABEL: "client"})]) == InstanceListing()
