"""What the name server knows: own names and their addresses, as one immutable value that is swapped as a whole.

Own is every name at or below an apex: the domains that were given, and each name outside of them. Nothing own ever
leaves for an upstream, whatever its type: a query for the AAAA record of an IPv4-only name is answered with "no such
data", never with "no such name", since resolvers that ask for both addresses take the latter for the whole name
(RFC 2308, section 2).

Names are kept in wire form (RFC 1035, section 3.1), lower case, so that an answer is a dictionary look-up.
"""

import ipaddress
import struct
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import IntEnum


class Type(IntEnum):
    """Record types that the server treats on their own (IANA, DNS parameters)."""

    A = 1
    NS = 2
    SOA = 6
    AAAA = 28
    OPT = 41
    IXFR = 251
    AXFR = 252
    ANY = 255


@dataclass(frozen=True, slots=True)
class Record:
    """One resource record of a name; its TTL is the zone's."""

    type: int
    data: bytes


@dataclass(frozen=True, slots=True)
class Found:
    """What the zone says to a question about an own name."""

    exists: bool
    """False: there is no such name. True without records: there is, but without this type."""
    records: tuple[Record, ...]
    apex: bytes
    """The wire name whose SOA goes with a negative answer."""
    soa: Record


@dataclass(frozen=True, slots=True)
class Zone:
    """Made by `build`. Nothing of it changes afterwards."""

    ttl: int
    """Seconds, of every record and of every negative answer."""
    serial: int
    _records: Mapping[bytes, tuple[Record, ...]]
    _existing: frozenset[bytes]
    """Names with records, and the empty names between them and their apex (RFC 8020)."""
    _soas: Mapping[bytes, Record]
    """By apex."""

    @classmethod
    def build(
        cls, addresses: Mapping[str, Sequence[str]], domains: Iterable[str] = (), ttl: int = 5, serial: int = 1
    ) -> "Zone":
        """`addresses` maps names (`restserver.local`) to IPv4 and IPv6 addresses; `domains` are own as a whole.

        Raises ValueError for a name or an address that is none.
        """
        records = {wire(name): tuple(_address(text) for text in texts) for name, texts in addresses.items()}
        roots = [wire(domain) for domain in domains]
        soas = {apex: _soa(apex, ttl, serial) for apex in _apexes(roots, records)}
        existing = {suffix for name in records for suffix in _up_to(name, soas)} | soas.keys()
        return cls(ttl, serial, records, frozenset(existing), soas)

    def lookup(self, name: bytes, qtype: int) -> Found | None:
        """What to answer for a lower-case wire name; None: it is not ours."""
        for apex in suffixes(name):
            soa = self._soas.get(apex)
            if soa is None:
                continue
            here = self._records.get(name, ())
            if name == apex:
                here = (soa, *here)
            return Found(name in self._existing, _of_type(here, qtype), apex, soa)
        return None


def wire(name: str) -> bytes:
    """`a.b` -> `\\x01a\\x01b\\x00`, lower case (RFC 1035, section 3.1). Raises ValueError if it is not a DNS name."""
    try:
        labels = [label.encode("ascii") for label in name.lower().removesuffix(".").split(".")]
    except UnicodeEncodeError as error:
        raise ValueError(f"{name!r} is not ASCII: write its IDNA form, xn--...") from error
    encoded = b"".join(bytes((len(label),)) + label for label in labels if len(label) < 64) + b"\0"
    if not all(0 < len(label) < 64 for label in labels) or len(encoded) > 255:
        raise ValueError(f"{name!r} is not a DNS name: labels have 1 to 63 octets, all of it at most 253")
    return encoded


def suffixes(name: bytes) -> Iterator[bytes]:
    """A wire name, then each of its parents, without the root."""
    start = 0
    while name[start]:
        yield name[start:]
        start += name[start] + 1


def _apexes(domains: Iterable[bytes], names: Iterable[bytes]) -> Iterator[bytes]:
    """The domains, then names outside of all; of a name and its parent, the parent. Shorter ones first."""
    apexes: set[bytes] = set()
    for candidate in (*domains, *sorted(names, key=lambda name: (len(name), name))):
        if apexes.isdisjoint(suffixes(candidate)):
            apexes.add(candidate)
            yield candidate


def _up_to(name: bytes, apexes: Mapping[bytes, Record]) -> Iterator[bytes]:
    for suffix in suffixes(name):
        yield suffix
        if suffix in apexes:
            return


def _of_type(records: tuple[Record, ...], qtype: int) -> tuple[Record, ...]:
    if qtype == Type.ANY and records:
        qtype = records[-1].type  # one RRset is a whole answer to ANY: RFC 8482, section 4.1
    return tuple(record for record in records if record.type == qtype)


def _address(text: str) -> Record:
    address = ipaddress.ip_address(text)
    return Record(Type.A if address.version == 4 else Type.AAAA, address.packed)


def _soa(apex: bytes, ttl: int, serial: int) -> Record:
    """RFC 1035, section 3.3.13. The last number is how long a negative answer may be kept (RFC 2308, section 4)."""
    refresh, retry, expire = 3600, 600, 86400
    times = struct.pack("!5I", serial & 0xFFFFFFFF, refresh, retry, expire, ttl)
    # An apex near 255 octets has no room for a name below it: it is then its own server's name.
    server, mailbox = (label + apex if len(apex) < 240 else apex for label in (b"\x02ns", b"\x0ahostmaster"))
    return Record(Type.SOA, server + mailbox + times)
