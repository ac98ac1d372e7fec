"""The table that counts requests: made, changed by others, published ports, both address families, strange listings."""

import shutil
from collections.abc import Iterator
from ipaddress import ip_network

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mesh.host.request_counts import ClientOfVip, RequestCounter, RequestCounts, parse_counts, render_watch_table
from mesh.model.service import Transport
from mesh.model.table import VirtualKey
from tests.builders import POOL, WEB_KEY
from tests.netns import private_network, run_command
from tests.system.e2e.programs import CI

NOTHING = RequestCounts({}, {})
PUBLISHED = VirtualKey("192.0.2.1", 30080, Transport.TCP)
RULE: dict[str, object] = {"rule": {}}


def with_elements(name: str, *elements: object) -> str:
    """A listing with all rules, and a set of these elements."""
    return msgspec.json.encode({"nftables": [*[RULE] * 9, {"set": {"name": name, "elem": elements}}]}).decode()


@pytest.fixture
def network() -> Iterator[None]:
    if not CI and not (shutil.which("nft") or shutil.which("/usr/sbin/nft")):
        pytest.skip("needs nft: apt-get install nftables")
    with private_network():
        yield


def listed() -> str:
    return run_command("nft", "list", "ruleset")


async def test_the_table_is_made_and_made_again_after_a_change(network: None) -> None:
    counter = RequestCounter(POOL)
    assert await counter.read([WEB_KEY]) == NOTHING
    made = listed()
    run_command("nft", "add", "element", "ip", "vipmesh_watch", "forwarded", "{ 10.112.0.7 . 192.0.2.9 }")
    kept = await counter.read([WEB_KEY])
    assert kept.forwarded == {ClientOfVip("10.112.0.7", "192.0.2.9"): 0}, "reading leaves the counts"
    for change in ("flush chain ip vipmesh_watch postrouting", "delete table ip vipmesh_watch", "flush ruleset"):
        run_command("nft", *change.split())
        await counter.read([WEB_KEY])
        assert listed() == made, change


async def test_published_ports_are_counted_as_they_come_and_go(network: None) -> None:
    counter = RequestCounter(POOL)
    await counter.read([WEB_KEY, PUBLISHED])
    assert "elements = { 30080 }" in listed()
    await counter.read([WEB_KEY])
    assert "30080" not in listed()


async def test_the_tables_of_both_families_are_removed(network: None) -> None:
    counters = [RequestCounter(POOL), RequestCounter(ip_network("fd00:112::/64"))]
    for counter in counters:
        assert await counter.read([]) == NOTHING
    assert await counters[0].remove() == [f"delete nftables table {family} vipmesh_watch" for family in ("ip", "ip6")]
    assert (listed(), await counters[0].remove()) == ("", [])


def test_nothing_is_dropped_or_changed_by_it() -> None:
    words = render_watch_table(POOL, [PUBLISHED]).split()
    assert not {"drop", "reject", "dnat", "snat", "masquerade", "mark", "notrack"} & set(words)


@pytest.mark.parametrize(
    "listing",
    [
        "",
        "[]",
        '{"nftables": 5}',
        '{"nftables": [5]}',
        msgspec.json.encode({"nftables": [*[RULE] * 9, {"set": {"name": "received", "elem": [5]}}]}).decode(),
        msgspec.json.encode(
            {"nftables": [*[RULE] * 9, {"set": {"name": "forwarded", "elem": [{"elem": {}}]}}]}
        ).decode(),
    ],
)
def test_a_listing_of_another_form_is_refused(listing: str) -> None:
    with pytest.raises(ValueError, match="the listing of the table vipmesh_watch is not understood"):
        parse_counts(listing)


@given(st.recursive(st.none() | st.integers() | st.text(), lambda t: st.lists(t) | st.dictionaries(st.text(), t)))
def test_any_json_is_understood_or_refused(value: object) -> None:
    for listing in (value, {"nftables": value}, {"nftables": [*[RULE] * 9, value]}):
        try:
            parse_counts(msgspec.json.encode(listing).decode())
        except ValueError:
            continue
