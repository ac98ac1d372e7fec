"""Authoritative answers on the wire, query by query, with dnslib as the second opinion."""

import struct

import pytest
from dnslib import CLASS, EDNS0, QTYPE, RCODE, DNSHeader, DNSQuestion, DNSRecord
from hypothesis import example, given
from hypothesis import strategies as st

from meshdns.authoritative import ForwardQuery, Rcode, answer_query, failure_response, parse_query
from meshdns.zone import Zone

ZONE = Zone.build(
    {
        "restserver.local": ["10.112.0.7"],
        "many.test": [f"10.112.{n // 250}.{n % 250 + 1}" for n in range(200)],
    },
    ["mesh.internal"],
    ttl=5,
)


def question(name: str, qtype: str = "A", qclass: str = "IN", edns: EDNS0 | None = None, **header: int) -> bytes:
    asked = DNSQuestion(name, getattr(QTYPE, qtype), getattr(CLASS, qclass))
    record = DNSRecord(DNSHeader(id=0x1234, **({"rd": 1} | header)), q=asked)
    if edns is not None:
        record.add_ar(edns)
    return bytes(record.pack())


def ask(packet: bytes, *, tcp: bool = False) -> DNSRecord:
    said = answer_query(packet, ZONE, tcp=tcp)
    assert isinstance(said, bytes)
    return DNSRecord.parse(said)


@pytest.mark.parametrize(
    ("name", "qtype", "rcode", "answers", "soa"),
    [
        pytest.param("restserver.local", "A", "NOERROR", ["10.112.0.7"], None, id="the address"),
        pytest.param("restserver.local", "AAAA", "NOERROR", [], "restserver.local.", id="NODATA with SOA"),
        pytest.param("restserver.local", "MX", "NOERROR", [], "restserver.local.", id="every type stays here"),
        pytest.param("restserver.local", "ANY", "NOERROR", ["10.112.0.7"], None, id="ANY is one RRset"),
        pytest.param("mesh.internal", "A", "NOERROR", [], "mesh.internal.", id="the domain exists"),
        pytest.param("no.mesh.internal", "A", "NXDOMAIN", [], "mesh.internal.", id="NXDOMAIN with SOA"),
    ],
)
def test_own_names(name: str, qtype: str, rcode: str, answers: list[str], soa: str | None) -> None:
    said = ask(question(name, qtype))
    assert RCODE[said.header.rcode] == rcode
    assert [str(record.rdata) for record in said.rr] == answers
    assert [str(record.rname) for record in said.auth] == ([soa] if soa else [])
    assert {record.ttl for record in (*said.rr, *said.auth)} == {5}
    for record in said.auth:
        assert record.rdata.times[4] == 5, "the negative TTL is small and not zero"
    header = said.header
    assert (header.id, header.qr, header.aa, header.ra, header.rd, header.tc) == (0x1234, 1, 1, 1, 1, 0)
    assert not said.ar, "no OPT unless asked"


def test_the_case_of_a_name_is_preserved() -> None:
    said = answer_query(question("ReStSeRvEr.LoCaL"), ZONE)
    assert isinstance(said, bytes)
    assert b"ReStSeRvEr" in said
    assert str(DNSRecord.parse(said).rr[0].rdata) == "10.112.0.7"


def test_other_names_are_forwarded_unchanged() -> None:
    packet = question("example.com")
    said = answer_query(packet, ZONE)
    assert isinstance(said, ForwardQuery)
    assert said.packet == packet


@pytest.mark.parametrize(("rd", "cd"), [(0, 0), (1, 0), (0, 1), (1, 1)])
def test_rd_and_cd_are_copied_and_ad_is_not(rd: int, cd: int) -> None:
    header = ask(question("restserver.local", rd=rd, cd=cd, ad=1)).header
    assert (header.rd, header.cd, header.ad) == (rd, cd, 0)


class TestEdns:
    def test_one_opt_is_answered_with_one(self) -> None:
        said = ask(question("restserver.local", edns=EDNS0(udp_len=4096, flags="do")))
        (opt,) = said.ar
        assert (opt.rtype, opt.edns_len, opt.edns_ver, opt.edns_do) == (QTYPE.OPT, 1232, 0, 1)

    def test_another_version_is_badvers_with_the_question(self) -> None:
        said = ask(question("restserver.local", edns=EDNS0(version=1)))
        assert (said.header.rcode, said.ar[0].edns_rcode, said.ar[0].edns_ver) == (0, 1, 0)
        assert not said.rr
        assert str(said.q.qname) == "restserver.local."

    def test_two_opts_are_malformed(self) -> None:
        packet = question("restserver.local", edns=EDNS0())
        twice = packet[:11] + b"\2" + packet[12:] + packet[-11:]
        assert ask(twice).header.rcode == Rcode.FORMERR

    def test_an_unknown_edns_option_is_ignored(self) -> None:
        packet = question("restserver.local", edns=EDNS0())
        with_option = packet[:-2] + struct.pack("!HHH4s", 8, 10, 4, b"abcd")
        assert str(ask(with_option).rr[0].rdata) == "10.112.0.7"


