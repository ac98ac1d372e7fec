"""NXDOMAIN responses, assembled from cached parts.

Resolvers try a name in each of their search domains, and scanners try random names, so most queries for a missing name
arrive once. Caching their responses would push useful entries out of the packet cache. This module caches only the
parts of a response that do not depend on the name: header and OPT depend on everything in the query except its name,
and nearly all the rest depends on everything except the first label.
"""

from collections import OrderedDict
from typing import TypeVar

from meshdns.response_block import BLOCK_SIZE, encode_block
from meshdns.zone import Zone

MAX_FRAMES = 256
"""How many combinations of flags, type, class and OPT are cached."""
MAX_PARENTS = 4096
"""How many parts are cached per parent name, length of the first label, and combination of flags, type, class and OPT.
"""
_PLAIN_SIZE = 512

T = TypeVar("T")


class NxdomainCache:
    """Assembles NXDOMAIN responses for one zone.

    A key is a query without its ID, and a response is a block with ID 0.
    """

    def __init__(self, zone: Zone) -> None:
        self._zone = zone
        self._frames: OrderedDict[bytes, tuple[bytes, bytes]] = OrderedDict()
        """Header and OPT of a response, by the query without its ID and name."""
        self._parents: OrderedDict[bytes, tuple[bytes, int, bytes]] = OrderedDict()
        """By the query without its ID and first label: the header, the offset of the end of the name in the key, and
        what follows the question, up to the end of the block.
        """

    def replace(self, zone: Zone) -> None:
        """Answer from this zone from now on."""
        self._zone = zone
        self._parents.clear()

    def learn(self, key: bytes, said: bytes) -> None:
        """Cache the name-independent parts of an NXDOMAIN response.

        They serve all queries that differ from this one only in the name.
        """
        end = key.find(0, 10) + 1
        # Behind the name: type and class (4 bytes), and possibly an OPT record without options (11 bytes). Queries with
        # EDNS options, such as cookies, differ each time and are not worth a place.
        if len(key) - end in (4, 15):
            insert_bounded(
                self._frames, key[:10] + key[end:], (b"\0\0" + said[2:12], said[-11:] if said[11] else b""), MAX_FRAMES
            )

    def answer(self, key: bytes) -> bytes | None:
        """Return the NXDOMAIN response to a query as a block.

        Returns None if the name exists or is not own, and if no response to a query of this form has been learned yet.
        """
        if len(key) < 16:
            return None
        # A key has no ID, so the name begins at byte 10; `first` is where its second label begins.
        first = key[10] + 11
        parent = self._parents.get(key[:11] + key[first:])
        if parent is None:
            return self._answer_first(key, first)
        header, end, rest = parent
        if key[10:end].lower() in self._zone.existing:
            return None
        return header + key[10 : end + 4] + rest

    def _answer_first(self, key: bytes, first: int) -> bytes | None:
        """Answer the first query below a parent name, and cache the parts for the next one."""
        end = key.find(0, 10) + 1
        frame = self._frames.get(key[:10] + key[end:])
        if frame is None or end > 265:
            return None
        soa = self._zone.missing(key[10:end].lower())
        if soa is None:
            return None
        header, opt = frame
        said = header + key[10 : end + 4] + soa + opt
        if len(said) > _PLAIN_SIZE:
            return None
        whole = encode_block(said)
        # What follows the question, including the length at the end, is the same for all first labels of this length.
        if len(whole) == BLOCK_SIZE:
            insert_bounded(self._parents, key[:11] + key[first:], (header, end, whole[end + 6 :]), MAX_PARENTS)
        return whole


def insert_bounded(store: OrderedDict[bytes, T], key: bytes, value: T, room: int) -> bytes | None:
    """Insert into a bounded store. Returns the key that had to go to make room, the oldest one, or None."""
    gone = store.popitem(last=False)[0] if len(store) >= room else None
    store[key] = value
    return gone
