"""Lets the weight of an endpoint grow once it begins to serve: slow start. Pure.

An endpoint whose label `routing.slow_start_seconds` says S seconds has a tenth of its weight at first, and all of it S
seconds later. In between it grows by tenths, linearly, at whole seconds: nine steps at most. HAProxy's `slowstart`,
nginx's `slow_start` and Envoy's `slow_start_config` with aggression 1 do the same. The rules:

* An endpoint begins to serve when new connections may go to it for the first time, or for the first time in a new
  process, after its probe has failed, or after maintenance. After any other drain its process is as warm as before.
* Nobody ramps if the others cannot carry the rest: if the endpoints of full age have less than half of the weight of
  all that serve, new ones have their whole weight at once, and keep it. With shares of releases in force this holds
  for each release on its own, since a ramp divides the share of its release.
* What serves when this worker looks for the first time has its whole weight: a restart of the daemon ramps nothing.
* The weight of an endpoint never falls by this while it serves, and is never 0.
* Schedulers that ignore weights or divide clients have no slow start (`mesh.model.service.BY_WEIGHT`): with weights
  that change, clients would move from endpoint to endpoint.

Each worker goes by its own sight, so that nothing is written to the store.
"""

import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import NamedTuple

from mesh.control.share_overlay import Ramps, counting_shares, share_members
from mesh.control.shares import TENTHS
from mesh.model.eligibility import effective_health, vip_of
from mesh.model.persistent_map import PersistentMap, changed_keys
from mesh.model.service import BY_WEIGHT, DrainReason, Endpoint, EndpointKey, Health, Service, same_run
from mesh.model.view import ClusterView, EndpointGroup


class PassTime(NamedTuple):
    """When a pass is made."""

    now: float
    """In seconds on a clock that never jumps."""
    wall: float
    """In seconds since 1970."""


class EndpointRamp(NamedTuple):
    """How far an endpoint is that ramps."""

    tenths: int
    """How much of its weight it has, from 1 to `TENTHS` - 1."""
    until: int
    """When it has its whole weight, in seconds since 1970 by the clock of this worker."""

    @property
    def percent(self) -> int:
        """How much of its weight it has, in per cent."""
        return 100 * self.tenths // TENTHS


class _Start(NamedTuple):
    """Where an endpoint with slow start is in its life."""

    run: str | None
    """Its process, see `Endpoint.run`."""
    began: float = math.inf
    """When it began to serve, in whole seconds of `PassTime.now`; infinite while it has not, and minus infinite if it
    served at the first look.
    """
    wall: int = 0
    """When it began to serve, in whole seconds since 1970."""
    is_whole: bool = False
    """Whether it has its whole weight whatever its age, since the others could not carry the rest."""


class _Member(NamedTuple):
    """An endpoint that serves."""

    endpoint: Endpoint
    start: _Start | None
    """None without slow start."""

    def is_young(self, now: float) -> bool:
        return self.start is not None and self.start.began <= now + 1 and now < self.start.began + self.seconds

    @property
    def seconds(self) -> int:
        return self.endpoint.slow_start


_NOTHING: Mapping[EndpointKey, _Start] = {}


@dataclass(frozen=True, slots=True)
class SlowStarts:
    """The endpoints that ramp, as this worker sees them. Begins empty; `after` makes the next state."""

    ramps: Ramps = field(default_factory=dict)
    """How many tenths of its weight each endpoint that ramps has, by owner."""
    next_step: float = math.inf
    """When an endpoint gets the next tenth, in seconds on the clock of `PassTime.now`; infinite if none ramps."""
    _until: Mapping[EndpointKey, int] = field(default_factory=dict)
    """When the ramps end, in seconds since 1970."""
    _starts: PersistentMap[str, Mapping[EndpointKey, _Start]] = field(default_factory=PersistentMap)
    """What is known of the endpoints with slow start, by owner; services without one are missing."""
    _seen: ClusterView | None = field(default=None, compare=False)
    """The view that was looked at last; None before the first one."""

    def after(self, view: ClusterView, time: PassTime) -> "SlowStarts":
        """Return the state after the next view, which has the verdicts that traffic follows, but no weights by shares.

        The cost follows the number of services that have changed or ramp.
        """
        owners = self._to_look_at(view)
        if not owners:
            return self if view is self._seen else replace(self, _seen=view)
        services = {service.owner: service for service in view.services}
        starts: dict[str, Mapping[EndpointKey, _Start] | None] = {}
        ramps = {owner: of for owner, of in self.ramps.items() if owner not in owners}
        for owner in owners:
            service, group = services.get(owner), view.groups.get(owner)
            if service is None or group is None:
                starts[owner] = None
                continue
            before = self._starts.get(owner, _NOTHING)
            found = dict(_followed(service, group, before, time, is_first=self._seen is None))
            pools = _pools(service, view, found)
            found |= _made_whole(pools, time.now)
            starts[owner] = found or None
            if ramping := dict(_tenths(pools, found, time.now)):
                ramps[owner] = ramping
        kept = self._starts.changed(starts)
        until = {key: kept[owner][key].wall + view.by_key[key].slow_start for owner, of in ramps.items() for key in of}
        steps = (
            _next_step(kept[owner][key].began, view.by_key[key].slow_start, tenths)
            for owner, of in ramps.items()
            for key, tenths in of.items()
        )
        return SlowStarts(self.ramps if ramps == self.ramps else ramps, min(steps, default=math.inf), until, kept, view)

    def ramp_of(self, endpoint: Endpoint) -> EndpointRamp | None:
        """Return how far an endpoint is; None if it does not ramp."""
        tenths = self.ramps.get(endpoint.owner, {}).get(endpoint.key)
        return None if tenths is None else EndpointRamp(tenths, self._until[endpoint.key])

    def _to_look_at(self, view: ClusterView) -> set[str]:
        seen = self._seen
        owners = set(self.ramps)
        if seen is None:
            return {owner for owner, group in view.groups.items() if _has_slow_start(group)}
        if view.services is not seen.services or view.claims is not seen.claims:
            owners |= self._starts.keys()
        for owner in changed_keys(seen.groups, view.groups):
            if owner in self._starts or _has_slow_start(view.groups.get(owner)):
                owners.add(owner)
        return owners


