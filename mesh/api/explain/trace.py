"""Traces the request path through one service: names, VIP, virtual servers and endpoints, and what is missing. Pure.

The path shows what the last pass left in the data plane, not what was planned. A difference between the two is a reason
of its own.
"""

import math
from collections.abc import Iterable, Iterator, Mapping

from mesh.api.explain.document import Cause, EndpointStep, NameStep, PortStep, RealServerStep, Reason, ServiceTrace
from mesh.api.explain.past import KeptEvents, describe_time, drained_by, gone_endpoints
from mesh.api.explain.question import TraceScope
from mesh.api.explain.reasons import describe_last_probe, describe_probe, endpoint_reasons
from mesh.cluster.worker_directory import dropping_worker
from mesh.control.arrival import describe_network
from mesh.control.planner import has_virtual_servers, programmed_reals
from mesh.control.service_plan import virtual_keys
from mesh.control.snapshot import DetailedSnapshot
from mesh.control.view import EffectiveView
from mesh.health.snapshot import utc_time
from mesh.model.codes import Code
from mesh.model.eligibility import (
    is_same_family,
    probe_targets,
    published_port,
    real_key,
    real_keys,
    routed_port,
    serves,
    takes_traffic,
    vip_of,
)
from mesh.model.problem import Problem, Severity
from mesh.model.release_shares import WHOLE, share_text
from mesh.model.service import (
    Address,
    DrainReason,
    Endpoint,
    EndpointKey,
    Health,
    PortPublication,
    Scheduler,
    Service,
    Transport,
)
from mesh.model.table import RealKey, RealServer, VirtualKey

_NO_VIP = frozenset({Code.VIP_TAKEN, Code.FIXED_VIP_UNUSABLE, Code.POOL_EXHAUSTED})
"""Codes of problems that leave a service without a VIP."""
_WITHHELD = Reason(
    Cause.VIP_WITHHELD,
    "the VIP is not bound on this worker: it is in a network of this host",
    "see the problem of [vip] pool in `vipmesh status`",
)
_DROPPED = Code.PEERS_DROPPED
_BY_OPERATORS = frozenset({DrainReason.ASKED, DrainReason.MAINTENANCE})
_OF_THE_FAMILY = "give the endpoint an address of the VIP's family"


