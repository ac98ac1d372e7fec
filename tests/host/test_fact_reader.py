"""The facts of a real host, as they change; and files of the kernel that are missing or strange."""

import asyncio
from collections.abc import Iterator
from contextlib import aclosing
from datetime import UTC, datetime, timedelta
from ipaddress import ip_network
from pathlib import Path

import pytest

from mesh.cli.certificates import issue, make_authority, write_pem
from mesh.host.certificates import CertificateFacts
from mesh.host.fact_reader import HostFactReader, port_range, read_host_facts
from mesh.host.facts import ConntrackRoom
from mesh.model.credential import CertificateHolder
from tests.netns import private_network, run_ip

POOL = ip_network("10.112.0.0/16")


@pytest.fixture
def network() -> Iterator[None]:
    with private_network():
        yield


async def test_a_route_is_a_change_of_the_network(network: None) -> None:
    reader = HostFactReader(POOL, interval=600)
    async with aclosing(reader.changes()) as changes, asyncio.timeout(30):
        await anext(changes)
        await anext(changes)  # once more when the kernel's announcements begin: nothing is missed in between
        run_ip("route add blackhole 10.112.77.0/24")
        await anext(changes)
        assert list(map(str, (await reader.read()).overlaps(POOL, "mesh0"))) == ["route 10.112.77.0/24"]


async def test_settings_of_a_host(network: None) -> None:
    run_ip("link add br-1 type bridge", "link set br-1 up", "address add 10.1.3.1/24 dev br-1")
    for key, value in {
        "conf/all/rp_filter": "0",
        "conf/br-1/rp_filter": "1",
        "ip_local_port_range": "30000 31000",
        "ip_local_reserved_ports": "30005,30010-30012",
    }.items():
        Path("/proc/sys/net/ipv4", key).write_text(value)
    facts = await read_host_facts(POOL)
    assert facts.local_ports == range(30000, 31001)
    assert facts.reserved_ports == {30005, 30010, 30011, 30012}
    assert facts.rp_filter["br-1"] == 1
    Path("/proc/sys/net/ipv4/conf/all/rp_filter").write_text("2")
    assert (await read_host_facts(POOL)).rp_filter["br-1"] == 2
    assert facts.conntrack is not None
    assert facts.conntrack.count < facts.conntrack.maximum


async def test_what_the_kernel_does_not_have_is_unknown(tmp_path: Path) -> None:
    (tmp_path / "net").mkdir()
    facts = await read_host_facts(POOL, tmp_path)
    assert (facts.local_ports, facts.reserved_ports, facts.conntrack) == (range(0), frozenset(), None)
    assert facts.bridge_filtering is None


async def test_files_of_the_kernel(tmp_path: Path) -> None:
    (tmp_path / "net").mkdir()
    for name, text in {
        "netfilter/nf_conntrack_count": "900\n",
        "netfilter/nf_conntrack_max": "1000\n",
        "bridge/bridge-nf-call-iptables": "1\n",
        "bridge/bridge-nf-call-ip6tables": "0\n",
    }.items():
        (tmp_path / "sys/net" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "sys/net" / name).write_text(text)
    facts = await read_host_facts(POOL, tmp_path)
    assert (facts.conntrack, facts.bridge_filtering) == (ConntrackRoom(900, 1000), True)
    assert (await read_host_facts(ip_network("fd00::/64"), tmp_path)).bridge_filtering is False


@pytest.mark.parametrize("text", [None, "", "1", "a b", "1 2 3"])
def test_a_range_that_is_not_understood_is_empty(text: str | None) -> None:
    assert not port_range(text)


async def test_the_end_of_a_certificate_is_read(tmp_path: Path) -> None:
    now = datetime.now(UTC)
    made, nothing = tmp_path / "w1.pem", tmp_path / "none.pem"
    made.write_bytes(write_pem(issue(make_authority(now), CertificateHolder("w1", is_worker=True), [], now, 20)))
    facts = await HostFactReader(POOL, [made, nothing]).read()
    (first, second) = facts.certificates
    assert first.last_day == (now + timedelta(days=20)).strftime("%Y-%m-%d")
    assert 19.9 < first.seconds_left / 86400 <= 20
    assert second == CertificateFacts(str(nothing))