def ramp_tenths(age: float, seconds: int) -> int:
    """Return how many tenths of its weight an endpoint has that has served for `age` seconds, of a ramp of `seconds`
    (1 or more).
    """
    return TENTHS if age >= seconds else 1 + (TENTHS - 1) * max(0, math.floor(age)) // seconds


def _next_step(began: float, seconds: int, tenths: int) -> float:
    """Return when an endpoint that has so many tenths gets more."""
    return began + math.ceil(tenths * seconds / (TENTHS - 1))


def _has_slow_start(group: EndpointGroup | None) -> bool:
    return group is not None and any(endpoint.slow_start for endpoint in group.endpoints)


def _followed(
    service: Service, group: EndpointGroup, before: Mapping[EndpointKey, _Start], time: PassTime, *, is_first: bool
) -> Iterator[tuple[EndpointKey, _Start]]:
    for endpoint, probed in zip(group.endpoints, group.verdicts, strict=True):
        if endpoint.slow_start:
            health = effective_health(service, endpoint, probed)
            yield endpoint.key, _next_start(endpoint, health, before.get(endpoint.key), time, is_first)


def _next_start(
    endpoint: Endpoint, health: Health | None, old: _Start | None, time: PassTime, is_first: bool
) -> _Start:
    """Return what is known of an endpoint after this look."""
    if old is None:
        # What has no verdict yet at the first look may have served for long: its probe has not answered this daemon.
        old = _Start(endpoint.run, -math.inf if is_first else math.inf)
    elif not same_run(old.run, endpoint.run):
        old = _Start(endpoint.run)
    elif old.run is None and endpoint.run is not None:
        old = old._replace(run=endpoint.run)
    if health is Health.UNHEALTHY or endpoint.drain is DrainReason.MAINTENANCE:
        return _Start(old.run)
    serves = endpoint.drain is None and health in (None, Health.HEALTHY) and endpoint.weight > 0
    if serves and old.began == math.inf:
        # Whole seconds, so that what begins in one second steps in one pass.
        return _Start(old.run, math.ceil(time.now), math.ceil(time.wall))
    return old


def _pools(
    service: Service, view: ClusterView, starts: Mapping[EndpointKey, _Start]
) -> tuple[tuple[_Member, ...], ...]:
    """Return the endpoints that serve, those together that divide the same connections among them."""
    vip, group = vip_of(service, view), view.groups[service.owner]
    if vip is None or not starts or service.scheduler not in BY_WEIGHT:
        return ()
    shares = counting_shares(service.owner, view)
    is_split = shares is not None and shares.are_in_force(endpoint.release or "" for endpoint in group.endpoints)
    pools: dict[str, list[_Member]] = {}
    for endpoint, member in zip(group.endpoints, share_members(service, vip, group), strict=True):
        if member.serves and member.weight > 0:
            pool = pools.setdefault(member.release if is_split else "", [])
            pool.append(_Member(endpoint, starts.get(endpoint.key)))
    return tuple(tuple(pool) for pool in pools.values())


def _made_whole(pools: Iterable[tuple[_Member, ...]], now: float) -> Iterator[tuple[EndpointKey, _Start]]:
    """Yield the endpoints that get their whole weight because the others could not carry the rest."""
    for pool in pools:
        young = [member for member in pool if member.is_young(now)]
        if 2 * sum(member.endpoint.weight for member in young) > sum(member.endpoint.weight for member in pool):
            for member in young:
                if member.start is not None and not member.start.is_whole:
                    yield member.endpoint.key, member.start._replace(is_whole=True)


def _tenths(
    pools: Iterable[tuple[_Member, ...]], starts: Mapping[EndpointKey, _Start], now: float
) -> Iterator[tuple[EndpointKey, int]]:
    """Yield the endpoints that ramp, each with its tenths."""
    for member in (member for pool in pools for member in pool):
        key = member.endpoint.key
        if member.is_young(now) and not starts[key].is_whole:
            yield key, ramp_tenths(now - starts[key].began, member.seconds)
