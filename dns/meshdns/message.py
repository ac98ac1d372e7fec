"""An upstream's answer, read once and written for every client that asks the same. Pure.

What is kept has no OPT record, since that is between two neighbours (RFC 6891, section 6.1.1), and says where each
TTL stands, so that it can be counted down by the octet. A client gets its own question back, in the case it wrote,
its own flags, an OPT record only if it sent one, and never more than it may: what is forwarded over UDP ends at 1232
octets, whatever the client offers, so that nobody is flooded by way of us.
"""

import struct
from collections.abc import Iterable
from typing import NamedTuple

from meshdns.authoritative import PLAIN_SIZE, TCP_SIZE, UDP_SIZE, DnsQuery, Rcode
from meshdns.rdata import RecordType

MAX_TTL = 86400
"""Seconds that an answer is kept at most (RFC 8767, section 4: cap what is absurd)."""
MAX_NEGATIVE_TTL = 3600
"""Seconds that "no such name" is believed at most (RFC 2308, section 5 suggests one to three hours)."""
STALE_TTL = 30
"""Seconds that a client may keep an answer that is past its time (RFC 8767, section 4)."""

STALE_ANSWER, PROHIBITED, NO_REACHABLE_AUTHORITY = 3, 18, 22
"""Extended errors: RFC 8914."""

_QR, _TC, _RD, _RA, _CD, _DO = 0x80, 0x02, 0x01, 0x80, 0x10, 0x8000
_OPT, _SOA, _ANY = int(RecordType.OPT), int(RecordType.SOA), int(RecordType.ANY)
_NOERROR, _NXDOMAIN = int(Rcode.NOERROR), int(Rcode.NXDOMAIN)
_HEADER = struct.Struct("!HBBHHHH")
_SECTIONS = struct.Struct("!HHH")
_RECORD = struct.Struct("!HHIH")
_LONG = struct.Struct("!I")


class UpstreamReply(NamedTuple):
    """What an upstream said, for any client. A tuple, since one is made for each answer."""

    rcode: int
    counts: tuple[int, int, int] = (0, 0, 0)
    """Records in the answer, authority and additional sections."""
    body: bytes = b""
    """The records, as they follow a question of the same length: compressed names point into it and into each other."""
    ttls: tuple[int, ...] = ()
    """Where in the body the TTL of each record stands."""
    lifetime: int = 0
    """Seconds that it may be kept."""
    truncated: bool = False
    """There is more, but the upstream did not tell it."""


def question_of(query: DnsQuery) -> bytes:
    """Name, type and class, the name in lower case."""
    return query.name + query.question[len(query.name) :]


def cache_key(query: DnsQuery) -> bytes:
    """What decides the answer of an upstream: RD, CD and DO, then the question."""
    dnssec_ok = 2 if query.edns is not None and query.edns.dnssec_ok else 0
    return bytes((query.flags[0] & _RD | dnssec_ok | query.flags[1] & _CD,)) + question_of(query)


def build_upstream_query(key: bytes, *, edns: bool = True) -> bytes:
    """The question for an upstream, without its ID. `edns`: with an OPT record of ours, as nearly all understand."""
    flags = bytes((key[0] & _RD, key[0] & _CD))
    if not edns:
        return flags + b"\0\1\0\0\0\0\0\0" + key[1:]
    return flags + b"\0\1\0\0\0\0\0\1" + key[1:] + (_OPT_SECURE if key[0] & 2 else _OPT_PLAIN)


def parse_reply(packet: bytes, question: bytes) -> UpstreamReply | None:
    """An answer to the question (lower case); None if it is none, or malformed: then it was not heard (RFC 5452)."""
    if len(packet) < 12 or packet[2] & 0xF8 != _QR:
        return None
    rcode = packet[3] & 0xF
    end = 12 + len(question)
    if packet[4:6] != b"\0\1":
        # Some say no more than that they will not; who forges that has still to guess the ID and the port.
        return UpstreamReply(rcode) if rcode and len(packet) == 12 else None
    name_end = end - 4
    if packet[12:name_end].lower() != question[:-4] or packet[name_end:end] != question[-4:]:
        return None
    if packet[2] & _TC:
        return UpstreamReply(rcode, truncated=True)
    try:
        return _records(packet, end, rcode, question)
    except (IndexError, struct.error):
        return None


