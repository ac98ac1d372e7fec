"""Names and records in wire form (RFC 1035, section 3).

The module is pure. Its functions run when the zone changes, never per query.
"""

import ipaddress
import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import IntEnum
from functools import lru_cache

LOCAL_KEYS = ("worker=",)
"""How the strings of a TXT record begin that only clients on this host get: what they tell of the network is of use to
an intruder alone.
"""
MAX_CACHED_ADDRESSES = 16384
"""How many parsed addresses `address_record` caches; equal addresses then share one `ResourceRecord`."""


class RecordType(IntEnum):
    """Record types that the server handles specially (IANA, DNS Parameters)."""

    A = 1
    NS = 2
    CNAME = 5
    SOA = 6
    PTR = 12
    TXT = 16
    AAAA = 28
    SRV = 33
    OPT = 41
    SVCB = 64
    HTTPS = 65
    IXFR = 251
    AXFR = 252
    ANY = 255


@dataclass(frozen=True, slots=True)
class ResourceRecord:
    """One resource record without its owner name. Its TTL is the zone's."""

    type: int
    """The record type as a number; see `RecordType`."""
    data: bytes
    """RDATA in wire form."""
    public_data: bytes | None = None
    """The RDATA for clients on other hosts; None: the same for all."""


def encode_name(name: str) -> bytes:
    """Encode a domain name in lower case (RFC 1035, section 3.1): `a.b` becomes `\\x01a\\x01b\\x00`.

    Raises ValueError if the text is not a valid DNS name: not ASCII, an empty label, a label over 63 bytes, or over 255
    bytes in wire form.
    """
    try:
        labels = [label.encode("ascii") for label in name.lower().removesuffix(".").split(".")]
    except UnicodeEncodeError as error:
        raise ValueError(f"{name!r} is not ASCII: write its IDNA form, xn--...") from error
    encoded = b"".join(bytes((len(label),)) + label for label in labels if len(label) < 64) + b"\0"
    if not all(0 < len(label) < 64 for label in labels) or len(encoded) > 255:
        raise ValueError(f"{name!r} is not a DNS name: labels have 1 to 63 octets, all of it at most 253")
    return encoded


def decode_name(name: bytes) -> str:
    """Return an uncompressed wire name as text for messages. Bytes that do not print become `\\DDD` (RFC 4343)."""
    labels: list[str] = []
    at = 0
    while length := name[at]:
        label = name[at + 1 : at + 1 + length]
        labels.append("".join(chr(byte) if 33 <= byte < 127 else f"\\{byte:03d}" for byte in label))
        at += length + 1
    return ".".join(labels) or "."


def name_suffixes(name: bytes) -> Iterator[bytes]:
    """Yield a wire name and then each of its parents, without the root."""
    start = 0
    while name[start]:
        yield name[start:]
        start += name[start] + 1


@lru_cache(MAX_CACHED_ADDRESSES)
def address_record(text: str) -> ResourceRecord:
    """Return the A or AAAA record of an IP address. Raises ValueError for an invalid address."""
    parsed = ipaddress.ip_address(text)
    return ResourceRecord(RecordType.A if parsed.version == 4 else RecordType.AAAA, parsed.packed)


def pointer_record(target: bytes) -> ResourceRecord:
    """Return a PTR record to a wire name."""
    return ResourceRecord(RecordType.PTR, target)


def srv_record(priority: int, weight: int, port: int, target: bytes) -> ResourceRecord:
    """Return an SRV record to a wire name, which must not be compressed (RFC 2782)."""
    return ResourceRecord(RecordType.SRV, struct.pack("!HHH", priority, weight, port) + target)


def text_record(words: Sequence[str]) -> ResourceRecord:
    """Return a TXT record with one string per word, of which clients on other hosts do not get those of `LOCAL_KEYS`.

    Each word is cut to the 255 bytes that a string can hold (RFC 1035, section 3.3.14).
    """
    public = [word for word in words if not word.startswith(LOCAL_KEYS)]
    # A TXT record has at least one string, which may be empty.
    return ResourceRecord(
        RecordType.TXT, _strings(words), _strings(public or [""]) if len(public) < len(words) else None
    )


def _strings(words: Sequence[str]) -> bytes:
    strings = [word.encode()[:255] for word in words]
    return b"".join(bytes((len(string),)) + string for string in strings)


def name_server_name(apex: bytes) -> bytes:
    """Return the wire name of an apex's name server: `ns` below the apex.

    An apex of 240 bytes or more leaves no room for a name below it and is its own name server.
    """
    return b"\x02ns" + apex if len(apex) < 240 else apex


def authority_records(home: bytes, ttl: int, serial: int) -> tuple[ResourceRecord, ResourceRecord]:
    """Return the SOA and NS records of any apex (RFC 1035, section 3.3.13).

    `home` is the domain of the server's own name. `ttl`, in seconds, becomes the SOA MINIMUM field: how long a negative
    response may be cached (RFC 2308, section 4). `serial` is taken modulo 2**32.
    """
    refresh, retry, expire = 3600, 600, 86400
    times = struct.pack("!5I", serial & 0xFFFFFFFF, refresh, retry, expire, ttl)
    server = name_server_name(home)
    mailbox = b"\x0ahostmaster" + home if len(home) < 240 else home
    return ResourceRecord(RecordType.SOA, server + mailbox + times), ResourceRecord(RecordType.NS, server)
