"""Virtual servers as nft rules and back, without a kernel, and connection tracking messages."""

import json
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mesh.dataplane.nftables.balancer import HASH_SEED, MAX_SLOTS, choose_balancer
from mesh.dataplane.nftables.parse import ListingError, RulesetListing, parse_state
from mesh.dataplane.nftables.ruleset import base_chains
from mesh.dataplane.nftables.service_chain import (
    FOREIGN_VALUE,
    chain_name,
    chain_virtual_key,
    parse_virtual_server,
    service_chains,
)
from mesh.dataplane.nftables.statements import rule_text
from mesh.model.service import Address, Scheduler, SchedulerFlag, Transport
from mesh.model.table import RealKey, RealServer, VirtualKey, VirtualServer
from tests.builders import WEB_KEY

A, B, C = (RealKey(f"10.2.0.{number}", 8080) for number in (1, 2, 3))


def server(scheduler: Scheduler = Scheduler.WRR, persistence: int = 0, **weights: int) -> VirtualServer:
    reals = {{"a": A, "b": B, "c": C}[name]: RealServer(weight) for name, weight in weights.items()}
    return VirtualServer(scheduler, persistence, reals)


@pytest.mark.parametrize(
    ("given", "number", "runs"),
    [
        pytest.param(server(a=1, b=1), "numgen inc mod 2", [(A, 1), (B, 1)], id="in turn"),
        pytest.param(server(a=100, b=100), "numgen inc mod 2", [(A, 1), (B, 1)], id="no bursts of a hundred"),
        pytest.param(server(a=4, b=2, c=2), "numgen inc mod 4", [(A, 1), (B, 1), (C, 1), (A, 1)], id="mixed"),
        pytest.param(server(a=1, b=0), "numgen inc mod 1", [(A, 1)], id="weight 0 takes nothing"),
        pytest.param(server(Scheduler.RR, a=9, b=1), "numgen inc mod 2", [(A, 1), (B, 1)], id="rr knows no weights"),
        pytest.param(server(a=1000, b=999), "numgen random mod 1999", [(A, 1000), (B, 999)], id="many slots"),
        pytest.param(
            server(Scheduler.SH, a=2, b=1),
            f"jhash ip saddr mod 3 seed {HASH_SEED:#x}",
            [(A, 2), (B, 1)],
            id="by client",
        ),
        pytest.param(server(Scheduler.DH, a=1), f"jhash ip daddr mod 1 seed {HASH_SEED:#x}", [(A, 1)], id="by VIP"),
    ],
)
def test_how_a_real_server_is_chosen(given: VirtualServer, number: str, runs: list[tuple[RealKey, int]]) -> None:
    chosen = choose_balancer(WEB_KEY, given)
    assert chosen is not None
    assert (chosen.number, list(chosen.runs)) == (number, runs)


def test_no_real_server_is_chosen_if_none_takes_new_connections() -> None:
    assert choose_balancer(WEB_KEY, server(a=0)) is None
    assert choose_balancer(WEB_KEY, server()) is None


addresses = st.integers(1, 200).map(lambda number: f"10.2.0.{number}")
addresses_6 = st.integers(1, 0xFFFF).map(lambda number: f"fd00:2::{number:x}")


def real_servers(address: st.SearchStrategy[Address]) -> st.SearchStrategy[dict[RealKey, RealServer]]:
    limits = st.sampled_from([(0, 0), (100, 80), (5, 0)])
    settings_ = st.builds(
        lambda weight, limit: RealServer(weight, upper_threshold=limit[0], lower_threshold=limit[1]),
        st.one_of(st.integers(0, 5), st.integers(0, 1000)),
        limits,
    )
    return st.dictionaries(st.builds(RealKey, address, st.integers(1, 65535)), settings_, max_size=6)


def virtual_servers(address: st.SearchStrategy[Address]) -> st.SearchStrategy[VirtualServer]:
    return st.builds(
        VirtualServer,
        st.sampled_from(Scheduler),
        st.sampled_from([0, 0, 60, 86400]),
        real_servers(address),
        st.frozensets(st.sampled_from(SchedulerFlag)),
    )


