"""Source NAT in the kernel's tables: what is rendered, mended and removed. What it does to traffic needs IPVS."""

from collections.abc import Iterator
from ipaddress import ip_network

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mesh.host import HostError
from mesh.host.nft import table
from mesh.host.routes import Network
from mesh.host.source_nat import NatRules, SourceNat, render
from mesh.model import Claims, Transport
from tests.netns import ip, need, private_network, run

POOL = ip_network("10.112.0.0/16")
POOL6 = ip_network("fd00:112::/64")
ADDRESSES = frozenset(["192.0.2.1", "2001:db8::1"])
CLAIMS = Claims(ports={(Transport.TCP, 30080): ("web.test", 80), (Transport.UDP, 30053): ("dns.test", 53)})
LOCAL = frozenset([ip_network("10.2.0.0/24"), ip_network("fd00:2::/64")])


@pytest.fixture
def network() -> Iterator[None]:
    need("nft", "nftables")
    with private_network():
        yield


SCRIPT = """\
table ip vipmesh
delete table ip vipmesh
table ip vipmesh {
	set local_networks {
		type ipv4_addr
		flags interval
		elements = { 10.2.0.0/24 }
	}
	set hairpins {
		type ipv4_addr . ipv4_addr
		flags interval
		elements = { 10.2.0.0/24 . 10.2.0.0/24 }
	}
	set worker_addresses {
		type ipv4_addr
		elements = { 192.0.2.1 }
	}
	set published_tcp {
		type inet_service
		elements = { 30080 }
	}
	set published_udp {
		type inet_service
	}
	chain postrouting {
		type nat hook postrouting priority srcnat; policy accept;
		oifname "lo" accept comment "an endpoint that is this host itself"
		ct original ip daddr 10.112.0.0/16 ip daddr != 10.112.0.0/16 goto source
		ct original ip daddr @worker_addresses meta l4proto tcp ct original proto-dst @published_tcp goto source
		ct original ip daddr @worker_addresses meta l4proto udp ct original proto-dst @published_udp goto source
	}
	chain source {
		fib saddr type local counter masquerade fully-random comment "host: its own connections"
		ip daddr != @local_networks counter masquerade fully-random comment "elsewhere: no network of ours"
		ip saddr . ip daddr @hairpins counter masquerade fully-random comment "hairpin: within one network"
	}
}
"""
TRANSLATE = """table ip other { chain c {
    type nat hook output priority -100
    ip daddr 10.3.0.7 dnat to 10.3.0.200
}
}"""


class Networks:
    """The container networks of a host, as the test says."""

    def __init__(self) -> None:
        self.now: frozenset[Network] | OSError = LOCAL

    async def __call__(self) -> frozenset[Network]:
        if isinstance(self.now, OSError):
            raise self.now
        return self.now


def rules(pool: Network = POOL, *local: str) -> NatRules:
    return NatRules(pool, ADDRESSES, frozenset(map(ip_network, local)) or LOCAL, frozenset(CLAIMS.ports))


class TestRender:
    def test_the_whole_script(self) -> None:
        text = render(NatRules(POOL, frozenset(["192.0.2.1"]), LOCAL, frozenset([(Transport.TCP, 30080)])))
        assert text == SCRIPT

    def test_only_what_is_of_the_pools_family(self) -> None:
        text = render(rules(POOL6))
        assert "elements = { fd00:2::/64 }" in text
        assert "elements = { 2001:db8::1 }" in text
        assert "ct original ip6 daddr fd00:112::/64" in text
        assert "10.2.0.0" not in text
        assert "192.0.2.1" not in text

    def test_a_network_inside_another_is_that_one_and_neighbours_stay_two(self) -> None:
        text = render(rules(POOL, "172.18.0.0/16", "172.19.0.0/16", "172.18.4.0/24"))
        assert "elements = { 172.18.0.0/16, 172.19.0.0/16 }" in text
        assert "{ 172.18.0.0/16 . 172.18.0.0/16, 172.19.0.0/16 . 172.19.0.0/16 }" in text

    @given(
        networks=st.frozensets(st.ip_addresses(v=4).flatmap(lambda a: st.integers(1, 31).map(lambda p: (a, p)))),
        ports=st.frozensets(st.tuples(st.sampled_from(list(Transport)), st.integers(1, 65535))),
    )
    @settings(max_examples=20, deadline=None)
    def test_nft_takes_every_script(
        self, networks: frozenset[tuple[object, int]], ports: frozenset[tuple[Transport, int]]
    ) -> None:
        need("nft", "nftables")
        local = frozenset(ip_network(f"{address}/{prefix}", strict=False) for address, prefix in networks)
        with private_network():
            run("nft", "-f", "-", given=render(NatRules(POOL, ADDRESSES, local, ports)))


