"""The table of source NAT: what nft makes of it, and its repair. Its effect: tests/system/ipvs."""

import json
import os
import subprocess
from collections.abc import Iterator
from ipaddress import ip_network
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mesh.host import HostError
from mesh.host.masquerade import Masquerade, MasqueradeRules, render_script
from mesh.model.claims import Claims
from mesh.model.service import Transport
from mesh.util.nft import explain_refusal
from tests.builders import POOL
from tests.netns import private_network, run_command, run_ip

POOL_6 = ip_network("fd00:1::/64")
OWN = frozenset({"192.0.2.1", "2001:db8::1"})
CLAIMS = Claims(ports={(Transport.TCP, 30080): ("web.local", 80), (Transport.UDP, 30053): ("ns.local", 53)})


@pytest.fixture
def network() -> Iterator[None]:
    with private_network():
        yield


def tables() -> list[str]:
    listed: list[dict[str, Any]] = json.loads(run_command("nft", "-j", "list", "tables"))["nftables"]
    return [f"{entry['table']['family']} {entry['table']['name']}" for entry in listed if "table" in entry]


@pytest.mark.parametrize(
    ("rules", "words"),
    [
        pytest.param(
            MasqueradeRules(POOL), ["ct original ip daddr 10.112.0.0/16 jump translated"], id="nothing but a pool"
        ),
        pytest.param(
            MasqueradeRules(
                POOL,
                (ip_network("10.2.0.0/16"), ip_network("10.2.3.0/24")),
                tuple(sorted(OWN)),
                ((Transport.SCTP, 2905), (Transport.TCP, 30080)),
            ),
            ["elements = { 10.2.0.0/16 }", "elements = { 192.0.2.1 }", "elements = { 30080 }", "elements = { 2905 }"],
            id="IPv4, one network inside of another",
        ),
        pytest.param(
            MasqueradeRules(POOL_6, (ip_network("fd00:2::/64"),), tuple(sorted(OWN)), ((Transport.UDP, 53),)),
            ["ip6 saddr fd00:2::/64 ip6 daddr fd00:2::/64 masquerade", "elements = { 2001:db8::1 }"],
            id="IPv6",
        ),
    ],
)
def test_nft_accepts_the_table_and_lists_it_as_written(network: None, rules: MasqueradeRules, words: list[str]) -> None:
    family = "ip6" if rules.pool.version == 6 else "ip"
    for _ in range(2):  # the second time it replaces itself
        run_command("nft", "-f", "-", given=render_script(rules))
        listed = run_command("nft", "list", "table", family, "vipmesh")
        assert [word for word in words if word not in listed] == []


@given(st.lists(st.ip_addresses(v=4).map(lambda a: ip_network(f"{a}/24", strict=False)), max_size=9))
def test_networks_of_a_set_never_overlap(networks: list[Any]) -> None:
    wide = [network.supernet(8) for network in networks[:2]]
    script = render_script(MasqueradeRules(POOL, tuple(dict.fromkeys([*networks, *wide]))))
    hairpins = [ip_network(line.split()[2]) for line in script.splitlines() if '"hairpin"' in line]
    assert not any(a != b and a.overlaps(b) for a in hairpins for b in hairpins)


async def test_the_table_is_created_repaired_and_removed_and_no_other_is_touched(network: None) -> None:
    run_command("nft", "-f", "-", given="table ip theirs { chain c { type nat hook postrouting priority srcnat; }; }")
    nat = Masquerade(POOL)
    assert await nat.repair(OWN, CLAIMS) == ["nftables table ip vipmesh made"]
    assert await nat.repair(OWN, CLAIMS) == []

    run_command("nft", "flush", "chain", "ip", "vipmesh", "translated")
    assert await nat.repair(OWN, CLAIMS) == ["nftables table ip vipmesh was changed"]
    assert "masquerade" in run_command("nft", "list", "table", "ip", "vipmesh")
    run_command("nft", "delete", "table", "ip", "vipmesh")
    assert await nat.repair(OWN, CLAIMS) == ["nftables table ip vipmesh made"]

    assert await Masquerade(POOL).repair(OWN, CLAIMS) == [], "a restarted daemon finds what it needs"
    assert tables() == ["ip theirs", "ip vipmesh"]
    assert await nat.remove() == ["delete nftables table ip vipmesh"]
    assert await nat.remove() == []
    assert tables() == ["ip theirs"]


async def test_it_follows_ports_addresses_and_networks_without_log_lines(network: None) -> None:
    nat = Masquerade(POOL, [ip_network("10.5.0.0/24"), ip_network("fd00:5::/64")])
    await nat.repair(frozenset(), Claims())
    run_ip("link add br0 type bridge", "address add 10.2.0.254/24 dev br0", "link set br0 up")
    assert await nat.repair(OWN, CLAIMS) == []
    listed = run_command("nft", "list", "table", "ip", "vipmesh")
    for words in ("{ 30080 }", "{ 30053 }", "{ 192.0.2.1 }", "{ 10.2.0.0/24, 10.5.0.0/24 }"):
        assert words in listed


async def test_a_missing_nft_is_reported_with_the_package_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nonexistent")
    monkeypatch.setattr("mesh.util.nft.ADMIN_PATH", "/nonexistent")
    with pytest.raises(HostError, match="`apt-get install nftables`"):
        await Masquerade(POOL).repair(OWN, CLAIMS)


async def test_a_missing_privilege_is_reported() -> None:
    """By the real nft, as a user who may not: in a network namespace that belongs to others."""
    said = subprocess.run(
        ["setpriv", "--reuid=65534", "--clear-groups", "nft", "list", "table", "ip", "vipmesh"],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "PATH": f"{os.environ['PATH']}:/usr/sbin"},
    )
    assert said.returncode, "a user of no rank may list tables"
    assert "run as root or with CAP_NET_ADMIN" in str(explain_refusal(said.stderr))
