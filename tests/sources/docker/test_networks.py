"""Networks of containers, and a container of each that can stand for its clients."""

from collections.abc import Sequence
from typing import Any

import msgspec
import pytest

from mesh.model.request import ServiceRequest
from mesh.model.service import Transport
from mesh.sources.docker.instances import TEST_LABEL
from mesh.sources.docker.messages import ContainerSummary, NetworkDetails
from mesh.sources.docker.networks import (
    ContainerNetwork,
    NetworkClient,
    agent_container_config,
    container_networks,
    own_container,
)

SHOP = {"Name": "shop", "Driver": "bridge", "IPAM": {"Config": [{"Subnet": "172.18.0.0/16"}]}}
SIX = {"Name": "six", "Driver": "bridge", "IPAM": {"Config": [{"Subnet": "172.20.0.1/16"}, {"Subnet": "fd00::/64"}]}}
INNER = {**SHOP, "Name": "inner", "Internal": True}


def networks(found: Sequence[Any], containers: Sequence[Any] = (), version: int = 4) -> list[ContainerNetwork]:
    there = msgspec.convert(list(found), list[NetworkDetails])
    return list(container_networks(there, msgspec.convert(list(containers), list[ContainerSummary]), version))


def container(name: str, state: str = "running", labels: dict[str, str] | None = None, **on: str) -> dict[str, Any]:
    attached = {network: {"IPAddress": address} for network, address in on.items()}
    return {
        "Id": f"id-{name}",
        "Names": [f"/{name}"],
        "State": state,
        "Labels": labels or {},
        "NetworkSettings": {"Networks": attached},
    }


def test_networks_with_addresses_of_the_family_are_listed_by_name() -> None:
    assert networks([SIX, SHOP, INNER]) == [
        ContainerNetwork("inner", ("172.18.0.0/16",), True),
        ContainerNetwork("shop", ("172.18.0.0/16",), False),
        ContainerNetwork("six", ("172.20.0.0/16",), False),
    ]
    assert networks([SIX, SHOP], version=6) == [ContainerNetwork("six", ("fd00::/64",), False)]


@pytest.mark.parametrize("driver", ["host", "null", "overlay"])
def test_networks_without_addresses_on_this_host_are_not_clients(driver: str) -> None:
    assert networks([{**SHOP, "Driver": driver}]) == []
    assert networks([{"Name": "none", "Driver": "bridge", "IPAM": {"Config": None}}]) == []
    assert networks([{**SHOP, "IPAM": {"Config": [{"Subnet": "nonsense"}]}}]) == []


def test_a_container_that_is_in_this_network_alone_is_the_best_client() -> None:
    containers = [
        container("a-gateway", shop="172.18.0.2", six="172.20.0.2"),
        container("web", shop="172.18.0.3"),
        container("db", shop="172.18.0.4"),
        container("paused", "paused", shop="172.18.0.5"),
        container("tester", shop="172.18.0.6", labels={TEST_LABEL: "client"}),
        container("elsewhere", six="172.20.0.3"),
    ]
    (shop,) = networks([SHOP], containers)
    assert shop.clients == (
        NetworkClient("id-db", "db", "172.18.0.4"),
        NetworkClient("id-web", "web", "172.18.0.3"),
        NetworkClient("id-a-gateway", "a-gateway", "172.18.0.2"),
    )


def test_the_own_container_is_found_by_the_files_that_the_engine_mounts() -> None:
    id = "0123456789abcdef" * 4
    line = f"612 600 254:1 /var/lib/docker/containers/{id}/hostname /etc/hostname rw,relatime - ext4 /dev/vda1 rw"
    assert own_container(line) == id
    assert own_container("22 1 254:1 / / rw,relatime - ext4 /dev/vda1 rw") is None


def test_a_container_that_sends_has_no_privilege_and_goes_by_itself() -> None:
    requests = [ServiceRequest(Transport.UDP, 53, "10.112.0.7", payload=b"\0\xff")]
    config = agent_container_config("sha256:1", "shop", requests, 2.0)
    assert config["Labels"] == {TEST_LABEL: "client"}
    host = config["HostConfig"]
    assert (host["AutoRemove"], host["CapDrop"], host["NetworkMode"]) == (True, ["ALL"], "shop")
    assert msgspec.json.decode(config["Cmd"][1], type=list[ServiceRequest]) == requests
