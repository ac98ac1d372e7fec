"""A mass failure is suspected, not obeyed: how far pruning goes when most endpoints fail at once. Pure.

One endpoint that fails is broken. When most of those that answered a moment ago fail together, what they have in common
is likelier to be the cause: the network of whoever asks them, or something that all of them depend on. To take them all
out of traffic would turn a doubtful outage into a certain one. So:

* at once is: fallen within the time that a failure needs to be noticed (`window`). What is still healthy and failed its
  last check is evidence too, as far as this worker asks it; it takes two endpoints at the least;
* a service is suspected while more than half of those of its endpoints that answered a moment ago fail; a worker, while
  that is so of all endpoints that it asks, whichever services they belong to. The services of a suspected worker are
  suspected as far as it asks them;
* of a suspected service so many endpoints stay in traffic that the floor is kept: a share of those that answered a
  moment ago. Those that fell last stay, and among those that fell at once the first by name: the workers that ask them
  come to the same choice, although each learns of its own endpoints first;
* the suspicion ends when half of them answer, old ones or new ones. Those that fell one after the other, over a longer
  time, are all believed.

An endpoint that drains is not counted, nor one whose floor is 0. Nor does any of this change what is known of an
endpoint's health: it only says who stays in traffic in spite of it.

One more rule is of the same kind: endpoints that are only held back because they come and go (`mesh.probes.health`)
serve while the service has nobody better.
"""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import NamedTuple, TypeAlias

from mesh.model import ClusterView, EndpointKey, Health, Probe

DEFAULT = 50
"""Per cent of the endpoints that stay in traffic."""
_PUBLISHED = 5.0
"""Seconds within which other workers learn of a verdict."""

_Keys: TypeAlias = frozenset[EndpointKey]


class Kind(StrEnum):
    """What the failed have in common."""

    SERVICE = "service"
    WORKER = "worker"


class Group(NamedTuple):
    """Endpoints that may fail for one reason."""

    kind: Kind
    name: str
    """The owner of a service, or the worker that asks."""


@dataclass(frozen=True, slots=True)
class Suspicion:
    """Most of a group has failed at once, and that still holds."""

    group: Group
    failing: int
    of: int
    """How many answered a moment ago."""
    kept: int
    """How many of them stay in traffic although they are unhealthy."""


@dataclass(frozen=True, slots=True)
class Seen:
    """What the verdicts are."""

    health: Mapping[EndpointKey, Health] = field(default_factory=dict)
    failing: _Keys = frozenset()
    """Those that failed their last check, whatever their health; only as far as this worker asks them."""
    judges: Mapping[EndpointKey, str] = field(default_factory=dict)
    """Who asks an endpoint, if that is not its own worker."""


class Said(NamedTuple):
    """What a worker tells the others of an endpoint that it asks."""

    health: Health
    kept: bool = False
    """It stays in traffic all the same."""
    held_back: bool = False
    """It answers, and has come and gone too often."""


@dataclass(frozen=True, slots=True)
class Floor:
    """What is suspected, and what must be remembered for the next look."""

    kept: _Keys = frozenset()
    """Unhealthy endpoints that stay in traffic."""
    suspicions: tuple[Suspicion, ...] = ()
    """In order of their groups."""
    health: Mapping[EndpointKey, Health] = field(default_factory=dict, repr=False)
    """As it was at the last look."""
    fallen: Mapping[EndpointKey, float] = field(default_factory=dict, repr=False)
    """When they fell, of those that may still count."""
    groups: Mapping[Group, _Keys] = field(default_factory=dict, repr=False)
    """Of each suspected group, those that answered a moment before."""


def resumed(view: ClusterView, up: Iterable[EndpointKey], kept: _Keys, now: float) -> Floor:
    """Where a process begins: those that are `up` in traffic count as having answered a moment ago, and those that its
    former life has `kept` stay kept, until their services answer."""
    members = _members(view, {}, DEFAULT)
    owners = {members[key].service for key in kept if key in members}
    groups = {owner: frozenset(key for key, member in members.items() if member.service == owner) for owner in owners}
    return Floor(kept, (), dict.fromkeys(up, Health.HEALTHY), dict.fromkeys(kept, now), groups)


def look(before: Floor, view: ClusterView, seen: Seen, *, floor: int, now: float) -> Floor:
    """What is suspected now.

    `floor` is in per cent, for services whose labels do not say; `now` is of a clock that never goes back. Whoever
    is healthy in `before.health` counts as having answered a moment ago.
    """
    was = before.health
    fell = [k for k, is_now in seen.health.items() if is_now is Health.UNHEALTHY and was.get(k) is Health.HEALTHY]
    if not fell and not before.fallen:
        return Floor(health=seen.health)  # the usual case, and there may be ten thousand endpoints
    members = _members(view, seen.judges, floor)
    fallen = {
        key: since
        for key, since in {**before.fallen, **dict.fromkeys(fell, now)}.items()
        if key in members and seen.health.get(key) is Health.UNHEALTHY
    }
    recent = frozenset(key for key, since in fallen.items() if now - since <= window(members[key].probe))
    touched = _groups(members, fallen)
    suspected = {
        group: answered
        for group, keys in touched.items()
        if (answered := _suspect(before.groups.get(group), keys, seen, recent & keys))
    }
    remembered = recent.union(*suspected.values())
    fallen = {key: since for key, since in fallen.items() if key in remembered}
    kept = frozenset(
        key
        for group, keys in touched.items()
        if group.kind is Kind.SERVICE
        for key in _keep([members[key] for key in keys], seen, fallen, suspected)
    )
    told = tuple(_suspicion(group, suspected[group], seen, kept) for group in sorted(suspected))
    return Floor(kept, told, seen.health, fallen, suspected)


