"""Which containers count as running while their engine is away, by what the kernel tells of processes."""

from dataclasses import replace
from typing import Any

import msgspec
import pytest

from mesh.model.service import DrainReason, Health, Instance
from mesh.sources.docker.absence import MAX_REMEMBERED, REMEMBERED, ContainerMemory, EngineAbsence
from mesh.sources.docker.inspection import ContainerInspection
from mesh.sources.docker.instances import ContainerHistory
from mesh.sources.docker.messages import ContainerSummary
from mesh.testing.source import FakeContainerProcesses
from tests.sources.docker.test_instances import DRIVERS, OTHERS, RULES, container, networks

PUBLISHED = [{"IP": "0.0.0.0", "PrivatePort": 80, "PublicPort": 8082, "Type": "tcp"}]


class Host:
    """An engine with containers on one host, until it goes away."""

    def __init__(self) -> None:
        self.processes = FakeContainerProcesses()
        self.memory = ContainerMemory(self.processes)
        self.containers: dict[str, ContainerSummary] = {}
        self.inspected: dict[str, ContainerInspection] = {}

    def run(
        self, name: str, address: str = "172.29.0.2", inspection: ContainerInspection | None = None, **changes: Any
    ) -> str:
        """Run a container whose first process is visible; return its ID."""
        raw = container(name, **{"NetworkSettings": networks(bridge=address), **changes})
        id = str(raw["Id"])
        pid = self.processes.start(id, f"{address}/16")
        self.containers[id] = msgspec.convert(raw, ContainerSummary)
        self.inspected[id] = replace(inspection or ContainerInspection(run="2026-11-30T11:59:16Z"), pid=pid)
        self.memory.inspected(id, self.inspected[id])
        self.listed()
        return id

    def listed(self, now: float = 0.0) -> None:
        """The engine lists its containers."""
        self.memory.listed([*self.containers.values()], self.inspected, now)

    def ends(self, id: str, now: float = 0.0) -> None:
        """A container ends, and the engine lists the rest."""
        self.processes.end(id)
        del self.containers[id]
        self.listed(now)

    def away(self, **known: Any) -> EngineAbsence:
        history = ContainerHistory(**{"inspected": dict(self.inspected), **known})
        return self.memory.absence([*self.containers.values()], DRIVERS, history)


@pytest.fixture
def host() -> Host:
    return Host()


def found(absence: EngineAbsence, rules: Any = RULES) -> dict[str, Instance]:
    """The instances by name after one more look."""
    absence.look()
    listing = absence.listing(rules)
    assert listing.problems == ()
    return {str(instance.name): instance for instance in listing.instances}


def addresses(absence: EngineAbsence) -> dict[str, str]:
    return {name: instance.address for name, instance in found(absence).items()}


def test_nothing_changes_while_the_processes_go_on(host: Host) -> None:
    host.run("web-1")
    absence = host.away()
    assert not absence.look()
    assert addresses(absence) == {"web-1": "172.29.0.2"}
    assert found(absence)["web-1"].run == "2026-11-30T11:59:16Z"


def test_a_container_that_has_ended_unseen_is_no_instance(host: Host) -> None:
    id = host.run("web-1")
    absence = host.away()
    host.processes.end(id)
    assert absence.look()
    assert found(absence) == {}


@pytest.mark.parametrize("seen_by_the_engine", [True, False])
def test_a_container_that_begins_again_is_an_instance_whose_run_is_not_known(
    host: Host, seen_by_the_engine: bool
) -> None:
    id = host.run("web-1")
    if seen_by_the_engine:
        host.ends(id)
        absence = host.away(drains={id: DrainReason.STOPPING})
    else:
        absence = host.away(drains={id: DrainReason.STOPPING})
        host.processes.end(id)
    assert found(absence) == {}
    host.processes.start(id, "172.29.0.2/16")
    now = found(absence)["web-1"]
    assert (now.address, now.run, now.drain) == ("172.29.0.2", None, None)


def test_addresses_that_have_been_swapped_follow_their_containers(host: Host) -> None:
    one, two = host.run("web-1", "172.29.0.2"), host.run("web-2", "172.29.0.3")
    absence = host.away()
    host.processes.end(one)
    host.processes.end(two)
    assert found(absence) == {}
    host.processes.start(two, "172.29.0.2/16")
    assert addresses(absence) == {"web-2": "172.29.0.2"}
    host.processes.start(one, "172.29.0.3/16")
    assert addresses(absence) == {"web-1": "172.29.0.3", "web-2": "172.29.0.2"}


def test_an_address_that_two_containers_seem_to_have_is_of_neither(host: Host) -> None:
    one, two = host.run("web-1", "172.29.0.2"), host.run("web-2", "172.29.0.3")
    absence = host.away()
    host.processes.end(one)
    host.processes.end(two)
    absence.look()
    host.processes.start(one, "172.29.0.3/16")
    host.processes.start(two, "172.29.0.3/16")
    assert found(absence) == {}


def test_the_address_of_a_container_that_goes_on_is_not_given_to_another(host: Host) -> None:
    host.run("web-1", "172.29.0.2")
    two = host.run("web-2", "172.29.0.3")
    absence = host.away()
    host.processes.end(two)
    absence.look()
    host.processes.start(two, "172.29.0.2/16")
    assert addresses(absence) == {"web-1": "172.29.0.2"}


