"""The hairpin flags of bridge ports: which are set and cleared, and what the kernel makes of it.

Their effect on packets: tests/dataplane/masquerade_contract.py.
"""

import asyncio
import json
from collections.abc import Iterator
from ipaddress import ip_address, ip_network
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mesh.host import HostError
from mesh.host.hairpin import BridgeFacts, BridgePort, HairpinPorts, HairpinResult, plan_hairpin
from tests.netns import Namespace, private_network, run_command, run_ip

NETWORK = ip_network("10.2.0.0/24")
BRIDGE, OTHER = 2, 3
A, B, OWN = "10.2.0.1", "10.2.0.2", "10.2.0.254"
ON = "hairpin on at bridge port ea"
OFF = "hairpin off at bridge port ea"


def facts(*ports: BridgePort, located: dict[str, int] | None = None) -> BridgeFacts:
    return BridgeFacts(ports, {NETWORK: BRIDGE}, located or {}, frozenset({OWN}))


def port(index: int = 7, hairpin: bool = False, alias: str = "") -> BridgePort:
    return BridgePort(index, "ea", hairpin, alias)


@pytest.mark.parametrize(
    ("found", "endpoints", "expected"),
    [
        pytest.param(facts(port(), located={A: 7}), {A}, [(ON, f"vipmesh-hairpin={A}", False)], id="needed"),
        pytest.param(facts(port()), {A}, [], id="not located"),
        pytest.param(facts(port(), located={A: 7}), (), [], id="no endpoint"),
        pytest.param(facts(port(), located={OWN: 7}), {OWN}, [], id="the host itself"),
        pytest.param(facts(port(), located={"10.9.0.1": 7}), {"10.9.0.1"}, [], id="a network that is not filtered"),
        pytest.param(facts(port(hairpin=True), located={A: 7}), {A}, [], id="set outside vipmesh"),
        pytest.param(
            facts(port(alias="theirs"), located={A: 7, B: 7}),
            {A, B},
            [(ON, f"theirs vipmesh-hairpin={A},{B}", False)],
            id="two endpoints behind a port with an alias",
        ),
        pytest.param(facts(port(hairpin=True, alias=f"vipmesh-hairpin={A}")), {A}, [], id="kept without a location"),
        pytest.param(
            facts(port(alias=f"vipmesh-hairpin={A}")), {A}, [(ON, f"vipmesh-hairpin={A}", True)], id="cleared outside"
        ),
        pytest.param(
            facts(port(hairpin=True, alias=f"theirs vipmesh-hairpin={A}")), (), [(OFF, "theirs", False)], id="gone"
        ),
        pytest.param(
            facts(port(hairpin=True, alias=f"vipmesh-hairpin={A}"), port(8), located={A: 8}),
            {A},
            [(OFF, "", False), (ON, f"vipmesh-hairpin={A}", False)],
            id="moved to another port",
        ),
        pytest.param(
            BridgeFacts((port(hairpin=True, alias=f"vipmesh-hairpin={A}"),)),
            {A},
            [(OFF, "", False)],
            id="no longer filtered",
        ),
    ],
)
def test_which_ports_are_changed(
    found: BridgeFacts, endpoints: set[str], expected: list[tuple[str, str, bool]]
) -> None:
    plan = plan_hairpin(found, endpoints)
    assert [(change.line, change.alias, change.is_repair) for change in plan.changes] == expected


def test_an_endpoint_without_a_known_port_is_reported() -> None:
    assert plan_hairpin(facts(port()), {A, OWN}).unlocated == {A: BRIDGE}


addresses = st.integers(1, 20).map(lambda number: str(ip_address("10.2.0.0") + number))
ports = st.lists(
    st.builds(
        BridgePort,
        st.integers(1, 5),
        st.just("port"),
        st.booleans(),
        st.builds(
            lambda theirs, ours: f"{theirs} vipmesh-hairpin={','.join(ours)}".strip() if ours else theirs,
            st.sampled_from(["", "a name", "vipmesh"]),
            st.lists(addresses, max_size=3, unique=True),
        ),
    ),
    max_size=5,
    unique_by=lambda port: port.index,
)


def applied(found: BridgeFacts, endpoints: set[str]) -> BridgeFacts:
    changes = {change.port.index: change for change in plan_hairpin(found, endpoints).changes}
    after = [
        BridgePort(p.index, p.name, changes[p.index].hairpin, changes[p.index].alias) if p.index in changes else p
        for p in found.ports
    ]
    return BridgeFacts(tuple(after), found.networks, found.located, found.own)


@given(ports, st.dictionaries(addresses, st.integers(1, 5)), st.sets(addresses))
def test_the_plan_is_idempotent_and_teardown_restores_what_others_had(
    before: list[BridgePort], located: dict[str, int], endpoints: set[str]
) -> None:
    found = facts(*before, located=located)
    after = applied(found, endpoints)
    assert plan_hairpin(after, endpoints).changes == ()
    for now in after.ports:
        if any(located.get(address) == now.index for address in endpoints - {OWN}):
            assert now.hairpin
    cleared = applied(after, set())
    for was, now in zip(before, cleared.ports, strict=True):
        assert now.endpoints is None
        assert now.hairpin == (was.hairpin and was.endpoints is None)
        assert now.alias == was.marked_alias(())


