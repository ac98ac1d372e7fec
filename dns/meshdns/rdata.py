"""Names and records in wire form: RFC 1035, section 3. Pure; made once, when the zone changes, never per question."""

import ipaddress
import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import IntEnum
from functools import lru_cache

MAX_CACHED_ADDRESSES = 16384
"""So many are read once, and have one record wherever they stand."""


class RecordType(IntEnum):
    """Record types that the server treats on their own (IANA, DNS parameters)."""

    A = 1
    NS = 2
    SOA = 6
    PTR = 12
    TXT = 16
    AAAA = 28
    SRV = 33
    OPT = 41
    IXFR = 251
    AXFR = 252
    ANY = 255


@dataclass(frozen=True, slots=True)
class ResourceRecord:
    """One resource record of a name; its TTL is the zone's."""

    type: int
    data: bytes


def encode_name(name: str) -> bytes:
    """`a.b` -> `\\x01a\\x01b\\x00`, lower case (RFC 1035, section 3.1). Raises ValueError if it is not a DNS name."""
    try:
        labels = [label.encode("ascii") for label in name.lower().removesuffix(".").split(".")]
    except UnicodeEncodeError as error:
        raise ValueError(f"{name!r} is not ASCII: write its IDNA form, xn--...") from error
    encoded = b"".join(bytes((len(label),)) + label for label in labels if len(label) < 64) + b"\0"
    if not all(0 < len(label) < 64 for label in labels) or len(encoded) > 255:
        raise ValueError(f"{name!r} is not a DNS name: labels have 1 to 63 octets, all of it at most 253")
    return encoded


def name_suffixes(name: bytes) -> Iterator[bytes]:
    """A wire name, then each of its parents, without the root."""
    start = 0
    while name[start]:
        yield name[start:]
        start += name[start] + 1


@lru_cache(MAX_CACHED_ADDRESSES)
def address_record(text: str) -> ResourceRecord:
    """A or AAAA. Raises ValueError for what is no address."""
    parsed = ipaddress.ip_address(text)
    return ResourceRecord(RecordType.A if parsed.version == 4 else RecordType.AAAA, parsed.packed)


def pointer_record(target: bytes) -> ResourceRecord:
    """PTR to a wire name."""
    return ResourceRecord(RecordType.PTR, target)


def srv_record(priority: int, weight: int, port: int, target: bytes) -> ResourceRecord:
    """SRV to a wire name, which is never compressed (RFC 2782)."""
    return ResourceRecord(RecordType.SRV, struct.pack("!HHH", priority, weight, port) + target)


def text_record(words: Sequence[str]) -> ResourceRecord:
    """TXT with a string per word, each cut to the 255 octets that a string can have (RFC 1035, section 3.3.14)."""
    strings = [word.encode()[:255] for word in words]
    return ResourceRecord(RecordType.TXT, b"".join(bytes((len(string),)) + string for string in strings))


def name_server_name(apex: bytes) -> bytes:
    """The wire name of the server of an apex; one near 255 octets has no room below it and is its own server."""
    return b"\x02ns" + apex if len(apex) < 240 else apex


def authority_records(apex: bytes, home: bytes, ttl: int, serial: int) -> tuple[ResourceRecord, ResourceRecord]:
    """SOA and NS of an apex; `home` is the domain that the server's own name is in.

    RFC 1035, section 3.3.13. The last number is how long a negative answer may be kept (RFC 2308, section 4).
    """
    refresh, retry, expire = 3600, 600, 86400
    times = struct.pack("!5I", serial & 0xFFFFFFFF, refresh, retry, expire, ttl)
    server = name_server_name(home)
    mailbox = b"\x0ahostmaster" + home if len(home) < 240 else home
    return ResourceRecord(RecordType.SOA, server + mailbox + times), ResourceRecord(RecordType.NS, server)
