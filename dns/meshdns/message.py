"""An upstream's response, parsed once and written for every client that asks the same. Pure.

A `UpstreamReply` keeps no OPT record, since OPT is between two neighbours (RFC 6891, section 6.1.1). It keeps the
offset of every TTL, so that the TTLs can be counted down in place. A client gets back its own question in the case it
wrote, its own flags, and an OPT record only if it sent one. A forwarded response over UDP never exceeds 1232 bytes,
whatever size the client offers, so that this server cannot be used to flood a third party.
"""

import struct
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from meshdns.aliases import Alias, CompletedAnswer, find_own_target, follow_aliases, read_name
from meshdns.authoritative import PLAIN_SIZE, TCP_SIZE, UDP_SIZE, DnsQuery, Rcode
from meshdns.query_case import mix_case
from meshdns.rdata import RecordType
from meshdns.rebinding import AnswerFilter
from meshdns.zone import Zone

MAX_TTL = 86400
"""Maximum seconds that a response is cached (RFC 8767, section 4, recommends a cap)."""
MAX_NEGATIVE_TTL = 3600
"""Maximum seconds that a negative response is cached (RFC 2308, section 5, suggests one to three hours)."""
STALE_TTL = 30
"""TTL in seconds of the records of a stale response (RFC 8767, section 4, recommends 30)."""

BLOCKED_TTL = 5
"""Seconds for which a response with a refused address is remembered."""

STALE_ANSWER, BLOCKED, PROHIBITED, NO_REACHABLE_AUTHORITY = 3, 15, 18, 22
"""Extended DNS error codes (RFC 8914)."""

_QR, _TC, _RD, _RA, _CD, _DO = 0x80, 0x02, 0x01, 0x80, 0x10, 0x8000
_OPT, _SOA, _ANY, _CNAME = int(RecordType.OPT), int(RecordType.SOA), int(RecordType.ANY), int(RecordType.CNAME)
_A = int(RecordType.A)
_ADDRESSES = frozenset((int(RecordType.AAAA), int(RecordType.SVCB), int(RecordType.HTTPS)))
"""Types beside A whose records hold addresses."""
_NOERROR, _NXDOMAIN = int(Rcode.NOERROR), int(Rcode.NXDOMAIN)
_HEADER = struct.Struct("!HBBHHHH")
_SECTIONS = struct.Struct("!HHH")
_RECORD = struct.Struct("!HHIH")
_POINTER_RECORD = struct.Struct("!HHHIH")
_LONG = struct.Struct("!I")


class UpstreamReply(NamedTuple):
    """An upstream's response, independent of the client. It is a tuple because one is made for each response."""

    rcode: int
    """The response code, with the upper bits that the OPT record carries."""
    counts: tuple[int, int, int] = (0, 0, 0)
    """How many records the answer, authority and additional sections have."""
    body: bytes = b""
    """The records in wire form. Their compressed names are valid behind a question of the same length, as they point
    into the question and into each other.
    """
    ttls: tuple[int, ...] = ()
    """The offset in `body` of the TTL of each record."""
    lifetime: int = 0
    """Seconds that the response may be cached; 0 if it must not be."""
    truncated: bool = False
    """Whether the upstream set the TC flag: there is more, which only TCP gives."""
    aliases: tuple[Alias, ...] = ()
    """The CNAME records that lead on from the name in the question; empty if the question is about CNAME records."""
    blocked: bool = False
    """Whether a record holds an address that upstreams must not answer with."""


def question_of(query: DnsQuery) -> bytes:
    """Return name, type and class in wire form, the name in lower case."""
    return query.name + query.question[len(query.name) :]


def cache_key(query: DnsQuery) -> bytes:
    """Return the cache key of a query: RD, CD and DO in one byte, then the question.

    These decide an upstream's response.
    """
    dnssec_ok = 2 if query.edns is not None and query.edns.dnssec_ok else 0
    return bytes((query.flags[0] & _RD | dnssec_ok | query.flags[1] & _CD,)) + question_of(query)


def build_upstream_query(key: bytes, *, edns: bool = True, noise: bytes = b"") -> bytes:
    """Build the query for an upstream, without its ID.

    `edns` adds an OPT record of ours, which nearly all servers understand. `noise` is random bytes, as many as the
    question has, which decide the case of its letters; empty: they are written in lower case.
    """
    question = mix_case(key[1:], noise) if noise else key[1:]
    if not edns:
        return bytes((key[0] & _RD, key[0] & _CD)) + b"\0\1\0\0\0\0\0\0" + question
    before, behind = _FRAMES[key[0]]
    return before + question + behind