@pytest.mark.usefixtures("network")
class TestMend:
    @pytest.mark.parametrize(("pool", "family"), [(POOL, "ip"), (POOL6, "ip6")], ids=["v4", "v6"])
    async def test_it_is_set_up_once_and_then_found_as_it_must_be(self, pool: Network, family: str) -> None:
        nat = SourceNat(pool, find=Networks())
        assert await nat.mend(ADDRESSES, CLAIMS) == [f"nftables table {family} vipmesh is there, was missing"]
        assert await nat.mend(ADDRESSES, CLAIMS) == []
        assert "masquerade" in run("nft", "list", "table", family, "vipmesh")

    async def test_a_restart_finds_nothing_to_tell(self) -> None:
        await SourceNat(POOL, find=Networks()).mend(ADDRESSES, CLAIMS)
        before = run("nft", "list", "ruleset")
        assert await SourceNat(POOL, find=Networks()).mend(ADDRESSES, CLAIMS) == []
        assert run("nft", "list", "ruleset") == before

    async def test_what_changed_while_no_daemon_ran_is_told(self) -> None:
        await SourceNat(POOL, find=Networks()).mend(ADDRESSES, CLAIMS)
        run("nft", "flush", "set", "ip", "vipmesh", "published_tcp")
        found = await SourceNat(POOL, find=Networks()).mend(ADDRESSES, CLAIMS)
        assert found == ["nftables set ip vipmesh published_tcp is as it must be, was changed"]

    async def test_claims_addresses_and_networks_are_followed_and_are_no_repair(self) -> None:
        networks = Networks()
        nat = SourceNat(POOL, find=networks)
        await nat.mend(frozenset(), Claims())
        assert await nat.mend(ADDRESSES, CLAIMS) == []
        networks.now = LOCAL | {ip_network("10.3.0.0/24")}
        assert await nat.mend(ADDRESSES, CLAIMS) == []
        listed = run("nft", "list", "table", "ip", "vipmesh")
        for element in ("10.3.0.0/24 . 10.3.0.0/24", "30080", "30053", "192.0.2.1"):
            assert element in listed

    @pytest.mark.parametrize(
        ("command", "lines"),
        [
            pytest.param("delete table ip vipmesh", ["table ip vipmesh is there, was missing"], id="a deleted table"),
            pytest.param("flush ruleset", ["table ip vipmesh is there, was missing"], id="a flushed ruleset"),
            pytest.param(
                "flush table ip vipmesh",
                [f"chain ip vipmesh {name} is as it must be, was changed" for name in ("postrouting", "source")],
                id="a flushed table",
            ),
            pytest.param(
                "flush chain ip vipmesh source",
                ["chain ip vipmesh source is as it must be, was changed"],
                id="a flushed chain",
            ),
            pytest.param(
                "insert rule ip vipmesh source accept",
                ["chain ip vipmesh source is as it must be, was changed"],
                id="a rule before ours",
            ),
            pytest.param(
                "add chain ip vipmesh postrouting { policy drop; }",
                ["chain ip vipmesh postrouting is as it must be, was changed"],
                id="another policy",
            ),
            pytest.param(
                "add element ip vipmesh published_tcp { 22 }",
                ["set ip vipmesh published_tcp is as it must be, was changed"],
                id="an element more",
            ),
            pytest.param(
                "add chain ip vipmesh mine", ["chain ip vipmesh mine is gone, was added"], id="a chain in our table"
            ),
            pytest.param(
                "add table ip vipmesh { flags dormant; }",
                ["table ip vipmesh is as it must be, was changed"],
                id="a table put to sleep",
            ),
        ],
    )
    async def test_what_somebody_changes_is_mended_and_told(self, command: str, lines: list[str]) -> None:
        nat = SourceNat(POOL, find=Networks())
        await nat.mend(ADDRESSES, CLAIMS)
        before = run("nft", "list", "ruleset")
        run("nft", command)

        assert await nat.mend(ADDRESSES, CLAIMS) == [f"nftables {line}" for line in lines]

        assert run("nft", "list", "ruleset") == before
        assert await nat.mend(ADDRESSES, CLAIMS) == []

    async def test_counted_packets_are_no_change(self) -> None:
        ip("link add v0 type veth peer name v1", "address add 10.3.0.1/24 dev v0", "link set v0 up", "link set v1 up")
        nat = SourceNat(ip_network("10.3.0.0/25"), find=Networks())
        await nat.mend(frozenset(), Claims())
        run("nft", TRANSLATE)
        run("bash", "-c", "echo > /dev/udp/10.3.0.7/9")
        assert "counter packets 1" in run("nft", "list", "chain", "ip", "vipmesh", "source")
        assert await nat.mend(frozenset(), Claims()) == []

    async def test_networks_that_the_settings_name_are_not_found_out(self) -> None:
        await SourceNat(POOL, [ip_network("10.9.0.0/24")], find=Networks()).mend(ADDRESSES, CLAIMS)
        listed = run("nft", "list", "set", "ip", "vipmesh", "local_networks")
        assert "10.9.0.0/24" in listed
        assert "10.2.0.0/24" not in listed

    async def test_networks_that_cannot_be_read_leave_the_table_as_it_is(self) -> None:
        networks = Networks()
        nat = SourceNat(POOL, find=networks)
        await nat.mend(ADDRESSES, CLAIMS)
        networks.now = OSError("netlink is full")
        with pytest.raises(HostError, match="container networks of this host cannot be read: netlink is full"):
            await nat.mend(ADDRESSES, CLAIMS)
        assert await table("ip", "vipmesh")


@pytest.mark.usefixtures("network")
class TestOthers:
    FOREIGN = "table ip nat {\n\tchain vipmesh {\n\t\tcounter packets 0 bytes 0 masquerade\n\t}\n}\n"

    async def test_tables_of_others_are_never_touched(self) -> None:
        run("nft", "-f", "-", given=self.FOREIGN)
        run("nft", "add table inet vipmesh; add table ip vipmesh_lb")
        before = run("nft", "list", "ruleset")
        nat = SourceNat(POOL, find=Networks())
        await nat.mend(ADDRESSES, CLAIMS)
        assert before in run("nft", "list", "ruleset")
        assert await nat.remove() == ["ip"]
        assert run("nft", "list", "ruleset") == before

    async def test_teardown_removes_both_families_and_knows_when_there_is_none(self) -> None:
        for pool in (POOL, POOL6):
            await SourceNat(pool, find=Networks()).mend(ADDRESSES, CLAIMS)
        nat = SourceNat(POOL, find=Networks())
        assert await nat.remove() == ["ip", "ip6"]
        assert not run("nft", "list", "ruleset")
        assert await nat.remove() == []
