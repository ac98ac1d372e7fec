"""Adds up what this worker sees of the releases of services in a rollout. Pure.

Each look brings what is there now: own instances, ends of their processes, the last results of their probes, and what
the data plane has counted of connections. What was counted before a service was watched is left out.
"""

from collections import Counter
from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from msgspec.structs import replace

from mesh.health.state_machine import Verdict
from mesh.platform.rollouts.evidence_records import CheckCounts, ConnectionCounts, ReleaseCounts, WorkerEvidence
from mesh.platform.rollouts.judge import ConnectionFailure, time_bucket

MAX_REMEMBERED = 4000
"""Instances, and places of connections, that are remembered after they are gone."""
_LOOP = 2
"""Ends of one instance that make it a restart loop."""


class ReleaseKey(NamedTuple):
    """One release of one service."""

    owner: str
    """`project/service`."""
    release: str
    """Empty for endpoints without one."""


@dataclass(frozen=True, slots=True)
class JudgedInstance:
    """An instance of this worker whose service is watched."""

    of: ReleaseKey
    is_ending: bool = False
    """Whether somebody has asked for its end, or drains it."""


@dataclass(frozen=True, slots=True)
class InstanceExit:
    """The end of the process of an instance."""

    id: str
    out_of_memory: bool = False
    is_asked: bool = False
    """Whether somebody has asked for it."""


class LedConnections(NamedTuple):
    """What the data plane has counted of the connections to one endpoint behind one virtual server."""

    of: ReleaseKey
    endpoint: str
    """`worker/id`."""
    place: Hashable
    """The virtual server and the real server."""
    counts: ConnectionCounts


@dataclass(frozen=True, slots=True)
class ReleaseObservation:
    """One look at this worker."""

    instances: Mapping[str, JudgedInstance] = field(default_factory=dict)
    """By ID."""
    exits: Sequence[InstanceExit] = ()
    """Since the look before."""
    verdicts: Mapping[str, Sequence[Verdict]] = field(default_factory=dict)
    """The last ones on each instance, the oldest first; their times are of the clock of `now`."""
    connections: Sequence[LedConnections] = ()
    checks: Mapping[ReleaseKey, Mapping[str, CheckCounts]] = field(default_factory=dict)
    """By label, without prefix."""


