"""The packet cache: cached answers equal computed ones and those of dnslib, and its size is bounded."""

import struct
from collections import Counter
from collections.abc import Mapping

import pytest
from dnslib import EDNS0, QTYPE, DNSHeader, DNSLabel, DNSQuestion, DNSRecord, EDNSOption
from hypothesis import given, settings
from hypothesis import strategies as st

from meshdns.authoritative import ForwardQuery, answer_query
from meshdns.packet_cache import TURNS, ZoneResponder
from meshdns.service_records import DnsEndpoint, DnsPort, DnsService
from meshdns.zone import Zone, ZoneBuilder, encode_name
from tests.meshdns import oracle

LABEL = st.sampled_from(["web", "db", "a", "b", "tasks", "x-1", "ns", "deep", "mesh"])
NAME = st.lists(LABEL, min_size=1, max_size=3).flatmap(
    lambda labels: st.sampled_from(["mesh.internal", "local", "example"]).map(lambda end: ".".join([*labels, end]))
)
ADDRESS = st.one_of(
    st.integers(0, 400).map(lambda n: f"10.112.{n >> 8}.{n & 255}"), st.integers(1, 99).map("fd00::{}".format)
)
WORDS = st.lists(st.sampled_from(["state=serving", "worker=w1", "x" * 300]), max_size=2).map(tuple)
ENDPOINT = st.builds(DnsEndpoint, LABEL, ADDRESS, st.booleans(), WORDS)
PORT = st.builds(DnsPort, st.sampled_from([80, 53, 65535]), st.sampled_from(["tcp", "udp"]))
SERVICE = st.builds(
    DnsService,
    addresses=st.lists(ADDRESS, min_size=1, max_size=2, unique=True).map(tuple),
    endpoints=st.lists(ENDPOINT, max_size=40).map(tuple),
    ports=st.lists(PORT, max_size=2, unique=True).map(tuple),
    about=WORDS,
    canonical=st.booleans(),
)
SERVICES = st.dictionaries(NAME, SERVICE, max_size=4)
DOMAINS = st.sampled_from([[], ["mesh.internal"], ["mesh.internal", "112.10.in-addr.arpa"]])
TYPES = ["A", "AAAA", "TXT", "SRV", "PTR", "SOA", "NS", "ANY", "HTTPS", "MX", "AXFR"]


@st.composite
def questions(draw: st.DrawFn, services: Mapping[str, DnsService]) -> bytes:
    """About names that exist, almost exist or do not, in any case, with any flags and OPT."""
    known = [*(name[:-1] for name in oracle.records(services)), "mesh.internal", "example.com", "internal"]
    name = draw(st.sampled_from(known))
    change = draw(st.sampled_from(["as it is", "below", "above", "upper"]))
    if change == "below":
        name = "nope." + name
    elif change == "above":
        name = name.partition(".")[2] or name
    elif change == "upper":
        name = "".join(c.upper() if draw(st.booleans()) else c for c in name)
    flag = st.sampled_from([0, 1])
    header = DNSHeader(
        id=draw(st.integers(0, 65535)), bitmap=0, rd=draw(flag), opcode=draw(st.sampled_from([0] * 9 + [4]))
    )
    header.cd, header.ad = draw(flag), draw(flag)
    qclass = draw(st.sampled_from([1] * 8 + [3, 255]))
    record = DNSRecord(header, q=DNSQuestion(DNSLabel(name), getattr(QTYPE, draw(st.sampled_from(TYPES))), qclass))
    if draw(st.booleans()):
        options = [EDNSOption(10, b"12345678")] if draw(st.integers(0, 4)) == 0 else []
        size, version = draw(st.sampled_from([0, 512, 700, 1232, 4096, 65535])), draw(st.sampled_from([0] * 8 + [1]))
        record.add_ar(EDNS0(udp_len=size, version=version, flags="do" if draw(flag) else "", opts=options))
    return bytes(record.pack())


def limit(packet: bytes, tcp: bool) -> int:
    opt = [record for record in DNSRecord.parse(packet).ar if record.rtype == QTYPE.OPT]
    if tcp:
        return 65535
    return max(512, min(opt[0].edns_len, 1232)) if opt else 512


def forwarded(said: object, packet: bytes) -> bool:
    return isinstance(said, ForwardQuery) and said.packet == packet


