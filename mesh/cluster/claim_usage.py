"""Measures for how long claims have not been declared. Pure: `now` is an argument.

Two measures count, whichever is longer. One is what this worker has observed itself since its start. The other is in
the store, for times longer than a daemon runs: a clock that all workers advance together, and for each claim that is
not declared the reading of the clock at which that was noticed. The clock advances only while the store answers and
only while such a claim exists, so that neither an outage nor a wrong time of day ends a claim.

    claims/clock                            {"seconds"}
    claims/idle/names/<routing name>        {"since", "holder"}
    claims/idle/ports/<transport>/<port>    {"since", "holder"}

Earlier versions ignore these keys. They are not fields of the claims, because an earlier version that rewrites a claim
drops the fields that it does not know.
"""

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple, TypeAlias, TypeVar

import msgspec

from mesh.cluster.records.decode import MAX_RECORD_BYTES, record_key
from mesh.model.claims import ClaimLimits, Claims, LapsedClaims
from mesh.model.service import Name, Service, Transport
from mesh.store import MAX_CHANGES

CLOCK_KEY = record_key("claims", "clock")
IDLE_PREFIX = record_key("claims", "idle") + "/"
LONGEST_TICK = 60.0
"""The most seconds by which the clock advances at a time."""
TURN = 5.0
"""Seconds that each worker waits for the workers before it to write what all of them could write."""
_MAX_SECONDS = 1 << 40
"""The highest reading of the clock that is believed."""

_Record = TypeVar("_Record")
RecordChange: TypeAlias = tuple[Mapping[str, bytes | None], Mapping[str, bytes | None]]
"""The arguments of one `Store.change`."""


class _ClockRecord(msgspec.Struct, frozen=True):
    """The value of `claims/clock`."""

    seconds: int
    v: int = 1


class _IdleRecord(msgspec.Struct, frozen=True):
    """The value of `claims/idle`: `since` is a reading of the clock."""

    since: int
    holder: str
    v: int = 1


class _Undeclared(NamedTuple):
    """A claim that its holder does not declare, and since when this worker observes that."""

    claim: Name | tuple[Transport, int]
    holder: str
    since: float


