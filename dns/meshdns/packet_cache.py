"""Ready answers, keyed by the question as it came.

Everything of a question but its ID decides its answer: flags, name in the case it was written, type, class, OPT. So
the octets behind the ID are the key, and the answer with ID 0 the value; to answer a question that was seen before is
to look it up. What is computed is kept, under bounds:

* canonical questions (lower case, no EDNS options) for names that exist are kept until the zone changes that name;
* of several records each answer begins with another one: up to `TURNS` of them are kept and take turns;
* others, such as those in random case, are kept in a small store of their own, until anything changes;
* answers for missing names are not kept but put together from parts (`missing`).

The oldest goes first when a store is full. Answers from upstreams are never kept here.
"""

import struct
from collections import OrderedDict
from collections.abc import Iterable
from itertools import cycle
from typing import Protocol

from meshdns.authoritative import ForwardQuery, Rcode, answer_query
from meshdns.nxdomain import NxdomainCache, insert_bounded
from meshdns.response_block import decode_block, encode_block
from meshdns.zone import Zone

MAX_QUESTIONS = 65536
"""Canonical questions that are kept: A and AAAA, with and without EDNS, of 16,000 names."""
MAX_ODD_QUESTIONS = 4096
"""Other questions that are kept."""
TURNS = 8
MAX_ANSWER_BYTES = 1232
"""Octets of an answer that is kept; longer ones go over TCP and are computed each time."""

_AA, _TC, _RCODE = 0x04, 0x02, 0xF


class ForwardedAnswers(Protocol):
    """What is ready for names that are not ours: `ready.Ready`."""

    def get(self, key: bytes, /) -> bytes | None:
        """A block, if there is one at once."""
        ...

    def __getitem__(self, key: bytes, /) -> bytes | None:
        """A block, if there is one after a little work."""
        ...


class _NoForwardedAnswers(dict[bytes, None]):
    def __missing__(self, key: bytes) -> None:
        return None


class PacketCache(OrderedDict[bytes, bytes]):
    """Blocks by key. `known[...]` finds what is elsewhere too, and is None for what is not known."""

    def __init__(self, zone: Zone, others: ForwardedAnswers | None = None) -> None:
        super().__init__()
        self._others: ForwardedAnswers = _NoForwardedAnswers() if others is None else others
        self.turning: OrderedDict[bytes, cycle[bytes]] = OrderedDict()
        self.odd: OrderedDict[bytes, bytes] = OrderedDict()
        self.missing = NxdomainCache(zone)

    def __missing__(self, key: bytes) -> bytes | None:
        return self._others.get(key) or self.beside(key) or self._others[key]

    def beside(self, key: bytes) -> bytes | None:
        """What is known of the zone and is not in here."""
        turns = self.turning.get(key)
        if turns is not None:
            return next(turns)
        return self.odd.get(key) or self.missing.answer(key)


class ZoneResponder:
    """The zone's answers over one transport, as blocks. Not for two threads at a time."""

    def __init__(
        self,
        zone: Zone,
        others: ForwardedAnswers | None = None,
        *,
        tcp: bool = False,
        room: int = MAX_QUESTIONS,
        odd: int = MAX_ODD_QUESTIONS,
    ) -> None:
        self._zone = zone
        self._tcp = tcp
        self._room = room
        self._odd_room = odd
        self._turn = 0
        self.ready = PacketCache(zone, others)
        self._keys: dict[bytes, set[bytes]] = {}
        """The keys in `ready` and `ready.turning`, by name."""

    def replace(self, zone: Zone, touched: Iterable[bytes] | None = None) -> None:
        """Answer from this zone. `touched`: the lower-case wire names whose answers may differ; None: any."""
        self._zone = zone
        self.ready.missing.replace(zone)
        self.ready.odd.clear()
        if touched is None:
            self.ready.clear()
            self.ready.turning.clear()
            self._keys.clear()
            return
        for name in touched:
            for key in self._keys.pop(name, ()):
                self.ready.pop(key, None)
                self.ready.turning.pop(key, None)

    def ask(self, packet: bytes) -> bytes | ForwardQuery | None:
        """As `answer_query`."""
        key = packet[2:]
        known = self.ready.get(key) or self.ready.beside(key)
        return self.think(packet) if known is None else packet[:2] + decode_block(known)[2:]

    def think(self, packet: bytes) -> bytes | ForwardQuery | None:
        """The same for what is not known; then it is, if it can be kept."""
        self._turn += 1
        said = answer_query(packet, self._zone, tcp=self._tcp, turn=self._turn)
        if not isinstance(said, bytes):
            return said
        if said[2] & _AA and not said[2] & _TC and said[3] & _RCODE == Rcode.NXDOMAIN:
            self.ready.missing.learn(packet[2:], said)
        elif said[2] & _AA and len(said) <= MAX_ANSWER_BYTES:
            self._keep(packet, encode_block(b"\0\0" + said[2:]), several=said[6:8] > b"\0\1")
        return said

    def __len__(self) -> int:
        return len(self.ready) + len(self.ready.turning) + len(self.ready.odd)

    def _keep(self, packet: bytes, said: bytes, *, several: bool) -> None:
        key = packet[2:]
        name = _canonical(packet)
        if name is None:
            if not several:
                insert_bounded(self.ready.odd, key, said, self._odd_room)
            return
        if several:
            gone = insert_bounded(self.ready.turning, key, self._turns(packet, name), self._odd_room)
        else:
            gone = insert_bounded(self.ready, key, said, self._room)
        if gone is not None:
            self._forget(gone)
        self._keys.setdefault(name, set()).add(key)

    def _turns(self, packet: bytes, name: bytes) -> "cycle[bytes]":
        (qtype,) = struct.unpack_from("!H", packet, 12 + len(name))
        found = self._zone.lookup(name, qtype)
        count = len(found.records) if found else 1
        said_by_turn = []
        for turn in range(min(count, TURNS)):
            said = answer_query(packet, self._zone, tcp=self._tcp, turn=turn * count // min(count, TURNS))
            assert isinstance(said, bytes)
            said_by_turn.append(encode_block(b"\0\0" + said[2:]))
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