def agree(
    said: bytes | ForwardQuery | None, packet: bytes, zone: Zone, expected: DNSRecord | None, *, tcp: bool
) -> None:
    """Octet by octet, once both are written by dnslib; the records of a set may come in any order, or in part."""
    if expected is None:
        assert forwarded(said, packet)
        return
    assert isinstance(said, bytes)
    assert len(said) <= limit(packet, tcp)
    ours = DNSRecord.parse(said)
    if ours.header.tc:
        assert len(ours.rr) < len(expected.rr)
        whole = answer_query(packet, zone, tcp=True)
        assert isinstance(whole, bytes)
        assert len(whole) > limit(packet, tcp)
        expected.header.tc = 1
        assert not Counter(map(str, ours.rr)) - Counter(map(str, expected.rr)), "a part of what there is"
        expected.rr = ours.rr
    assert sorted(map(str, ours.rr)) == sorted(map(str, expected.rr))
    expected.rr = ours.rr
    assert ours.pack() == expected.pack()


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_cached_answers_equal_those_of_dnslib_after_any_zone_change(data: st.DataObject) -> None:
    domains, tcp = data.draw(DOMAINS), data.draw(st.booleans())
    draft = ZoneBuilder(domains, ttl=oracle.TTL, serial=oracle.SERIAL)
    answers = ZoneResponder(draft.update({})[0], tcp=tcp, room=8, odd=4)
    services: dict[str, DnsService] = {}
    asked: list[bytes] = []
    for _ in range(3):
        services |= data.draw(SERVICES)
        for name in data.draw(st.lists(st.sampled_from(sorted(services)), max_size=2)) if services else []:
            services.pop(name, None)
        zone, touched = draft.update(services)
        answers.replace(zone, touched)
        asked += data.draw(st.lists(questions(services), min_size=1, max_size=5))
        for packet in asked:
            for _ in range(2):
                agree(answers.ask(packet), packet, zone, oracle.answer(packet, services, domains), tcp=tcp)
        assert len(answers) <= 8 + 4 + 4


@settings(max_examples=50, deadline=None)
@given(st.data())
def test_an_updated_zone_equals_a_fresh_zone(data: st.DataObject) -> None:
    domains = data.draw(DOMAINS)
    draft = ZoneBuilder(domains, serial=oracle.SERIAL)
    for _ in range(4):
        services = data.draw(SERVICES)
        changed, _ = draft.update(services)
        anew, _ = ZoneBuilder(domains, serial=oracle.SERIAL).update(dict(sorted(services.items())))
        for name in oracle.records(services):
            for qtype in (QTYPE.A, QTYPE.TXT, QTYPE.SOA):
                for place in (name, f"nope.{name}", name.partition(".")[2]):
                    if place:
                        one, other = (zone.lookup(encode_name(place), qtype) for zone in (changed, anew))
                        assert one == other


def question(name: str, qtype: str = "A", ident: int = 1) -> bytes:
    return struct.pack("!H", ident) + bytes(DNSRecord.question(name, qtype).pack())[2:]


def first_address(said: object) -> str:
    assert isinstance(said, bytes)
    return str(DNSRecord.parse(said).rr[0].rdata)


ENDPOINTS = tuple(DnsEndpoint(f"e{n}", f"10.2.0.{n}", n != 3) for n in range(1, 4))
WEB = DnsService(("10.112.0.7",), ENDPOINTS)


class TestTurns:
    @pytest.mark.parametrize("count", [2, 3, 8, 20])
    def test_the_first_record_of_answers_rotates_evenly(self, count: int) -> None:
        endpoints = tuple(DnsEndpoint(f"e{n}", f"10.2.0.{n}", True) for n in range(count))
        answers = ZoneResponder(ZoneBuilder(["test"]).update({"web.test": DnsService(("10.112.0.7",), endpoints)})[0])
        packet = question("tasks.web.test")
        answers.ask(packet)
        said = Counter(first_address(answers.ask(packet)) for _ in range(TURNS * 3 * count))
        assert len(said) == min(count, TURNS)
        assert max(said.values()) - min(said.values()) <= 1

    def test_an_endpoint_that_stops_serving_disappears_at_once(self) -> None:
        draft = ZoneBuilder(["test"])
        answers = ZoneResponder(draft.update({"web.test": WEB})[0])
        packet = question("tasks.web.test")
        assert {first_address(answers.ask(packet)) for _ in range(9)} == {"10.2.0.1", "10.2.0.2"}
        less = DnsService(WEB.addresses, ENDPOINTS[1:])
        answers.replace(*draft.update({"web.test": less}))
        assert {first_address(answers.ask(packet)) for _ in range(9)} == {"10.2.0.2"}

    def test_queries_in_random_case_rotate_too(self) -> None:
        answers = ZoneResponder(ZoneBuilder(["test"]).update({"web.test": WEB})[0])
        packet = question("tAsKs.web.test")
        assert len({first_address(answers.ask(packet)) for _ in range(8)}) == 2