def test_the_former_address_of_a_container_without_labels_may_be_given_to_another(host: Host) -> None:
    host.run("db", "172.29.0.2", Labels={})
    two = host.run("web-2", "172.29.0.3")
    absence = host.away()
    host.processes.end(two)
    absence.look()
    host.processes.start(two, "172.29.0.2/16")
    assert addresses(absence) == {"web-2": "172.29.0.2"}


@pytest.mark.parametrize("interfaces", [(), ("10.9.0.2/16",), ("172.29.0.4/16", "172.29.0.5/16")])
def test_a_container_whose_address_is_not_certain_waits_for_the_engine(host: Host, interfaces: tuple[str, ...]) -> None:
    id = host.run("web-1")
    absence = host.away()
    host.processes.end(id)
    absence.look()
    host.processes.start(id, *interfaces)
    assert found(absence) == {}
    host.processes.end(id)
    host.processes.start(id, "172.29.0.4/16")
    assert addresses(absence) == {"web-1": "172.29.0.4"}


def test_a_container_that_begins_again_twice_waits_for_the_engine(host: Host) -> None:
    id = host.run("web-1")
    absence = host.away()
    host.processes.end(id)
    absence.look()
    host.processes.start(id, "172.29.0.2/16")
    assert addresses(absence) == {"web-1": "172.29.0.2"}
    host.processes.end(id)
    assert found(absence) == {}
    host.processes.start(id, "172.29.0.2/16")
    assert found(absence) == {}


def test_without_visible_processes_the_last_list_stays_in_force(host: Host) -> None:
    id = host.run("web-1")
    blind = ContainerMemory(FakeContainerProcesses())
    blind.inspected(id, host.inspected[id])
    blind.listed([*host.containers.values()], host.inspected, 0.0)
    absence = blind.absence([*host.containers.values()], DRIVERS, ContainerHistory())
    assert absence.is_blind
    host.processes.end(id)
    assert not absence.look()
    assert addresses(absence) == {"web-1": "172.29.0.2"}


def test_a_container_that_was_not_visible_counts_as_before_beside_one_that_was(host: Host) -> None:
    hidden = msgspec.convert(container("web-1"), ContainerSummary)
    host.containers[hidden.id] = hidden
    two = host.run("web-2", "172.29.0.3")
    absence = host.away()
    host.processes.end(two)
    assert addresses(absence) == {"web-1": "172.29.0.2"}
    host.processes.start(hidden.id, "172.29.0.9/16")
    assert addresses(absence) == {"web-1": "172.29.0.2"}


def test_a_container_in_the_network_of_the_host_is_reached_at_the_worker(host: Host) -> None:
    inspection = ContainerInspection(network_mode="host")
    id = host.run("web-1", inspection=inspection, HostConfig={"NetworkMode": "host"}, NetworkSettings=networks(host=""))
    absence = host.away()
    host.processes.end(id)
    assert found(absence) == {}
    host.processes.start(id)
    assert addresses(absence) == {"web-1": "192.0.2.11"}


def test_a_container_that_borrows_its_network_waits_for_the_engine(host: Host) -> None:
    db = host.run("db", "172.29.0.2", Labels={})
    mode = f"container:{db}"
    id = host.run("web-1", HostConfig={"NetworkMode": mode}, NetworkSettings={"Networks": {}})
    absence = host.away()
    host.processes.end(id)
    assert found(absence) == {}
    host.processes.start(id, "172.29.0.2/16")
    assert found(absence) == {}


@pytest.mark.parametrize(("fixed", "names"), [({("tcp", 80, 8082)}, {"web-1"}), (set(), set())])
def test_a_published_port_counts_if_the_container_asks_for_it_by_number(
    host: Host, fixed: set[tuple[str, int, int]], names: set[str]
) -> None:
    id = host.run("web-1", inspection=ContainerInspection(fixed_ports=frozenset(fixed)), Ports=PUBLISHED)
    absence = host.away()
    assert found(absence, OTHERS)["web-1"].host_ports[0].port == 8082
    host.processes.end(id)
    assert found(absence, OTHERS) == {}
    host.processes.start(id, "172.29.0.7/16")
    assert found(absence, OTHERS).keys() == names


def test_the_health_of_a_former_process_is_not_that_of_the_new_one(host: Host) -> None:
    id = host.run("web-1", Status="Up 3 seconds (healthy)")
    absence = host.away(healthy=[id])
    assert found(absence)["web-1"].health is Health.HEALTHY
    host.processes.end(id)
    absence.look()
    host.processes.start(id, "172.29.0.2/16")
    assert found(absence)["web-1"].health is Health.STARTING


def test_containers_that_have_ended_are_remembered_for_a_while_and_not_without_bound(host: Host) -> None:
    id = host.run("web-1")
    host.ends(id, 10.0)
    host.listed(10.0 + REMEMBERED)
    assert host.away().last.remembered.keys() == {id}
    host.listed(10.1 + REMEMBERED)
    assert host.away().is_blind
    many = [host.run(f"web-{n}") for n in range(MAX_REMEMBERED + 1)]
    for n, id in enumerate(many):
        host.processes.end(id)
        host.containers.pop(id)
        if n == 0:
            host.listed(20.0)
    host.listed(21.0)
    assert host.away().last.remembered.keys() == {*many[1:]}
