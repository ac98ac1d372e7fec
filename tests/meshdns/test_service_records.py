"""The names and records that a service adds to the zone."""

from dataclasses import replace
from ipaddress import ip_network

import pytest
from dnslib import DNSRecord

from meshdns.packet_cache import ZoneResponder
from meshdns.rdata import name_server_name
from meshdns.service_records import DnsEndpoint, DnsPort, DnsService, reverse_domains
from meshdns.zone import Zone, ZoneBuilder, encode_name

WEB = DnsService(
    addresses=("10.112.0.7",),
    endpoints=(
        DnsEndpoint("a", "10.2.0.1", True, ("worker=w1", "health=healthy")),
        DnsEndpoint("b", "10.2.0.2", False),
        DnsEndpoint("six", "fd00::3", True),
    ),
    ports=(DnsPort(80, "tcp"), DnsPort(53, "udp")),
    about=("state=serving", "serving=2/3"),
    canonical=True,
)
ALIAS = DnsService(("10.112.0.7",))


def zone(domains: tuple[str, ...] = ("mesh.internal", "112.10.in-addr.arpa")) -> Zone:
    draft = ZoneBuilder(domains, serial=1)
    draft.serve_at(["10.2.0.254"])
    return draft.update({"web.mesh.internal": WEB, "alias.local": ALIAS})[0]


def dig(name: str, qtype: str, known: Zone | None = None) -> list[str]:
    """As zone files write it; `NXDOMAIN` and `FOREIGN` for what is not there or not ours."""
    said = ZoneResponder(known or zone()).ask(bytes(DNSRecord.question(name, qtype).pack()))
    if not isinstance(said, bytes):
        return ["FOREIGN"]
    record = DNSRecord.parse(said)
    return ["NXDOMAIN"] if record.header.rcode == 3 else sorted(str(rr.rdata) for rr in record.rr)


@pytest.mark.parametrize(
    ("name", "qtype", "says"),
    [
        ("web.mesh.internal", "A", ["10.112.0.7"]),
        ("web.mesh.internal", "TXT", ['"state=serving","serving=2/3"']),
        ("tasks.web.mesh.internal", "A", ["10.2.0.1"]),
        ("tasks.web.mesh.internal", "AAAA", ["fd00::3"]),
        ("a.web.mesh.internal", "A", ["10.2.0.1"]),
        ("a.web.mesh.internal", "TXT", ['"worker=w1","health=healthy"']),
        ("b.web.mesh.internal", "A", ["10.2.0.2"]),
        ("b.web.mesh.internal", "TXT", []),
        ("six.web.mesh.internal", "A", []),
        ("c.web.mesh.internal", "A", ["NXDOMAIN"]),
        ("_80._tcp.web.mesh.internal", "SRV", ["0 0 80 web.mesh.internal."]),
        ("_53._udp.web.mesh.internal", "SRV", ["0 0 53 web.mesh.internal."]),
        ("_80._udp.web.mesh.internal", "SRV", ["NXDOMAIN"]),
        ("_tcp.web.mesh.internal", "SRV", []),
        ("tasks.alias.local", "A", ["NXDOMAIN"]),
        ("7.0.112.10.in-addr.arpa", "PTR", ["web.mesh.internal."]),
        ("8.0.112.10.in-addr.arpa", "PTR", ["NXDOMAIN"]),
        ("7.0.113.10.in-addr.arpa", "PTR", ["FOREIGN"]),
        ("mesh.internal", "NS", ["ns.mesh.internal."]),
        ("alias.local", "NS", ["ns.mesh.internal."]),
        ("ns.mesh.internal", "A", ["10.2.0.254"]),
        ("mesh.internal", "SOA", ["ns.mesh.internal. hostmaster.mesh.internal. 1 3600 600 86400 5"]),
    ],
)
def test_records(name: str, qtype: str, says: list[str]) -> None:
    assert dig(name, qtype) == says


def test_a_vip_outside_of_all_reverse_domains_still_has_a_ptr_record() -> None:
    known = zone(("mesh.internal",))
    assert dig("7.0.112.10.in-addr.arpa", "PTR", known) == ["web.mesh.internal."]
    assert dig("8.0.112.10.in-addr.arpa", "PTR", known) == ["FOREIGN"]


