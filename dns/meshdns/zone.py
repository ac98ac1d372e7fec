"""What the name server knows: own names and their records, as one immutable value that is swapped as a whole.

Own is every name at or below an apex: the domains that were given, and each name outside of them. Nothing own ever
leaves for an upstream, whatever its type: a query for the AAAA record of an IPv4-only name is answered with "no such
data", never with "no such name", since resolvers that ask for both addresses take the latter for the whole name
(RFC 2308, section 2).

Names are kept in wire form (RFC 1035, section 3.1), lower case, so that an answer is a dictionary look-up. A zone is
made by `ZoneBuilder`, which keeps what it is made of, so that the next one costs as much as what has changed.
"""

import struct
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from meshdns.persistent_map import PersistentMap, changed_keys
from meshdns.rdata import (
    RecordType,
    ResourceRecord,
    address_record,
    authority_records,
    encode_name,
    name_server_name,
    name_suffixes,
)
from meshdns.service_records import DnsService, RecordChange, record_changes

_POINTERS = tuple(struct.pack("!H", 0xC000 | 12 + at) for at in range(256))
_REVERSE = (encode_name("in-addr.arpa"), encode_name("ip6.arpa"))

__all__ = ["RecordType", "ResourceRecord", "Zone", "ZoneBuilder", "ZoneLookupResult", "encode_name", "name_suffixes"]


@dataclass(frozen=True, slots=True)
class ZoneLookupResult:
    """What the zone says to a question about an own name."""

    exists: bool
    """False: there is no such name. True without records: there is, but without this type."""
    records: tuple[ResourceRecord, ...]
    apex: bytes
    """The wire name whose SOA goes with a negative answer."""
    soa: ResourceRecord


@dataclass(frozen=True, slots=True)
class Zone:
    """Made by `ZoneBuilder`, or by `build`. Nothing of it changes afterwards."""

    ttl: int
    """Seconds, of every record and of every negative answer."""
    serial: int
    _records: Mapping[bytes, tuple[ResourceRecord, ...]]
    existing: Mapping[bytes, int]
    """Names with records and all their parents (RFC 8020): how many names are at or below each."""
    _authority: Mapping[bytes, tuple[ResourceRecord, ResourceRecord]]
    """SOA and NS by apex."""
    _soas: Mapping[bytes, bytes]
    """The SOA by apex, as it stands behind its name in a negative answer."""

    @classmethod
    def build(
        cls, addresses: Mapping[str, Sequence[str]], domains: Iterable[str] = (), ttl: int = 5, serial: int = 1
    ) -> "Zone":
        """`addresses` maps names (`restserver.local`) to IPv4 and IPv6 addresses; `domains` are own as a whole.

        Raises ValueError for a name or an address that is none.
        """
        draft = ZoneBuilder(domains, ttl=ttl, serial=serial)
        return draft.update({name: DnsService(tuple(texts)) for name, texts in addresses.items()})[0]

    def lookup(self, name: bytes, qtype: int) -> ZoneLookupResult | None:
        """What to answer for a lower-case wire name; None: it is not ours."""
        for apex in name_suffixes(name):
            own = self._authority.get(apex)
            if own is None:
                continue
            here = self._records.get(name, ())
            if name == apex:
                here = (*own, *here)
            return ZoneLookupResult(name in self.existing or name == apex, _of_type(here, qtype), apex, own[0])
        return None

    def missing(self, name: bytes) -> bytes | None:
        """The SOA record for an answer that there is no such name; None: there is, or it is not ours, or no name.

        For a lower-case name without a zero octet but the last. The record's own name points to the apex in the
        question (RFC 1035, section 4.1.4). This is the path of every search domain, so it looks at each label once.
        """
        if name in self.existing:
            return None
        at, end = 0, len(name) - 1
        while at < end:
            soa = self._soas.get(name[at:])
            if soa is not None:
                return _POINTERS[at] + soa if at else None
            length = name[at]
            if length > 63:
                return None
            at += length + 1
        return None


