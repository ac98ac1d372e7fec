"""Messages of upstreams, parsed and rewritten, with dnslib as the second opinion."""

import struct
from ipaddress import ip_network
from unittest.mock import patch

import pytest
from dnslib import CNAME, QTYPE, RR, SOA, TXT, A, DNSRecord
from hypothesis import example, given
from hypothesis import strategies as st

from meshdns import message
from meshdns.authoritative import DnsQuery, parse_query
from meshdns.message import (
    MAX_NEGATIVE_TTL,
    MAX_TTL,
    STALE_TTL,
    UpstreamReply,
    build_upstream_query,
    cache_key,
    parse_reply,
    question_of,
    stale_reply,
    write_response,
)
from meshdns.rebinding import AnswerFilter
from tests.meshdns.upstream import good, many, negative, question, says, truncated

QUESTION = b"\7example\4test\0\0\1\0\1"


def query_of(packet: bytes) -> DnsQuery:
    query = parse_query(packet)
    assert query is not None
    return query


def client(name: str = "example.test", qtype: str = "A", *, edns: int | None = None, do: bool = False) -> DnsQuery:
    packet = question(name, qtype)
    if edns is not None:
        opt = struct.pack("!BHHBBHH", 0, 41, edns, 0, 0, 0x8000 if do else 0, 0)
        packet = packet[:11] + b"\1" + packet[12:] + opt
    return query_of(packet)


def reply_to(query: DnsQuery, said: bytes) -> UpstreamReply:
    reply = parse_reply(said, question_of(query))
    assert reply is not None
    return reply


def made(*answers: RR, authority: tuple[RR, ...] = ()) -> bytes:
    record = DNSRecord.question("example.test").reply()
    for rr in answers:
        record.add_answer(rr)
    for rr in authority:
        record.add_auth(rr)
    return bytes(record.pack())


def a(name: str = "example.test", ttl: int = 60) -> RR:
    return RR(name, QTYPE.A, rdata=A("192.0.2.1"), ttl=ttl)


def soa(ttl: int, minimum: int) -> RR:
    return RR("test", QTYPE.SOA, rdata=SOA("ns.test", "admin.test", (1, 3600, 600, 86400, minimum)), ttl=ttl)


ALIAS = RR("example.test", QTYPE.CNAME, rdata=CNAME("real.test"), ttl=50)


@pytest.mark.parametrize(
    ("said", "lifetime"),
    [
        pytest.param(made(a()), 60, id="an answer"),
        pytest.param(made(ALIAS, a("real.test", 90)), 50, id="an alias: the least of them"),
        pytest.param(made(a(), authority=(soa(20, 900),)), 20, id="other sections count as well"),
        pytest.param(made(a(ttl=0)), 0, id="not to be kept"),
        pytest.param(made(a(ttl=2**31)), 0, id="a TTL below zero is none"),
        pytest.param(made(a(ttl=2**31 - 1)), MAX_TTL, id="an absurd TTL"),
        pytest.param(made(authority=(soa(900, 30),)), 30, id="no data: the SOA's minimum"),
        pytest.param(made(authority=(soa(20, 900),)), 20, id="no data: the SOA's TTL"),
        pytest.param(made(authority=(soa(10**6, 10**6),)), MAX_NEGATIVE_TTL, id="no data, for ages"),
        pytest.param(made(ALIAS, authority=(soa(30, 30),)), 30, id="an alias to no data"),
        pytest.param(made(), 0, id="no data without SOA: RFC 2308, section 5"),
        pytest.param(made(ALIAS), 0, id="an alias to nowhere"),
        pytest.param(negative("NXDOMAIN", 30, 40)(DNSRecord.question("example.test")), 30, id="no such name"),
        pytest.param(says("NXDOMAIN")(DNSRecord.question("example.test")), 0, id="no such name without SOA"),
        pytest.param(says("SERVFAIL")(DNSRecord.question("example.test")), 0, id="a failure"),
        pytest.param(truncated(DNSRecord.question("example.test")), 0, id="cut off"),
    ],
)
def test_the_cache_lifetime_of_an_answer(said: bytes, lifetime: int) -> None:
    assert reply_to(client(), said).lifetime == lifetime