def parse_reply(packet: bytes, question: bytes, refuse: AnswerFilter | None = None) -> UpstreamReply | None:
    """Parse a response to `question`, in any case; None if it answers another question or is malformed.

    The caller must ignore a None as if the packet had not arrived and keep waiting: it may be forged (RFC 5452).
    `refuse` recognises addresses that make the response `blocked`; None: none does.
    """
    end = 12 + len(question)
    name_end = end - 4
    if packet[12:name_end].lower() != question[:-4].lower() or packet[name_end:end] != question[-4:]:
        return _parse_bare_error(packet)
    return parse_matching_reply(packet, question, refuse)


def parse_matching_reply(packet: bytes, question: bytes, refuse: AnswerFilter | None = None) -> UpstreamReply | None:
    """Parse a response whose question is `question`, which the caller has compared; as `parse_reply` otherwise."""
    if len(packet) < 12 or packet[2] & 0xF8 != _QR or packet[4:6] != b"\0\1":
        return None
    rcode = packet[3] & 0xF
    if packet[2] & _TC:
        return UpstreamReply(rcode, truncated=True)
    try:
        return _one_address(packet, 12 + len(question), question, refuse) or _records(
            packet, 12 + len(question), rcode, question, refuse
        )
    except (IndexError, struct.error):
        return None


def _one_address(packet: bytes, start: int, question: bytes, refuse: AnswerFilter | None) -> UpstreamReply | None:
    """Parse the response that is the most frequent: one IPv4 address, at most an OPT record behind it, and no error.

    A shortcut for `_records` with the same result; None if the response is another one.
    """
    end = start + 16
    if packet[3] & 0xF or packet[6:10] != b"\0\1\0\0" or len(packet) < end:
        return None
    owner, kind, class_, ttl, length = _POINTER_RECORD.unpack_from(packet, start)
    if (
        owner != 0xC00C
        or kind != _A
        or length != 4
        or ttl > MAX_TTL
        or question[-4:] != b"\0\1\0\1"
        or class_ != 1
        or (packet[10:12] != b"\0\0" if len(packet) == end else not _is_plain_opt(packet, end))
        or (refuse is not None and refuse.first_bytes[packet[end - 4]])
    ):
        return None
    return UpstreamReply(_NOERROR, (1, 0, 0), packet[start:end], (6,), ttl)


def _is_plain_opt(packet: bytes, start: int) -> bool:
    """Return whether all that follows is one OPT record without options and without an extended response code."""
    return (
        packet[10:12] == b"\0\1"
        and len(packet) == start + 11
        and packet[start : start + 3] == b"\0\0\x29"
        and packet[start + 5] == 0
        and packet[start + 9 : start + 11] == b"\0\0"
    )


def is_in_other_case(packet: bytes, question: bytes) -> bool:
    """Return whether a response answers the question, but repeats its name in other letters' case."""
    end = 12 + len(question)
    return (
        len(packet) >= 12
        and packet[2] & 0xF8 == _QR
        and packet[4:6] == b"\0\1"
        and packet[12:end] != question
        and packet[12 : end - 4].lower() == question[:-4].lower()
        and packet[end - 4 : end] == question[-4:]
    )


def _parse_bare_error(packet: bytes) -> UpstreamReply | None:
    """Parse an error that is a bare header, as some servers send; None if the packet is none.

    A forger still has to guess the ID and the port.
    """
    if len(packet) != 12 or packet[2] & 0xF8 != _QR or packet[4:6] == b"\0\1":
        return None
    rcode = packet[3] & 0xF
    return UpstreamReply(rcode) if rcode else None


