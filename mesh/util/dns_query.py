"""One DNS question about an address, and its answer (RFC 1035, section 4). Pure.

The name server of the mesh has its own, faster code; this asks any name server as a container does.
"""

import struct
from dataclasses import dataclass
from ipaddress import ip_address

_A, _AAAA, _IN = 1, 28, 1
_RECURSION_DESIRED = 0x0100
_RESPONSE, _RCODE = 0x8000, 0x000F
_RCODES = {0: "no error", 1: "FORMERR", 2: "SERVFAIL", 3: "NXDOMAIN", 4: "NOTIMP", 5: "REFUSED"}
_MAX_NAME = 255


@dataclass(frozen=True, slots=True)
class AddressAnswer:
    """The answer of a name server."""

    addresses: tuple[str, ...]
    """The addresses, in their order; empty if there are none."""
    status: str
    """The response code: `no error`, `NXDOMAIN`, ..."""


def encode_address_query(name: str, number: int, *, ipv6: bool) -> bytes:
    """Return the packet that asks for the addresses of a name. `number`: the id of the query, 0 to 65535.

    Raises `ValueError` if it is not a DNS name.
    """
    labels = name.rstrip(".").encode("ascii").split(b".")
    if not all(0 < len(label) < 64 for label in labels) or sum(map(len, labels)) + len(labels) + 1 > _MAX_NAME:
        raise ValueError(f"{name!r} is not a DNS name")
    question = b"".join(bytes((len(label),)) + label for label in labels) + b"\0"
    header = struct.pack("!6H", number, _RECURSION_DESIRED, 1, 0, 0, 0)
    return header + question + struct.pack("!2H", _AAAA if ipv6 else _A, _IN)


def decode_address_answer(packet: bytes, number: int) -> AddressAnswer | None:
    """Return the answer, or None if the packet is not a valid answer to the query with this number."""
    try:
        found, flags, questions, answers, _, _ = struct.unpack_from("!6H", packet)
        if found != number or not flags & _RESPONSE:
            return None
        at = 12
        for _ in range(questions):
            at = _skip_name(packet, at) + 4
        addresses = []
        for _ in range(answers):
            at = _skip_name(packet, at)
            kind, _, _, length = struct.unpack_from("!2HIH", packet, at)
            data = packet[at + 10 : at + 10 + length]
            at += 10 + length
            if (kind, len(data)) in ((_A, 4), (_AAAA, 16)):
                addresses.append(str(ip_address(data)))
    except (struct.error, IndexError):
        return None
    rcode = flags & _RCODE
    return AddressAnswer(tuple(addresses), _RCODES.get(rcode, f"response code {rcode}"))


def _skip_name(packet: bytes, at: int) -> int:
    """Return the offset behind a name. Raises `IndexError` if the packet ends within it."""
    while length := packet[at]:
        if length & 0xC0 == 0xC0:  # a pointer ends the name (section 4.1.4)
            return at + 2
        at += 1 + length
    return at + 1
