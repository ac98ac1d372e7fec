"""Answers for names that do not exist, put together from parts.

Resolvers try a name in each of their search domains, and scanners try random ones: most questions for a missing name
come once. None of them is kept, since they would push out what is useful; what is kept is the answer without the name.
Header and OPT depend on everything of the question but its name, and nearly all else on everything but its first label.
"""

from collections import OrderedDict
from typing import TypeVar

from meshdns.response_block import BLOCK_SIZE, encode_block
from meshdns.zone import Zone

MAX_FRAMES = 256
"""Ways to ask: flags, type, class and OPT."""
MAX_PARENTS = 4096
"""The same for each name above, and each length of the first label."""
_PLAIN_SIZE = 512

T = TypeVar("T")


class NxdomainCache:
    """Of one zone; a key is a question without its ID, an answer is a block with ID 0."""

    def __init__(self, zone: Zone) -> None:
        self._zone = zone
        self._frames: OrderedDict[bytes, tuple[bytes, bytes]] = OrderedDict()
        """Header and OPT of the answer, by what the question has beside its name."""
        self._parents: OrderedDict[bytes, tuple[bytes, int, bytes]] = OrderedDict()
        """Header, end of the name in the question, and what follows the question, to the end of the block."""

    def replace(self, zone: Zone) -> None:
        """Answer from this zone."""
        self._zone = zone
        self._parents.clear()

    def learn(self, key: bytes, said: bytes) -> None:
        """An answer that says NXDOMAIN: from now on those to similar questions are known."""
        end = key.find(0, 10) + 1
        if len(key) - end in (4, 15):
            insert_bounded(
                self._frames, key[:10] + key[end:], (b"\0\0" + said[2:12], said[-11:] if said[11] else b""), MAX_FRAMES
            )

    def answer(self, key: bytes) -> bytes | None:
        """None: the name exists, or is not ours, or nobody has asked in this way before."""
        if len(key) < 16:
            return None
        first = key[10] + 11
        parent = self._parents.get(key[:11] + key[first:])
        if parent is None:
            return self._answer_first(key, first)
        header, end, rest = parent
        if key[10:end].lower() in self._zone.existing:
            return None
        return header + key[10 : end + 4] + rest

    def _answer_first(self, key: bytes, first: int) -> bytes | None:
        """The first one below a name."""
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
        if len(whole) == BLOCK_SIZE:
            insert_bounded(self._parents, key[:11] + key[first:], (header, end, whole[end + 6 :]), MAX_PARENTS)
        return whole


def insert_bounded(store: OrderedDict[bytes, T], key: bytes, value: T, room: int) -> bytes | None:
    """Put something into a store with bounds: the key that had to go for it, the oldest one."""
    gone = store.popitem(last=False)[0] if len(store) >= room else None
    store[key] = value
    return gone