class TestBounds:
    def test_random_names_and_random_case_evict_no_useful_entry(self) -> None:
        answers = ZoneResponder(ZoneBuilder(["test"]).update({"web.test": WEB})[0], room=16, odd=16)
        plain = question("web.test")
        answers.ask(plain)
        for number in range(300):
            answers.ask(question(f"x{number}.test"))
            answers.ask(question("".join(c.upper() if number >> i & 1 else c for i, c in enumerate("web.test"))))
        assert plain[2:] in answers.ready
        assert len(answers) <= 17

    def test_variants_of_one_query_are_bounded_and_evicted_by_name(self) -> None:
        draft = ZoneBuilder(["test"])
        answers = ZoneResponder(draft.update({"web.test": WEB})[0], room=16)
        for size in range(100):
            record = DNSRecord.question("web.test")
            record.add_ar(EDNS0(udp_len=512 + size))
            answers.ask(bytes(record.pack()))
        assert len(answers) == 16
        answers.replace(*draft.update({"web.test": DnsService(("10.112.0.8",))}))
        assert len(answers) == 0

    def test_a_change_of_another_name_keeps_cached_answers(self) -> None:
        draft = ZoneBuilder(["test"])
        answers = ZoneResponder(draft.update({"web.test": WEB})[0])
        packet = question("web.test")
        answers.ask(packet)
        answers.replace(*draft.update({"web.test": WEB, "other.test": WEB}))
        assert packet[2:] in answers.ready

    def test_a_forwarded_name_is_never_in_the_packet_cache(self) -> None:
        answers = ZoneResponder(ZoneBuilder(["test"]).update({})[0])
        packet = question("example.com")
        assert forwarded(answers.ask(packet), packet)
        assert len(answers) == 0


def test_a_new_name_is_answered_at_once() -> None:
    draft = ZoneBuilder(["test"])
    answers = ZoneResponder(draft.update({})[0])
    for ident in range(3):
        said = answers.ask(question("web.test", ident=ident))
        assert isinstance(said, bytes)
        assert (said[:2], said[3] & 15) == (struct.pack("!H", ident), 3)
    answers.replace(*draft.update({"web.test": WEB}))
    assert first_address(answers.ask(question("web.test"))) == "10.112.0.7"


def test_a_new_name_is_answered_in_any_case() -> None:
    """Its first label is as long as one that was asked for below the same name."""
    draft = ZoneBuilder(["test"])
    answers = ZoneResponder(draft.update({})[0])
    for name in ("abc.test", "abd.test", "abe.test"):
        answers.ask(question(name))
    answers.replace(*draft.update({"web.test": WEB}))
    for name in ("abf.test", "abg.test"):
        answers.ask(question(name))
    for name in ("web.test", "WEB.test", "weB.test"):
        assert first_address(answers.ask(question(name))) == "10.112.0.7"


@given(st.binary(max_size=80), st.sampled_from(["web.test", "nope.test", "x.nope.test"]))
def test_bytes_close_to_a_cached_query_get_the_computed_answer(noise: bytes, name: str) -> None:
    """The parts for missing names must not be taken where the name only looks like one."""
    zone = ZoneBuilder(["test"]).update({"web.test": WEB})[0]
    answers = ZoneResponder(zone)
    for other in ("other.test", "some.test", "abc.test", "y.nope.test"):
        answers.ask(question(other))
    packet = question(name)
    assert answers.ask(packet) == answer_query(packet, zone)
    for at in (12, 13, len(packet) - 5):
        odd = packet[:at] + noise + packet[at:]
        assert answers.ask(odd) == answer_query(odd, zone)
