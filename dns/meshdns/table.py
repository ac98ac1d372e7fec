"""Ready answers, keyed by the question as it came.

Everything of a question but its ID decides its answer: flags, name in the case it was written, type, class, OPT. So
the octets behind the ID are the key, and the answer with ID 0 the value; to answer a question that was seen before is
to look it up. What is computed is kept, under bounds:

* canonical questions (lower case, no EDNS options) for names that exist are kept until the zone changes that name;
* of several records each answer begins with another one: up to `TURNS` of them are kept and take turns;
* others, such as those in random case, are kept in a small store of their own, until anything changes;
* answers for missing names are not kept but put together from parts: searching through domains and random names cost
  little and push nothing useful out.

The oldest goes first when a store is full. Answers from upstreams are never kept here.
"""

import struct
from collections import OrderedDict
from collections.abc import Iterable
from itertools import cycle
from typing import TypeVar

from meshdns.answer import Forward, Rcode, answer
from meshdns.zone import Zone

ROOM = 65536
"""Canonical questions that are kept: A and AAAA, with and without EDNS, of 16,000 names."""
ODD = 4096
"""Other questions that are kept."""
TURNS = 8
FRAMES = 256
"""Ways to ask for a missing name: flags, type, class and OPT."""
LARGEST = 1232
"""Octets of an answer that is kept; longer ones go over TCP and are computed each time."""

_AA, _TC, _RCODE = 0x04, 0x02, 0xF
_PLAIN_SIZE = 512

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
        self._frames: OrderedDict[bytes, tuple[bytes, bytes]] = OrderedDict()
        """Header and OPT of the answer for a missing name, by what the question has beside its name."""
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
        known = self.ready.get(key) or self.beside(key)
        if known is not None:
            return packet[:2] + known[2:]
        self._turn += 1
        said = answer(packet, self._zone, tcp=self._tcp, turn=self._turn)
        if isinstance(said, bytes) and said[2] & _AA and not said[2] & _TC and said[3] & _RCODE == Rcode.NXDOMAIN:
            self._keep_frame(key, said)
        elif isinstance(said, bytes) and said[2] & _AA and len(said) <= LARGEST:
            self._keep(packet, b"\0\0" + said[2:])
        return said

    def beside(self, key: bytes) -> bytes | None:
        """What is known beside `ready`, with ID 0."""
        turns = self._turning.get(key)
        if turns is not None:
            return next(turns)
        return self._odd.get(key) or self._missing(key)

    def __len__(self) -> int:
        return len(self.ready) + len(self._turning) + len(self._odd)

    def _missing(self, key: bytes) -> bytes | None:
        """The answer for a name that does not exist, if one was asked for in the same way before."""
        end = key.find(0, 10) + 1
        frame = self._frames.get(key[:10] + key[end:])
        if frame is None or end > 265:
            return None
        soa = self._zone.missing(key[10:end].lower())
        if soa is None:
            return None
        header, opt = frame
        said = header + key[10 : end + 4] + soa + opt
        return said if len(said) <= _PLAIN_SIZE else None

    def _keep_frame(self, key: bytes, said: bytes) -> None:
        end = key.find(0, 10) + 1
        if len(key) - end in (4, 15):
            opt = said[-11:] if said[11] else b""
            _insert(self._frames, key[:10] + key[end:], (b"\0\0" + said[2:12], opt), FRAMES)

    def _keep(self, packet: bytes, said: bytes) -> None:
        key, several = packet[2:], said[6:8] > b"\0\1"
        name = _canonical(packet)
        if name is None:
            if not several:
                _insert(self._odd, key, said, self._odd_room)
            return
        if several:
            gone = _insert(self._turning, key, self._turns(packet, name), self._odd_room)
        else:
            gone = _insert(self.ready, key, said, self._room)
        if gone is not None:
            self._forget(gone)
        self._keys.setdefault(name, set()).add(key)

    def _turns(self, packet: bytes, name: bytes) -> "cycle[bytes]":
        (qtype,) = struct.unpack_from("!H", packet, 12 + len(name))
        found = self._zone.lookup(name, qtype)
        count = len(found.records) if found else 1
        said_by_turn = []
        for turn in range(min(count, TURNS)):
            said = answer(packet, self._zone, tcp=self._tcp, turn=turn * count // min(count, TURNS))
            assert isinstance(said, bytes)
            said_by_turn.append(b"\0\0" + said[2:])
        return cycle(said_by_turn)

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
