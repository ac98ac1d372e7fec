"""The peer listen address of a worker, in a namespace with an underlay: chosen, bound, or refused with a remedy."""

import socket
from collections.abc import Iterator

import pytest

from mesh.cluster.failure_detector import PingResult
from mesh.cluster.ping import ping_worker
from mesh.config.settings import Settings, parse_settings
from mesh.daemon.peer_endpoint import DEFAULT_PEER_PORT, PeerEndpoint, PeerEndpointError, open_peer_endpoint
from mesh.host.node_ip import on_other_hosts, own_address, resolve_urls, source_address
from mesh.model.table import RealKey
from tests.netns import private_network, run_ip

ETCD = 'url = "etcd://10.1.0.10:2379,10.1.0.1:2379,127.0.0.1:2379/vipmesh"'


@pytest.fixture(autouse=True)
def _underlay() -> Iterator[None]:
    """This host is 10.1.0.1; etcd is on 10.1.0.10, on this host, and on its loopback."""
    with private_network():
        run_ip("link add u0 type bridge", "address add 10.1.0.1/24 dev u0", "link set u0 up")
        yield


def settings(store: str = ETCD, listen: str = "auto", address: str = "") -> Settings:
    node = f'address = "{address}"' if address else ""
    text = f'[node]\n{node}\n[store]\n{store}\n[peers]\nlisten = "{listen}"\n'
    return parse_settings(text, {}, hostname="w1")


async def answers(presence: PeerEndpoint) -> PingResult | None:
    assert presence.server is not None
    assert presence.listens is not None
    try:
        return await ping_worker(presence.listens, "w1")
    finally:
        presence.server.close()


async def test_it_listens_on_the_address_that_reaches_the_store_and_has_witnesses() -> None:
    presence = await open_peer_endpoint(settings())
    assert (presence.listens, presence.witnesses) == (
        RealKey("10.1.0.1", DEFAULT_PEER_PORT),
        (RealKey("10.1.0.10", 2379),),
    )
    assert await answers(presence) is PingResult.ANSWERED


async def test_with_etcd_on_loopback_the_default_route_decides() -> None:
    local = settings('url = "etcd://127.0.0.1:2379/vipmesh"')
    assert await open_peer_endpoint(local) == PeerEndpoint()
    run_ip("route add default via 10.1.0.254")
    presence = await open_peer_endpoint(local)
    assert presence.listens == RealKey("10.1.0.1", DEFAULT_PEER_PORT)
    assert await answers(presence) is PingResult.ANSWERED


async def test_the_settings_decide() -> None:
    run_ip("address add 10.1.0.7/24 dev u0")
    chosen = await open_peer_endpoint(settings(listen="10.1.0.7:9999"))
    assert chosen.listens == RealKey("10.1.0.7", 9999)
    assert await answers(chosen) is PingResult.ANSWERED
    node = await open_peer_endpoint(settings(address="10.1.0.7"))
    assert node.listens == RealKey("10.1.0.7", DEFAULT_PEER_PORT)
    assert await answers(node) is PingResult.ANSWERED
    assert await open_peer_endpoint(settings(listen="off")) == PeerEndpoint(None, (RealKey("10.1.0.10", 2379),))


async def test_a_single_worker_does_not_listen() -> None:
    assert await open_peer_endpoint(settings('url = "sqlite:////tmp/store.db"')) == PeerEndpoint()


async def test_a_port_in_use_is_reported_and_fatal_only_if_configured(
    caplog: pytest.LogCaptureFixture,
) -> None:
    with socket.socket() as taken:
        taken.bind(("10.1.0.1", DEFAULT_PEER_PORT))
        taken.listen()
        assert (await open_peer_endpoint(settings())).listens is None
        assert (
            "the loss of this worker is noticed only when its lease ends; set [peers] listen to another port"
            in caplog.text
        )
        with pytest.raises(
            PeerEndpointError, match=r"\[peers\] listen: cannot listen on 10.1.0.1:9781 .*; set \[peers\]"
        ):
            await open_peer_endpoint(settings(listen=f"10.1.0.1:{DEFAULT_PEER_PORT}"))


async def test_host_names_of_the_store_are_resolved_and_unknown_ones_left_out() -> None:
    members = ["http://localhost:2379", "http://no-such-host.invalid:2379", "http://[fd00::1]:2379"]
    found = await resolve_urls(members)
    assert [real.port for real in found] == [2379, 2379]
    assert found[-1] == RealKey("fd00::1", 2379)


def test_without_a_route_there_is_no_listen_address() -> None:
    assert source_address(RealKey("10.99.0.1", 1)) is None
    assert own_address([RealKey("10.99.0.1", 1)]) is None
    assert on_other_hosts([RealKey("127.0.0.1", 1), RealKey("10.1.0.1", 1)], ["10.1.0.1"]) == ()


@pytest.mark.parametrize("listen", ["0.0.0.0:9781", "[::]:9781", "10.1.0.1", "w1:9781", "on"])
def test_listen_addresses_unreachable_for_others_are_refused(listen: str) -> None:
    with pytest.raises(Exception, match=r"\[peers\] listen: .*write"):
        settings(listen=listen)
