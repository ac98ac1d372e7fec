"""Connections of clients as the kernel lists them: text of IPVS, messages of connection tracking, hostile bytes."""

import struct
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mesh.dataplane import DataPlaneError
from mesh.dataplane.client_flows import ClientFlow, FlowKey, parse_flow, parse_ipvs_connections
from mesh.dataplane.flow_reader import FlowReader
from mesh.dataplane.netlink import MalformedNetlinkError, nest_attributes, pack_attribute
from mesh.model.service import Transport
from mesh.model.table import VirtualKey
from tests.netns import private_network

WEB = VirtualKey("10.112.0.7", 80, Transport.TCP)
WEB_6 = VirtualKey("fd00:112::7", 80, Transport.TCP)
DNS = VirtualKey("10.112.0.7", 53, Transport.UDP)
HEADING = "Pro FromIP   FPrt ToIP     TPrt DestIP   DPrt State       Expires PEName PEData\n"
LINES = """\
TCP 0A010002 C350 0A700007 0050 0A020001 1F90 SYN_RECV         57
TCP 0A010002 C351 0A700007 0050 0A020001 1F90 ESTABLISHED     897
TCP 0A010002 C352 0A700007 0050 0A020001 1F90 FIN_WAIT        117
TCP 0A010002 C353 0A700008 0050 0A020001 1F90 SYN_RECV         57
UDP 0A010002 C354 0A700007 0035 0A020001 0035 UDP             298
TCP fd00:0001:0000:0000:0000:0000:0000:0002 C355 fd00:0112:0000:0000:0000:0000:0000:0007 0050 fd00:2::1 1F90 SYN_RECV 3
"""


def test_connections_of_ipvs() -> None:
    found = list(parse_ipvs_connections(LINES.splitlines(), {WEB, WEB_6, DNS}))
    assert found == [
        ClientFlow(FlowKey(WEB, "10.1.0.2", 50000), is_answered=False),
        ClientFlow(FlowKey(WEB, "10.1.0.2", 50001), is_answered=True),
        ClientFlow(FlowKey(WEB, "10.1.0.2", 50002), is_answered=True),
        ClientFlow(FlowKey(WEB_6, "fd00:1::2", 50005), is_answered=False),
    ]


@given(st.lists(st.text(max_size=80) | st.sampled_from(LINES.splitlines()).map(lambda line: line[:40]), max_size=8))
def test_lines_that_are_not_understood_are_left_out(lines: list[str]) -> None:
    assert all(flow.key.virtual in (WEB, WEB_6) for flow in parse_ipvs_connections(lines, {WEB, WEB_6}))


def entry(protocol: int, port: int, *, status: int, state: int | None = None) -> bytes:
    """A list entry of a connection from 10.1.0.2:50000 to 10.112.0.7."""
    addresses = pack_attribute(1, bytes([10, 1, 0, 2])) + pack_attribute(2, bytes([10, 112, 0, 7]))
    ports = pack_attribute(2, struct.pack(">H", 50000)) + pack_attribute(3, struct.pack(">H", port))
    original = nest_attributes(1, addresses) + nest_attributes(2, pack_attribute(1, bytes([protocol])) + ports)
    body = nest_attributes(1, original) + pack_attribute(3, struct.pack(">I", status))
    if state is not None:
        body += nest_attributes(4, nest_attributes(1, pack_attribute(1, bytes([state]))))
    return body


@pytest.mark.parametrize(
    ("body", "answered"),
    [
        pytest.param(entry(6, 80, status=0x8, state=1), False, id="SYN_SENT, no reply was seen"),
        pytest.param(entry(6, 80, status=0xA, state=2), False, id="SYN_RECV: the reply did not reach the client"),
        pytest.param(entry(6, 80, status=0xE, state=3), True, id="ESTABLISHED"),
        pytest.param(entry(6, 80, status=0xA, state=8), True, id="CLOSE: refused"),
        pytest.param(entry(6, 80, status=0xA), True, id="being deleted"),
        pytest.param(entry(17, 53, status=0x8), False, id="a datagram without answer"),
        pytest.param(entry(17, 53, status=0xA), True, id="a datagram with one"),
        pytest.param(entry(6, 81, status=0x8, state=1), None, id="a port of no service"),
        pytest.param(entry(1, 80, status=0x8), None, id="ICMP"),
    ],
)
def test_tracked_connections(body: bytes, answered: bool | None) -> None:
    flow = parse_flow(body, {WEB, DNS})
    assert (None if flow is None else flow.is_answered) is answered
    if flow is not None:
        assert (flow.key.client, flow.key.port) == ("10.1.0.2", 50000)


@given(st.binary(max_size=120) | st.integers(0, 100).map(lambda at: entry(6, 80, status=8, state=1)[:at]))
def test_other_bytes_are_refused(body: bytes) -> None:
    try:
        parse_flow(body, {WEB, DNS})
    except MalformedNetlinkError:
        return


async def test_the_table_of_ipvs_is_read_beside_connection_tracking(tmp_path: Path) -> None:
    table = tmp_path / "ip_vs_conn"
    table.write_text(HEADING + LINES)
    with private_network():
        reader = FlowReader(4, ipvs=True, root=table)
        without = FlowReader(4, ipvs=True, root=tmp_path / "none")
    # No connection to these virtual servers is tracked in the namespace of the tests.
    assert [flow.key.port for flow in await reader.unassured({WEB, WEB_6})] == [50000, 50005]
    assert await without.unassured({WEB}) == []


async def test_a_table_that_cannot_be_read_is_an_error_with_a_remedy(tmp_path: Path) -> None:
    with pytest.raises(DataPlaneError, match=r"the connections of IPVS cannot be read .*: see "):
        await FlowReader(4, ipvs=True, root=tmp_path).unassured({WEB})
