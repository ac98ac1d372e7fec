"""A packet cache: ready responses from the zone, keyed by the bytes of the query.

Everything in a query except its ID decides its response: flags, name in the case it was written, type, class and OPT.
So the bytes behind the ID are the key, and the response with ID 0 is the value; answering a repeated query is one
dictionary look-up. Computed responses are kept, within bounds:

* Responses to canonical queries (lower case, no EDNS options) for existing names are kept until the zone changes that
  name.
* If a response has several records, up to `TURNS` rotations of it are kept and used in turn.
* Responses to other queries, such as those in random case, are kept in a small store of their own until anything in the
  zone changes.
* Responses for missing names are not kept but assembled from parts (`nxdomain`).

A full store drops its oldest entry. Responses from upstreams are never kept here.
"""

import struct
from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping
from itertools import cycle
from types import MappingProxyType
from typing import Protocol

from meshdns.authoritative import ForwardQuery, Rcode, answer_query, depends_on_client
from meshdns.nxdomain import NxdomainCache, insert_bounded
from meshdns.response_block import decode_block, encode_block
from meshdns.zone import Zone

MAX_QUESTIONS = 65536
"""How many responses to canonical queries are kept: A and AAAA, with and without EDNS, of 16,000 names."""
MAX_ODD_QUESTIONS = 4096
"""How many other responses are kept."""
TURNS = 8
"""Maximum rotations kept of a response with several records."""
MAX_ANSWER_BYTES = 1232
"""Maximum bytes of a response that is kept; longer ones go over TCP and are computed each time."""

_AA, _TC, _RCODE = 0x04, 0x02, 0xF


class ForwardedAnswers(Protocol):
    """Ready responses for names that are not own: `forward_fastpath.FastpathCache`."""

    @property
    def foreign(self) -> Mapping[bytes, object]:
        """Has the keys of queries that are known to be for such names."""
        ...

    def get(self, key: bytes, /) -> bytes | None:
        """Return a block if there is one without any work, else None."""
        ...

    def __getitem__(self, key: bytes, /) -> bytes | None:
        """Return a block, possibly after a little work; None if there is none."""
        ...


class _NoForwardedAnswers(dict[bytes, None]):
    """Stands in for `ForwardedAnswers` in a server without a forwarder: it holds no responses."""

    @property
    def foreign(self) -> Mapping[bytes, object]:
        """None is known."""
        return MappingProxyType({})

    def __missing__(self, key: bytes) -> None:
        return None


class PacketCache(OrderedDict[bytes, bytes]):
    """Blocks by key.

    `known[key]` also looks where responses are not stored under their key: rotations, odd queries, missing names and
    `ForwardedAnswers`. It returns None, and does not raise KeyError, if there is no response yet.
    """

    def __init__(self, zone: Zone, others: ForwardedAnswers | None = None) -> None:
        super().__init__()
        self._others: ForwardedAnswers = _NoForwardedAnswers() if others is None else others
        self.foreign = self._others.foreign
        """Has the keys of queries that are known to be for names that are not own."""
        self.turning: OrderedDict[bytes, cycle[bytes]] = OrderedDict()
        """Responses with several records: each look-up takes the next rotation."""
        self.odd: OrderedDict[bytes, bytes] = OrderedDict()
        """Responses to queries that are not canonical."""
        self.missing = NxdomainCache(zone)
        """Assembles NXDOMAIN responses."""

    def __missing__(self, key: bytes) -> bytes | None:
        # Cheapest first: a forwarded response that is ready, then the zone, then one that has to be written again.
        others = self._others
        if key in self.foreign:
            return others[key]
        return others.get(key) or self.beside(key) or others[key]

    def beside(self, key: bytes) -> bytes | None:
        """Return a response from the zone that is not stored in this dictionary itself, or None."""
        turns = self.turning.get(key)
        if turns is not None:
            return next(turns)
        return self.odd.get(key) or self.missing.answer(key)


class ZoneResponder:
    """The zone's responses over one transport, as blocks. It must not be used by two threads at a time."""

    def __init__(
        self,
        zone: Zone,
        others: ForwardedAnswers | None = None,
        *,
        tcp: bool = False,
        room: int = MAX_QUESTIONS,
        odd: int = MAX_ODD_QUESTIONS,
        is_here: Callable[[str], bool] | None = None,
    ) -> None:
        """`is_here` says whether a client's address belongs to this host; None: all do."""
        self._zone = zone
        self._tcp = tcp
        self._room = room
        self._odd_room = odd
        self._is_here = is_here or _is_anywhere
        self._turn = 0
        self.ready = PacketCache(zone, others)
        """The packet cache itself."""
        self._keys: dict[bytes, set[bytes]] = {}
        """The keys in `ready` and `ready.turning`, by lower-case wire name."""

    def replace(self, zone: Zone, touched: Iterable[bytes] | None = None) -> None:
        """Answer from this zone from now on.

        `touched` is the lower-case wire names whose responses may differ from the last zone's; None if any may differ.
        """
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

    def ask(self, packet: bytes, host: str = "") -> bytes | ForwardQuery | None:
        """Answer a packet from the cache, or compute the response; returns what `authoritative.answer_query`
        returns. `host` is the client's address."""
        key = packet[2:]
        known = self.ready.get(key) or self.ready.beside(key)
        return self.think(packet, host) if known is None else packet[:2] + decode_block(known)[2:]

    def think(self, packet: bytes, host: str = "") -> bytes | ForwardQuery | None:
        """Compute the response to a packet that is not in the cache, and keep it if possible.

        Returns what `authoritative.answer_query` returns.
        """
        self._turn += 1
        said = answer_query(packet, self._zone, tcp=self._tcp, turn=self._turn)
        if not isinstance(said, bytes):
            return said
        if depends_on_client(packet, self._zone):
            # Never kept, since the next client may be another one.
            if self._is_here(host):
                return said
            return answer_query(packet, self._zone, tcp=self._tcp, turn=self._turn, local=False)
        # Only authoritative responses are kept; errors such as FORMERR do not have the AA flag.
        if said[2] & _AA and not said[2] & _TC and said[3] & _RCODE == Rcode.NXDOMAIN:
            self.ready.missing.learn(packet[2:], said)
        elif said[2] & _AA and len(said) <= MAX_ANSWER_BYTES:
            self._keep(packet, encode_block(b"\0\0" + said[2:]), several=said[6:8] > b"\0\1")
        return said

    def __len__(self) -> int:
        return len(self.ready) + len(self.ready.turning) + len(self.ready.odd)

    def _keep(self, packet: bytes, said: bytes, *, several: bool) -> None:
        """Store a response under its query, without its ID."""
        key = packet[2:]
        name = _canonical(packet)
        if name is None:
            # Rotations are kept for canonical queries only.
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
        """Compute the rotations of a response with several records, evenly spread if there are more than `TURNS`."""
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
        """Drop a key that is no longer stored from the index by name."""
        name = key[10 : key.index(0, 10) + 1]
        keys = self._keys[name]
        keys.discard(key)
        if not keys:
            del self._keys[name]


def _is_anywhere(_: str) -> bool:
    return True


def _canonical(packet: bytes) -> bytes | None:
    """Return the queried name if the query is written as a plain client writes it, else None.

    Only for names that exist: none of their labels contains a zero byte, so that the first zero byte ends the name.
    """
    end = packet.index(0, 12) + 1
    name = packet[12:end]
    # Behind the name: type and class (4 bytes), and possibly an OPT record without options (11 bytes).
    if name != name.lower() or len(packet) - end - 4 not in (0, 11):
        return None
    return name
