"""The kernel's lists of virtual and real servers, read at a tenth of the cost of going through their attributes.

At ten thousand real servers the audit reads as many messages, and nearly all of them say what they said the last time:
only the counts and the statistics at their end move. So what the first part of a message means is remembered by its
bytes, and just the counts are taken out of the rest. Whatever looks otherwise is parsed step by step.
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
"""Messages; when more come, all are forgotten."""

_SETTINGS = {Dst.ADDR: "16s", Dst.PORT: "2s", Dst.WEIGHT: "I", Dst.FWD_METHOD: "I", **dict.fromkeys(COUNTS[:2], "I")}
"""Kind of an attribute -> the layout of its value; in the order in which `_meet` takes them."""
_COUNTS = COUNTS[2:]
_MOVING = struct.Struct("=" + 3 * "4sI" + "8s")
"""Three counts, each behind its header, and the address family."""


class DestinationParser:
    """`parse_destination` for thousands of them.

    A kernel writes the same attributes in the same order into each: what names and sets a real server, its three
    connection counts, its address family, statistics. Of the statistics nothing is used, and nothing looked at.
    """

    def __init__(self) -> None:
        self._known: dict[bytes, IpvsDestination] = {}
        """By what is before the counts; without connections."""
        self._size = self._start = self._end = 0
        self._moving_headers: tuple[bytes, ...] = ()
        self._idle = b""
        """What counts of 0 look like."""
        self._headers = self._values = struct.Struct("")
        """Of what is before the counts."""
        self._expected: tuple[int, ...] = ()
        self._order: Callable[[tuple[Any, ...]], tuple[Any, ...]] = tuple
        self._family = 0

    def __call__(self, body: bytes) -> IpvsDestination:
        """See `parse_destination`."""
        if len(body) == self._size:
            before, moving = body[: self._start], body[self._start : self._end]
            known = self._known.get(before) or self._meet(before)
            if known is not None:
                if moving == self._idle:
                    return known
                *fields, family = _MOVING.unpack(moving)
                if (*fields[::2], family) == self._moving_headers:
                    return IpvsDestination(*known[:5], *fields[1::2])
        found = parse_destination(body)
        self._learn(body)
        return found

    def _meet(self, before: bytes) -> IpvsDestination | None:
        """One that was not seen yet, in the layout of the others; None: it has another."""
        if self._headers.unpack(before) != self._expected:
            return None
        packed, port, weight, forwarding, *thresholds = self._order(self._values.unpack(before))
        key = RealKey(parse_address(packed, self._family), int.from_bytes(port, "big"))
        if len(self._known) >= MAX_CACHED_MESSAGES:
            self._known.clear()
        found = self._known[before] = IpvsDestination(key, weight, forwarding & FORWARDING_MASK, *thresholds)
        return found

    def _learn(self, body: bytes) -> None:
        places = {kind: start for kind, start, _ in attribute_positions(body, ATTRIBUTE_HEADER)}
        start = places.get(_COUNTS[0], 0) - ATTRIBUTE_HEADER
        moving = {kind: start + ATTRIBUTE_HEADER + 8 * number for number, kind in enumerate((*_COUNTS, Dst.AF))}
        end = start + _MOVING.size
        if end > len(body) or any(places.get(kind) != at for kind, at in moving.items()):
            return  # another order, or an old kernel without some of it
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
    """Takes the values at these offsets out of so many bytes."""
    layout, end = "=", 0
    for start, field in fields:
        layout += f"{start - end}x{field}"
        end = start + struct.calcsize("=" + field)
    return struct.Struct(f"{layout}{size - end}x")


class ServiceParser:
    """`parse_service` for thousands of them. Of the statistics at the end nothing is used, and nothing looked at."""

    def __init__(self) -> None:
        self._known: dict[bytes, IpvsService | None] = {}
        """By what is before the statistics."""
        self._size = self._end = 0

    def __call__(self, body: bytes) -> IpvsService | None:
        """See `parse_service`."""
        if len(body) == self._size:
            start = body[: self._end]
            if start in self._known:
                return self._known[start]
        found = parse_service(body)
        self._learn(body, found)
        return found

    def _learn(self, body: bytes, found: IpvsService | None) -> None:
        places = {kind: start - ATTRIBUTE_HEADER for kind, start, _ in attribute_positions(body, ATTRIBUTE_HEADER)}
        end = places.get(Svc.STATS, 0)
        if any(places.get(kind, 0) > end for kind in Svc if kind is not Svc.STATS):
            return
        if (self._size, self._end) != (len(body), end) or len(self._known) >= MAX_CACHED_MESSAGES:
            self._known.clear()
        self._size, self._end = len(body), end
        self._known[body[:end]] = found
