"""Turns the bytes of a query and a zone into the bytes of a response. No I/O: the transports are thin layers around it.

The code is written by hand and not with a DNS library because every connection of every user takes this path, and
because malformed queries (two OPT records, a compressed name, trailing bytes) need an exact response and must never
raise. It follows RFC 1035, section 4, for the format, RFC 6891 for EDNS, RFC 2308 for negative responses and RFC 8482
for ANY.
"""

import struct
from collections.abc import Sequence
from dataclasses import replace
from enum import IntEnum
from typing import NamedTuple

from meshdns.rdata import RecordType, ResourceRecord
from meshdns.zone import Zone, ZoneLookupResult

UDP_SIZE = 1232
"""Bytes of a UDP response that pass every path unfragmented: the size we offer and the largest we send (DNS Flag Day
2020).
"""
PLAIN_SIZE = 512
"""Maximum bytes of a UDP response to a client without EDNS (RFC 1035, section 4.2.1)."""
TCP_SIZE = 65535
"""Maximum bytes of a response over TCP."""

_HEADER = struct.Struct("!HBBHHHH")
_COUNTS = struct.Struct("!HHHH")
_TYPE_AND_CLASS = struct.Struct("!HH")
_QR, _AA, _TC, _RD = 0x80, 0x04, 0x02, 0x01
_OPCODE = 0x78
_RA, _CD = 0x80, 0x10
_DO = 0x8000
_IN, _ANY_CLASS = 1, 255
_DESCRIPTIONS = (int(RecordType.TXT), int(RecordType.ANY))
_TRANSFERS = (int(RecordType.AXFR), int(RecordType.IXFR))


class Rcode(IntEnum):
    """Response codes (IANA, DNS Parameters)."""

    NOERROR = 0
    FORMERR = 1
    SERVFAIL = 2
    NXDOMAIN = 3
    NOTIMP = 4
    REFUSED = 5
    BADVERS = 16


class ForwardQuery(NamedTuple):
    """A well-formed query about a name that is not own, to be answered by an upstream."""

    packet: bytes
    """The query as it arrived, with its ID."""
    query: "DnsQuery"
    """The parsed query."""


class EdnsOptions(NamedTuple):
    """The fields of a query's OPT record (RFC 6891, section 6.1)."""

    version: int
    """The EDNS version; only 0 is defined."""
    size: int
    """The UDP payload size that the client offers, in bytes."""
    dnssec_ok: bool
    """The DO flag (RFC 3225)."""


class DnsQuery(NamedTuple):
    """A parsed query. It is a tuple because one is made for each query that is forwarded."""

    id: int
    """The ID that the response must repeat."""
    flags: tuple[int, int]
    """The two flag bytes as they arrived."""
    question: bytes
    """Name, type and class as they arrived; the response repeats the name in the case the client wrote."""
    name: bytes
    """The wire name in lower case."""
    type: int
    """The queried record type; see `RecordType`."""
    class_: int
    """The queried class; usually 1 (IN)."""
    edns: EdnsOptions | None
    """The OPT record, or None if the query has none."""


def answer_query(
    packet: bytes, zone: Zone, *, tcp: bool = False, turn: int = 0, local: bool = True
) -> bytes | ForwardQuery | None:
    """Answer one packet.

    Returns None if the packet deserves no response: it is itself a response, or shorter than a header. Returns
    `ForwardQuery` if the name is not own. Several records are rotated so that record number `turn` (modulo their count)
    comes first: clients that use only the first record are thus spread over all of them. `local` says that the client
    is on this host.
    """
    if len(packet) < 12 or packet[2] & _QR:
        return None
    if packet[2] & _OPCODE:
        return failure_response(packet, Rcode.NOTIMP)
    query = parse_query(packet)
    if query is None:
        return failure_response(packet, Rcode.FORMERR)
    if query.edns is not None and query.edns.version:
        return _respond(query, Rcode.BADVERS, PLAIN_SIZE)
    # Zone transfers are not offered; class ANY is treated as IN.
    if query.class_ not in (_IN, _ANY_CLASS) or query.type in _TRANSFERS:
        return _respond(query, Rcode.REFUSED, PLAIN_SIZE)
    found = zone.lookup(query.name, query.type)
    if found is None:
        return ForwardQuery(packet, query)
    rcode = Rcode.NOERROR if found.exists else Rcode.NXDOMAIN
    if not local:
        found = replace(found, records=tuple(map(_for_other_hosts, found.records)))
    return _respond(query, rcode, _limit(query, tcp), found, ttl=zone.ttl, turn=turn)


def depends_on_client(packet: bytes, zone: Zone) -> bool:
    """Return whether clients on other hosts get another response from this zone than those on this host."""
    query = parse_query(packet)
    if query is None or query.type not in _DESCRIPTIONS:
        return False
    found = zone.lookup(query.name, query.type)
    return found is not None and any(record.public_data is not None for record in found.records)


def _for_other_hosts(record: ResourceRecord) -> ResourceRecord:
    return record if record.public_data is None else ResourceRecord(record.type, record.public_data)


def failure_response(packet: bytes, rcode: Rcode) -> bytes:
    """Build a response that carries only an error code, and the question if the packet could be parsed."""
    query = parse_query(packet)
    if query is not None:
        return _respond(query, rcode, PLAIN_SIZE)
    opcode_and_rd = packet[2] & (_OPCODE | _RD)
    return packet[:2] + bytes((_QR | opcode_and_rd, _RA | rcode)) + bytes(8)