def _records(  # noqa: C901, PLR0912 (once per answer)
    packet: bytes, start: int, rcode: int, question: bytes, refuse: AnswerFilter | None
) -> UpstreamReply | None:
    """Parse the records behind the question, from byte `start` on.

    The result is None if an OPT record is outside the additional section. Raises IndexError or struct.error if a record
    is malformed.
    """
    suspicious = _NOTHING_SUSPICIOUS if refuse is None else refuse.first_bytes
    blocked = False
    aliases: dict[bytes, Alias] = {}
    qtype = question[-4] << 8 | question[-3]
    kept = [0, 0, 0]
    ttls: list[int] = []
    changed: list[tuple[int, int]] = []
    """The offset and the new value of each TTL that is capped."""
    least, negative, answered = MAX_TTL, None, False
    at = end = start
    for section, count in enumerate(_SECTIONS.unpack_from(packet, 6)):
        for _ in range(count):
            owner = at
            # Nearly every owner name is a two-byte pointer into the first 256 bytes; a call costs more than the test.
            at = at + 2 if packet[at] == 0xC0 and packet[at + 1] < at else _after_name(packet, at)
            kind, _, ttl, length = _RECORD.unpack_from(packet, at)
            if kind == _OPT:
                # The TTL field of an OPT record holds the upper 8 bits of the response code (RFC 6891, section 6.1.3).
                rcode |= ttl >> 20 & 0xFF0
                if section < 2:
                    return None
                # Drop what follows the OPT record: without the OPT record in between, compression pointers beyond it
                # would be off. Additional records are optional anyway.
                break
            place = at + 4 - start
            ttls.append(place)
            at += 10 + length
            kept[section] += 1
            received = ttl
            if ttl > MAX_TTL:
                ttl = 0 if ttl >> 31 else MAX_TTL  # a TTL with the top bit set counts as 0: RFC 2181, section 8
            if kind == _A:
                if length == 4 and suspicious[packet[at - 4]] and refuse is not None:
                    blocked |= refuse.refuses(kind, packet[at - 4 : at])
            elif kind in _ADDRESSES and refuse is not None:
                blocked |= refuse.refuses(kind, packet[at - length : at])
            if section == 0:
                answered |= kind == qtype
                if kind == _CNAME:
                    name = read_name(packet, owner, start, ttls).lower()
                    aliases.setdefault(name, (_target(packet, at - length, at, start, ttls), ttl))
            elif section == 1 and kind == _SOA and length >= 22:
                # MINIMUM is the last field of the SOA record and caps how long the negative response is cached (RFC
                # 2308, section 5).
                (minimum,) = _LONG.unpack_from(packet, at - 4)
                negative = ttl = min(ttl, minimum, MAX_NEGATIVE_TTL)
            least = min(least, ttl)
            if ttl != received:
                changed.append((place, ttl))
            end = at
    if end > len(packet):
        return None
    body = packet[start:end]
    if changed:
        body = _with_ttls(body, changed)
    lifetime = _lifetime(rcode, answered or qtype == _ANY, negative, least if ttls else 0)
    counts = kept[0], kept[1], kept[2]
    if not aliases and not blocked:
        return UpstreamReply(rcode, counts, body, tuple(ttls), lifetime)
    chain = () if qtype in (_CNAME, _ANY) else follow_aliases(question[:-4].lower(), aliases)
    return UpstreamReply(rcode, counts, body, tuple(ttls), lifetime, aliases=chain, blocked=blocked)


def _target(packet: bytes, at: int, end: int, start: int, ttls: Sequence[int]) -> bytes:
    """Return the name that is the whole RDATA from `at` to `end`. Raises IndexError if it is not."""
    if _after_name(packet, at) != end:
        raise IndexError
    return read_name(packet, at, start, ttls)


def _with_ttls(body: bytes, ttls: Iterable[tuple[int, int]]) -> bytes:
    """Return the body with other TTLs, given as pairs of offset and seconds."""
    changed = bytearray(body)
    for at, ttl in ttls:
        _LONG.pack_into(changed, at, ttl)
    return bytes(changed)


def _lifetime(rcode: int, answered: bool, negative: int | None, least: int) -> int:
    """Return the seconds that a response may be cached (RFC 2308, section 5).

    A negative response without a SOA record is not cached, and neither is an error.
    """
    if rcode == _NOERROR and answered:
        return least
    if rcode in (_NOERROR, _NXDOMAIN) and negative is not None:
        return least
    return 0


def _after_name(packet: bytes, at: int) -> int:
    """Return the offset behind a name that may be compressed (RFC 1035, section 4.1.4).

    Pointers are checked but not followed, since the names are not read. Raises IndexError for a malformed name.
    """
    while length := packet[at]:
        if length >= 0xC0:
            if (length & 0x3F) << 8 | packet[at + 1] >= at:
                raise IndexError  # a pointer must lead backwards, or it could form a loop
            return at + 2
        if length > 63:
            raise IndexError
        at += length + 1
    return at + 1


# ------------------------------------------------------------------------------------------------ for a client


