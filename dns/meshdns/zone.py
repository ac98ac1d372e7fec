"""The zone: the names this server is authoritative for and their records, as one immutable value that is swapped whole.

A name is own if it is at or below an apex. The apexes are the configured domains, and every name outside of them that
has records of its own. Queries for own names are never forwarded, whatever their type. A query for the AAAA record of
an IPv4-only name is answered with NODATA and never with NXDOMAIN: resolvers that ask for both address types would take
NXDOMAIN for the whole name (RFC 2308, section 2).

Names are kept in wire form (RFC 1035, section 3.1) and in lower case, so that a look-up is one dictionary access.
`ZoneBuilder` builds zones. It keeps the inputs of the previous zone, so that the cost of the next zone is proportional
to what has changed.
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
    """The result of looking up one own name and type."""

    exists: bool
    """False for NXDOMAIN. True with no records means NODATA: the name exists, but has no record of this type."""
    records: tuple[ResourceRecord, ...]
    """The records of the requested type; empty if there are none."""
    apex: bytes
    """The wire name whose SOA record goes into a negative response."""
    soa: ResourceRecord
    """The SOA record of `apex`."""


@dataclass(frozen=True, slots=True)
class Zone:
    """An immutable zone. `ZoneBuilder.update` and `Zone.build` create it."""

    ttl: int
    """TTL in seconds of every record and of every negative response."""
    serial: int
    """The serial number of every SOA record."""
    _records: Mapping[bytes, tuple[ResourceRecord, ...]]
    """Records by lower-case wire name."""
    existing: Mapping[bytes, int]
    """How many names with records are at or below each name. Empty non-terminals are included, since they exist (RFC
    8020).
    """
    _authority: Mapping[bytes, tuple[ResourceRecord, ResourceRecord]]
    """The SOA and NS records of each apex."""
    _soas: Mapping[bytes, bytes]
    """The SOA record of each apex in wire form without its name, ready for the authority section of a negative
    response.
    """

    @classmethod
    def build(
        cls, addresses: Mapping[str, Sequence[str]], domains: Iterable[str] = (), ttl: int = 5, serial: int = 1
    ) -> "Zone":
        """Build a zone from plain addresses.

        `addresses` maps names (`restserver.local`) to IPv4 and IPv6 addresses; every name at or below one of `domains`
        is own. `ttl` is in seconds. Raises ValueError for an invalid name or address.
        """
        draft = ZoneBuilder(domains, ttl=ttl, serial=serial)
        return draft.update({name: DnsService(tuple(texts)) for name, texts in addresses.items()})[0]

    def lookup(self, name: bytes, qtype: int) -> ZoneLookupResult | None:
        """Look up a lower-case wire name; None if the name is not own and has to be forwarded."""
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
        """Return the SOA record for an NXDOMAIN response about a name, or None if there is no such response to give.

        The result is None if the name exists, if it is not own, if it is an apex, or if it is malformed. `name` must be
        in lower case and must not contain a zero byte except as its last byte. The owner name of the record is a
        pointer into the question (RFC 1035, section 4.1.4). Every query that a resolver makes for a search domain takes
        this path, so the method looks at each label once.
        """
        if name in self.existing:
            return None
        at, end = 0, len(name) - 1
        while at < end:
            soa = self._soas.get(name[at:])
            if soa is not None:
                # An apex always exists: it has SOA and NS records even if `existing` does not list it.
                return _POINTERS[at] + soa if at else None
            length = name[at]
            # A compressed name or an unknown label type: the slow path answers FORMERR.
            if length > 63:
                return None
            at += length + 1
        return None


class ZoneBuilder:
    """Builds a zone from services and keeps their records, so that the next zone costs as much as what has changed.

    A draft must not be used by two threads at a time; the zones it makes may be.
    """

    # Over 12 attributes: every index of a zone, and beside each the changes for the next one. They change together with
    # each service.

    def __init__(self, domains: Iterable[str] = (), *, ttl: int = 5, serial: int = 1) -> None:
        """Every name at or below one of `domains` is own; the server's own name is `ns` in the first of them.

        `ttl` is in seconds. Raises ValueError for an invalid domain.
        """
        self._ttl = ttl
        self._serial = serial
        self._domains = dict.fromkeys(encode_name(domain) for domain in domains).keys()
        self._home = next(iter(self._domains), None)
        self._services: PersistentMap[str, DnsService] = PersistentMap()
        self._given: dict[bytes, tuple[ResourceRecord, ...]] = {}
        """Records of the services' own names. They take precedence over records that other services add at the same
        name.
        """
        self._brought: dict[bytes, dict[str, tuple[ResourceRecord, ...]]] = {}
        """Records of names that services add beside their own: by wire name, then by service."""
        self._outside: set[bytes] = set()
        """Names below none of the configured domains: services' own names, and reverse names of their addresses."""
        self._records: PersistentMap[bytes, tuple[ResourceRecord, ...]] = PersistentMap()
        """Records by wire name, as in the last zone."""
        self._shown: dict[bytes, tuple[ResourceRecord, ...] | None] = {}
        """Changes to `_records` for the next zone; None removes a name."""
        self._existing: PersistentMap[bytes, int] = PersistentMap()
        """How many names are at or below each name, as in the last zone."""
        self._counted: dict[bytes, int] = {}
        """Changes to `_existing` for the next zone; 0 removes a name."""
        self._authority: dict[bytes, tuple[ResourceRecord, ResourceRecord]] = {}
        self._soas: dict[bytes, bytes] = {}
        self._touched: set[bytes] = set()
        """Wire names whose responses may differ from those of the last zone."""
        self._settled = False
        """Whether the apexes already match `_outside`."""
        self._settle_apexes()

    def serve_at(self, addresses: Sequence[str]) -> None:
        """Set the addresses of the server's own name, from the next zone on.

        Without a configured domain the server has no name, and nothing happens. Raises ValueError for an invalid
        address.
        """
        if self._home is not None:
            self._put("", RecordChange(name_server_name(self._home), tuple(map(address_record, addresses)), own=False))

    def update(self, services: Mapping[str, DnsService]) -> tuple[Zone, frozenset[bytes] | None]:
        """Build the zone of exactly these services.

        Returns the zone and the lower-case wire names whose responses may differ from the last zone's; None instead of
        names if any response may differ. Raises ValueError for an invalid name or address, and then leaves the draft
        unchanged.
        """
        before, services = self._services, PersistentMap.of(services)
        moved = changed_keys(before, services)
        # All changes are computed before the first is applied: `record_changes` raises on invalid input, and the draft
        # must stay whole.
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
        """Set or remove the records that `service` has at one name, and keep the apexes up to date."""
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
        # A service's name outside of every domain becomes an apex of its own, and so does a reverse name: without that,
        # queries for it would be forwarded. Names that services add below their own are covered by the apex of the
        # service's name.
        if is_outside != (place in self._outside):
            if is_outside:
                self._outside.add(place)
            else:
                self._outside.discard(place)
            self._settled = False

    def _show(self, place: bytes) -> None:
        """Recompute the records of one name, and the counts of its parents if it appeared or disappeared."""
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
        """Add `step` to the count of a name and of each of its parents."""
        for suffix in name_suffixes(place):
            before = self._counted[suffix] if suffix in self._counted else self._existing.get(suffix, 0)
            self._counted[suffix] = before + step
            if not before or not before + step:
                # An empty non-terminal that appears or disappears changes its response between NODATA and NXDOMAIN.
                self._touched.add(suffix)

    def _settle_apexes(self) -> bool:
        """Recompute the apexes if needed.

        Returns whether an apex that is gone still has names: their negative responses now carry another apex's SOA
        record.
        """
        if self._settled:
            return False
        self._settled = True
        wanted = [*_apexes(self._domains, self._outside)]
        gone = self._authority.keys() - set(wanted)
        self._authority = {apex: authority_records(self._home or apex, self._ttl, self._serial) for apex in wanted}
        self._soas = {apex: _negative(self._ttl, soa) for apex, (soa, _) in self._authority.items()}
        return any(apex in self._existing for apex in gone)


def _negative(ttl: int, soa: ResourceRecord) -> bytes:
    """Encode a SOA record for the authority section, without its owner name."""
    return struct.pack("!HHIH", soa.type, 1, ttl, len(soa.data)) + soa.data


def _apexes(domains: Iterable[bytes], names: Iterable[bytes]) -> Iterator[bytes]:
    """Yield the domains, then the names outside of them, shorter ones first; a name below another apex is left out."""
    apexes: set[bytes] = set()
    for candidate in (*domains, *sorted(names, key=lambda name: (len(name), name))):
        if apexes.isdisjoint(name_suffixes(candidate)):
            apexes.add(candidate)
            yield candidate


def _of_type(records: tuple[ResourceRecord, ...], qtype: int) -> tuple[ResourceRecord, ...]:
    if qtype == RecordType.ANY and records:
        # One RRset is a complete response to ANY (RFC 8482, section 4.1); addresses are the most useful one.
        held = {record.type for record in records}
        qtype = next((kind for kind in (RecordType.A, RecordType.AAAA) if kind in held), records[0].type)
    return tuple(record for record in records if record.type == qtype)