@pytest.fixture
def container() -> Iterator[Namespace]:
    """A container on a bridge, as an engine makes it; the test is on the host."""
    with private_network():
        setting = Path("/proc/sys/net/bridge/bridge-nf-call-iptables")
        if not setting.exists():
            pytest.skip("needs the module br_netfilter: modprobe br_netfilter")
        setting.write_text("1")
        container = Namespace()
        run_ip(
            "link add br0 type bridge",
            f"address add {OWN}/24 dev br0",
            "link set br0 up",
            f"link add ea type veth peer name e0 netns {container.path}",
            "link set ea master br0",
            "link set ea up",
        )
        container.ip(f"address add {A}/24 dev e0", "link set e0 up", "link set lo up")
        yield container
        container.close()


def link(name: str = "ea") -> tuple[str, str]:
    """The flag and the alias of a port."""
    (found,) = json.loads(run_command("ip", "-d", "-j", "link", "show", name))
    shown: dict[str, Any] = found["linkinfo"]["info_slave_data"]
    return "on" if shown["hairpin"] else "off", found.get("ifalias", "")


async def repaired(hairpin: HairpinPorts, *endpoints: str) -> HairpinResult:
    """The result once the kernel has resolved the endpoints."""
    async with asyncio.timeout(20):
        while not (result := await hairpin.repair(frozenset(endpoints))).is_complete:
            await asyncio.sleep(0.05)  # the kernel does not announce when it has resolved an address
    return result


async def test_the_flag_is_set_audited_and_taken_back(container: Namespace) -> None:
    hairpin = HairpinPorts(4)
    # no packet was sent to this container yet: the kernel has to resolve it first
    assert await repaired(hairpin, A, OWN, "fd00::1") == HairpinResult((ON,))
    assert link() == ("on", f"vipmesh-hairpin={A}")
    assert await hairpin.repair(frozenset({A})) == HairpinResult()

    run_ip("link set dev ea type bridge_slave hairpin off")
    assert await HairpinPorts(4).repair(frozenset({A})) == HairpinResult(repaired=(ON,)), "another process knows it"
    run_ip("neighbour flush dev br0", "link set dev ea type bridge_slave fdb_flush")
    assert await hairpin.repair(frozenset({A})) == HairpinResult(), "a port that no table names any more keeps it"

    assert await hairpin.repair(frozenset()) == HairpinResult((OFF,))
    assert link() == ("off", "")
    await repaired(hairpin, A)
    assert await HairpinPorts(6).remove() == [OFF]
    assert await HairpinPorts(6).remove() == []
    assert link() == ("off", "")


async def test_it_is_set_only_where_bridged_packets_are_filtered(container: Namespace) -> None:
    setting = Path("/proc/sys/net/bridge/bridge-nf-call-iptables")
    setting.write_text("0")
    assert await HairpinPorts(4).repair(frozenset({A})) == HairpinResult()
    run_ip("link set br0 type bridge nf_call_iptables 1")
    assert await repaired(HairpinPorts(4), A) == HairpinResult((ON,)), "by the bridge's own setting"
    run_ip("link set br0 type bridge nf_call_iptables 0")
    assert await HairpinPorts(4).repair(frozenset({A})) == HairpinResult((OFF,))


async def test_a_flag_and_an_alias_of_others_stay(container: Namespace) -> None:
    run_ip("link set dev ea alias theirs", "link set dev ea type bridge_slave hairpin on")
    assert await repaired(HairpinPorts(4), A) == HairpinResult()
    assert await HairpinPorts(4).remove() == []
    assert link() == ("on", "theirs")
    run_ip("link set dev ea type bridge_slave hairpin off")
    await repaired(HairpinPorts(4), A)
    assert link() == ("on", f"theirs vipmesh-hairpin={A}")
    assert await HairpinPorts(4).remove() == [OFF]
    assert link() == ("off", "theirs")


async def test_a_port_that_is_gone_is_no_trouble(container: Namespace) -> None:
    await repaired(HairpinPorts(4), A)
    run_ip("link delete ea")
    result = await HairpinPorts(4).repair(frozenset({A}))
    assert result == HairpinResult(is_complete=False)


async def test_a_port_whose_alias_has_no_room_for_the_mark_is_reported(container: Namespace) -> None:
    run_ip(f"link set dev ea alias {'x' * 250}")
    with pytest.raises(HostError, match=r"bridge port ea has too long an alias.*: shorten the alias"):
        await repaired(HairpinPorts(4), A)
    assert link() == ("off", "x" * 250), "a flag without a mark would stay for good"