class ZoneBuilder:
    """What a zone is made of, from one zone to the next. Not for two threads at a time; the zones are."""

    def __init__(self, domains: Iterable[str] = (), *, ttl: int = 5, serial: int = 1) -> None:
        """`domains` are own as a whole; the name server's own name is `ns` in the first. Raises ValueError."""
        self._ttl = ttl
        self._serial = serial
        self._domains = dict.fromkeys(encode_name(domain) for domain in domains).keys()
        self._home = next(iter(self._domains), None)
        self._services: PersistentMap[str, DnsService] = PersistentMap()
        self._given: dict[bytes, tuple[ResourceRecord, ...]] = {}
        """Of the services' own names: they come before those that other services bring with them."""
        self._brought: dict[bytes, dict[str, tuple[ResourceRecord, ...]]] = {}
        """Of names that come with services, by service."""
        self._outside: set[bytes] = set()
        """Names that no given domain holds: services' own, and those of their addresses."""
        self._records: PersistentMap[bytes, tuple[ResourceRecord, ...]] = PersistentMap()
        self._shown: dict[bytes, tuple[ResourceRecord, ...] | None] = {}
        """What of it the next zone has otherwise."""
        self._existing: PersistentMap[bytes, int] = PersistentMap()
        self._counted: dict[bytes, int] = {}
        """What of it the next zone has otherwise; 0: no longer."""
        self._authority: dict[bytes, tuple[ResourceRecord, ResourceRecord]] = {}
        self._soas: dict[bytes, bytes] = {}
        self._touched: set[bytes] = set()
        self._settled = False
        """Whether the apexes are those of what is outside."""
        self._settle_apexes()

    def serve_at(self, addresses: Sequence[str]) -> None:
        """Where the name server answers: the addresses of its own name, from the next zone on."""
        if self._home is not None:
            self._put("", RecordChange(name_server_name(self._home), tuple(map(address_record, addresses)), own=False))

    def update(self, services: Mapping[str, DnsService]) -> tuple[Zone, frozenset[bytes] | None]:
        """The zone of exactly these services, and the wire names whose answers may differ from the last zone's.

        None instead of names: any of them may. Raises ValueError for a name or an address that is none; nothing has
        changed then.
        """
        before, services = self._services, PersistentMap.of(services)
        moved = changed_keys(before, services)
        made = [(name, [*record_changes(name, before.get(name), services.get(name))]) for name in moved]
        self._touched = set()
        for name, of in made:
            for change in of:
                self._put(name, change)
        self._services = services
        self._records = self._records.changed(self._shown)
        self._existing = self._existing.changed({name: count or None for name, count in self._counted.items()})
        self._shown, self._counted = {}, {}
        apexes_moved = self._settle_apexes()
        zone = Zone(self._ttl, self._serial, self._records, self._existing, self._authority, self._soas)
        return zone, None if apexes_moved else frozenset(self._touched)

    def _put(self, service: str, change: RecordChange) -> None:
        place, found, own = change
        self._touched.add(place)
        if not own:
            brought = self._brought.setdefault(place, {})
            brought.pop(service, None)
            if found is not None:
                brought[service] = found
            if not brought:
                del self._brought[place]
        elif found is None:
            self._given.pop(place, None)
        else:
            self._given[place] = found
        self._show(place)
        stands_alone = place in self._given or (place in self._brought and place.endswith(_REVERSE))
        is_outside = stands_alone and self._domains.isdisjoint(name_suffixes(place))
        if is_outside != (place in self._outside):
            (self._outside.add if is_outside else self._outside.discard)(place)
            self._settled = False

    def _show(self, place: bytes) -> None:
        if place in self._given:
            now: tuple[ResourceRecord, ...] | None = self._given[place]
        elif place in self._brought:
            now = tuple(record for part in self._brought[place].values() for record in part)
        else:
            now = None
        before = self._shown[place] if place in self._shown else self._records.get(place)
        if (now is None) != (before is None):
            self._count(place, -1 if now is None else 1)
        self._shown[place] = now

    def _count(self, place: bytes, step: int) -> None:
        for suffix in name_suffixes(place):
            before = self._counted[suffix] if suffix in self._counted else self._existing.get(suffix, 0)
            self._counted[suffix] = before + step
            if not before or not before + step:
                self._touched.add(suffix)  # a name without records that is there now, or no longer

    def _settle_apexes(self) -> bool:
        """Whether an apex has gone that still has names: their negative answers are now another's."""
        if self._settled:
            return False
        self._settled = True
        wanted = [*_apexes(self._domains, self._outside)]
        gone = self._authority.keys() - set(wanted)
        self._authority = {
            apex: authority_records(apex, self._home or apex, self._ttl, self._serial) for apex in wanted
        }
        self._soas = {apex: _negative(self._ttl, soa) for apex, (soa, _) in self._authority.items()}
        return any(apex in self._existing for apex in gone)


def _negative(ttl: int, soa: ResourceRecord) -> bytes:
    return struct.pack("!HHIH", soa.type, 1, ttl, len(soa.data)) + soa.data


def _apexes(domains: Iterable[bytes], names: Iterable[bytes]) -> Iterator[bytes]:
    """The domains, then names outside of all; of a name and its parent, the parent. Shorter ones first."""
    apexes: set[bytes] = set()
    for candidate in (*domains, *sorted(names, key=lambda name: (len(name), name))):
        if apexes.isdisjoint(name_suffixes(candidate)):
            apexes.add(candidate)
            yield candidate


def _of_type(records: tuple[ResourceRecord, ...], qtype: int) -> tuple[ResourceRecord, ...]:
    if qtype == RecordType.ANY and records:  # one RRset is a whole answer: RFC 8482, section 4.1
        held = {record.type for record in records}
        qtype = next((kind for kind in (RecordType.A, RecordType.AAAA) if kind in held), records[0].type)
    return tuple(record for record in records if record.type == qtype)
