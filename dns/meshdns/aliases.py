"""CNAME records of upstreams that lead to own names: the upstream's part, completed from the zone. Pure.

An operator publishes `www.example.com. CNAME web.mesh.internal.` in a public zone. The upstream cannot know the target
and answers with the CNAME alone, NXDOMAIN or an error; the client, which asked for an address, expects the whole chain
(RFC 1034, section 4.3.2, step 3a).
"""

import struct
from bisect import bisect_right
from collections.abc import Mapping, Sequence
from typing import TypeAlias

from meshdns.rdata import RecordType, ResourceRecord
from meshdns.zone import Zone, ZoneLookupResult

MAX_ALIASES = 16
"""Maximum CNAME records in a row that are followed."""

Alias: TypeAlias = tuple[bytes, int]
"""The target of a CNAME record, as a wire name in the case that the upstream wrote, and its TTL in seconds."""

_HEADER_SIZE = 12
_IN = 1
_RECORD = struct.Struct("!HHIH")
_NXDOMAIN = 3


def read_name(packet: bytes, at: int, start: int, ttls: Sequence[int]) -> bytes:
    """Return the name at an offset in wire form, uncompressed (RFC 1035, section 4.1.4).

    `start` is the offset of the first record, `ttls` are those of the TTLs behind it, in ascending order. Raises
    IndexError for a malformed name. A pointer must lead to before the place where the last one led, so the function
    ends. It must not lead into the header or into a TTL: no name is there, and the name would change with them.
    """
    labels: list[bytes] = []
    size, least = 1, at
    while length := packet[at]:
        if length >= 0xC0:
            _refuse_in_ttl(at - start, 2, ttls)
            at = (length & 0x3F) << 8 | packet[at + 1]
            if not _HEADER_SIZE <= at < least:
                raise IndexError
            least = at
            continue
        _refuse_in_ttl(at - start, length + 1, ttls)
        size += length + 1
        label = packet[at : at + length + 1]
        if length > 63 or size > 255 or len(label) <= length:
            raise IndexError
        labels.append(label)
        at += length + 1
    _refuse_in_ttl(at - start, 1, ttls)
    return b"".join(labels) + b"\0"


def _refuse_in_ttl(at: int, size: int, ttls: Sequence[int]) -> None:
    """Raise IndexError if one of `size` bytes from `at` on is in a TTL, which has four bytes."""
    following = bisect_right(ttls, at - 4)
    if following < len(ttls) and ttls[following] < at + size:
        raise IndexError


def follow_aliases(name: bytes, records: Mapping[bytes, Alias]) -> tuple[Alias, ...]:
    """Return the chain of CNAME records that begins at a lower-case name; `records` is by lower-case owner name."""
    found: list[Alias] = []
    while (alias := records.get(name)) is not None and len(found) < MAX_ALIASES:
        found.append(alias)
        name = alias[0].lower()
    return tuple(found)


def find_own_target(aliases: tuple[Alias, ...], qtype: int, zone: Zone) -> tuple[int, ZoneLookupResult] | None:
    """Return how many CNAME records lead to the first own name, and what the zone has there; None if none does."""
    for count, (target, _) in enumerate(aliases, 1):
        found = zone.lookup(target.lower(), qtype)
        if found is not None:
            return count, found
    return None


class CompletedAnswer:
    """The records of a chain and of the own name at its end, in wire form behind the question."""

    def __init__(self, aliases: tuple[Alias, ...], found: ZoneLookupResult, ttl: int, elapsed: int) -> None:
        """`ttl` is the zone's; `elapsed` is the age of the upstream's part in seconds."""
        self.rcode = 0 if found.exists else _NXDOMAIN
        self.ttls: list[int] = []
        """The offset of the TTL of each record in `body`."""
        self.body = b""
        owner = b"\xc0\x0c"  # the name in the question
        for target, seconds in aliases:
            self._add(owner, RecordType.CNAME, max(0, seconds - elapsed), target)
            owner = target
        for record in found.records:
            self._add(owner, record.type, ttl, record.data)
        answers = len(self.ttls)
        if not found.records:
            self._add_soa(found.apex, found.soa, ttl)
        self.counts = (answers, len(self.ttls) - answers, 0)

    def _add_soa(self, apex: bytes, soa: ResourceRecord, ttl: int) -> None:
        self._add(apex, soa.type, ttl, soa.data)

    def _add(self, owner: bytes, kind: int, ttl: int, data: bytes) -> None:
        self.ttls.append(len(self.body) + len(owner) + 4)
        self.body += owner + _RECORD.pack(kind, _IN, ttl, len(data)) + data