def truncate_answer(packet: bytes, said: bytes) -> bytes:
    """Shorten a response to the question alone with TC set, so that the client asks again over TCP.

    Returns the response unchanged if the query cannot be parsed.
    """
    query = parse_query(packet)
    if query is None:
        return said
    opt = b"" if query.edns is None else _opt(query.edns, Rcode.NOERROR)
    counts = _COUNTS.pack(1, 0, 0, 1 if opt else 0)
    return said[:2] + bytes((said[2] | _TC, said[3])) + counts + query.question + opt


def parse_query(packet: bytes) -> DnsQuery | None:
    """Parse a packet with one question and otherwise only additional records; None if it is malformed."""
    try:
        ident, high, low, questions, answers, authority, additional = _HEADER.unpack_from(packet)
        if questions != 1 or answers or authority:
            return None
        end = _end_of_name(packet, 12)
        qtype, qclass = _TYPE_AND_CLASS.unpack_from(packet, end)
        edns, rest = _additional(packet, end + 4, additional) if additional else ((), end + 4)
    except (IndexError, struct.error):
        return None
    # Trailing bytes and a second OPT record make the query malformed (RFC 6891, section 6.1.1, for the latter).
    if rest != len(packet) or len(edns) > 1:
        return None
    question, name = packet[12 : end + 4], packet[12:end].lower()
    return DnsQuery(ident, (high, low), question, name, qtype, qclass, edns[0] if edns else None)


def _end_of_name(packet: bytes, start: int) -> int:
    """Return the offset behind an uncompressed name. Raises IndexError if it is compressed, too long or incomplete."""
    at = start
    while length := packet[at]:
        if length > 63 or at - start > 254:
            raise IndexError
        at += length + 1
    if at - start > 254:
        raise IndexError
    return at + 1


def _additional(packet: bytes, start: int, count: int) -> tuple[Sequence[EdnsOptions], int]:
    """Return the OPT records of the additional section and the offset behind the section.

    Other records, such as signatures, are skipped. Raises IndexError or struct.error for a malformed record.
    """
    found = []
    at = start
    for _ in range(count):
        name_end = _end_of_name(packet, at)
        kind, size, _, version, flags, length = struct.unpack_from("!HHBBHH", packet, name_end)
        if kind == RecordType.OPT:
            if name_end != at + 1:
                raise IndexError  # the name of an OPT record is the root: RFC 6891, section 6.1.2
            found.append(EdnsOptions(version, size, bool(flags & _DO)))
        at = name_end + 10 + length
    return found, at


def _limit(query: DnsQuery, tcp: bool) -> int:
    """Return the maximum size of a response to a query, in bytes."""
    if tcp:
        return TCP_SIZE
    return PLAIN_SIZE if query.edns is None else max(PLAIN_SIZE, min(query.edns.size, UDP_SIZE))


def _respond(
    query: DnsQuery, rcode: Rcode, limit: int, found: ZoneLookupResult | None = None, *, ttl: int = 0, turn: int = 0
) -> bytes:
    """Build a response; `found` is None for one without records, which is then not authoritative."""
    opt = b"" if query.edns is None else _opt(query.edns, rcode)
    room = limit - 12 - len(query.question) - len(opt)
    answers, authority, truncated = 0, 0, False
    body = b""
    if found is not None:
        first = turn % len(found.records) if found.records else 0
        body, answers = _answers(found.records[first:] + found.records[:first], ttl, room)
        truncated = answers < len(found.records)
        negative = b"" if found.records else soa_record(query.name, found, ttl)
        if negative and len(negative) <= room:
            body, authority = negative, 1
    high = _QR | (_AA if found is not None else 0) | (_TC if truncated else 0) | query.flags[0] & (_OPCODE | _RD)
    low = _RA | query.flags[1] & _CD | rcode & 0xF
    header = _HEADER.pack(query.id, high, low, 1, answers, authority, 1 if opt else 0)
    return header + query.question + body + opt


def _answers(records: Sequence[ResourceRecord], ttl: int, room: int) -> tuple[bytes, int]:
    """Encode as many records as fit into `room` bytes, so that a client without TCP still gets some of them."""
    body = b""
    for count, record in enumerate(records):
        # 0xC00C points to offset 12: the name in the question.
        encoded = b"\xc0\x0c" + struct.pack("!HHIH", record.type, _IN, ttl, len(record.data)) + record.data
        if len(body) + len(encoded) > room:
            return body, count
        body += encoded
    return body, len(records)


def soa_record(name: bytes, found: ZoneLookupResult, ttl: int) -> bytes:
    """Encode the SOA record of a negative response; its name points into the question (RFC 1035, section 4.1.4)."""
    pointer = 0xC000 | (12 + len(name) - len(found.apex))
    return struct.pack("!HHHIH", pointer, RecordType.SOA, _IN, ttl, len(found.soa.data)) + found.soa.data


def _opt(edns: EdnsOptions, rcode: Rcode) -> bytes:
    """Encode our OPT record: version 0, our UDP size, the upper bits of `rcode`, and DO as the client sent it."""
    return struct.pack("!BHHBBHH", 0, RecordType.OPT, UDP_SIZE, rcode >> 4, 0, _DO if edns.dnssec_ok else 0, 0)