class ServiceTracer:
    """Traces services in one snapshot; it computes once what all traces need."""

    def __init__(self, evidence: DetailedSnapshot, effective: EffectiveView, past: KeptEvents) -> None:
        """`effective` is the view that follows from the evidence. `past` says what became of endpoints."""
        view = effective.known
        self._evidence = evidence
        self._view = view
        self._past = past
        self._health: Mapping[EndpointKey, Health] = evidence.observed.health(view)
        self._traffic = effective.traffic.health
        self._shared = effective.shared
        self._slow_starts = effective.slow_starts
        self._asked = probe_targets(view)
        self.endpoints = {owner: group.endpoints for owner, group in view.groups.items()}
        """The endpoints of each service, by owner."""
        self._programmed_reals: dict[str, frozenset[RealKey]] = {}
        """The answers of `_programmed` so far, by owner."""

    def of(self, service: Service, place: TraceScope) -> ServiceTrace:
        """Return the request path through a service, limited to the scope."""
        group = self.endpoints.get(service.owner, ())
        vip = vip_of(service, self._view)
        if place.endpoint is not None:
            group = tuple(endpoint for endpoint in group if endpoint.key == place.endpoint)
        ports = (*self._ports(service, place), *self._missing(service, place)) if vip is not None else ()
        why_not = (self._no_vip(service),) if vip is None else tuple(self._not_listening(service, place))
        return ServiceTrace(
            service=service.name,
            owner=service.owner,
            vip=vip,
            names=tuple(self._name(service, name) for name in service.names),
            ports=ports,
            endpoints=tuple(self._endpoint(service, endpoint, vip) for endpoint in group),
            why_not=why_not,
            problems=tuple(str(problem) for problem in self._problems(service) if problem.code is not _DROPPED),
            not_arriving=(*self._not_arriving(service), *self._dropped(service)),
            gone=gone_endpoints(service.owner, self._past, self._view) if place.endpoint is None else (),
            shares=self._shares(service),
        )

    def _shares(self, service: Service) -> tuple[str, ...]:
        """Return the shares of releases that are in force, in words; empty if none are."""
        if service.owner not in self._shared.weighed:
            return ()
        by = self._shared.given(service.owner).by
        found = []
        for row in self._shared.releases(service):
            given = "" if row.given is None else f", given {share_text(row.given)}{f' by {by}' if by else ''}"
            serving = f"{row.serving} of {row.endpoints} endpoints"
            found.append(f"{row.release or 'no release'}: {share_text(float(row.share) * WHOLE)} on {serving}{given}")
        return tuple(found)

    def _not_arriving(self, service: Service) -> Iterator[Reason]:
        """Yield a reason for each network whose requests do not arrive."""
        for pair, record in self._evidence.observed.arrivals.failing(service.owner):
            text = f"requests from {describe_network(pair.network)} do not arrive"
            text = f"{text}: {record.reason}" if record.reason else text
            yield Reason(Cause.NOT_ARRIVING, text, record.remedy or "`vipmesh status` says since when, and what to do")

    def _problems(self, service: Service) -> Iterator[Problem]:
        return (problem for problem in self._evidence.problems if problem.owner == service.owner)

    def _dropped(self, service: Service) -> Iterator[Reason]:
        """Yield what the firewalls of workers drop of what other workers send, in the words of these workers."""
        own = self._evidence.observed.facts.worker
        for problem in self._problems(service):
            if problem.code is _DROPPED:
                worker = dropping_worker(problem, own)
                yield Reason(Cause.NOT_ARRIVING, f"worker {worker}: {problem.reason}", problem.remedy)

    def _is_behind_drop(self, service: Service, endpoint: Endpoint) -> bool:
        """Return whether a firewall drops what this worker sends to an endpoint, as the endpoint's own worker says."""
        own = self._evidence.observed.facts.worker
        return endpoint.worker != own and any(
            problem.code is _DROPPED and dropping_worker(problem, own) == endpoint.worker
            for problem in self._problems(service)
        )

    def _not_listening(self, service: Service, place: TraceScope) -> Iterator[Reason]:
        """Yield the reason if the service has no port in the scope: the ports that it has."""
        ports = dict.fromkeys((route.transport, route.listen_port) for route in service.routes)
        holders = self._view.claims.ports.items()
        published = [key for key, (name, _) in sorted(holders) if name == service.name]
        published += [(each.transport, each.port) for each in service.publishes if each.port is not None]
        if place.port is None or any(
            place.port == port and place.transport in (None, transport) for transport, port in (*ports, *published)
        ):
            return
        shown = [f"{transport} {port}" for transport, port in ports]
        shown += [f"{transport} {port} of every worker" for transport, port in dict.fromkeys(published)]
        asked = f"{place.transport or 'port'} {place.port}"
        text = f"nothing listens on {asked} of {service.name}; it listens on {', '.join(shown) or 'no port'}"
        yield Reason(Cause.NOT_LISTENING, text, "ask for one of these, or route the port with a label")

    # --------------------------------------------------------------------------------------------- name and VIP

    def _name(self, service: Service, name: str) -> NameStep:
        """Return whether a name resolves, and why not."""
        holder = self._view.claims.owners.get(name)
        answered = self._evidence.names.get(name)
        if holder != service.owner:
            return NameStep(name, None, self._not_held(service, name, holder))
        if answered is None and self._is_withheld(service):
            return NameStep(name, None, _WITHHELD)
        if answered is None:
            text = "it resolves as soon as its VIP is bound and programmed"
            return NameStep(name, None, Reason(Cause.NOT_PROGRAMMED, text))
        return NameStep(name, answered)

    def _not_held(self, service: Service, name: str, holder: str | None) -> Reason:
        if holder is None:
            return self._refused(service, name) or self._unclaimed(f"the name {name}")
        return Reason(Cause.NAME_TAKEN, f"the name {name} is held by {holder}", "give the service a name of its own")

    def _refused(self, service: Service, name: str) -> Reason | None:
        """Return why the name is refused; None if it is not, so that it is claimed soon."""
        for problem in self._evidence.problems:
            words = {word.strip("\"'`,;:()") for word in problem.reason.split()}
            if problem.owner == service.owner and problem.severity is Severity.ERROR and name in words:
                return Reason(Cause.REFUSED, problem.reason, problem.remedy)
        return None

    def _no_vip(self, service: Service) -> Reason:
        """Return why a service has no VIP: its first name, its fixed VIP, a refusal, or a claim not made yet."""
        claims = self._view.claims
        if (holder := claims.owners.get(service.name)) != service.owner:
            return self._not_held(service, service.name, holder)
        refused = [p for p in self._evidence.problems if p.owner == service.owner and p.code in _NO_VIP]
        fixed = service.fixed_vip
        other = claims.holders.get(fixed) if fixed is not None else None
        if other not in (None, service.name):
            text = f"the VIP {fixed} is held by {other}"
            return Reason(Cause.VIP_TAKEN, text, "write another address or remove the label routing.vip")
        if refused:
            return Reason(Cause.REFUSED, refused[0].reason, refused[0].remedy)
        return self._unclaimed("the VIP" if fixed is None else f"the VIP {fixed}")

    def _unclaimed(self, what: str) -> Reason:
        """Return the reason of a claim not made yet."""
        trouble = self._evidence.observed.frozen.get("store")
        if trouble is not None:
            return Reason(Cause.FROZEN, f"{what} is not claimed yet, and the store does not answer: {trouble}")
        return Reason(Cause.UNCLAIMED, f"{what} is not claimed yet", "ask again in a moment")

    def _is_withheld(self, service: Service) -> bool:
        """Return whether this worker does not bind the VIP of the service."""
        plan = self._evidence.observed.plan
        part = plan.parts.get(service.owner) if plan is not None else None
        return part is not None and part.inputs.withheld

    # -------------------------------------------------------------------------------------------------- ports

    def _ports(self, service: Service, place: TraceScope) -> Iterator[PortStep]:
        """Yield the programmed or planned ports of a service, the ports of the VIP before the published ones."""
        plan = self._evidence.observed.plan
        part = plan.parts.get(service.owner) if plan is not None else None
        groups: dict[tuple[bool, int, Transport], list[VirtualKey]] = {}
        for key, container_port in virtual_keys(part.inputs) if part is not None else ():
            published = part is not None and key.address != part.vip
            if place.has(key):
                groups.setdefault((published, container_port, key.transport), []).append(key)
        for (published, container_port, transport), keys in sorted(groups.items()):
            yield self._port(service, published, container_port, transport, sorted(set(keys)))

    def _port(
        self, service: Service, published: bool, container_port: int, transport: Transport, keys: list[VirtualKey]
    ) -> PortStep:
        """Return the step of one container port, from its virtual servers in the data plane."""
        servers = self._evidence.programmed.virtual_servers
        absent = [key for key in keys if key not in servers]
        # Reversed, so that the first key decides if two virtual servers have the same real server.
        there = [servers[key].real_servers for key in reversed(keys) if key in servers]
        reals = {real: server for real_servers in there for real, server in real_servers.items()}
        places = {
            real_key(endpoint, port, transport): endpoint
            for endpoint in reversed(self.endpoints.get(service.owner, ()))
            if (port := _own_port(service, endpoint, published, keys[0], container_port)) is not None
        }
        return PortStep(
            tuple(map(str, keys)),
            published,
            container_port,
            service.scheduler.value,
            service.persistence,
            tuple(_real_servers(service.scheduler, reals, places)),
            tuple(self._why_not(service, absent, keys, reals, places)),
        )

    def _why_not(
        self,
        service: Service,
        absent: list[VirtualKey],
        keys: list[VirtualKey],
        reals: Mapping[RealKey, RealServer],
        places: Mapping[RealKey, Endpoint],
    ) -> Iterator[Reason]:
        """Yield the reasons why a port does not answer, or not with every endpoint that should serve."""
        remedy = "see what the data plane refused, below" if self._evidence.observed.failures else None
        if absent and keys[0].address == vip_of(service, self._view) and self._is_withheld(service):
            yield _WITHHELD
            return
        for key in absent:
            yield Reason(Cause.NOT_PROGRAMMED, f"{key} is not in the data plane yet", remedy)
        serving = [(real, e) for real, e in places.items() if takes_traffic(service, e, self._traffic)]
        if not any(server.weight for server in reals.values()):
            waits = not self._evidence.observed.held.isdisjoint(keys)
            what = "new ones wait, since the container engine restarts" if waits else "clients are refused"
            yield Reason(Cause.NO_ENDPOINT, f"no endpoint takes connections: {what}")
        # A missing virtual server explains all of its missing real servers.
        if absent:
            return
        for real, endpoint in sorted(serving, key=lambda pair: pair[0]):
            if real in reals:
                continue
            if (":" in endpoint.address) != (":" in keys[0].address):
                text = f"{real} is of the other address family, and the kernel cannot translate between the families"
                yield Reason(Cause.OTHER_FAMILY, text, _OF_THE_FAMILY)
            else:
                yield Reason(Cause.NOT_PROGRAMMED, f"{real} is not a real server in the data plane yet", remedy)

    def _missing(self, service: Service, place: TraceScope) -> Iterator[PortStep]:
        """Yield the published ports in the scope that lead nowhere on this worker."""
        for publish in sorted(service.publishes, key=lambda p: (p.container_port, p.transport, p.port or 0)):
            for port, reason in self._not_published(service, publish):
                if place.port in (None, port) and place.transport in (None, publish.transport):
                    where = f"{publish.transport} port {port or 'auto'} of the worker"
                    scheduler, sticky = service.scheduler.value, service.persistence
                    yield PortStep((where,), True, publish.container_port, scheduler, sticky, why_not=(reason,))

    def _not_published(self, service: Service, publish: PortPublication) -> Iterator[tuple[int | None, Reason]]:
        """Yield the ports of a publication that lead nowhere, with the reason; None for `auto` before it has a port."""
        ports = self._view.claims.ports
        held = [
            port
            for (transport, port), holder in sorted(ports.items())
            if transport is publish.transport
            and holder[0] == service.name
            and (publish.port == port or (publish.port is None and holder[1] == publish.container_port))
        ]
        for port in held:
            if (publish.transport, port) in self._evidence.contested:
                worker = self._evidence.observed.facts.worker
                text = f"a program on worker {worker} listens on {publish.transport} port {port}"
                remedy = f"publish another port, or stop that program (`ss -lnp sport = {port}` shows it)"
                yield port, Reason(Cause.PORT_CONTESTED, text, remedy)
        if held:
            return
        holder = ports.get((publish.transport, publish.port)) if publish.port is not None else None
        if holder is None:
            yield publish.port, self._unclaimed(f"the published port for container port {publish.container_port}")
            return
        text = f"the published {publish.transport} port {publish.port} is held by {holder[0]}"
        yield publish.port, Reason(Cause.PORT_TAKEN, text, "publish another port or auto")

    # ---------------------------------------------------------------------------------------------- endpoints

    def _programmed(self, service: Service) -> frozenset[RealKey]:
        """Return the real servers of a service that take new connections in the data plane."""
        if (found := self._programmed_reals.get(service.owner)) is None:
            observed = self._evidence.observed
            plan = observed.plan
            found = programmed_reals(plan, service.owner, observed.programmed) if plan is not None else frozenset()
            self._programmed_reals[service.owner] = found
        return found

    def _endpoint(self, service: Service, endpoint: Endpoint, vip: Address | None) -> EndpointStep:
        """Return whether an endpoint serves, and why not, or in spite of which reasons it does."""
        asked = self._asked.get(endpoint.key)
        is_served = has_virtual_servers(self._evidence.observed.plan, service.owner)
        may_serve = vip is not None and is_served and serves(service, endpoint, vip, self._traffic)
        has_share = self._shared.has_share(endpoint)
        serving = may_serve and has_share and not self._programmed(service).isdisjoint(real_keys(service, endpoint))
        reasons = [*endpoint_reasons(service, endpoint, self._health.get(endpoint.key), asked, self._evidence)]
        if may_serve and not has_share:
            reasons.append(self._no_share(endpoint))
        if vip is not None and not is_served:
            text = "no port of its service is served on this worker"
            reasons.append(Reason(Cause.NOT_PROGRAMMED, text, "see the reasons at the ports"))
        if may_serve and has_share and not serving:
            remedy = "see what the data plane refused, below" if self._evidence.observed.failures else None
            reasons.append(Reason(Cause.NOT_PROGRAMMED, "it is being programmed: the data plane lacks it yet", remedy))
        if vip is not None and not is_same_family(endpoint, vip):
            text = f"it is not of the address family of {vip}, and the kernel cannot translate between the families"
            reasons.append(Reason(Cause.OTHER_FAMILY, text, _OF_THE_FAMILY))
        if self._is_behind_drop(service, endpoint):
            text = f"a firewall on {endpoint.worker} drops what other workers send to it"
            reasons.append(Reason(Cause.NOT_ARRIVING, text, "see the line of that worker"))
        address = f"[{endpoint.address}]" if ":" in endpoint.address else endpoint.address
        return EndpointStep(
            id=endpoint.id,
            name=endpoint.name,
            worker=endpoint.worker,
            address=address if endpoint.port is None else f"{address}:{endpoint.port}",
            release=endpoint.release,
            serving=serving,
            probe=None if asked is None else describe_probe(*asked),
            last_probe=describe_last_probe(endpoint.key, self._evidence),
            why_not=() if serving else tuple(reasons),
            in_spite_of=tuple(reasons) if serving else (),
            weight_from=endpoint.weight_from.value,
            since=self._since(endpoint),
            drained_by=drained_by(endpoint.key, self._past) if endpoint.drain in _BY_OPERATORS else None,
            slow_start=self._ramp(endpoint),
        )

    def _ramp(self, endpoint: Endpoint) -> str | None:
        """Return in words how far an endpoint is that ramps; None if it does not."""
        ramp = self._slow_starts.ramp_of(endpoint)
        if ramp is None:
            return None
        return f"slow start: {ramp.percent} % of its weight, all of it at {utc_time(ramp.until)}"

    def _no_share(self, endpoint: Endpoint) -> Reason:
        """Return the reason why the shares of releases leave nothing to an endpoint that would serve."""
        shares = self._shared.given(endpoint.owner)
        whose = f"release {endpoint.release}" if endpoint.release else "the endpoints without a release"
        by = f", given by {shares.by}" if shares.by else ""
        is_given = (endpoint.release or "") in shares.given
        text = f"the share of {whose} is 0 %" if is_given else f"the shares of other releases leave {whose} nothing"
        remedy = f"type `vipmesh rollout share {endpoint.owner} reset`, or give it a share"
        return Reason(Cause.NO_SHARE, text + by, remedy)

    def _since(self, endpoint: Endpoint) -> str | None:
        """Return since when the endpoint is in its state; None if that is not known."""
        since = self._evidence.observed.since.get(endpoint.key)
        return None if since is None or not self._past.now else describe_time(since, self._past.now)


def _own_port(
    service: Service, endpoint: Endpoint, published: bool, key: VirtualKey, container_port: int
) -> int | None:
    """Return the endpoint's container port behind a virtual server; None if its own labels lead none there."""
    if published:
        return published_port(service, endpoint, key.transport, key.port, container_port)
    return routed_port(endpoint, key.transport, key.port, container_port)


def _real_servers(
    scheduler: Scheduler, reals: Mapping[RealKey, RealServer], places: Mapping[RealKey, Endpoint]
) -> Iterable[RealServerStep]:
    """Yield the real servers in order of their address, with their share of new connections."""
    most = 1 if scheduler is Scheduler.RR else math.inf  # round robin only leaves out weight 0
    weighs = {real: min(server.weight, most) for real, server in reals.items()}
    whole = sum(weighs.values())
    for real, server in sorted(reals.items()):
        endpoint = places.get(real)
        share = weighs[real] / whole if whole else 0.0
        yield RealServerStep(endpoint.id if endpoint else str(real), str(real), server.weight, share)
