"""Which names labels may claim: a table of names, and the properties that no spelling gets around."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mesh.config.name_policy import EVERY_NAME, MAX_OLDER_NAMES, NamePolicy, is_at_or_below, name_policy, older_names
from mesh.config.settings import parse_settings
from mesh.model.errors import SettingsError

SETTINGS = """
[names]
allow = ["local", "test", "shop.example"]
[dns.forward]
"corp.example" = ["10.1.1.1"]
"lab.test" = ["10.1.1.2"]
"""


def policy(text: str = SETTINGS) -> NamePolicy:
    return name_policy(parse_settings(text, {}, hostname="w1"))


@pytest.mark.parametrize(
    "name",
    ["web.mesh.internal", "a.b.mesh.internal", "restserver.local", "web.test", "shop.example", "api.shop.example"],
)
def test_names_in_allowed_domains_are_allowed(name: str) -> None:
    assert policy().refusal(name) is None


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("github.com", "outside the domains"),
        ("registry-1.docker.io", "outside the domains"),
        ("notlocal", "outside the domains"),
        ("web.notlocal", "outside the domains"),
        ("local.example", "outside the domains"),
        ("badshop.example", "outside the domains"),
        ("web.internal", "outside the domains"),
        ("corp.example", "[dns.forward]"),
        ("mail.corp.example", "[dns.forward]"),
        ("web.lab.test", "[dns.forward]"),
        ("mesh.internal", "the name server's own"),
        ("ns.mesh.internal", "the name server's own"),
        ("hostmaster.mesh.internal", "the name server's own"),
        ("7.0.112.10.in-addr.arpa", "reverse zone"),
        ("in-addr.arpa", "reverse zone"),
        ("1.0.0.0.ip6.arpa", "reverse zone"),
    ],
)
def test_other_names_are_refused_with_a_reason(name: str, why: str) -> None:
    refusal = policy().refusal(name)
    assert refusal is not None
    assert why in refusal[0]


def test_the_remedy_is_a_line_that_allows_the_name() -> None:
    refusal = policy('[names]\nallow = ["local"]').refusal("web.shop.example")
    assert refusal is not None
    line = refusal[1].partition("write ")[2].partition(" on all")[0].removeprefix("[names] ")
    assert policy(f"[names]\n{line}").refusal("web.shop.example") is None
    assert policy(f"[names]\n{line}").refusal("restserver.local") is None, "what was allowed stays allowed"


def test_the_remedy_never_opens_a_whole_top_level() -> None:
    refusal = policy("").refusal("shop.com")
    assert refusal is not None
    assert '"shop.com"]' in refusal[1]


@pytest.mark.parametrize(
    ("value", "why"),
    [
        ('["com"]', "whole top-level domain"),
        ('["arpa"]', "whole top-level domain"),
        ('["example"]', "whole top-level domain"),
        ('["10.in-addr.arpa"]', "reverse zone"),
        ('["a..b"]', "not a domain name"),
        ('["*.example.com"]', "not a domain name"),
        ("[7]", "not a text"),
        ("true", "not a list"),
    ],
)
def test_a_domain_that_opens_too_much_is_refused(value: str, why: str) -> None:
    with pytest.raises(SettingsError, match=why):
        parse_settings(f"[names]\nallow = {value}", {}, hostname="w1")


def test_a_domain_that_is_forwarded_and_allowed_is_a_contradiction() -> None:
    text = '[names]\nallow = ["a.corp.example"]\n[dns.forward]\n"corp.example" = ["10.1.1.1"]'
    with pytest.raises(SettingsError, match="left to the servers of"):
        parse_settings(text, {}, hostname="w1")


def test_the_defaults_are_the_domains_that_the_public_dns_does_not_have() -> None:
    default = policy("")
    for name in ("web.mesh.internal", "a.local", "a.internal", "a.test", "a.lan", "a.home.arpa"):
        assert default.refusal(name) is None, name
    assert default.refusal("a.example.com") is not None


@given(st.from_regex(r"[a-z]{1,5}(\.[a-z]{1,5}){0,3}", fullmatch=True), st.sampled_from(["local", "shop.example"]))
def test_a_name_is_in_a_domain_by_whole_labels(name: str, domain: str) -> None:
    labels, whole = name.split("."), domain.split(".")
    assert is_at_or_below(name, domain) == (labels[-len(whole) :] == whole)


def test_older_names_are_those_that_would_be_refused_and_their_number_is_bounded() -> None:
    many = [f"n{number}.example.com" for number in range(MAX_OLDER_NAMES + 10)]
    assert older_names(["web.test", "github.com"], policy()) == ("github.com",)
    assert len(older_names(many, policy())) == MAX_OLDER_NAMES
    assert older_names(many, EVERY_NAME) == ()