pairs = st.one_of(
    st.tuples(
        st.builds(VirtualKey, addresses, st.integers(1, 65535), st.sampled_from(Transport)), virtual_servers(addresses)
    ),
    st.tuples(
        st.builds(VirtualKey, addresses_6, st.integers(1, 65535), st.sampled_from(Transport)),
        virtual_servers(addresses_6),
    ),
)


@given(pairs)
def test_written_rules_are_parsed_back(pair: tuple[VirtualKey, VirtualServer]) -> None:
    key, wanted = pair
    written = service_chains(key, wanted)
    assert chain_virtual_key(chain_name(key)) == key
    assert parse_virtual_server(key, written) == wanted
    assert all(len(line.comment) <= 128 for rules in written.chains.values() for line in rules), "all that nft takes"


@given(virtual_servers(addresses))
def test_slots_are_shared_by_weight(wanted: VirtualServer) -> None:
    chosen = choose_balancer(WEB_KEY, wanted)
    weights = {real: settings.weight for real, settings in wanted.real_servers.items() if settings.weight}
    if chosen is None:
        assert not weights
        return
    slots = Counter[RealKey]()
    for real, count in chosen.runs:
        slots[real] += count
    if wanted.scheduler in (Scheduler.RR, Scheduler.LC):
        assert slots == dict.fromkeys(weights, 1)
    else:
        assert {real: count * sum(weights.values()) for real, count in slots.items()} == {
            real: weight * chosen.slots for real, weight in weights.items()
        }
    assert chosen.slots <= MAX_SLOTS or chosen.selector != "numgen inc"


@given(pairs, st.data())
def test_a_missing_rule_is_noticed(pair: tuple[VirtualKey, VirtualServer], data: st.DataObject) -> None:
    key, wanted = pair
    written = service_chains(key, wanted)
    name = data.draw(st.sampled_from(sorted(written.chains)))
    rules = list(written.chains[name])
    rules.pop(data.draw(st.integers(0, len(rules) - 1)))
    found = type(written)({**written.chains, name: tuple(rules)}, written.clients)
    assert parse_virtual_server(key, found) != wanted


def test_a_client_set_with_another_timeout_is_noticed() -> None:
    written = service_chains(WEB_KEY, server(persistence=60, a=1))
    found = type(written)(written.chains, dict.fromkeys(written.clients, 61))
    assert parse_virtual_server(WEB_KEY, found).persistence == FOREIGN_VALUE


def test_protocols_are_understood_by_number_and_by_name() -> None:
    for protocol in (6, "tcp"):
        match = {"match": {"op": "==", "left": {"meta": {"key": "l4proto"}}, "right": protocol}}
        assert rule_text([match, {"dnat": {"addr": "10.2.0.1", "port": 80}}]) == "meta l4proto 6 dnat to 10.2.0.1:80"
        element = [{"concat": ["10.112.0.7", protocol, 80]}, {"goto": {"target": "x"}}]
        services = {"name": "services", "type": ["ipv4_addr"], "map": "verdict", "elem": [element]}
        listed = RulesetListing.of(json.dumps({"nftables": [{"map": services}]}))
        assert parse_state(listed, base_chains(4)).mapped == {WEB_KEY: "x"}


@pytest.mark.parametrize("listed", ["", "[]", '{"nftables": [{"map": 1}]}', '{"nftables": [{"rule": {"chain": "x"}}]}'])
def test_an_invalid_listing_is_reported(listed: str) -> None:
    with pytest.raises(ListingError):
        RulesetListing.of(listed)


@pytest.mark.parametrize(
    "statement",
    [
        pytest.param({"dnat": {"nat": "odd"}}, id="a shape that is not ours"),
        pytest.param({"counter": None}, id="a statement that is not ours"),
        pytest.param("notrack", id="no object"),
        pytest.param({"masquerade": None, "log": None}, id="two in one"),
    ],
)
def test_foreign_statements_are_rendered_as_json(statement: object) -> None:
    assert rule_text([statement]) == json.dumps(statement, sort_keys=True)
