"""Netlink messages and attributes as bytes, from linux/netlink.h and linux/genetlink.h.

This is the framing that both kernel data planes share. All numbers are in the host's byte order. The module does no
I/O: the sockets send what `pack_message` returns and pass received datagrams to `unpack_messages`.
"""

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TypeAlias

from mesh.model.service import Transport

GENERIC_VERSION = 1
"""The version in the generic netlink header."""

U16, U32, PORT = struct.Struct("=H"), struct.Struct("=I"), struct.Struct(">H")

PROTOCOLS = {Transport.TCP: 6, Transport.UDP: 17, Transport.SCTP: 132}  # linux/in.h
"""Numbers of the protocols."""
TRANSPORTS = {number: transport for transport, number in PROTOCOLS.items()}
"""The reverse of `PROTOCOLS`."""

_NLMSG_ERROR, _NLMSG_DONE = 2, 3
_F_REQUEST, _F_ACK, _F_DUMP = 0x1, 0x4, 0x300
_F_DUMP_INTERRUPTED, _F_CAPPED, _F_ACK_TLVS = 0x10, 0x100, 0x200  # of answers
_NESTED, _KIND = 0x8000, 0x3FFF
_ERROR_TEXT = 1  # NLMSGERR_ATTR_MSG

_HEADER = struct.Struct("=IHHII")  # nlmsghdr: length, type, flags, sequence, port id
_GENERIC = struct.Struct("=BBH")  # genlmsghdr: command, version, reserved
_ATTRIBUTE = struct.Struct("=HH")  # nlattr: length, kind
ATTRIBUTE_HEADER = _ATTRIBUTE.size
"""Bytes before the payload of an attribute."""
_S32 = struct.Struct("=i")


class MalformedNetlinkError(ValueError):
    """The bytes are not a netlink message: they are incomplete, or their lengths do not fit."""


@dataclass(frozen=True, slots=True)
class NetlinkRequest:
    """A generic netlink message without what the socket adds: the family and the sequence number."""

    command: int
    """The command in the generic netlink header."""
    body: bytes = b""
    """The attributes in wire form."""
    dump: bool = False
    """Whether the request asks for a list (NLM_F_DUMP) instead of an acknowledgement."""


@dataclass(frozen=True, slots=True)
class NetlinkAck:
    """The end of the responses to a request: the acknowledgement of a change, the end of a list, or an error."""

    sequence: int
    """The sequence number of the request."""
    error: int = 0
    """The errno; 0 for success."""
    text: str = ""
    """The kernel's explanation (NETLINK_EXT_ACK); empty if there is none, as is common."""
    interrupted: bool = False
    """Whether the table changed while the list was made (NLM_F_DUMP_INTR), so that entries may be missing."""


@dataclass(frozen=True, slots=True)
class NetlinkReply:
    """One entry of a list, or the response to a query."""

    sequence: int
    """The sequence number of the request."""
    command: int
    """The command in the generic netlink header."""
    body: bytes
    """The attributes in wire form."""
    interrupted: bool = False
    """Whether the table changed while the list was made (NLM_F_DUMP_INTR)."""


NetlinkAnswer: TypeAlias = NetlinkAck | NetlinkReply
"""A message from the kernel."""


def pack_message(request: NetlinkRequest, family: int, sequence: int) -> bytes:
    """Return a complete message; several messages may be joined into one datagram."""
    flags = _F_REQUEST | (_F_DUMP if request.dump else _F_ACK)
    length = _HEADER.size + _GENERIC.size + len(request.body)
    header = _HEADER.pack(length, family, flags, sequence, 0)
    return header + _GENERIC.pack(request.command, GENERIC_VERSION, 0) + request.body


def unpack_messages(datagram: bytes) -> Iterator[NetlinkAnswer]:
    """Yield the messages of a datagram in order. Raises `MalformedNetlinkError`."""
    offset = 0
    while offset < len(datagram):
        if len(datagram) - offset < _HEADER.size:
            raise MalformedNetlinkError(f"{len(datagram) - offset} bytes are left where a netlink header should be")
        length, kind, flags, sequence, _ = _HEADER.unpack_from(datagram, offset)
        if not _HEADER.size + 4 <= length <= len(datagram) - offset:
            raise MalformedNetlinkError(f"a netlink message of {length} bytes with {len(datagram) - offset} left")
        payload = datagram[offset + _HEADER.size : offset + length]
        interrupted = bool(flags & _F_DUMP_INTERRUPTED)
        if kind == _NLMSG_ERROR:
            yield NetlinkAck(sequence, -_S32.unpack_from(payload)[0], _error_text(payload, flags), interrupted)
        elif kind == _NLMSG_DONE:
            yield NetlinkAck(sequence, -_S32.unpack_from(payload)[0], "", interrupted)
        else:
            yield NetlinkReply(sequence, payload[0], payload[_GENERIC.size :], interrupted)
        offset += _aligned(length)


