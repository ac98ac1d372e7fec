"""Cluster view + health -> what the data plane shall hold and which names shall resolve.

A pure function over one immutable picture: the same picture gives the same plan on every worker. The rules:

* a service without a VIP claim, or whose first name another owner holds, is not programmed at all;
* what one service adds is in `mesh.control.service_plan`; parts of which nothing has changed are taken over from the
  last plan.
"""

from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Set
from dataclasses import dataclass, field, replace
from typing import NamedTuple, TypeAlias

from mesh.control.service_plan import PublishedPort, ServicePlan, ServicePlanInput, plan_service
from mesh.model.eligibility import held_names, vip_of
from mesh.model.persistent_map import PersistentMap, changed_keys
from mesh.model.service import Address, EndpointKey, Health, Name, Service, Transport
from mesh.model.table import RealKey, Table, VirtualKey, VirtualServer
from mesh.model.view import ClusterView, EndpointGroup

_Ports: TypeAlias = tuple[PublishedPort, ...]

_NOBODY = EndpointGroup((), ())


class PlannerInput(NamedTuple):
    """All that a plan follows from."""

    view: ClusterView
    health: Mapping[EndpointKey, Health]
    own: tuple[Address, ...]
    contested: frozenset[tuple[Transport, int]]
    resolver: Address | None
    services: Mapping[str, Service]
    """By owner."""
    ports: Mapping[Name, _Ports]
    """The published ports that each service name holds."""


@dataclass(frozen=True, slots=True)
class Plan:
    """What shall be: the whole of it, every time."""

    table: Table
    names: Mapping[Name, Address]
    """Routing name -> VIP."""
    failed: Mapping[RealKey, int] = field(default_factory=PersistentMap)
    """Real servers whose probes failed: their connections are to be reset and not drained. And how many services say
    so."""
    parts: Mapping[str, ServicePlan] = field(default_factory=dict, repr=False, compare=False)
    """By `Service.owner`."""
    by_name: Mapping[Name, ServicePlan] = field(default_factory=dict, repr=False, compare=False)
    """By routing name."""
    count: int = field(default=0, repr=False, compare=False)
    """Of the virtual servers of all parts."""
    sight: PlannerInput | None = field(default=None, repr=False, compare=False)


def make_plan(
    view: ClusterView,
    health: Mapping[EndpointKey, Health],
    worker_addresses: Iterable[Address] = (),
    before: Plan | None = None,
    *,
    resolver: Address | None = None,
    contested: Collection[tuple[Transport, int]] = (),
) -> Plan:
    """The plan for one worker.

    `health` has the verdict on each endpoint; one that is missing there while its service has a probe has not
    answered yet and gets no traffic. `worker_addresses` are the worker's own, for published ports. From an earlier
    plan, `before`, what has not changed is taken over: that only saves time, most of it where both views come from one
    reader and `health` is the view's own. `resolver` is bound beside the VIPs. `contested` are published ports to leave
    to programs of this worker.
    """
    own = tuple(worker_addresses)
    sight = PlannerInput(view, health, own, frozenset(contested), resolver, *_indexed(view, before))
    owners = _suspects(before, sight) if before is not None else None
    if before is None or owners is None:
        before = Plan(Table(), {}) if before is None else before
        owners = sight.services.keys() | before.parts.keys()
    changed: dict[str, ServicePlan | None] = {}
    for owner in sorted(owners):
        known = before.parts.get(owner)
        grounds = _grounds(owner, sight)
        if grounds is None:
            if known is not None:
                changed[owner] = None
        elif known is None or known.grounds != grounds:
            changed[owner] = plan_service(grounds)
    made = _with_parts(before, changed)
    vips = before.table.vips
    if made.names is not before.names or before.sight is None or before.sight.resolver != resolver:
        vips = frozenset(made.names.values()) | (frozenset() if resolver is None else {resolver})
    return replace(made, table=Table(made.table.virtual_servers, vips), sight=sight)


def planning_effort(view: ClusterView, before: Plan | None) -> int:
    """About how many services and endpoints `make_plan` will look at."""
    if before is None or before.sight is None:
        return len(view.endpoints) + len(view.services)
    known = before.sight.view
    changed = changed_keys(known.groups, view.groups)
    looked_at = sum(len(view.groups[owner].endpoints) for owner in changed if owner in view.groups)
    return looked_at + (0 if view.services is known.services and view.claims is known.claims else len(view.services))


def changed_servers(before: Plan, after: Plan) -> set[VirtualKey]:
    """The virtual servers that may not be the same in both."""
    old, new = before.parts, after.parts
    parts = [part for owner in changed_keys(old, new) for part in (old.get(owner), new.get(owner)) if part is not None]
    return {key for part in parts for key in part.virtual_servers}