class TestSize:
    @pytest.mark.parametrize(
        ("edns", "limit"),
        [
            pytest.param(None, 512, id="without EDNS"),
            pytest.param(EDNS0(udp_len=100), 512, id="less than 512 means 512"),
            pytest.param(EDNS0(udp_len=900), 900, id="what the client takes"),
            pytest.param(EDNS0(udp_len=65535), 1232, id="never more than passes unfragmented"),
        ],
    )
    def test_udp_answers_are_truncated_with_tc(self, edns: EDNS0 | None, limit: int) -> None:
        said = answer_query(question("many.test", edns=edns), ZONE)
        assert isinstance(said, bytes)
        assert limit - 16 < len(said) <= limit
        record = DNSRecord.parse(said)
        assert record.header.tc == 1
        assert len(record.rr) == record.header.a > 20
        assert len(record.ar) == (0 if edns is None else 1)

    def test_tcp_answers_are_complete(self) -> None:
        said = ask(question("many.test"), tcp=True)
        assert (said.header.tc, len(said.rr)) == (0, 200)


PLAIN = question("restserver.local")


@pytest.mark.parametrize(
    ("packet", "rcode"),
    [
        pytest.param(question("restserver.local", opcode=4), Rcode.NOTIMP, id="another opcode"),
        pytest.param(PLAIN + b"x", Rcode.FORMERR, id="something behind the question"),
        pytest.param(PLAIN[:-1], Rcode.FORMERR, id="cut off"),
        pytest.param(PLAIN[:4] + b"\0\2" + PLAIN[6:], Rcode.FORMERR, id="two questions, one there"),
        pytest.param(PLAIN[:4] + b"\0\0" + PLAIN[6:], Rcode.FORMERR, id="no question"),
        pytest.param(PLAIN[:6] + b"\0\1" + PLAIN[8:], Rcode.FORMERR, id="an answer in a question"),
        pytest.param(PLAIN[:12] + b"\xc0\x0c\0\1\0\1", Rcode.FORMERR, id="a pointer to itself"),
        pytest.param(PLAIN[:12] + b"\x40" + b"x" * 64 + b"\0\0\1\0\1", Rcode.FORMERR, id="a label of 64"),
        pytest.param(PLAIN[:12] + (b"\x3f" + b"x" * 63) * 4 + b"\0\0\1\0\1", Rcode.FORMERR, id="a name of 257"),
        pytest.param(question("restserver.local", qclass="CH"), Rcode.REFUSED, id="class CH"),
        pytest.param(question("restserver.local", "AXFR"), Rcode.REFUSED, id="a transfer"),
    ],
)
def test_unsupported_queries_get_an_error_code(packet: bytes, rcode: Rcode) -> None:
    said = answer_query(packet, ZONE)
    assert isinstance(said, bytes)
    assert said[:2] == packet[:2]
    assert (said[2] & 0x80, said[3] & 0xF) == (0x80, rcode)
    assert said[2] & 0x78 == packet[2] & 0x78, "the opcode comes back as it came"
    assert DNSRecord.parse(said).header.a == 0


@pytest.mark.parametrize(
    "packet",
    [
        pytest.param(b"", id="nothing"),
        pytest.param(PLAIN[:11], id="no whole header"),
        pytest.param(PLAIN[:2] + b"\x80" + PLAIN[3:], id="an answer: two servers would talk for ever"),
    ],
)
def test_packets_that_are_no_queries_are_dropped(packet: bytes) -> None:
    assert answer_query(packet, ZONE) is None


def test_a_name_of_255_octets_is_valid() -> None:
    packet = PLAIN[:12] + (b"\x3f" + b"x" * 63) * 3 + b"\x3d" + b"x" * 61 + b"\0\0\1\0\1"
    said = answer_query(packet, ZONE)
    assert isinstance(said, ForwardQuery)
    assert said.packet == packet


def test_a_failure_response_repeats_the_question() -> None:
    said = DNSRecord.parse(failure_response(question("example.com", edns=EDNS0()), Rcode.SERVFAIL))
    assert (said.header.rcode, str(said.q.qname), len(said.ar)) == (2, "example.com.", 1)


def read_by_dnslib(packet: bytes, said: bytes) -> None:
    """Labels may hold any octet (RFC 2181, section 11); dnslib reads those that are text."""
    query = parse_query(packet)
    if query is None or query.name.isascii():
        DNSRecord.parse(said)


HEADER = st.builds(
    struct.Struct("!HBBHHHH").pack,
    st.integers(0, 65535),
    st.sampled_from([0, 1, 0x20, 0x80]),
    st.integers(0, 255),
    *[st.sampled_from([0, 1, 2, 65535])] * 4,
)


@given(st.one_of(st.binary(max_size=600), st.tuples(HEADER, st.binary(max_size=80)).map(b"".join)), st.booleans())
@example(PLAIN, False)
def test_any_bytes_are_answered_or_dropped_and_never_raise(packet: bytes, tcp: bool) -> None:
    said = answer_query(packet, ZONE, tcp=tcp)
    if isinstance(said, bytes):
        assert said[:2] == packet[:2]
        assert said[2] & 0x80
        assert len(said) <= (65535 if tcp else 1232)
        read_by_dnslib(packet, said)
    elif isinstance(said, ForwardQuery):
        assert parse_query(packet) is not None


@given(st.data())
def test_a_damaged_question_never_raises(data: st.DataObject) -> None:
    packet = bytearray(question("no.mesh.internal", edns=EDNS0(udp_len=1232)))
    for _ in range(data.draw(st.integers(1, 4))):
        packet[data.draw(st.integers(2, len(packet) - 1))] = data.draw(st.integers(0, 255))
    said = answer_query(bytes(packet), ZONE)
    if isinstance(said, bytes):
        read_by_dnslib(bytes(packet), said)
