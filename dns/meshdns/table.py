"""Ready answers, keyed by the question as it came.

Everything of a question but its ID decides its answer: flags, name in the case it was written, type, class, OPT. So
the octets behind the ID are the key, and the octets behind the answer's ID the value; to answer a question that was
seen before is to look it up. What is computed is kept, under three bounds:

* canonical questions (lower case, no EDNS options) for names that exist are kept until the zone changes that name;
* of several records each answer begins with another one: up to `TURNS` of them are kept and take turns;
* all others, such as those for missing names, are kept in a small store of their own, until anything changes, so that
  random names and random case push nothing useful out.

The oldest goes first when a store is full. Answers from upstreams are never kept here.
"""

import struct
from collections import OrderedDict
from collections.abc import Iterable
from itertools import cycle
from typing import TypeVar

from meshdns.answer import Forward, answer
from meshdns.zone import Zone

ROOM = 65536
"""Canonical questions that are kept: A and AAAA, with and without EDNS, of 16,000 names."""
ODD = 4096
"""Other questions that are kept."""
TURNS = 8
LARGEST = 1232
"""Octets of an answer that is kept; longer ones go over TCP and are computed each time."""

_AA, _RCODE = 0x04, 0xF

T = TypeVar("T")


class Answers:
    """The zone's answers over one transport. Not for two threads at a time."""

    def __init__(self, zone: Zone, *, tcp: bool = False, room: int = ROOM, odd: int = ODD) -> None:
        self._zone = zone
        self._tcp = tcp
        self._room = room
        self._odd_room = odd
        self._turn = 0
        self.ready: OrderedDict[bytes, bytes] = OrderedDict()
        """What is looked up first. Whoever holds it must ask again after `replace`."""
        self._turning: OrderedDict[bytes, cycle[bytes]] = OrderedDict()
        self._odd: OrderedDict[bytes, bytes] = OrderedDict()
        self._keys: dict[bytes, set[bytes]] = {}
        """The keys in `ready` and `_turning`, by name."""

    def replace(self, zone: Zone, touched: Iterable[bytes] | None = None) -> None:
        """Answer from this zone. `touched`: the lower-case wire names whose answers may differ; None: any."""
        self._zone = zone
        self._odd = OrderedDict()
        if touched is None:
            self.ready, self._turning, self._keys = OrderedDict(), OrderedDict(), {}
            return
        for name in touched:
            for key in self._keys.pop(name, ()):
                self.ready.pop(key, None)
                self._turning.pop(key, None)

    def ask(self, packet: bytes) -> bytes | Forward | None:
        """As `answer`."""
        key = packet[2:]
        body = self.ready.get(key)
        if body is None:
            turns = self._turning.get(key)
            body = self._odd.get(key) if turns is None else next(turns)
        if body is not None:
            return packet[:2] + body
        self._turn += 1
        said = answer(packet, self._zone, tcp=self._tcp, turn=self._turn)
        if isinstance(said, bytes) and said[2] & _AA and len(said) <= LARGEST:
            self._keep(packet, said)
        return said

    def __len__(self) -> int:
        return len(self.ready) + len(self._turning) + len(self._odd)

    def _keep(self, packet: bytes, said: bytes) -> None:
        key, several = packet[2:], said[6:8] > b"\0\1"
        name = _canonical(packet) if not said[3] & _RCODE else None
        if name is None:
            if not several:
                _insert(self._odd, key, said[2:], self._odd_room)
            return
        if several:
            gone = _insert(self._turning, key, self._turns(packet, name), self._odd_room)
        else:
            gone = _insert(self.ready, key, said[2:], self._room)
        if gone is not None:
            self._forget(gone)
        self._keys.setdefault(name, set()).add(key)

    def _turns(self, packet: bytes, name: bytes) -> "cycle[bytes]":
        (qtype,) = struct.unpack_from("!H", packet, 12 + len(name))
        found = self._zone.lookup(name, qtype)
        count = len(found.records) if found else 1
        bodies = []
        for turn in range(min(count, TURNS)):
            said = answer(packet, self._zone, tcp=self._tcp, turn=turn * count // min(count, TURNS))
            assert isinstance(said, bytes)
            bodies.append(said[2:])
        return cycle(bodies)

    def _forget(self, key: bytes) -> None:
        name = key[10 : key.index(0, 10) + 1]
        keys = self._keys[name]
        keys.discard(key)
        if not keys:
            del self._keys[name]


def _canonical(packet: bytes) -> bytes | None:
    """The name asked for, if the question is as a plain client writes it; only for names that exist.

    Those have no label with a zero octet, so that the first one ends the name.
    """
    end = packet.index(0, 12) + 1
    name = packet[12:end]
    if name != name.lower() or len(packet) - end - 4 not in (0, 11):
        return None
    return name


def _insert(store: OrderedDict[bytes, T], key: bytes, value: T, room: int) -> bytes | None:
    """The key that had to go for it."""
    gone = store.popitem(last=False)[0] if len(store) >= room else None
    store[key] = value
    return gone