def has_virtual_servers(planned: Plan | None, owner: str) -> bool:
    """Whether a service has a virtual server here: one whose only port is left to another program has none."""
    part = planned.parts.get(owner) if planned is not None else None
    return part is not None and bool(part.virtual_servers)


def _indexed(view: ClusterView, before: Plan | None) -> tuple[Mapping[str, Service], Mapping[Name, _Ports]]:
    """The services by owner, and the published ports that each service name holds."""
    last = before.sight if before is not None else None
    if last is None:
        return {service.owner: service for service in view.services}, _published_ports(view)
    same = last.view.services is view.services
    services = last.services if same else {service.owner: service for service in view.services}
    return services, last.ports if last.view.claims is view.claims else _published_ports(view)


def _suspects(before: Plan, sight: PlannerInput) -> Set[str] | None:
    """The owners of services whose part may be another one; None: any."""
    last = before.sight
    if last is None or (sight.own, sight.contested) != (last.own, last.contested):
        return None
    if sight.health is not sight.view.health or last.health is not last.view.health:
        return None  # the groups of the views know nothing of it
    found = changed_keys(last.view.groups, sight.view.groups)
    if sight.services is not last.services:
        found |= changed_keys(last.services, sight.services)
    old, new = last.view.claims, sight.view.claims
    if new is not old:
        found |= {owner for _, owner in old.owners.items() ^ new.owners.items()}
        names = {name for name, _ in old.vips.items() ^ new.vips.items()}
        names |= {name for _, (name, _) in old.ports.items() ^ new.ports.items()}
        found |= {service.owner for service in sight.view.services if service.name in names} if names else set()
    return found


def _grounds(owner: str, sight: PlannerInput) -> ServicePlanInput | None:
    """Of one service; None: it is not programmed at all."""
    service = sight.services.get(owner)
    vip = vip_of(service, sight.view) if service is not None else None
    if service is None or vip is None:
        return None
    group = sight.view.groups.get(owner) or _NOBODY
    if sight.health is not sight.view.health:
        group = EndpointGroup(group.endpoints, tuple(sight.health.get(endpoint.key) for endpoint in group.endpoints))
    ports = sight.ports.get(service.name, ())
    left = frozenset((transport, port) for port, transport, _ in ports if (transport, port) in sight.contested)
    return ServicePlanInput(service, vip, held_names(service, sight.view), ports, left, sight.own, *group)


def _with_parts(before: Plan, changed: Mapping[str, ServicePlan | None]) -> Plan:
    """The plan with these parts instead of those it had of the same services; None: it has none any more."""
    if not changed:
        return before
    gone = [part for owner in changed if (part := before.parts.get(owner)) is not None]
    new = [part for part in changed.values() if part is not None]
    other: dict[VirtualKey, VirtualServer | None] = {key: None for part in gone for key in part.virtual_servers}
    named: dict[Name, ServicePlan | None] = {name: None for part in gone for name in part.names}
    for part in new:
        other.update(part.virtual_servers)
        named.update(dict.fromkeys(part.names, part))
    parts = PersistentMap.of(before.parts).changed(changed)
    servers = PersistentMap.of(before.table.virtual_servers).changed(other)
    by_name = PersistentMap.of(before.by_name).changed(named)
    count = before.count + _count(new) - _count(gone)
    if len(servers) != count:  # two claims of one VIP or port
        servers = PersistentMap(
            {k: server for owner in sorted(parts) for k, server in parts[owner].virtual_servers.items()}
        )
    same = [(part.names, part.vip) for part in gone] == [(part.names, part.vip) for part in new]
    names = before.names if same else {name: part.vip for name, part in by_name.items()}
    failed = _counted(
        before.failed, [r for part in gone for r in part.failed], [r for part in new for r in part.failed]
    )
    return Plan(Table(servers, before.table.vips), names, failed, parts, by_name, count)


def _counted(before: Mapping[RealKey, int], less: Iterable[RealKey], more: Iterable[RealKey]) -> Mapping[RealKey, int]:
    steps = Counter(more)
    steps.subtract(less)
    return PersistentMap.of(before).changed(
        {real: before.get(real, 0) + step or None for real, step in steps.items() if step}
    )


def _count(parts: Iterable[ServicePlan]) -> int:
    return sum(len(part.virtual_servers) for part in parts)


def _published_ports(view: ClusterView) -> Mapping[Name, _Ports]:
    """The published ports that each service name holds."""
    held: dict[Name, list[PublishedPort]] = {}
    for (transport, port), (name, container_port) in sorted(view.claims.ports.items()):
        held.setdefault(name, []).append((port, transport, container_port))
    return {name: tuple(ports) for name, ports in held.items()}