class EvidenceCollector:
    """Adds up looks. All counts begin at 0 with it."""

    def __init__(self, run: str) -> None:
        """`run` is another one for each collector."""
        self._run = run
        self._round = 0
        self._watched: dict[str, float] = {}
        """Since when each service is watched."""
        self._counts: dict[ReleaseKey, ReleaseCounts] = {}
        self._known: dict[str, JudgedInstance] = {}
        """Instances as they were last, those that are gone included."""
        self._ends: dict[str, int] = {}
        self._probed: dict[str, float] = {}
        """The time of the last verdict on each instance that is counted."""
        self._serving: dict[str, float] = {}
        """The time of the first success of each instance."""
        self._places: dict[tuple[ReleaseKey, str, Hashable], ConnectionCounts] = {}

    def observe(self, observation: ReleaseObservation, owners: Iterable[str], now: float) -> WorkerEvidence:
        """Take one look at the services of `owners`, and return all that was counted of them."""
        new = set(owners) - self._watched.keys()
        self._watched = {owner: self._watched.get(owner, now) for owner in owners}
        self._forget()
        for key in {each.of for each in observation.instances.values() if each.of.owner in self._watched}:
            self._counts.setdefault(key, ReleaseCounts())
        self._take_exits(observation, new)
        self._take_verdicts(observation)
        self._take_connections(observation.connections, new)
        services: dict[str, dict[str, ReleaseCounts]] = {}
        running = Counter(each.of for each in observation.instances.values())
        for key, counts in self._counts.items():
            checks = dict(observation.checks.get(key, {}))
            whole = replace(counts, instances=running[key], checks=checks)
            services.setdefault(key.owner, {})[key.release] = whole
        self._round += 1
        return WorkerEvidence(self._round, self._run, services)

    def _forget(self) -> None:
        """Forget services that are watched no more, and what has been gone for longest."""
        self._counts = {key: counts for key, counts in self._counts.items() if key.owner in self._watched}
        known = [(id, each) for id, each in self._known.items() if each.of.owner in self._watched]
        self._known = dict(known[-MAX_REMEMBERED:])
        self._ends = {id: count for id, count in self._ends.items() if id in self._known}
        self._probed = {id: at for id, at in self._probed.items() if id in self._known}
        self._serving = {id: at for id, at in self._serving.items() if id in self._known}
        places = [(key, counts) for key, counts in self._places.items() if key[0].owner in self._watched]
        self._places = dict(places[-MAX_REMEMBERED:])

    def _take_exits(self, observation: ReleaseObservation, new: set[str]) -> None:
        """Count ends; those that come with the first look at a service were before it."""
        for ended in observation.exits:
            instance = self._known.get(ended.id) or observation.instances.get(ended.id)
            if instance is None or instance.of.owner not in self._watched.keys() - new:
                continue
            counts = self._counts.get(instance.of, ReleaseCounts())
            if ended.out_of_memory:
                counts = replace(counts, out_of_memory=counts.out_of_memory + 1)
            elif ended.is_asked or instance.is_ending:
                continue
            ends = self._ends[ended.id] = self._ends.get(ended.id, 0) + 1
            self._counts[instance.of] = replace(
                counts,
                exits=counts.exits + 1,
                ended=counts.ended + (ended.id not in observation.instances),
                looping=counts.looping + (ends == _LOOP),
            )
        for id, each in observation.instances.items():
            self._known.pop(id, None)  # what was seen last is remembered longest
            self._known[id] = each

    def _take_verdicts(self, observation: ReleaseObservation) -> None:
        for id, verdicts in observation.verdicts.items():
            instance = observation.instances.get(id)
            if instance is None or instance.is_ending or instance.of.owner not in self._watched:
                continue
            since = self._probed.get(id, self._watched[instance.of.owner])
            fresh = [verdict for verdict in verdicts if verdict.at > since]
            if not fresh:
                continue
            self._probed[id] = fresh[-1].at
            # Until its first success an instance is starting, which the warm-up waits for.
            first = next((verdict.at for verdict in verdicts if verdict.ok), None)
            if first is not None:
                self._serving.setdefault(id, first)
            counted = [verdict for verdict in fresh if id in self._serving and verdict.at >= self._serving[id]]
            self._counts[instance.of] = _with_verdicts(self._counts[instance.of], counted)

    def _take_connections(self, connections: Sequence[LedConnections], new: set[str]) -> None:
        now_open: dict[tuple[ReleaseKey, str], int] = {}
        for led in connections:
            if led.of.owner not in self._watched:
                continue
            counts = self._counts.setdefault(led.of, ReleaseCounts())
            place = led.of, led.endpoint, led.place
            before = self._places.pop(place, led.counts if led.of.owner in new else _NO_CONNECTIONS)
            self._places[place] = led.counts
            known = counts.endpoints.get(led.endpoint, _NO_CONNECTIONS)
            at = led.of, led.endpoint
            now_open[at] = now_open.get(at, 0) + led.counts.open
            endpoints = {**counts.endpoints, led.endpoint: _grown(known, before, led.counts)}
            self._counts[led.of] = replace(counts, endpoints=endpoints)
        for key, counts in self._counts.items():
            ended = {id: replace(each, open=now_open.get((key, id), 0)) for id, each in counts.endpoints.items()}
            self._counts[key] = replace(counts, endpoints=ended)


_NO_CONNECTIONS = ConnectionCounts()


def _with_verdicts(counts: ReleaseCounts, verdicts: Sequence[Verdict]) -> ReleaseCounts:
    times = dict(counts.probe_times)
    for verdict in verdicts:
        if verdict.ok:
            bucket = time_bucket(verdict.duration)
            times[bucket] = times.get(bucket, 0) + 1
    failed = counts.failed_probes + sum(not verdict.ok for verdict in verdicts)
    return replace(counts, probes=counts.probes + len(verdicts), failed_probes=failed, probe_times=times)


def _grown(known: ConnectionCounts, before: ConnectionCounts, now: ConnectionCounts) -> ConnectionCounts:
    """Add to what is known what a place has counted since it was seen before."""
    failures: dict[str, int | None] = {}
    for kind in ConnectionFailure:
        total, count, past = (getattr(each, kind.value) for each in (known, now, before))
        failures[kind.value] = total if count is None else (total or 0) + _growth(past or 0, count)
    return ConnectionCounts(known.attempts + _growth(before.attempts, now.attempts), 0, **failures)


def _growth(before: int, now: int) -> int:
    """Return by how much a counter has grown; one that is lower than before has begun again."""
    return now - before if now >= before else now
