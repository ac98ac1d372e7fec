"""Which clients a connectivity test has, by the networks of the engine and by what this process may do."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import pytest

from mesh.api.connectivity.plan import ConnectivityPlan
from mesh.daemon.request_clients import ContainerClient, HostClient, NamespaceClient, UnusableClientError, find_clients
from mesh.sources.docker.networks import ContainerNetwork, NetworkClient
from tests.daemon.test_connectivity import ADDRESS, PLAN

WEB = NetworkClient("id-web", "web-1", "172.18.0.2")
SHOP = ContainerNetwork("shop", ("172.18.0.0/16",), False, (WEB,))
EMPTY = replace(SHOP, name="empty", clients=())
INNER = replace(SHOP, name="inner", internal=True)
HERE = replace(PLAN, engine="unix:///run/docker.sock")


@dataclass
class Rights:
    """What this process may do, and where it runs."""

    enters: bool
    container: str | None = None
    networks: Sequence[ContainerNetwork] = (EMPTY, INNER, SHOP)
    error: Exception | None = None

    def grant(self, monkeypatch: pytest.MonkeyPatch) -> None:
        async def read_container_networks(url: str, version: int) -> Sequence[ContainerNetwork]:
            if self.error is not None:
                raise self.error
            return self.networks

        async def read_image(url: str, container: str) -> str:
            assert container == self.container
            return "sha256:1"

        module = "mesh.daemon.request_clients"
        monkeypatch.setattr(f"{module}.may_enter_namespaces", lambda: self.enters)
        monkeypatch.setattr(f"{module}.own_container", lambda _: self.container)
        monkeypatch.setattr(f"{module}.read_container_networks", read_container_networks)
        monkeypatch.setattr(f"{module}.read_image", read_image)


INTERNAL = ("network inner", "it is internal: its operator gave it no way out", None)


@pytest.mark.parametrize(
    ("rights", "types", "untested"),
    [
        (
            Rights(enters=True),
            [HostClient, NamespaceClient],
            [("network empty", "no container runs in it", "start one, and run the test again"), INTERNAL],
        ),
        (
            Rights(enters=False),
            [HostClient],
            [
                ("network empty", "only root may enter the network of a container", "sudo vipmesh test"),
                INTERNAL,
                ("network shop", "only root may enter the network of a container", "sudo vipmesh test"),
            ],
        ),
        (Rights(enters=False, container="f00"), [HostClient, ContainerClient, ContainerClient], [INTERNAL]),
        (
            Rights(enters=True, error=ConnectionRefusedError("it is away")),
            [HostClient],
            [
                (
                    "networks of containers",
                    "docker engine at unix:///run/docker.sock: it is away",
                    "sudo vipmesh test",
                )
            ],
        ),
    ],
    ids=["root on the host", "another user on the host", "in the image", "without an engine"],
)
async def test_each_network_has_a_client_or_a_reason(
    rights: Rights,
    types: Sequence[type],
    untested: Sequence[tuple[str, str, str | None]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    rights.grant(monkeypatch)
    clients, missed = await find_clients(HERE)
    assert [type(client) for client in clients] == types
    assert [(each.client, each.reason, each.remedy) for each in missed] == untested


@pytest.mark.parametrize("plan", [PLAN, replace(HERE, pool="127.113.0.0/16")], ids=["no engine", "VIPs on loopback"])
async def test_without_networks_that_could_reach_vips_there_is_only_the_host(
    plan: ConnectivityPlan, monkeypatch: pytest.MonkeyPatch
) -> None:
    Rights(enters=True, error=AssertionError("the engine must not be asked")).grant(monkeypatch)
    clients, missed = await find_clients(plan)
    assert ([client.name for client in clients], missed) == (["host"], [])


async def test_a_container_that_has_ended_is_no_client(monkeypatch: pytest.MonkeyPatch) -> None:
    async def read_pid(engine: str, container: str) -> int | None:
        return None

    monkeypatch.setattr("mesh.daemon.request_clients.read_pid", read_pid)
    with pytest.raises(UnusableClientError, match="container web-1 has just ended"):
        await NamespaceClient("unix:///run/docker.sock", SHOP, WEB).send([ADDRESS.request(0.0)], 0.1)


async def test_a_namespace_without_the_containers_address_is_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    """The process ID may belong to another process by now."""

    async def read_pid(engine: str, container: str) -> int | None:
        return 1

    monkeypatch.setattr("mesh.daemon.request_clients.read_pid", read_pid)
    monkeypatch.setattr("mesh.daemon.request_clients.nameservers_of", lambda _: ())
    monkeypatch.setattr("mesh.daemon.request_clients.run_in_namespace", lambda _, work: work())
    with pytest.raises(UnusableClientError, match=r"container web-1 no longer has the address 172\.18\.0\.2"):
        await NamespaceClient("unix:///run/docker.sock", SHOP, WEB).send([ADDRESS.request(0.0)], 0.1)
    here = NetworkClient("id-web", "web-1", "127.0.0.2")
    elsewhere = replace(ADDRESS, address="127.0.0.3")
    with pytest.raises(UnusableClientError, match=r"web-1 sends through another of its networks, from 127\.0\.0\.1"):
        await NamespaceClient("unix:///run/docker.sock", SHOP, here).send([elsewhere.request(0.0)], 0.1)
