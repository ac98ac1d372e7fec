"""The panic threshold computed from the whole view in every step: slow, and written as its rules read."""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from mesh.health.correlation import FailureGroup, FailureGroupKind, failure_window
from mesh.health.panic import FailureSuspicion, ProbeEvidence
from mesh.model.probe import Probe
from mesh.model.service import Endpoint, EndpointKey, Health
from mesh.model.view import ClusterView


@dataclass(frozen=True)
class Known:
    """After a look."""

    kept: frozenset[EndpointKey] = frozenset()
    suspicions: tuple[FailureSuspicion, ...] = ()
    health: Mapping[EndpointKey, Health] = field(default_factory=dict)
    fallen: Mapping[EndpointKey, float] = field(default_factory=dict)
    groups: Mapping[FailureGroup, frozenset[EndpointKey]] = field(default_factory=dict)


@dataclass(frozen=True)
class _Member:
    endpoint: Endpoint
    probe: Probe
    percent: int
    groups: tuple[FailureGroup, FailureGroup]


def look(before: Known, view: ClusterView, asked: ProbeEvidence, *, floor: int, now: float) -> Known:
    """See `mesh.health.panic.update_panic_state`."""
    members = _members(view, asked, floor)
    up = {key for key in members if view.health.get(key) is Health.HEALTHY}
    health = {e.key: said for e in view.endpoints if (said := view.health.get(e.key)) is not None}
    fell = [k for k, said in health.items() if said is Health.UNHEALTHY and before.health.get(k) is Health.HEALTHY]
    fallen = {**before.fallen, **dict.fromkeys(fell, now)}
    fallen = {k: at for k, at in fallen.items() if k in members and health.get(k) is Health.UNHEALTHY}
    recent = frozenset(key for key, at in fallen.items() if now - at <= failure_window(members[key].probe))
    suspected: dict[FailureGroup, frozenset[EndpointKey]] = {}
    for group in {group for key in fallen for group in members[key].groups}:
        keys = frozenset(key for key, member in members.items() if group in member.groups)
        answered = (keys & up) | (keys & recent) | (keys & before.groups.get(group, frozenset()))
        failing = keys & up & asked.failing
        if group not in before.groups and (not keys & recent or len(keys & recent) + len(failing) < 2):
            continue
        if 2 * len(keys & up - failing) < len(answered):
            suspected[group] = answered
    remembered = recent.union(*suspected.values())
    fallen = {key: at for key, at in fallen.items() if key in remembered}
    kept = frozenset(
        key
        for owner in {member.endpoint.owner for member in members.values()}
        for key in _keep([m for m in members.values() if m.endpoint.owner == owner], up, fallen, suspected)
    )
    told = []
    for group in sorted(suspected):
        answers, of = len(suspected[group] & up - asked.failing), len(suspected[group])
        told.append(FailureSuspicion(group, of - answers, of, len(kept & suspected[group])))
    return Known(kept, tuple(told), health, fallen, suspected)


def _members(view: ClusterView, asked: ProbeEvidence, floor: int) -> dict[EndpointKey, _Member]:
    probes = {service.owner: service.probe for service in view.services}
    found = {}
    for endpoint in view.endpoints:
        probe = probes.get(endpoint.owner)
        if probe is None or endpoint.drain is not None:
            continue
        percent = floor if probe.floor is None else probe.floor
        judge = asked.probers.get(endpoint.key, endpoint.worker)
        groups = FailureGroup(FailureGroupKind.SERVICE, endpoint.owner), FailureGroup(FailureGroupKind.WORKER, judge)
        if percent:
            found[endpoint.key] = _Member(endpoint, probe, percent, groups)
    return found


def _keep(
    members: list[_Member],
    up: Iterable[EndpointKey],
    fallen: Mapping[EndpointKey, float],
    suspected: Mapping[FailureGroup, frozenset[EndpointKey]],
) -> list[EndpointKey]:
    service = suspected.get(members[0].groups[0], frozenset())
    failed = [
        member.endpoint.key
        for member in members
        if member.endpoint.key in fallen
        and any(member.endpoint.key in suspected.get(group, frozenset()) for group in member.groups)
    ]
    healthy = {member.endpoint.key for member in members} & set(up)
    missing = math.ceil(len(healthy.union(failed, service)) * members[0].percent / 100) - len(healthy)
    last, at_once = max((fallen[key] for key in failed), default=0.0), failure_window(members[0].probe)
    return sorted(failed, key=lambda key: ((last - fallen[key]) // at_once, key))[: max(0, missing)]
