"""Builds the cluster view from the records of the store, incrementally.

If one verdict among ten thousand endpoints changes, reading all records would take tens of milliseconds on every worker
and delay the change by as much. So the builder keeps the decoded records and updates what a changed record touches.
Parts that a view has in common with the last one are the same objects: plan, probes and names compare by identity
first. A view does not depend on the order of changes that led to it. Pure.
"""

from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import TypeAlias

from mesh.cluster.records.declarations import (
    InstanceDeclaration,
    Standing,
    choose_declaration,
    difference_problems,
    standing_of,
)
from mesh.cluster.records.decode import (
    DaemonPresence,
    DeclarationClaim,
    EndpointVerdict,
    NameClaim,
    OlderNames,
    PortClaim,
    RecordFact,
    ServiceDeclaration,
    ServiceVipClaim,
    VipHolderClaim,
    decode_record,
)
from mesh.cluster.records.verdicts import RecordVerdicts
from mesh.model.claims import Claims
from mesh.model.codes import Code
from mesh.model.persistent_map import PersistentMap, changed_keys
from mesh.model.problem import Problem, Severity
from mesh.model.release_rollout import ReleaseRollout
from mesh.model.release_shares import ReleaseShares
from mesh.model.service import Address, Endpoint, EndpointKey, Name, Service, Transport
from mesh.model.view import ClusterView, EndpointGroup, group_endpoints

_ClaimFact: TypeAlias = ServiceVipClaim | VipHolderClaim | NameClaim | OlderNames | PortClaim | DeclarationClaim
_EndpointOrder: TypeAlias = tuple[str, str]
"""The ID and worker of an endpoint: the order of endpoints in a view."""

_FEW = 50
"""Up to this many changed endpoints are inserted one by one; for more of them all endpoints are sorted again."""


