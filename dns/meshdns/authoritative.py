"""Question bytes + zone -> answer bytes. No I/O: the transports are thin around it.

Written by hand and not with a DNS library, because this is the path of every connection of every user, and because
what is odd about a question (two OPT records, a compressed name, octets too many) has to be answered exactly and must
never raise. RFC 1035 section 4 is the format, RFC 6891 EDNS, RFC 2308 negative answers, RFC 8482 ANY.
"""

import struct
from collections.abc import Sequence
from enum import IntEnum
from typing import NamedTuple

from meshdns.rdata import RecordType, ResourceRecord
from meshdns.zone import Zone, ZoneLookupResult

UDP_SIZE = 1232
"""Octets of an answer over UDP that pass every path unfragmented; what we offer and the most we send (DNS Flag Day)."""
PLAIN_SIZE = 512
"""The most that a client without EDNS takes over UDP."""
TCP_SIZE = 65535

_HEADER = struct.Struct("!HBBHHHH")
_COUNTS = struct.Struct("!HHHH")
_TYPE_AND_CLASS = struct.Struct("!HH")
_QR, _AA, _TC, _RD = 0x80, 0x04, 0x02, 0x01
_OPCODE = 0x78
_RA, _CD = 0x80, 0x10
_DO = 0x8000
_IN, _ANY_CLASS = 1, 255
_TRANSFERS = (int(RecordType.AXFR), int(RecordType.IXFR))


class Rcode(IntEnum):
    """IANA, DNS parameters."""

    NOERROR = 0
    FORMERR = 1
    SERVFAIL = 2
    NXDOMAIN = 3
    NOTIMP = 4
    REFUSED = 5
    BADVERS = 16


class ForwardQuery(NamedTuple):
    """The question is well formed and about a name that is not ours: an upstream may answer it."""

    packet: bytes
    query: "DnsQuery"


class EdnsOptions(NamedTuple):
    """The OPT record of a question: RFC 6891, section 6.1."""

    version: int
    size: int
    dnssec_ok: bool


class DnsQuery(NamedTuple):
    """A question that could be read. A tuple, since one is made for each question that is forwarded."""

    id: int
    flags: tuple[int, int]
    """The two octets of flags as they came."""
    question: bytes
    """Name, type and class as they came: the case of the letters goes back unchanged."""
    name: bytes
    """In lower case."""
    type: int
    class_: int
    edns: EdnsOptions | None


def answer_query(packet: bytes, zone: Zone, *, tcp: bool = False, turn: int = 0) -> bytes | ForwardQuery | None:
    """The answer to one packet; None: it deserves none (it is itself an answer, or too short to have an ID).

    Of several records the one with the number `turn` comes first: who takes the first takes another one each time.
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
    if query.class_ not in (_IN, _ANY_CLASS) or query.type in _TRANSFERS:
        return _respond(query, Rcode.REFUSED, PLAIN_SIZE)
    found = zone.lookup(query.name, query.type)
    if found is None:
        return ForwardQuery(packet, query)
    rcode = Rcode.NOERROR if found.exists else Rcode.NXDOMAIN
    return _respond(query, rcode, _limit(query, tcp), found, ttl=zone.ttl, turn=turn)


def failure_response(packet: bytes, rcode: Rcode) -> bytes:
    """An answer that says only what went wrong; the question comes back with it if it could be read."""
    query = parse_query(packet)
    if query is not None:
        return _respond(query, rcode, PLAIN_SIZE)
    opcode_and_rd = packet[2] & (_OPCODE | _RD)
    return packet[:2] + bytes((_QR | opcode_and_rd, _RA | rcode)) + bytes(8)


def truncate_answer(packet: bytes, said: bytes) -> bytes:
    """The answer to a question without its records, and the word that there are some: they come over TCP."""
    query = parse_query(packet)
    if query is None:
        return said
    opt = b"" if query.edns is None else _opt(query.edns, Rcode.NOERROR)
    counts = _COUNTS.pack(1, 0, 0, 1 if opt else 0)
    return said[:2] + bytes((said[2] | _TC, said[3])) + counts + query.question + opt


def parse_query(packet: bytes) -> DnsQuery | None:
    """Read a packet with one question and nothing else but additional records; None if it is malformed."""
    try:
        ident, high, low, questions, answers, authority, additional = _HEADER.unpack_from(packet)
        if questions != 1 or answers or authority:
            return None
        end = _end_of_name(packet, 12)
        qtype, qclass = _TYPE_AND_CLASS.unpack_from(packet, end)
        edns, rest = _additional(packet, end + 4, additional) if additional else ((), end + 4)
    except (IndexError, struct.error):
        return None
    if rest != len(packet) or len(edns) > 1:
        return None
    question, name = packet[12 : end + 4], packet[12:end].lower()
    return DnsQuery(ident, (high, low), question, name, qtype, qclass, edns[0] if edns else None)


def _end_of_name(packet: bytes, start: int) -> int:
    """Where an uncompressed name ends. Raises IndexError: it is compressed, too long, or cut off."""
    at = start
    while length := packet[at]:
        if length > 63 or at - start > 254:
            raise IndexError
        at += length + 1
    if at - start > 254:
        raise IndexError
    return at + 1


def _additional(packet: bytes, start: int, count: int) -> tuple[Sequence[EdnsOptions], int]:
    """The OPT records among the additional ones, and where these end. Others, such as signatures, are passed over."""
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
    if tcp:
        return TCP_SIZE
    return PLAIN_SIZE if query.edns is None else max(PLAIN_SIZE, min(query.edns.size, UDP_SIZE))


def _respond(
    query: DnsQuery, rcode: Rcode, limit: int, found: ZoneLookupResult | None = None, *, ttl: int = 0, turn: int = 0
) -> bytes:
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
    """As many records as there is room for: a client without TCP still gets some of them."""
    body = b""
    for count, record in enumerate(records):
        encoded = b"\xc0\x0c" + struct.pack("!HHIH", record.type, _IN, ttl, len(record.data)) + record.data
        if len(body) + len(encoded) > room:
            return body, count
        body += encoded
    return body, len(records)


def soa_record(name: bytes, found: ZoneLookupResult, ttl: int) -> bytes:
    """The authority record of a negative answer; its name points into the question (RFC 1035, section 4.1.4)."""
    pointer = 0xC000 | (12 + len(name) - len(found.apex))
    return struct.pack("!HHHIH", pointer, RecordType.SOA, _IN, ttl, len(found.soa.data)) + found.soa.data


def _opt(edns: EdnsOptions, rcode: Rcode) -> bytes:
    """Our own OPT record: version 0, what we offer, the upper bits of the rcode, DO as it came."""
    return struct.pack("!BHHBBHH", 0, RecordType.OPT, UDP_SIZE, rcode >> 4, 0, _DO if edns.dnssec_ok else 0, 0)
