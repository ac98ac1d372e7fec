"""Which tracked connections have to begin again."""

from ipaddress import ip_network

import pytest

from mesh.dataplane.conntrack.messages import ConntrackEntry
from mesh.dataplane.conntrack.stale import OwnKeys, is_bypassing, is_stray
from mesh.model.service import Transport
from mesh.model.table import RealKey, VirtualKey
from tests.builders import POOL, WEB_VIP

TCP, UDP = Transport.TCP, Transport.UDP
A, B, ITSELF = RealKey("10.2.0.1", 8080), RealKey("10.2.0.2", 8080), RealKey(WEB_VIP, 80)


def entry(transport: Transport, real: RealKey, *, translated: bool = False, answered: bool = False) -> ConntrackEntry:
    return ConntrackEntry(VirtualKey(WEB_VIP, 80, transport), real, translated, answered, False, b"")


@pytest.mark.parametrize(
    ("found", "bypassing", "stray"),
    [
        pytest.param(entry(UDP, ITSELF), True, True, id="a flow that began before its service"),
        pytest.param(entry(UDP, ITSELF, answered=True), True, True, id="a flow that another program answered"),
        pytest.param(entry(TCP, ITSELF), True, True, id="an attempt that began before its service"),
        pytest.param(entry(TCP, ITSELF, answered=True), False, False, id="a connection to this host itself"),
        pytest.param(entry(UDP, A, translated=True, answered=True), False, False, id="where it belongs"),
        pytest.param(entry(TCP, A), False, False, id="where it belongs, by IPVS"),
        pytest.param(entry(UDP, B, translated=True, answered=True), False, True, id="a flow to a former one"),
        pytest.param(entry(TCP, B, translated=True, answered=True), False, True, id="a connection to a former one"),
        pytest.param(entry(UDP, B, answered=True), False, True, id="a flow of IPVS to a former one"),
        pytest.param(entry(TCP, B, answered=True), False, False, id="a connection that IPVS ends by itself"),
    ],
)
def test_what_has_to_begin_again(found: ConntrackEntry, bypassing: bool, stray: bool) -> None:
    assert (is_bypassing(found), is_stray(found, {A})) == (bypassing, stray)


def test_our_keys_are_those_in_the_pool_and_published_ports() -> None:
    ours = OwnKeys(POOL, lambda key: key.address == "192.0.2.1" and key.port == 30080)
    keys = [
        VirtualKey(WEB_VIP, 9, TCP),
        VirtualKey("192.0.2.1", 30080, UDP),
        VirtualKey("192.0.2.1", 22, TCP),
        VirtualKey("10.113.0.1", 80, TCP),
        VirtualKey("fd00::1", 80, TCP),
    ]
    assert [key in ours for key in keys] == [True, True, False, False, False]
    assert WEB_VIP not in ours, "an address is no key"
    assert VirtualKey("fd00::1", 80, TCP) in OwnKeys(ip_network("fd00::/64"), lambda _: False)