class ViewBuilder:
    """Builds the views of one store. A record that has not changed is not decoded again and stays the same object."""

    # Over 12 attributes: one index for each question that a view answers. All of them follow the same records and
    # change together with each record; claims and verdicts, which need no other index, are in `_ClaimRecords` and
    # `RecordVerdicts`.

    def __init__(self, refusal: Callable[[Endpoint], str | None] = lambda _: None) -> None:
        """`refusal` says why an endpoint may not be used by the reader of this view; None if it may."""
        self._refusal = refusal
        self._refused: dict[str, Endpoint] = {}
        """Endpoints that are not used, by key."""
        self._known: dict[str, tuple[bytes, RecordFact | Problem | None]] = {}
        self._claims = _ClaimRecords()
        self._declared: dict[str, dict[str, ServiceDeclaration]] = {}
        """The declarations by owner and key."""
        self._first: dict[str, Service] = {}
        """The declaration in force, by owner."""
        self._broken: dict[str, Problem] = {}
        self._mixed: set[str] = set()
        """Owners of services whose instances declare different things."""
        self._differences: dict[str, list[Problem]] = {}
        """The problems of differing declarations, by owner."""
        self._by_key: PersistentMap[EndpointKey, Endpoint] = PersistentMap()
        self._order: list[_EndpointOrder] = []
        self._ordered: list[Endpoint] = []
        self._members: dict[str, dict[_EndpointOrder, Endpoint]] = {}
        """The endpoints by owner, as in their records."""
        self._verdicts = RecordVerdicts()
        self._groups: PersistentMap[str, EndpointGroup] = PersistentMap()
        self._shares: PersistentMap[str, ReleaseShares] = PersistentMap()
        self._rollouts: PersistentMap[str, ReleaseRollout] = PersistentMap()
        self._view = ClusterView(health=self._verdicts.health, shares=self._shares).with_index(self._groups)
        self._problems: tuple[Problem, ...] = ()
        self._touched = _ChangedParts()

    def view(self, records: Mapping[str, bytes]) -> tuple[ClusterView, tuple[Problem, ...]]:
        """The view of exactly these records, and the problems of records that could not be decoded."""
        known = self._known
        changes: dict[str, bytes | None] = {k: v for k, v in records.items() if k not in known or known[k][0] != v}
        return self.follow(changes | dict.fromkeys(known.keys() - records.keys()))

    def follow(self, changes: Mapping[str, bytes | None]) -> tuple[ClusterView, tuple[Problem, ...]]:
        """The view after these records have changed to the given values; None for a record that was removed."""
        for where, value in changes.items():
            before = self._known.get(where)
            if (None if before is None else before[0]) == value:
                continue
            if before is not None:
                self._refused.pop(where, None)
                del self._known[where]
                self._drop(where, before[1])
            if value is not None:
                fact = self._permitted(where, decode_record(where, value, None if before is None else before[1]))
                self._known[where] = (value, fact)
                self._take(where, fact)
        if self._touched.anything:
            self._view = self._build_view()
            self._touched = _ChangedParts()
        return self._view, self._problems

    # --------------------------------------------------------------------------------------- one record at a time

    def endpoints(self) -> Iterator[Endpoint]:
        """Yield all endpoints, those that are not used too."""
        yield from self._by_key.values()
        yield from self._refused.values()

    def _permitted(self, where: str, fact: RecordFact | Problem | None) -> RecordFact | Problem | None:
        """The fact, or a problem instead of an endpoint that may not be used."""
        if not isinstance(fact, Endpoint) or (reason := self._refusal(fact)) is None:
            return fact
        self._refused[where] = fact
        remedy = "register it at an address that every worker reaches, or delete the record if nobody knows it"
        return Problem(
            Code.ENDPOINT_NOT_PERMITTED, Severity.WARNING, f"record {where}", f"not used here: {reason}", remedy
        )

    def _take(self, where: str, fact: RecordFact | Problem | None) -> None:
        self._touch(fact, is_there=True)
        match fact:
            case Endpoint():
                self._members.setdefault(fact.owner, {})[_order_key(fact)] = fact
            case EndpointVerdict() | DaemonPresence():
                self._verdicts.take(where, fact)
            case ServiceDeclaration(_, service):
                self._declared.setdefault(service.owner, {})[where] = fact
            case ReleaseShares():
                self._shares = self._shares.changed({fact.owner: fact})
            case ReleaseRollout():
                self._rollouts = self._rollouts.changed({fact.owner: fact})
            case Problem():
                self._broken[where] = fact
            case None:
                pass
            case _:
                self._claims.take(fact)

    def _drop(self, where: str, fact: RecordFact | Problem | None) -> None:
        self._touch(fact, is_there=False)
        match fact:
            case Endpoint():
                del self._members[fact.owner][_order_key(fact)]
            case EndpointVerdict() | DaemonPresence():
                self._verdicts.drop(where, fact)
            case ServiceDeclaration(_, service):
                del self._declared[service.owner][where]
            case ReleaseShares():
                self._shares = self._shares.changed({fact.owner: None})
            case ReleaseRollout():
                self._rollouts = self._rollouts.changed({fact.owner: None})
            case Problem():
                del self._broken[where]
            case None:
                pass
            case _:
                self._claims.drop(fact)

    def _touch(self, fact: RecordFact | Problem | None, *, is_there: bool) -> None:
        touched = self._touched
        touched.anything = True
        match fact:
            case Endpoint():
                touched.endpoints[fact.key] = fact if is_there else None
                touched.groups.add(fact.owner)
                self._verdicts.touch(fact.key)
            case EndpointVerdict() | DaemonPresence() | ReleaseShares() | ReleaseRollout():
                pass  # verdicts track their own changes, and nothing is indexed by shares or rollouts
            case ServiceDeclaration(_, service):
                touched.owners.add(service.owner)
            case Problem():
                touched.problems = True
            case None:
                pass
            case _:
                touched.claims = True

    # -------------------------------------------------------------------------------------- what follows from them

    def _build_view(self) -> ClusterView:
        touched, before = self._touched, self._view
        claims = self._claims.claims(before.claims) if touched.claims else before.claims
        self._by_key = self._by_key.changed(touched.endpoints)
        judged = self._verdicts.settle(self._by_key)
        owners = touched.groups | {e.owner for key in judged if (e := self._by_key.get(key)) is not None}
        other_claims = changed_keys(before.claims.declarations, claims.declarations) if touched.claims else set()
        # Verdicts and claims decide only where there is a choice.
        undecided = touched.owners | touched.groups
        if self._mixed:
            kept = (self._by_key.get(key) for key in self._verdicts.kept_otherwise)
            undecided |= (owners | other_claims | {e.owner for e in kept if e is not None}) & self._mixed
        services = self._services(undecided, claims) if undecided else before.services
        if touched.problems or undecided:
            differences = [problem for owner in sorted(self._differences) for problem in self._differences[owner]]
            self._problems = (*(self._broken[where] for where in sorted(self._broken)), *differences)
        endpoints = self._endpoints_in_order() if touched.endpoints else before.endpoints
        groups = {owner: self._grouped(owner) for owner in owners | touched.groups}
        self._groups = self._groups.changed(groups)
        view = ClusterView(services, endpoints, claims, shares=self._shares, rollouts=self._rollouts)
        return self._verdicts.applied_to(view, before).with_index(self._groups, self._by_key)

    def _services(self, owners: set[str], claims: Claims) -> tuple[Service, ...]:
        """Decide which declarations of these owners are in force."""
        moved = False
        for owner in owners:
            before = self._first.get(owner)
            service = self._decide(owner, claims.declarations.get(owner))
            if service is None:
                moved |= self._first.pop(owner, None) is not None
            elif service != before:
                self._first[owner] = service
                moved = True
        return tuple(self._first[owner] for owner in sorted(self._first)) if moved else self._view.services

    def _decide(self, owner: str, before: Service | None) -> Service | None:
        """The declaration in force of one service, None if no worker has declared it. Its endpoints and its problems
        are updated. `before` is the declaration that has been in force, None if that is not known.
        """
        records = self._declared.get(owner, {})
        if not records:
            self._declared.pop(owner, None)
        by_worker = {record.worker: record.service for record in records.values()}
        members = self._members.get(owner, {})
        self._differences.pop(owner, None)
        if not by_worker or (_are_equal(by_worker.values()) and all(e.declared is None for e in members.values())):
            if owner in self._mixed:
                self._mixed.discard(owner)
                for endpoint in members.values():
                    self._set_endpoint(endpoint)
            return next(iter(by_worker.values()), None)
        self._mixed.add(owner)
        instances = self._instances(by_worker, members.values())
        service = choose_declaration(instances, before)
        for endpoint in members.values():
            own = endpoint.declared or by_worker.get(endpoint.worker)
            self._set_endpoint(endpoint.with_declared(None if own == service else own))
        if differences := difference_problems(instances, service):
            self._differences[owner] = differences
        return service

    def _instances(self, by_worker: Mapping[str, Service], members: Iterable[Endpoint]) -> list[InstanceDeclaration]:
        """What the instances of a service declare. A record of a worker without instances stands for itself."""
        found = []
        for endpoint in members:
            own = endpoint.declared or by_worker.get(endpoint.worker)
            if own is not None:
                verdict = self._verdicts.health.get(endpoint.key)
                standing = standing_of(endpoint, own, verdict, self._verdicts.is_kept(endpoint.key))
                who = f"instance {endpoint.name or endpoint.id} of worker {endpoint.worker}"
                found.append(InstanceDeclaration(own, standing, who, endpoint.release or ""))
        idle = by_worker.keys() - {endpoint.worker for endpoint in members}
        return found + [
            InstanceDeclaration(by_worker[worker], Standing.WITHOUT_INSTANCE, f"worker {worker}")
            for worker in sorted(idle)
        ]

    def _set_endpoint(self, endpoint: Endpoint) -> None:
        """Put an endpoint into the view in this form; one that is equal stays the same object."""
        if self._by_key.get(endpoint.key) != endpoint:
            self._by_key = self._by_key.changed({endpoint.key: endpoint})
            self._touched.endpoints[endpoint.key] = endpoint
            self._touched.groups.add(endpoint.owner)

    def _endpoints_in_order(self) -> tuple[Endpoint, ...]:
        touched = self._touched.endpoints
        if len(touched) > _FEW:
            self._ordered = sorted(self._by_key.values(), key=_order_key)
            self._order = [_order_key(endpoint) for endpoint in self._ordered]
            return tuple(self._ordered)
        for (worker, id), endpoint in touched.items():
            place = id, worker
            at = bisect_left(self._order, place)
            known = at < len(self._order) and self._order[at] == place
            if endpoint is None:
                if known:
                    del self._order[at]
                    del self._ordered[at]
            elif known:
                self._ordered[at] = endpoint
            else:
                self._order.insert(at, place)
                self._ordered.insert(at, endpoint)
        return tuple(self._ordered)

    def _grouped(self, owner: str) -> EndpointGroup | None:
        members = self._members[owner]
        if members:
            if owner in self._mixed:
                ordered = [self._by_key[worker, id] for id, worker in sorted(members)]
            else:
                ordered = [members[place] for place in sorted(members)]
            return group_endpoints(ordered, self._verdicts.health)
        del self._members[owner]
        return None


