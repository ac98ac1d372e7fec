"""Parses the kernel's lists of virtual and real servers at a tenth of the cost of parsing each attribute.

With ten thousand real servers the audit reads as many messages, nearly all of which are the same as last time: only the
counts and the statistics at the end change. So the meaning of the first part of a message is cached by its bytes, and
only the counts are extracted from the rest. A message with any other layout is parsed attribute by attribute.
"""

import struct
from collections.abc import Callable, Sequence
from operator import itemgetter
from typing import Any

from mesh.dataplane.ipvs.messages import (
    COUNTS,
    FORWARDING_MASK,
    IpvsDestination,
    IpvsService,
    parse_address,
    parse_destination,
    parse_service,
)
from mesh.dataplane.ipvs.messages import DestinationAttribute as Dst
from mesh.dataplane.ipvs.messages import ServiceAttribute as Svc
from mesh.dataplane.netlink import ATTRIBUTE_HEADER, U16, attribute_positions
from mesh.model.table import RealKey

MAX_CACHED_MESSAGES = 1 << 16
"""Maximum cached messages; when there are more, all are forgotten."""

_SETTINGS = {Dst.ADDR: "16s", Dst.PORT: "2s", Dst.WEIGHT: "I", Dst.FWD_METHOD: "I", **dict.fromkeys(COUNTS[:2], "I")}
"""The layout of each attribute's value, in the order in which `_meet` takes them."""
_COUNTS = COUNTS[2:]
_MOVING = struct.Struct("=" + 3 * "4sI" + "8s")
"""Three counts, each behind its attribute header, then the attribute of the address family."""


class DestinationParser:
    """Parses real servers like `parse_destination`, but faster for many of them.

    A kernel writes the same attributes in the same order into each message: key and settings of a real server, its
    three connection counts, its address family, and statistics, which are not used and not looked at.
    """

    def __init__(self) -> None:
        self._known: dict[bytes, IpvsDestination] = {}
        """Real servers without connections, by the bytes before the counts."""
        self._size = self._start = self._end = 0
        """The length of a message in the learned layout; 0 if none was learned."""
        self._moving_headers: tuple[bytes, ...] = ()
        """The attribute headers between the counts, and the address family, in the learned layout."""
        self._idle = b""
        """The bytes of counts that are all 0."""
        self._headers = self._values = struct.Struct("")
        """Extracts the values before the counts."""
        self._expected: tuple[int, ...] = ()
        """The attribute headers before the counts in the learned layout."""
        self._order: Callable[[tuple[Any, ...]], tuple[Any, ...]] = tuple
        """Sorts the extracted values into the order of `_SETTINGS`."""
        self._family = 0
        """The address family of the learned layout."""

    def __call__(self, body: bytes) -> IpvsDestination:
        """Parse a reply to `get_destinations`. Raises `MalformedNetlinkError`."""
        if len(body) == self._size:
            before, moving = body[: self._start], body[self._start : self._end]
            known = self._known.get(before) or self._meet(before)
            if known is not None:
                # The common case: no connections, so the cached value is the result.
                if moving == self._idle:
                    return known
                *fields, family = _MOVING.unpack(moving)
                if (*fields[::2], family) == self._moving_headers:
                    return IpvsDestination(*known[:5], *fields[1::2])
        found = parse_destination(body)
        self._learn(body)
        return found

    def _meet(self, before: bytes) -> IpvsDestination | None:
        """Parse and cache the part before the counts; None if its layout is not the learned one."""
        if self._headers.unpack(before) != self._expected:
            return None
        packed, port, weight, forwarding, *thresholds = self._order(self._values.unpack(before))
        key = RealKey(parse_address(packed, self._family), int.from_bytes(port, "big"))
        if len(self._known) >= MAX_CACHED_MESSAGES:
            self._known.clear()
        found = self._known[before] = IpvsDestination(key, weight, forwarding & FORWARDING_MASK, *thresholds)
        return found

    def _learn(self, body: bytes) -> None:
        """Learn the layout of a message, unless it is not the expected one."""
        places = {kind: start for kind, start, _ in attribute_positions(body, ATTRIBUTE_HEADER)}
        # The fast path needs the three counts and the address family to follow each other.
        start = places.get(_COUNTS[0], 0) - ATTRIBUTE_HEADER
        moving = {kind: start + ATTRIBUTE_HEADER + 8 * number for number, kind in enumerate((*_COUNTS, Dst.AF))}
        end = start + _MOVING.size
        if end > len(body) or any(places.get(kind) != at for kind, at in moving.items()):
            return  # another order, or an old kernel that lacks some of these attributes
        if any(not 0 < places.get(kind, 0) < start for kind in _SETTINGS):
            return
        headers = sorted([0, *(at - ATTRIBUTE_HEADER for at in places.values() if at < start)])
        self._headers = _picking([(at, "I") for at in headers], start)
        self._expected = self._headers.unpack(body[:start])
        there = sorted((places[kind], layout, kind) for kind, layout in _SETTINGS.items())
        self._values = _picking([(at, layout) for at, layout, _ in there], start)
        kinds = [kind for *_, kind in there]
        self._order = itemgetter(*(kinds.index(kind) for kind in _SETTINGS))
        *fields, family = _MOVING.unpack(body[start:end])
        self._moving_headers = (*fields[::2], family)
        self._idle = _MOVING.pack(fields[0], 0, fields[2], 0, fields[4], 0, family)
        (self._family,) = U16.unpack_from(family, ATTRIBUTE_HEADER)
        self._known.clear()
        self._size, self._start, self._end = len(body), start, end


def _picking(fields: Sequence[tuple[int, str]], size: int) -> struct.Struct:
    """Return a layout that extracts the fields at these offsets from `size` bytes."""
    layout, end = "=", 0
    for start, field in fields:
        layout += f"{start - end}x{field}"
        end = start + struct.calcsize("=" + field)
    return struct.Struct(f"{layout}{size - end}x")


class ServiceParser:
    """Parses virtual servers like `parse_service`, but faster for many of them.

    The statistics at the end of a message are not used and not looked at.
    """

    def __init__(self) -> None:
        self._known: dict[bytes, IpvsService | None] = {}
        """Virtual servers by the bytes before the statistics; None where `parse_service` returns None."""
        self._size = self._end = 0

    def __call__(self, body: bytes) -> IpvsService | None:
        """Parse a reply to `get_services`; None as in `parse_service`. Raises `MalformedNetlinkError`."""
        if len(body) == self._size:
            start = body[: self._end]
            if start in self._known:
                return self._known[start]
        found = parse_service(body)
        self._learn(body, found)
        return found

    def _learn(self, body: bytes, found: IpvsService | None) -> None:
        """Cache a parsed message, if its statistics come last."""
        places = {kind: start - ATTRIBUTE_HEADER for kind, start, _ in attribute_positions(body, ATTRIBUTE_HEADER)}
        end = places.get(Svc.STATS, 0)
        if any(places.get(kind, 0) > end for kind in Svc if kind is not Svc.STATS):
            return
        if (self._size, self._end) != (len(body), end) or len(self._known) >= MAX_CACHED_MESSAGES:
            self._known.clear()
        self._size, self._end = len(body), end
        self._known[body[:end]] = found