def list_entries(datagram: bytes, sequence: int) -> list[bytes] | None:
    """Return the bodies of a datagram that contains only entries of one list, all of the same length; else None.

    The result is the same as with `unpack_messages`, at a fraction of the cost: the kernel writes the same header
    before each entry.
    """
    header = datagram[: _HEADER.size]
    if len(header) < _HEADER.size:
        return None
    length, kind, flags, asked, _ = _HEADER.unpack(header)
    if kind in (_NLMSG_ERROR, _NLMSG_DONE) or flags & _F_DUMP_INTERRUPTED or asked != sequence:
        return None
    if length < _HEADER.size + _GENERIC.size or length & 3 or len(datagram) % length:
        return None
    starts = range(0, len(datagram), length)
    if any(datagram[at : at + _HEADER.size] != header for at in starts):
        return None
    skipped = _HEADER.size + _GENERIC.size
    return [datagram[at + skipped : at + length] for at in starts]


def _error_text(payload: bytes, flags: int) -> str:
    """Return the text of NLMSGERR_ATTR_MSG, or an empty one.

    The attribute follows the header of the refused message or, if the message was not capped, all of it.
    """
    if not flags & _F_ACK_TLVS:
        return ""
    copied = _HEADER.size if flags & _F_CAPPED else _aligned(U32.unpack_from(payload, 4)[0])
    return NetlinkAttributes(payload[4 + copied :]).text(_ERROR_TEXT)


def pack_attribute(kind: int, payload: bytes) -> bytes:
    """Return an attribute, padded to a multiple of four bytes."""
    padding = -len(payload) & 3
    return _ATTRIBUTE.pack(_ATTRIBUTE.size + len(payload), kind) + payload + bytes(padding)


def nest_attributes(kind: int, payload: bytes) -> bytes:
    """Return an attribute that contains attributes."""
    return pack_attribute(kind | _NESTED, payload)


def attribute_positions(data: bytes, offset: int = 0) -> Iterator[tuple[int, int, int]]:
    """Yield the kind, start and size of each attribute's payload, from `offset` on. Raises `MalformedNetlinkError`."""
    while offset < len(data):
        if len(data) - offset < _ATTRIBUTE.size:
            raise MalformedNetlinkError(f"{len(data) - offset} bytes are left where an attribute should be")
        length, kind = _ATTRIBUTE.unpack_from(data, offset)
        if not _ATTRIBUTE.size <= length <= len(data) - offset:
            raise MalformedNetlinkError(f"an attribute of {length} bytes with {len(data) - offset} left")
        yield kind & _KIND, offset + _ATTRIBUTE.size, length - _ATTRIBUTE.size
        offset += _aligned(length)


class NetlinkAttributes:
    """The attributes in some bytes, by kind.

    Methods raise `MalformedNetlinkError` for attributes that are too short or missing.
    """

    __slots__ = ("_raw",)

    def __init__(self, data: bytes) -> None:
        self._raw = {kind: data[start : start + size] for kind, start, size in attribute_positions(data)}

    def raw(self, kind: int, size: int = 0) -> bytes:
        """Return the payload of an attribute, which must exist and have at least `size` bytes."""
        value = self._raw.get(kind)
        if value is None or len(value) < size:
            raise MalformedNetlinkError(f"attribute {kind} is {'missing' if value is None else 'too short'}")
        return value

    def has(self, kind: int) -> bool:
        """Return whether the attribute exists."""
        return kind in self._raw

    def number(self, layout: struct.Struct, kind: int, default: int | None = None) -> int:
        """Return the first number of an attribute.

        `default`, if it is not None, is returned for an attribute that does not exist.
        """
        if default is not None and kind not in self._raw:
            return default
        value: int = layout.unpack_from(self.raw(kind, layout.size))[0]
        return value

    def text(self, kind: int) -> str:
        """Return the text of an attribute up to its first NUL; empty if the attribute does not exist."""
        return self._raw.get(kind, b"").partition(b"\0")[0].decode("ascii", "replace")

    def nested(self, kind: int) -> "NetlinkAttributes":
        """Return the attributes inside an attribute."""
        return NetlinkAttributes(self.raw(kind))


def _aligned(length: int) -> int:
    """Round up to a multiple of four (NLMSG_ALIGN)."""
    return (length + 3) & ~3