def test_ttls_are_counted_down_in_every_section_and_the_rest_stays() -> None:
    query = client()
    reply = reply_to(query, made(ALIAS, a("real.test", 90), authority=(soa(80, 900),)))
    said = DNSRecord.parse(write_response(query, reply, 7, tcp=False))
    assert [rr.ttl for rr in (*said.rr, *said.auth)] == [43, 83, 73]
    assert [str(rr.rname) for rr in said.rr] == ["example.test.", "real.test."]
    assert (said.header.aa, said.header.ra, said.header.ad) == (0, 1, 0)
    assert not said.ar, "no OPT for who sent none"
    past = DNSRecord.parse(write_response(query, stale_reply(reply), 0, tcp=False))
    assert {rr.ttl for rr in (*past.rr, *past.auth)} == {STALE_TTL}


def test_the_opt_record_of_the_upstream_is_not_passed_on() -> None:
    query = client(edns=4096, do=True)
    opt = struct.pack("!BHHBBHH", 0, 41, 4096, 0, 0, 0x8000, 4) + b"\0\3\0\0"
    said = made(a())
    said = said[:11] + b"\1" + said[12:] + opt
    reply = reply_to(query, said)
    assert reply.counts == (1, 0, 0)
    written = DNSRecord.parse(write_response(query, reply, 0, tcp=False))
    assert len(written.ar) == 1
    assert (written.ar[0].rclass, written.ar[0].edns_do, written.ar[0].rdata) == (1232, 1, [])
    extended = reply_to(query, said[:-10] + b"\1" + said[-9:])
    assert extended.rcode == 16
    assert write_response(client(), extended, 0, tcp=False)[3] & 0xF == 2, "who has no EDNS cannot read it"


