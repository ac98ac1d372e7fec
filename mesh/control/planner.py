"""Computes the plan, the desired data plane table and DNS names, from the cluster view and health.

A pure function of one immutable view: the same view gives the same plan on every worker.

* A service without a VIP claim, or whose first name another owner holds, is not programmed.
* `mesh.control.service_plan` plans each service; parts whose inputs have not changed are taken over from the last plan.
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

_NO_ENDPOINTS = EndpointGroup((), ())


class PlannerInput(NamedTuple):
    """All inputs of a plan."""

    view: ClusterView
    health: Mapping[EndpointKey, Health]
    own: tuple[Address, ...]
    contested: frozenset[tuple[Transport, int]]
    withheld: frozenset[Address]
    resolver: Address | None
    services: Mapping[str, Service]
    """The services by owner."""
    ports: Mapping[Name, _Ports]
    """The published ports that each service name holds."""


@dataclass(frozen=True, slots=True)
class Plan:
    """The complete desired state."""

    table: Table
    names: Mapping[Name, Address]
    """Routing name -> VIP."""
    failed: Mapping[RealKey, int] = field(default_factory=PersistentMap)
    """Real servers whose probes failed: their connections are reset instead of drained. The value is the number of
    services that report the failure.
    """
    draining: Mapping[RealKey, int] = field(default_factory=PersistentMap, repr=False, compare=False)
    """Real servers of endpoints that drain, with the number of services that have them."""
    parts: Mapping[str, ServicePlan] = field(default_factory=dict, repr=False, compare=False)
    """The plans of the services, by `Service.owner`."""
    by_name: Mapping[Name, ServicePlan] = field(default_factory=dict, repr=False, compare=False)
    """The plans of the services, by routing name."""
    count: int = field(default=0, repr=False, compare=False)
    """The number of virtual servers of all parts, with duplicates."""
    inputs: PlannerInput | None = field(default=None, repr=False, compare=False)
    """The inputs that the plan was computed from; None for a plan that was not made by `make_plan`."""
    broken: Mapping[str, Exception] = field(default_factory=dict, repr=False, compare=False)
    """Services, by owner, whose part raised an unexpected exception. The part of the plan before stays in force."""


def make_plan(
    view: ClusterView,
    health: Mapping[EndpointKey, Health],
    worker_addresses: Iterable[Address] = (),
    before: Plan | None = None,
    *,
    resolver: Address | None = None,
    contested: Collection[tuple[Transport, int]] = (),
    withheld: Collection[Address] = (),
) -> Plan:
    """The plan for one worker.

    `health` has the verdict on each endpoint; an endpoint that is missing there while its service has a probe has no
    result yet and gets no traffic. `worker_addresses` are the worker's own, for published ports. `before`, an earlier
    plan, only saves time: parts that have not changed are taken over, most of all if both views come from one
    `ViewBuilder` and `health` is the view's own. `resolver` is bound beside the VIPs. `contested` are published ports
    to leave to programs of this worker. `withheld` are VIPs that must not be bound here.
    """
    own = tuple(worker_addresses)
    inputs = PlannerInput(
        view, health, own, frozenset(contested), frozenset(withheld), resolver, *_indexed(view, before)
    )
    owners = _affected_owners(before, inputs) if before is not None else None
    if before is None or owners is None:
        before = Plan(Table(), {}) if before is None else before
        owners = inputs.services.keys() | before.parts.keys()
    changed: dict[str, ServicePlan | None] = {}
    broken: dict[str, Exception] = {}
    # A part that failed is tried again although its inputs are the same: a lack of memory passes.
    for owner in sorted(owners | before.broken.keys()):
        known = before.parts.get(owner)
        try:
            service_inputs = _service_inputs(owner, inputs)
            if service_inputs is None:
                if known is not None:
                    changed[owner] = None
            elif known is None or known.inputs != service_inputs:
                changed[owner] = plan_service(service_inputs)
        except Exception as error:  # noqa: BLE001 -- one service keeps its part, and is reported
            broken[owner] = error
    made = _with_parts(before, changed)
    vips = before.table.vips
    if made.names is not before.names or before.inputs is None or before.inputs.resolver != resolver:
        vips = frozenset(made.names.values()) | (frozenset() if resolver is None else {resolver})
    return replace(made, table=Table(made.table.virtual_servers, vips), inputs=inputs, broken=broken)


def planning_effort(view: ClusterView, before: Plan | None) -> int:
    """The approximate number of services and endpoints, those that are gone included, that `make_plan` will visit."""
    if before is None or before.inputs is None:
        return len(view.endpoints) + len(view.services)
    known = before.inputs.view
    changed = changed_keys(known.groups, view.groups)
    looked_at = sum(
        len(groups[owner].endpoints) for groups in (known.groups, view.groups) for owner in changed if owner in groups
    )
    if view.services is known.services and view.claims is known.claims:
        return looked_at
    return looked_at + len(view.services) + len(known.services)


def changed_servers(before: Plan, after: Plan) -> set[VirtualKey]:
    """The virtual servers that may differ between two plans."""
    old, new = before.parts, after.parts
    parts = [part for owner in changed_keys(old, new) for part in (old.get(owner), new.get(owner)) if part is not None]
    return {key for part in parts for key in part.virtual_servers}


def programmed_reals(planned: Plan, owner: str, programmed: Table | None) -> frozenset[RealKey]:
    """Return the real servers of a service that take new connections in the data plane on this worker.

    `programmed` is what the last pass has left there; None stands for what was planned. Between a change and the end
    of the pass that programs it, an endpoint that may serve gets no packets yet.
    """
    part = planned.parts.get(owner)
    if part is None:
        return frozenset()
    there = planned.table.virtual_servers if programmed is None else programmed.virtual_servers
    servers = (there[key].real_servers for key in part.served if key in there)
    return frozenset(real for reals in servers for real, server in reals.items() if server.weight)


def has_virtual_servers(planned: Plan | None, owner: str) -> bool:
    """Whether a service has a virtual server here. A service whose only port is left to another program has none."""
    part = planned.parts.get(owner) if planned is not None else None
    return part is not None and bool(part.served)


def _indexed(view: ClusterView, before: Plan | None) -> tuple[Mapping[str, Service], Mapping[Name, _Ports]]:
    """The services by owner, and the published ports that each service name holds."""
    last = before.inputs if before is not None else None
    if last is None:
        return {service.owner: service for service in view.services}, _published_ports(view)
    same = last.view.services is view.services
    services = last.services if same else {service.owner: service for service in view.services}
    return services, last.ports if last.view.claims is view.claims else _published_ports(view)


def _affected_owners(before: Plan, inputs: PlannerInput) -> Set[str] | None:
    """The owners of services whose part may differ from the last plan; None if any may."""
    last = before.inputs
    if last is None or (inputs.own, inputs.contested, inputs.withheld) != (last.own, last.contested, last.withheld):
        return None
    if inputs.health is not inputs.view.health or last.health is not last.view.health:
        return None  # verdicts that are not the view's own are not in its groups either
    found = changed_keys(last.view.groups, inputs.view.groups)
    if inputs.services is not last.services:
        found |= changed_keys(last.services, inputs.services)
    old, new = last.view.claims, inputs.view.claims
    if new is not old:
        found |= {owner for _, owner in old.owners.items() ^ new.owners.items()}
        names = {name for name, _ in old.vips.items() ^ new.vips.items()}
        names |= {name for _, (name, _) in old.ports.items() ^ new.ports.items()}
        found |= {service.owner for service in inputs.view.services if service.name in names} if names else set()
    return found


def _service_inputs(owner: str, inputs: PlannerInput) -> ServicePlanInput | None:
    """The inputs for the plan of one service; None if it is not programmed."""
    service = inputs.services.get(owner)
    vip = vip_of(service, inputs.view) if service is not None else None
    if service is None or vip is None:
        return None
    group = inputs.view.groups.get(owner) or _NO_ENDPOINTS
    if inputs.health is not inputs.view.health:
        group = EndpointGroup(group.endpoints, tuple(inputs.health.get(endpoint.key) for endpoint in group.endpoints))
    ports = inputs.ports.get(service.name, ())
    left = frozenset((transport, port) for port, transport, _ in ports if (transport, port) in inputs.contested)
    return ServicePlanInput(
        service, vip, held_names(service, inputs.view), ports, left, inputs.own, vip in inputs.withheld, *group
    )


def _with_parts(before: Plan, changed: Mapping[str, ServicePlan | None]) -> Plan:
    """The plan with the parts of these services replaced; None removes the part."""
    if not changed:
        return before
    gone = [part for owner in changed if (part := before.parts.get(owner)) is not None]
    new = [part for part in changed.values() if part is not None]
    other: dict[VirtualKey, VirtualServer | None] = {key: None for part in gone for key in part.served}
    named: dict[Name, ServicePlan | None] = {name: None for part in gone for name in part.answered}
    for part in new:
        other.update(part.served)
        named.update(dict.fromkeys(part.answered, part))
    parts = PersistentMap.of(before.parts).changed(changed)
    servers = PersistentMap.of(before.table.virtual_servers).changed(other)
    by_name = PersistentMap.of(before.by_name).changed(named)
    count = before.count + _count(new) - _count(gone)
    # Two parts have the same key (two claims of one VIP or port): merge all of them in order of their owners, so that
    # every worker prefers the same one.
    if len(servers) != count:
        servers = PersistentMap({k: server for owner in sorted(parts) for k, server in parts[owner].served.items()})
    same = [(part.answered, part.vip) for part in gone] == [(part.answered, part.vip) for part in new]
    names = before.names if same else {name: part.vip for name, part in by_name.items()}
    failed = _counted(
        before.failed, [r for part in gone for r in part.failed], [r for part in new for r in part.failed]
    )
    draining = _counted(
        before.draining, [r for part in gone for r in part.draining], [r for part in new for r in part.draining]
    )
    return Plan(Table(servers, before.table.vips), names, failed, draining, parts, by_name, count)


def _counted(before: Mapping[RealKey, int], less: Iterable[RealKey], more: Iterable[RealKey]) -> Mapping[RealKey, int]:
    steps = Counter(more)
    steps.subtract(less)
    return PersistentMap.of(before).changed(
        {real: before.get(real, 0) + step or None for real, step in steps.items() if step}
    )


def _count(parts: Iterable[ServicePlan]) -> int:
    return sum(len(part.served) for part in parts)


def _published_ports(view: ClusterView) -> Mapping[Name, _Ports]:
    """The published ports that each service name holds."""
    held: dict[Name, list[PublishedPort]] = {}
    for (transport, port), (name, container_port) in sorted(view.claims.ports.items()):
        held.setdefault(name, []).append((port, transport, container_port))
    return {name: tuple(ports) for name, ports in held.items()}
