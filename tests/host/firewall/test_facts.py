"""What the listings of a host's firewall say."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mesh.host.firewall.facts import AcceptMark, Backend, FirewallTexts, parse_filter, read_facts
from tests.host.firewall.listings import ENGINE_20_10, ENGINE_28, OWN_CHAINS, engine_table


@pytest.mark.parametrize(
    ("texts", "drops_direct"),
    [
        pytest.param(FirewallTexts({Backend.NFT: ENGINE_20_10}), False, id="20.10"),
        pytest.param(FirewallTexts({Backend.LEGACY: ENGINE_28}, legacy_in_use=True), True, id="28, legacy"),
        pytest.param(FirewallTexts({Backend.NFT: ""}, nft=engine_table()), True, id="29, nftables"),
    ],
)
def test_the_engines_rules_say_which_networks_are_isolated(texts: FirewallTexts, drops_direct: bool) -> None:
    facts = read_facts(texts, 4)
    assert facts.open_bridges == {"br-shop", "br-quiet"}
    assert facts.internal_bridges == {"br-secret"}
    assert facts.silent_bridges == {"br-quiet"}
    assert facts.drops_direct is drops_direct
    assert facts.filters_forwarded


def test_the_chain_of_the_operator_is_read_word_by_word() -> None:
    chain = parse_filter(ENGINE_20_10).user_chain
    assert chain is not None
    first, last = chain
    assert (first.comment, first.target, first.option("-s")) == ('no "guests" here', "DROP", ("198.51.100.7/32", False))
    assert (first.is_unconditional, last.is_unconditional, last.target) == (False, True, "RETURN")
    assert parse_filter(ENGINE_28).user_chain == ()
    assert parse_filter("").user_chain is None


@pytest.mark.parametrize(
    ("rule", "mark"),
    [
        (
            'meta mark & 0x00001000 == 0x00001000 counter packets 0 bytes 0 accept comment "ALLOW FW MARK"',
            (0x1000, 0x1000),
        ),
        ('meta mark & 0x00000003 == 0x00000002 counter packets 0 bytes 0 accept comment "ALLOW FW MARK"', (2, 3)),
        ("meta mark 0x00000001 counter packets 0 bytes 0 accept", (1, 0xFFFFFFFF)),
        ("meta mark and 0x10 == 0x10 counter accept", (0x10, 0x10)),
        ("meta mark & 0x00001000 == 0x00001000 counter packets 0 bytes 0 drop", None),
        ("", None),
    ],
)
def test_the_mark_that_the_engine_accepts(rule: str, mark: tuple[int, int] | None) -> None:
    facts = read_facts(FirewallTexts({Backend.NFT: ""}, nft=engine_table(rule)), 4)
    assert facts.has_engine_table
    assert facts.accept_mark == (None if mark is None else AcceptMark(*mark))


def test_tables_of_the_other_ip_version_do_not_count() -> None:
    texts = FirewallTexts(
        {Backend.NFT: ""},
        nft=engine_table(family="ip6") + "table ip6 x {\n\tchain f {\n\t\t"
        "type filter hook forward priority filter; policy drop;\n\t}\n}\n",
    )
    assert not read_facts(texts, 4).filters_forwarded
    assert read_facts(texts, 6).has_engine_table
    assert [(chain.table, chain.name) for chain in read_facts(texts, 6).dropping] == [("ip6 x", "f")]


def test_chains_that_drop_by_default_are_found_and_ours_are_not_among_them() -> None:
    own = "table ip vipmesh_x {\n\tchain c {\n\t\ttype filter hook forward priority 0; policy drop;\n\t}\n}\n"
    facts = read_facts(FirewallTexts({Backend.NFT: ""}, nft=OWN_CHAINS + own), 4)
    assert [(chain.table, chain.name, chain.hook) for chain in facts.dropping] == [
        ("inet filter", "input", "input"),
        ("inet filter", "forward", "forward"),
    ]


@pytest.mark.parametrize(
    ("texts", "unreadable"),
    [
        pytest.param(FirewallTexts(failures={Backend.LEGACY: "no"}, legacy_in_use=True), {Backend.LEGACY}, id="legacy"),
        pytest.param(
            FirewallTexts({Backend.NFT: ENGINE_20_10}, {Backend.LEGACY: "no"}, legacy_in_use=None), set(), id="unknown"
        ),
        pytest.param(FirewallTexts(failures={Backend.NFT: "no"}), set(), id="nothing in it"),
        pytest.param(
            FirewallTexts(failures={Backend.NFT: "no"}, nft="table ip filter {\n\tchain DOCKER-USER {\n\t}\n}\n"),
            {Backend.NFT},
            id="no program, but rules",
        ),
    ],
)
def test_what_cannot_be_read_counts_if_it_may_hold_the_engines_rules(
    texts: FirewallTexts, unreadable: set[Backend]
) -> None:
    assert set(read_facts(texts, 4).failures) == unreadable


@given(st.text(alphabet='-A:* \n\t{}"\\DOCKERUSiobr0!=accept', max_size=300))
def test_no_listing_is_too_strange(text: str) -> None:
    for shape in (
        text,
        f"*filter\n{text}",
        f"table ip docker-bridges {{\n\tchain filter-forward-in__x {{\n{text}\n\t}}\n}}",
    ):
        read_facts(FirewallTexts({Backend.NFT: shape}, nft=shape), 4)