def test_tasks_without_an_endpoint_that_serves_is_no_data_and_not_no_name() -> None:
    down = DnsService(("10.112.0.7",), (DnsEndpoint("a", "10.2.0.1", False),))
    known = ZoneBuilder(["test"]).update({"web.test": down})[0]
    assert (dig("tasks.web.test", "A", known), dig("tasks.web.test", "AAAA", known)) == ([], [])


def test_a_service_named_like_an_endpoint_takes_precedence_and_leaves_no_trace() -> None:
    draft = ZoneBuilder(["test"])
    both = {"web.test": WEB, "a.web.test": DnsService(("10.112.0.9",))}
    assert dig("a.web.test", "A", draft.update(both)[0]) == ["10.112.0.9"]
    assert dig("a.web.test", "A", draft.update({"web.test": WEB})[0]) == ["10.2.0.1"]


def test_endpoints_with_the_same_label_share_it_and_none_takes_the_label_of_all() -> None:
    twins = (*(DnsEndpoint("a", f"10.2.0.{n}", True) for n in (1, 2)), DnsEndpoint("tasks", "10.2.0.3", False))
    known = ZoneBuilder(["test"]).update({"web.test": DnsService(("10.112.0.7",), twins)})[0]
    assert dig("a.web.test", "A", known) == ["10.2.0.1", "10.2.0.2"]
    assert dig("tasks.web.test", "A", known) == ["10.2.0.1", "10.2.0.2"]


def test_a_name_too_long_for_subdomains_still_has_its_address() -> None:
    name = ".".join(["a" * 63] * 3 + ["b" * 59])
    known = ZoneBuilder().update({name: WEB})[0]
    assert dig(name, "A", known) == ["10.112.0.7"]
    assert name_server_name(encode_name(name)) == encode_name(name)


def test_removing_a_parent_name_keeps_the_services_below_it() -> None:
    draft = ZoneBuilder()
    parent, child = DnsService(("10.112.0.1",)), DnsService(("10.112.0.2",))
    draft.update({"a.local": parent, "b.a.local": child})
    known, touched = draft.update({"b.a.local": child})
    assert touched is None
    assert dig("x.b.a.local", "A", known) == ["NXDOMAIN"]
    assert dig("a.local", "A", known) == ["FOREIGN"]


def test_the_empty_name_above_a_port_is_removed_with_the_last_port() -> None:
    draft = ZoneBuilder(["test"])
    answers = ZoneResponder(draft.update({"web.test": WEB})[0])
    packet = bytes(DNSRecord.question("_udp.web.test", "SRV").pack())
    codes = []
    for ports in (WEB.ports, (DnsPort(80, "tcp"),), WEB.ports):
        answers.replace(*draft.update({"web.test": replace(WEB, ports=ports)}))
        said = answers.ask(packet)
        assert isinstance(said, bytes)
        codes.append(said[3] & 15)
    assert codes == [0, 3, 0]


def test_an_invalid_update_changes_nothing() -> None:
    draft = ZoneBuilder(["test"])
    draft.update({"web.test": WEB})
    with pytest.raises(ValueError, match="not a DNS name"):
        draft.update({"other.test": WEB, "a..b": WEB})
    known, touched = draft.update({"web.test": WEB})
    assert (dig("other.test", "A", known), touched) == (["NXDOMAIN"], frozenset())


@pytest.mark.parametrize(
    ("network", "domains"),
    [
        ("10.112.0.0/16", ("112.10.in-addr.arpa",)),
        ("10.112.0.0/15", ("112.10.in-addr.arpa", "113.10.in-addr.arpa")),
        ("10.112.4.0/24", ("4.112.10.in-addr.arpa",)),
        ("10.112.4.6/31", ("6.4.112.10.in-addr.arpa", "7.4.112.10.in-addr.arpa")),
        ("fd00::/64", (".".join("0" * 14) + ".d.f.ip6.arpa",)),
        ("fd00::/63", tuple(".".join([last, *"0" * 13]) + ".d.f.ip6.arpa" for last in "01")),
    ],
)
def test_reverse_domains(network: str, domains: tuple[str, ...]) -> None:
    assert reverse_domains(ip_network(network)) == domains
    addresses = ip_network(network)
    for address in (addresses[0], addresses[-1]):
        assert any(address.reverse_pointer.endswith(domain) for domain in domains)