class _ChangedParts:
    """The parts that the next view must compute again."""

    def __init__(self) -> None:
        self.anything = self.claims = self.problems = False
        self.owners: set[str] = set()
        """Owners of services."""
        self.endpoints: dict[EndpointKey, Endpoint | None] = {}
        """Changed endpoints; None for one that was removed."""
        self.groups: set[str] = set()
        """Owners of endpoints that were added, removed or changed."""


class _ClaimRecords:
    """The current claims. Each key belongs to one record, since `decode_record` accepts one spelling of a key."""

    def __init__(self) -> None:
        self._vips: dict[Name, Address] = {}
        self._owners: dict[Name, str] = {}
        self._ports: dict[tuple[Transport, int], tuple[Name, int]] = {}
        self._holders: dict[Address, Name] = {}
        self._older_names: frozenset[Name] | None = None
        self._declarations: dict[str, Service] = {}

    def take(self, claim: _ClaimFact) -> None:
        match claim:
            case ServiceVipClaim(name, vip):
                self._vips[name] = vip
            case VipHolderClaim(vip, name):
                self._holders[vip] = name
            case NameClaim(name, owner):
                self._owners[name] = owner
            case PortClaim(port, leads_to):
                self._ports[port] = leads_to
            case DeclarationClaim(service):
                self._declarations[service.owner] = service
            case OlderNames(names):
                self._older_names = names

    def drop(self, claim: _ClaimFact) -> None:
        match claim:
            case ServiceVipClaim(name, _):
                del self._vips[name]
            case VipHolderClaim(vip, _):
                del self._holders[vip]
            case NameClaim(name, _):
                del self._owners[name]
            case PortClaim(port, _):
                del self._ports[port]
            case DeclarationClaim(service):
                del self._declarations[service.owner]
            case OlderNames():
                self._older_names = None

    def claims(self, before: Claims) -> Claims:
        held = dict(self._vips), dict(self._owners), dict(self._ports), dict(self._holders)
        now = Claims(*held, self._older_names, declarations=dict(self._declarations))
        return before if now == before else now


def _order_key(endpoint: Endpoint) -> _EndpointOrder:
    return endpoint.id, endpoint.worker


def _are_equal(services: Iterable[Service]) -> bool:
    first, *others = services
    return all(other is first or other == first for other in others)
