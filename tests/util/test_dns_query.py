"""One DNS question about an address: against dnslib, and with hostile answers."""

import pytest
from dnslib import AAAA, CNAME, QTYPE, RCODE, RR, A, DNSRecord
from hypothesis import given
from hypothesis import strategies as st

from mesh.util.dns_query import AddressAnswer, decode_address_answer, encode_address_query


@pytest.mark.parametrize(("ipv6", "kind"), [(False, "A"), (True, "AAAA")])
def test_the_query_is_what_other_software_reads(ipv6: bool, kind: str) -> None:
    query = DNSRecord.parse(encode_address_query("web.shop.test", 4711, ipv6=ipv6))
    assert (query.header.id, query.header.rd, str(query.q.qname), QTYPE[query.q.qtype]) == (
        4711,
        1,
        "web.shop.test.",
        kind,
    )


@pytest.mark.parametrize("name", ["", "a..b", "x" * 64 + ".test", ".".join(["x" * 60] * 5), "ü.test"])
def test_what_is_no_name_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match=r"is not a DNS name|ordinal not in range"):
        encode_address_query(name, 1, ipv6=False)


def answered(*records: RR, rcode: int = RCODE.NOERROR) -> bytes:
    reply = DNSRecord.question("web.test").reply()
    reply.header.id, reply.header.rcode = 7, rcode
    for record in records:
        reply.add_answer(record)
    return bytes(reply.pack())


def test_addresses_behind_an_alias_are_found() -> None:
    packet = answered(
        RR("web.test", QTYPE.CNAME, rdata=CNAME("other.test")),
        RR("other.test", QTYPE.A, rdata=A("10.112.0.7")),
        RR("other.test", QTYPE.AAAA, rdata=AAAA("fd00::7")),
    )
    assert decode_address_answer(packet, 7) == AddressAnswer(("10.112.0.7", "fd00::7"), "no error")


def test_a_name_that_does_not_exist_has_no_address() -> None:
    assert decode_address_answer(answered(rcode=RCODE.NXDOMAIN), 7) == AddressAnswer((), "NXDOMAIN")
    assert decode_address_answer(answered(rcode=11), 7) == AddressAnswer((), "response code 11")


def test_an_answer_to_another_query_is_none() -> None:
    assert decode_address_answer(answered(), 8) is None
    assert decode_address_answer(encode_address_query("web.test", 7, ipv6=False), 7) is None


@given(st.binary(max_size=80), st.integers(0, 60))
def test_hostile_packets_raise_nothing(noise: bytes, cut: int) -> None:
    packet = answered(RR("web.test", QTYPE.A, rdata=A("10.112.0.7")))
    for hostile in (noise, packet[:cut], packet[:cut] + noise, b"\0\7\x80\0" + noise):
        found = decode_address_answer(hostile, 7)
        assert found is None or isinstance(found.addresses, tuple)