class ClaimUsage:
    """Tracks the claims that are not declared. `now`: seconds of a clock that runs while the store answers."""

    def __init__(self, limits: ClaimLimits) -> None:
        self._grace = limits.grace
        self._keep = max(limits.keep, limits.grace)
        self._tick = max(1.0, min(LONGEST_TICK, self._keep // 20))
        self._undeclared: dict[str, _Undeclared] = {}
        """By the key of the record that says so."""
        self._idle: dict[str, tuple[bytes, _IdleRecord | None]] = {}
        """The records in the store; None for one that cannot be read."""
        self._clock: tuple[bytes | None, int] = (None, 0)
        """The record of the clock, None if there is none, and its reading."""
        self._clock_moved_at = 0.0
        self._void: dict[str, float] = {}
        """Records in the store that do not hold, since when: their claims were declared after they had been written."""

    def follow_records(self, records: Mapping[str, bytes], changed: Iterable[str] | None, now: float) -> None:
        """Take the newest records; `changed` are the keys that may differ from the last ones, None: any of them."""
        if changed is None:
            changed = {CLOCK_KEY, *self._idle, *(key for key in records if key.startswith(IDLE_PREFIX))}
        for key in changed:
            if key.startswith(IDLE_PREFIX):
                self._void.pop(key, None)
                self._take_idle(key, records.get(key), now)
            elif key == CLOCK_KEY:
                self._take_clock(records.get(key), now)

    def follow_view(self, services: Sequence[Service], claims: Claims, now: float) -> None:
        """Take the newest services and claims."""
        before, self._undeclared = self._undeclared, {}
        for key, claim, holder in _undeclared(services, claims):
            known = before.get(key)
            since = known.since if known is not None and known.holder == holder else now
            self._undeclared[key] = _Undeclared(claim, holder, since)
        self._void_declared(now)

    def lapsed(self, now: float) -> LapsedClaims:
        """The claims that others may take."""
        ages = {key: self._age(key, each, now) for key, each in self._undeclared.items()}
        old = {key: each.claim for key, each in self._undeclared.items() if ages[key] >= self._grace}
        kept = {key for key in old if ages[key] >= self._keep}
        names = {key: claim for key, claim in old.items() if isinstance(claim, str)}
        return LapsedClaims(
            frozenset(names.values()),
            frozenset(claim for key, claim in names.items() if key in kept),
            frozenset(claim for key, claim in old.items() if key in kept and not isinstance(claim, str)),
            tuple(names[key] for key in sorted(names, key=lambda key: (-ages[key], key))),
        )

    def changes(self, now: float, turn: int) -> list[RecordChange]:
        """What to write now. `turn`: how many workers come before this one; each waits for those before it."""
        self._void_declared(now)
        patience = turn * TURN
        before: dict[str, bytes | None] = {}
        after: dict[str, bytes | None] = {}
        for key, value in self._due_records(now, patience):
            if len(before) == MAX_CHANGES:
                break
            before[key], after[key] = self._idle[key][0] if key in self._idle else None, value
        found: list[RecordChange] = [(before, after)] if before else []
        if self._idle and now - self._clock_moved_at >= self._tick + patience:
            there, seconds = self._clock
            found.append(({CLOCK_KEY: there}, {CLOCK_KEY: _encoded(_ClockRecord(seconds + int(self._tick)))}))
        return found

    def _void_declared(self, now: float) -> None:
        for key in self._idle.keys() - self._undeclared.keys():
            self._void.setdefault(key, now)

    def _due_records(self, now: float, patience: float) -> Iterator[tuple[str, bytes | None]]:
        """Yield the keys to write with their values; None to delete one."""
        for key, since in self._void.items():
            if now - since >= patience and key not in self._undeclared:
                yield key, None
        settled = min(self._grace, LONGEST_TICK) + patience  # a restart within that time writes nothing
        for key, each in self._undeclared.items():
            if self._stored(key, each) is not None or now - each.since < settled:
                continue
            value = _encoded(_IdleRecord(self._clock[1], each.holder))
            if key in self._idle and self._idle[key][0] == value:
                self._void.pop(key, None)  # the clock stood still since it was written
            else:
                yield key, value

    def _age(self, key: str, each: _Undeclared, now: float) -> float:
        stored = self._stored(key, each)
        return max(now - each.since, -math.inf if stored is None else self._clock[1] - stored.since)

    def _stored(self, key: str, each: _Undeclared) -> _IdleRecord | None:
        """The record of the store about this claim, if it holds."""
        record = self._idle[key][1] if key in self._idle and key not in self._void else None
        if record is None or record.holder != each.holder or not 0 <= record.since <= self._clock[1]:
            return None  # of a former holder, or not of this clock
        return record

    def _take_idle(self, key: str, value: bytes | None, now: float) -> None:
        if value is None:
            self._idle.pop(key, None)
            return
        if not self._idle:
            self._clock_moved_at = now  # the clock stood still: nothing was to be measured
        self._idle[key] = value, _decoded(value, _IdleRecord)

    def _take_clock(self, value: bytes | None, now: float) -> None:
        record = None if value is None else _decoded(value, _ClockRecord)
        seconds = record.seconds if record is not None else 0
        if value != self._clock[0]:
            self._clock_moved_at = now
        self._clock = value, seconds if 0 <= seconds <= _MAX_SECONDS else 0


def undeclared_keys(services: Sequence[Service], claims: Claims) -> frozenset[str]:
    """The keys below `claims/idle` of all claims that no service declares."""
    return frozenset(key for key, _, _ in _undeclared(services, claims))


def stored_ages(records: Mapping[str, bytes]) -> dict[tuple[str, str], int]:
    """The seconds for which claims have not been declared as the store has it, by the key below `claims/idle` and by
    holder.
    """
    clock = _decoded(records.get(CLOCK_KEY, b""), _ClockRecord)
    now = clock.seconds if clock is not None else 0
    found: dict[tuple[str, str], int] = {}
    for key, value in records.items():
        record = _decoded(value, _IdleRecord) if key.startswith(IDLE_PREFIX) else None
        if record is not None and 0 <= record.since <= now <= _MAX_SECONDS:
            found[key, record.holder] = now - record.since
    return found


def lost_usage(records: Mapping[str, bytes]) -> dict[str, bytes]:
    """The records of this module among those of a store that was lost."""
    return {key: value for key, value in records.items() if key == CLOCK_KEY or key.startswith(IDLE_PREFIX)}


def _undeclared(services: Sequence[Service], claims: Claims) -> Iterator[tuple[str, Name | tuple[Transport, int], str]]:
    """Yield the claims that no service declares: the key of the record that says so, the claim and its holder."""
    declared = {(service.owner, name) for service in services for name in service.names}
    for name in claims.owners.keys() | claims.vips.keys():
        owner = claims.owners.get(name, "")
        if (owner, name) not in declared:
            yield record_key("claims", "idle", "names", name), name, owner
    targets: dict[tuple[Transport, tuple[Name, int]], set[int | None]] = {}
    for service in services:
        if claims.owners.get(service.name) == service.owner:
            for publish in service.publishes:
                target = publish.transport, (service.name, publish.container_port)
                targets.setdefault(target, set()).add(publish.port)
    for (transport, port), leads_to in claims.ports.items():
        if targets.get((transport, leads_to), set()).isdisjoint((port, None)):
            key = record_key("claims", "idle", "ports", transport, str(port))
            yield key, (transport, port), f"{leads_to[0]}:{leads_to[1]}"


def _encoded(record: _ClockRecord | _IdleRecord) -> bytes:
    return msgspec.json.encode(record)


def _decoded(value: bytes, type_: type[_Record]) -> _Record | None:
    """The record, or None if it cannot be read."""
    try:
        return msgspec.json.decode(value, type=type_) if len(value) <= MAX_RECORD_BYTES else None
    except (msgspec.MsgspecError, ValueError, RecursionError):
        return None