def response_size_limit(query: DnsQuery, tcp: bool) -> int:
    """Return the maximum size of a response to a client, in bytes."""
    if tcp:
        return TCP_SIZE
    return PLAIN_SIZE if query.edns is None else max(PLAIN_SIZE, min(query.edns.size, UDP_SIZE))


def write_response(
    query: DnsQuery, reply: UpstreamReply, elapsed: int, *, tcp: bool, error: int | None = None
) -> bytes:
    """Build the response for a client.

    `elapsed` is the age of the reply in seconds, which is subtracted from every TTL. `error` is an extended DNS error
    (RFC 8914), sent only if the client uses EDNS; None for no error.
    """
    body = reply.body
    if elapsed and body:
        body = _with_ttls(body, [(at, max(0, _LONG.unpack_from(body, at)[0] - elapsed)) for at in reply.ttls])
    if error is None and reply.blocked:
        error = BLOCKED
    opt = b"" if query.edns is None else _opt(query.edns.dnssec_ok, reply.rcode, error)
    counts, truncated = reply.counts, reply.truncated
    room = response_size_limit(query, tcp) - 12 - len(query.question) - len(opt)
    if len(body) > room:
        body, counts, truncated = _cut(reply, body, room)
    # An extended response code does not fit in the header alone; a client without EDNS gets SERVFAIL instead.
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


def leads_to_own_name(reply: UpstreamReply, qtype: int, zone: Zone) -> bool:
    """Return whether CNAME records of a response lead to an own name, so that the zone completes it."""
    return bool(reply.aliases) and find_own_target(reply.aliases, qtype, zone) is not None


def settle_reply(reply: UpstreamReply, qtype: int, zone: Zone | None, elapsed: int) -> tuple[UpstreamReply, int]:
    """Return what a client gets of an upstream's response, and its age in seconds.

    CNAME records that lead to an own name are completed from the zone, and whatever the upstream says behind them is
    dropped. Another response with a refused address becomes REFUSED. All others stay as they are. `zone` is None if
    there are no own names.
    """
    own = find_own_target(reply.aliases, qtype, zone) if reply.aliases and zone is not None else None
    if own is not None and zone is not None:
        count, found = own
        whole = CompletedAnswer(reply.aliases[:count], found, zone.ttl, elapsed)
        return UpstreamReply(whole.rcode, whole.counts, whole.body, tuple(whole.ttls)), 0
    if reply.blocked:
        return UpstreamReply(Rcode.REFUSED, blocked=True), 0
    return reply, elapsed


def stale_reply(reply: UpstreamReply) -> UpstreamReply:
    """Return a copy of an expired reply in which each record has a TTL of `STALE_TTL` seconds."""
    return reply._replace(
        body=_with_ttls(reply.body, [(at, STALE_TTL) for at in reply.ttls]),
        aliases=tuple((target, STALE_TTL) for target, _ in reply.aliases),
    )


def _cut(reply: UpstreamReply, body: bytes, room: int) -> tuple[bytes, tuple[int, int, int], bool]:
    """Keep as many whole records from the start as fit into `room` bytes.

    Returns the body, the counts and whether TC must be set: additional records may be missing without it, others must
    not (RFC 2181, section 9).
    """
    # A TTL is followed by the 2 bytes of RDLENGTH and by RDATA, so a record ends 6 bytes and RDLENGTH behind its TTL.
    ends = [at + 6 + int.from_bytes(body[at + 4 : at + 6], "big") for at in reply.ttls]
    fit = sum(end <= room for end in ends)
    answers = min(fit, reply.counts[0])
    authority = min(fit - answers, reply.counts[1])
    truncated = answers < reply.counts[0] or authority < reply.counts[1]
    kept = answers + authority
    return body[: ends[kept - 1] if kept else 0], (answers, authority, 0), truncated


def _opt(dnssec_ok: bool, rcode: int, error: int | None) -> bytes:
    """Encode an OPT record of ours (RFC 6891, section 6.1); `error` is an extended DNS error or None."""
    option = b"" if error is None else struct.pack("!HHH", 15, 2, error)
    flags = _DO if dnssec_ok else 0
    return struct.pack("!BHHBBHH", 0, RecordType.OPT, UDP_SIZE, rcode >> 4, 0, flags, len(option)) + option


_NOTHING_SUSPICIOUS = bytes(256)
_FRAMES = tuple(
    (bytes((first & _RD, first & _CD)) + b"\0\1\0\0\0\0\0\1", _opt(bool(first & 2), 0, None)) for first in range(256)
)
"""What goes before and behind the question of a query with EDNS, by the first byte of its cache key."""
