"""Where a worker says that others find its admin API."""

import pytest

from mesh.config.settings import Settings, parse_settings
from mesh.daemon.admin_address import admin_address, advertised
from mesh.daemon.peer_endpoint import PeerEndpoint
from mesh.model.errors import SettingsError
from mesh.model.table import RealKey

STORE = '[store]\nurl = "etcd://10.1.0.10:2379/vipmesh"\n'
CERTIFICATES = 'cert = "/etc/w1.pem"\nclient_ca = "/etc/ca.pem"\n'
PEERS = PeerEndpoint(RealKey("10.1.0.1", 9781))


def settings(admin: str, store: str = STORE, node: str = "") -> Settings:
    return parse_settings(f"[node]\n{node}\n{store}[admin]\n{admin}", {}, hostname="w1")


@pytest.mark.parametrize(
    ("listens", "own", "expected"),
    [
        (RealKey("10.1.0.1", 9780), None, RealKey("10.1.0.1", 9780)),
        (RealKey("10.1.0.1", 9780), "10.1.0.2", RealKey("10.1.0.1", 9780)),
        (RealKey("0.0.0.0", 9780), "10.1.0.2", RealKey("10.1.0.2", 9780)),
        (RealKey("0.0.0.0", 9780), "fd00::1", None),
        (RealKey("0.0.0.0", 9780), None, None),
        (RealKey("::", 9780), "fd00::1", RealKey("fd00::1", 9780)),
        (RealKey("::", 9780), "10.1.0.2", None),
        (RealKey("fe80::1%eth0", 9780), "10.1.0.2", None),
        (RealKey("10.1.0.1", 0), "10.1.0.2", None),
    ],
)
def test_where_a_listener_is_reached(listens: RealKey, own: str | None, expected: RealKey | None) -> None:
    assert advertised(listens, own) == expected


def test_with_certificates_and_a_port() -> None:
    assert admin_address(settings(f'tcp = "10.1.0.1:9780"\n{CERTIFICATES}'), PEERS) == RealKey("10.1.0.1", 9780)
    assert admin_address(settings(f'listen = "0.0.0.0:9780"\n{CERTIFICATES}'), PEERS) == RealKey("10.1.0.1", 9780)
    node = 'address = "10.1.0.7"'
    assert admin_address(settings(f'tcp = "0.0.0.0:9780"\n{CERTIFICATES}', node=node), PEERS) == RealKey(
        "10.1.0.7", 9780
    )
    elsewhere = f'tcp = "0.0.0.0:9780"\nadvertise = "[2001:db8::7]:443"\n{CERTIFICATES}'
    assert admin_address(settings(elsewhere), PEERS) == RealKey("2001:db8::7", 443)


@pytest.mark.parametrize(
    "admin",
    [
        CERTIFICATES,
        'tcp = "10.1.0.1:9780"\ntoken_file = "/etc/token"\n',
        'tcp = "10.1.0.1:9780"\ntoken_file = "/etc/token"\ncert = "/etc/w1.pem"\n',
        f'advertise = "10.1.0.1:9780"\n{CERTIFICATES}',
    ],
)
def test_without_one_of_them_nothing_is_published(admin: str) -> None:
    assert admin_address(settings(admin), PEERS) is None


def test_a_worker_that_is_alone_publishes_nothing() -> None:
    assert admin_address(settings(f'tcp = "10.1.0.1:9780"\n{CERTIFICATES}', store=""), PEERS) is None


@pytest.mark.parametrize("written", ["0.0.0.0:9780", "[::]:9780", "w1.example:9780", "10.1.0.1:0", "[fe80::1%e]:1"])
def test_an_address_that_nobody_can_reach_is_refused(written: str) -> None:
    with pytest.raises(SettingsError, match="advertise"):
        settings(f'advertise = "{written}"\n')