def window(probe: Probe) -> float:
    """Seconds within which endpoints that fail for one reason fall, however they are spread over the interval."""
    return (probe.unhealthy_threshold + 1) * probe.interval + probe.timeout + _PUBLISHED


def effective(view: ClusterView, seen: Seen, kept: _Keys, held_back: _Keys) -> Mapping[EndpointKey, Health]:
    """The health that traffic follows: what is kept counts as healthy, and what is held back where nobody else is."""
    serving = dict.fromkeys(kept, Health.HEALTHY)
    if held_back:
        held = [endpoint for endpoint in view.endpoints if endpoint.key in held_back]
        owners = {endpoint.owner for endpoint in held}
        served = {
            endpoint.owner
            for endpoint in view.endpoints
            if endpoint.owner in owners
            and endpoint.drain is None
            and (seen.health.get(endpoint.key) is Health.HEALTHY or endpoint.key in kept)
        }
        serving |= {endpoint.key: Health.HEALTHY for endpoint in held if endpoint.owner not in served}
    return {**seen.health, **serving} if serving else seen.health


@dataclass(frozen=True, slots=True)
class _Member:
    """An endpoint that counts: it is probed and does not drain."""

    key: EndpointKey
    service: Group
    judge: Group
    """The worker that asks it."""
    probe: Probe
    percent: int


def _members(view: ClusterView, judges: Mapping[EndpointKey, str], floor: int) -> Mapping[EndpointKey, _Member]:
    probes = {service.owner: service.probe for service in view.services if service.probe is not None}
    return {
        endpoint.key: _Member(
            endpoint.key,
            Group(Kind.SERVICE, endpoint.owner),
            Group(Kind.WORKER, judges.get(endpoint.key, endpoint.worker)),
            probe,
            percent,
        )
        for endpoint in view.endpoints
        if endpoint.drain is None
        and (probe := probes.get(endpoint.owner)) is not None
        and (percent := floor if probe.floor is None else probe.floor)
    }


def _groups(members: Mapping[EndpointKey, _Member], fallen: Iterable[EndpointKey]) -> Mapping[Group, _Keys]:
    """The groups in which somebody has fallen, with all of their members."""
    touched = {group for key in fallen for group in (members[key].service, members[key].judge)}
    grouped: dict[Group, set[EndpointKey]] = {group: set() for group in touched}
    for member in members.values():
        for group in touched.intersection((member.service, member.judge)):
            grouped[group].add(member.key)
    return {group: frozenset(keys) for group, keys in grouped.items()}


def _suspect(before: _Keys | None, keys: _Keys, seen: Seen, recent: _Keys) -> _Keys:
    """Those of a group that answered a moment ago, if most of them fail now; otherwise empty."""
    healthy = frozenset(key for key in keys if seen.health.get(key) is Health.HEALTHY)
    answered = healthy | recent | (before & keys if before is not None else frozenset())
    if before is None and (not recent or len(recent) + len(healthy & seen.failing) < 2):
        return frozenset()
    return answered if 2 * len(healthy - seen.failing) < len(answered) else frozenset()


def _keep(
    members: list[_Member],
    seen: Seen,
    fallen: Mapping[EndpointKey, float],
    suspected: Mapping[Group, _Keys],
) -> list[EndpointKey]:
    """Who of a service stays in traffic although it fails."""
    counted = suspected.get(members[0].service, frozenset())
    failed = [
        member.key
        for member in members
        if member.key in fallen and (member.key in counted or member.key in suspected.get(member.judge, frozenset()))
    ]
    healthy = {member.key for member in members if seen.health.get(member.key) is Health.HEALTHY}
    answered = len(healthy.union(failed, counted))
    missing = math.ceil(answered * members[0].percent / 100) - len(healthy)
    last = max((fallen[key] for key in failed), default=0.0)
    at_once = window(members[0].probe)
    return sorted(failed, key=lambda key: ((last - fallen[key]) // at_once, key))[: max(0, missing)]


def _suspicion(group: Group, answered: _Keys, seen: Seen, kept: _Keys) -> Suspicion:
    up = sum(seen.health.get(key) is Health.HEALTHY and key not in seen.failing for key in answered)
    return Suspicion(group, len(answered) - up, len(answered), len(kept & answered))
