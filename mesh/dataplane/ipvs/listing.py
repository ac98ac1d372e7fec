"""The kernel's lists of real servers, read at a fifth of the cost of going through their attributes one by one.

At ten thousand real servers the audit reads as many messages. They all look alike, so the layout of one serves for the
next: two `struct` calls instead of a dozen steps, and what differs in anything falls back to the steps.
"""

import struct
from collections.abc import Callable, Sequence
from operator import itemgetter
from typing import Any

from mesh.dataplane.ipvs.codec import COUNTS, FORWARDING_MASK, Destination, parse_address, parse_destination
from mesh.dataplane.ipvs.codec import DestinationAttribute as Dst
from mesh.dataplane.ipvs.wire import ATTRIBUTE_HEADER, positions
from mesh.model import RealKey

_FIRST = {Dst.AF: "H", Dst.ADDR: "16s", Dst.PORT: "2s", Dst.WEIGHT: "I", Dst.FWD_METHOD: "I"}
_WANTED = _FIRST | dict.fromkeys(COUNTS, "I")
"""Kind of an attribute -> the layout of its value; in the order in which `__call__` takes them."""


class DestinationParser:
    """`parse_destination` for thousands of them: the layout of the first one is remembered.

    A kernel writes the same attributes in the same order into each. Where a message has them so, its numbers are taken
    out at once; any other is parsed step by step, and its layout remembered instead.
    """

    def __init__(self) -> None:
        self._headers = self._values = struct.Struct("")
        self._expected: tuple[int, ...] = ()
        self._order: Callable[[tuple[Any, ...]], tuple[Any, ...]] = tuple

    def __call__(self, body: bytes) -> Destination:
        """See `parse_destination`."""
        if len(body) != self._headers.size or self._headers.unpack(body) != self._expected:
            found = parse_destination(body)
            self._learn(body)
            return found
        family, packed, port, weight, forwarding, *counts = self._order(self._values.unpack(body))
        key = RealKey(parse_address(packed, family), int.from_bytes(port, "big"))
        return Destination(key, weight, forwarding & FORWARDING_MASK, *counts)

    def _learn(self, body: bytes) -> None:
        places = {kind: (start, size) for kind, start, size in positions(body, ATTRIBUTE_HEADER)}
        if not _WANTED.keys() <= places.keys():
            return  # an old kernel: some of the counts have defaults
        starts = sorted([0, *(start - ATTRIBUTE_HEADER for start, _ in places.values())])
        self._headers = _picking([(start, "I") for start in starts], len(body))
        self._expected = self._headers.unpack(body)
        there = sorted((places[kind][0], layout, kind) for kind, layout in _WANTED.items())
        self._values = _picking([(start, layout) for start, layout, _ in there], len(body))
        kinds = [kind for *_, kind in there]
        self._order = itemgetter(*(kinds.index(kind) for kind in _WANTED))


def _picking(fields: Sequence[tuple[int, str]], size: int) -> struct.Struct:
    """Takes the values at these offsets out of so many bytes."""
    layout, end = "=", 0
    for start, field in fields:
        layout += f"{start - end}x{field}"
        end = start + struct.calcsize("=" + field)
    return struct.Struct(f"{layout}{size - end}x")