@pytest.mark.parametrize(
    ("edns", "tcp", "octets"),
    [
        (None, False, 512),
        (512, False, 512),
        (100, False, 512),
        (900, False, 900),
        (65535, False, 1232),
        (None, True, 1624),
    ],
)
def test_answers_never_exceed_the_limit_and_hold_whole_records(edns: int | None, tcp: bool, octets: int) -> None:
    query = client(edns=edns)
    said = write_response(query, reply_to(query, many(100)(DNSRecord.question("example.test"))), 0, tcp=tcp)
    assert octets - 16 <= len(said) <= octets + 6
    assert len(said) <= octets or tcp
    record = DNSRecord.parse(said)
    assert bool(record.header.tc) is not tcp
    assert len(record.rr) == (100 if tcp else (len(said) - 30 - (11 if edns else 0)) // 16)


def test_additional_records_are_dropped_first_and_without_tc() -> None:
    query = client()
    record = DNSRecord.question("example.test").reply()
    record.add_answer(a())
    for number in range(60):
        record.add_ar(RR(f"n{number}.test", QTYPE.A, rdata=A("192.0.2.1"), ttl=60))
    said = DNSRecord.parse(write_response(query, reply_to(query, bytes(record.pack())), 0, tcp=False))
    assert (len(said.rr), len(said.ar), said.header.tc) == (1, 0, 0)


def test_the_query_to_the_upstream() -> None:
    query = client("ExAmPlE.test", edns=4096, do=True)
    sent = DNSRecord.parse(b"\0\0" + build_upstream_query(cache_key(query)))
    assert (str(sent.q.qname), sent.header.rd, sent.header.ad) == ("example.test.", 1, 0)
    assert (sent.ar[0].rclass, sent.ar[0].edns_do) == (1232, 1)
    assert DNSRecord.parse(b"\0\0" + build_upstream_query(cache_key(query), edns=False)).ar == []


def test_queries_with_different_answers_have_different_cache_keys() -> None:
    plain = client()
    keys = {
        cache_key(plain),
        cache_key(client(edns=1232, do=True)),
        cache_key(client(qtype="AAAA")),
        cache_key(client("x.test")),
    }
    keys |= {cache_key(query_of(question(rd=0))), cache_key(query_of(question(cd=1)))}
    chaos = question()
    keys.add(cache_key(query_of(chaos[:-1] + b"\3")))
    assert len(keys) == 7
    assert cache_key(plain) == cache_key(client(edns=512)) == cache_key(client("EXAMPLE.test")), "what does not matter"
    # HTTPS is type 65, the letter A: lower case is for the name only
    assert cache_key(client(qtype="HTTPS"))[-4:-2] == b"\0\x41"


@pytest.mark.parametrize(
    "said",
    [
        pytest.param(question(), id="a question"),
        pytest.param(good(DNSRecord.question("evil.test")), id="another name"),
        pytest.param(good(DNSRecord.question("example.test", "AAAA")), id="another type"),
        pytest.param(good(DNSRecord.question("example.test"))[:-1], id="cut within a record"),
        pytest.param(good(DNSRecord.question("example.test"))[:11], id="no whole header"),
        pytest.param(question()[:2] + b"\x84\0\0\0\0\0\0\0\0\0", id="nothing but yes"),
        pytest.param(
            question()[:2] + b"\x84\0\0\1\0\1\0\0\0\0" + question()[12:] + b"\xc0\x1e" + bytes(10),
            id="a name that is a loop",
        ),
        pytest.param(
            question()[:2] + b"\x84\0\0\1\xff\xff\xff\xff\xff\xff" + question()[12:],
            id="many records that are not there",
        ),
    ],
)
def test_replies_to_other_queries_are_ignored(said: bytes) -> None:
    assert parse_reply(said, question_of(client())) is None


def test_an_error_reply_without_the_question_is_accepted() -> None:
    assert parse_reply(question()[:2] + b"\x84\5\0\0\0\0\0\0\0\0", question_of(client())) == UpstreamReply(5)


@given(st.binary(max_size=300), st.binary(max_size=12))
@example(b"\xc0\x0c\0\1\0\1\0\0\0\1\0\4\1\2\3\4", b"\0\0\x80\0\0\1\0\1\0\0\0\0")
def test_random_bytes_never_raise_and_parsed_replies_can_be_rewritten(rest: bytes, header: bytes) -> None:
    query = client(edns=1232)
    packet = header.ljust(12, b"\1") + query.question + rest
    reply = parse_reply(packet, question_of(query))
    if reply is not None:
        for tcp in (False, True):
            said = write_response(query, reply, 1, tcp=tcp)
            assert len(said) <= (65535 if tcp else 1232)
            assert struct.unpack_from("!HHH", said, 6) <= (*reply.counts[:2], reply.counts[2] + 1) or reply.truncated


RECORDS = st.lists(
    st.tuples(
        st.sampled_from(["example.test", "a.example.test", "other.test"]),
        st.integers(0, 2**31 - 1),
        st.binary(min_size=1, max_size=200),
    ),
    max_size=20,
)


@given(RECORDS, RECORDS, st.integers(0, 5000), st.sampled_from([None, 512, 1232, 4096]), st.booleans())
def test_a_rewritten_answer_differs_only_in_its_ttls(
    answers: list[tuple[str, int, bytes]],
    more: list[tuple[str, int, bytes]],
    elapsed: int,
    edns: int | None,
    tcp: bool,
) -> None:
    query = client("ExAmPlE.tEsT", "TXT", edns=edns)
    record = DNSRecord.question("example.test", "TXT").reply()
    for name, ttl, text in answers:
        record.add_answer(RR(name, QTYPE.TXT, rdata=TXT(text), ttl=ttl))
    for name, ttl, text in more:
        record.add_ar(RR(name, QTYPE.TXT, rdata=TXT(text), ttl=ttl))
    reply = reply_to(query, bytes(record.pack()))
    said = write_response(query, reply, elapsed, tcp=tcp)
    assert len(said) <= (65535 if tcp else 1232 if (edns or 0) > 1231 else 512)
    assert said[12 : 12 + len(query.question)] == query.question
    parsed = DNSRecord.parse(said)
    expected = [(name + ".", max(0, min(ttl, MAX_TTL) - elapsed), text) for name, ttl, text in answers]
    got = [(str(rr.rname).lower(), rr.ttl, rr.rdata.data[0]) for rr in parsed.rr]
    assert got == expected[: len(got)]
    assert bool(parsed.header.tc) == (len(got) < len(expected))
    assert sum(rr.rtype == QTYPE.OPT for rr in parsed.ar) == (edns is not None)


FLIPS = st.lists(st.tuples(st.integers(0, 70), st.integers(0, 255)), max_size=3)


@example(b"", False, [], 0)
@given(st.binary(max_size=4), st.booleans(), FLIPS, st.integers(0, 3))
def test_the_shortcut_for_one_address_reads_the_same_as_the_parser(
    address: bytes, opt: bool, flips: list[tuple[int, int]], cut: int
) -> None:
    record = b"\xc0\x0c\0\1\0\1\0\0\0\x3c" + struct.pack("!H", len(address)) + address
    packet = bytearray(b"\0\7\x81\x80\0\1\0\1\0\0\0" + bytes((opt,)) + QUESTION + record)
    packet += b"\0\0\x29\x04\xd0\0\0\0\0\0\0" if opt else b""
    del packet[len(packet) - cut :]
    for at, byte in flips:
        packet[at % len(packet)] = byte
    refuse = AnswerFilter([ip_network("10.112.0.0/16")])
    for rules in (None, refuse):
        found = parse_reply(bytes(packet), QUESTION, rules)
        with patch.object(message, "_one_address", return_value=None):
            assert parse_reply(bytes(packet), QUESTION, rules) == found