def _records(packet: bytes, start: int, rcode: int, question: bytes) -> UpstreamReply | None:
    qtype = question[-4] << 8 | question[-3]
    kept = [0, 0, 0]
    ttls: list[int] = []
    changed: list[tuple[int, int]] = []
    """Where a TTL stands that is kept as another one, and which."""
    least, negative, answered = MAX_TTL, None, False
    at = end = start
    for section, count in enumerate(_SECTIONS.unpack_from(packet, 6)):
        for _ in range(count):
            at = at + 2 if packet[at] == 0xC0 and packet[at + 1] < at else _after_name(packet, at)
            kind, _, ttl, length = _RECORD.unpack_from(packet, at)
            if kind == _OPT:
                rcode |= ttl >> 20 & 0xFF0
                if section < 2:
                    return None
                break  # what is behind it would point to the wrong places without it, and is optional
            place = at + 4 - start
            ttls.append(place)
            at += 10 + length
            kept[section] += 1
            told = ttl
            if ttl > MAX_TTL:
                ttl = 0 if ttl >> 31 else MAX_TTL  # RFC 2181, section 8
            if section == 0:
                answered |= kind == qtype
            elif section == 1 and kind == _SOA and length >= 22:
                (minimum,) = _LONG.unpack_from(packet, at - 4)
                negative = ttl = min(ttl, minimum, MAX_NEGATIVE_TTL)
            least = min(least, ttl)
            if ttl != told:
                changed.append((place, ttl))
            end = at
    if end > len(packet):
        return None
    body = packet[start:end]
    if changed:
        body = _with_ttls(body, changed)
    lifetime = _lifetime(rcode, answered or qtype == _ANY, negative, least if ttls else 0)
    return UpstreamReply(rcode, (kept[0], kept[1], kept[2]), body, tuple(ttls), lifetime)


def _with_ttls(body: bytes, ttls: Iterable[tuple[int, int]]) -> bytes:
    changed = bytearray(body)
    for at, ttl in ttls:
        _LONG.pack_into(changed, at, ttl)
    return bytes(changed)


def _lifetime(rcode: int, answered: bool, negative: int | None, least: int) -> int:
    """RFC 2308, section 5: without a SOA record "there is none" is not kept; nor is what is no answer at all."""
    if rcode == _NOERROR and answered:
        return least
    if rcode in (_NOERROR, _NXDOMAIN) and negative is not None:
        return least
    return 0


def _after_name(packet: bytes, at: int) -> int:
    """Where a name ends that may be compressed: RFC 1035, section 4.1.4. Names are not followed: nobody reads them."""
    while length := packet[at]:
        if length >= 0xC0:
            if (length & 0x3F) << 8 | packet[at + 1] >= at:
                raise IndexError  # to what comes later: a loop
            return at + 2
        if length > 63:
            raise IndexError
        at += length + 1
    return at + 1


# ------------------------------------------------------------------------------------------------ for a client


def response_size_limit(query: DnsQuery, tcp: bool) -> int:
    """The octets that a client may get."""
    if tcp:
        return TCP_SIZE
    return PLAIN_SIZE if query.edns is None else max(PLAIN_SIZE, min(query.edns.size, UDP_SIZE))


def write_response(
    query: DnsQuery, reply: UpstreamReply, elapsed: int, *, tcp: bool, error: int | None = None
) -> bytes:
    """The answer for a client, `elapsed` seconds after it came. `error`: an extended error, if the client has EDNS."""
    body = reply.body
    if elapsed and body:
        body = _with_ttls(body, [(at, max(0, _LONG.unpack_from(body, at)[0] - elapsed)) for at in reply.ttls])
    opt = b"" if query.edns is None else _opt(query.edns.dnssec_ok, reply.rcode, error)
    counts, truncated = reply.counts, reply.truncated
    room = response_size_limit(query, tcp) - 12 - len(query.question) - len(opt)
    if len(body) > room:
        body, counts, truncated = _cut(reply, body, room)
    rcode = reply.rcode & 0xF if query.edns is not None or reply.rcode < 16 else Rcode.SERVFAIL
    header = _HEADER.pack(
        query.id,
        _QR | query.flags[0] & _RD | (_TC if truncated else 0),
        _RA | query.flags[1] & _CD | rcode,
        1,
        counts[0],
        counts[1],
        counts[2] + (1 if opt else 0),
    )
    return header + query.question + body + opt


def stale_reply(reply: UpstreamReply) -> UpstreamReply:
    """The same past its time: each record for `STALE_TTL` seconds."""
    return reply._replace(body=_with_ttls(reply.body, [(at, STALE_TTL) for at in reply.ttls]))


def _cut(reply: UpstreamReply, body: bytes, room: int) -> tuple[bytes, tuple[int, int, int], bool]:
    """Whole records from the start: additional ones may be missing silently (RFC 2181, section 9), others not."""
    ends = [at + 6 + int.from_bytes(body[at + 4 : at + 6], "big") for at in reply.ttls]
    fit = sum(end <= room for end in ends)
    answers = min(fit, reply.counts[0])
    authority = min(fit - answers, reply.counts[1])
    truncated = answers < reply.counts[0] or authority < reply.counts[1]
    kept = answers + authority
    return body[: ends[kept - 1] if kept else 0], (answers, authority, 0), truncated


def _opt(dnssec_ok: bool, rcode: int, error: int | None) -> bytes:
    option = b"" if error is None else struct.pack("!HHH", 15, 2, error)
    flags = _DO if dnssec_ok else 0
    return struct.pack("!BHHBBHH", 0, RecordType.OPT, UDP_SIZE, rcode >> 4, 0, flags, len(option)) + option


_OPT_PLAIN, _OPT_SECURE = _opt(False, 0, None), _opt(True, 0, None)
