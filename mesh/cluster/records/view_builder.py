"""The records of the store -> one picture after another, each made from what has changed since the last.

Among ten thousand endpoints a verdict changes; to look at all records for it would take tens of milliseconds on every
worker, and that is what the change would wait for. So the reader keeps what the records said and puts right what a
changed record touches. Whatever a picture has in common with the last one is the same object in both: the plan, the
probes and the names compare by identity first. Whichever way a picture is reached, it is the same picture. Pure.
"""

from bisect import bisect_left
from collections.abc import Mapping
from typing import TypeAlias

from mesh.cluster.records.decode import (
    DaemonPresence,
    EndpointVerdict,
    NameClaim,
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
from mesh.model.persistent_map import PersistentMap
from mesh.model.problem import Problem, Severity
from mesh.model.service import Address, Endpoint, EndpointKey, Name, Service, Transport
from mesh.model.view import ClusterView, EndpointGroup, group_endpoints

_ClaimFact: TypeAlias = ServiceVipClaim | VipHolderClaim | NameClaim | PortClaim
_EndpointOrder: TypeAlias = tuple[str, str]
"""Id and worker of an endpoint: what pictures are ordered by."""

_FEW = 50
"""So many endpoints that come and go are sorted in one by one; with more of them all are sorted anew."""


class ViewBuilder:
    """Of one store. A record that has not changed is not decoded again and stays the same object."""

    # Over 12 attributes: one index for each question that a view answers. All of them follow the same records and
    # change together with each record; claims and verdicts, which need no other index, are in `_ClaimRecords` and
    # `RecordVerdicts`.

    def __init__(self) -> None:
        self._known: dict[str, tuple[bytes, RecordFact | Problem | None]] = {}
        self._claims = _ClaimRecords()
        self._declared: dict[str, dict[str, ServiceDeclaration]] = {}
        """By owner and key."""
        self._first: dict[str, Service] = {}
        """By owner: the declaration that counts."""
        self._broken: dict[str, Problem] = {}
        self._conflicts: dict[str, dict[str, Problem]] = {}
        """By owner and key."""
        self._by_key: PersistentMap[EndpointKey, Endpoint] = PersistentMap()
        self._order: list[_EndpointOrder] = []
        self._ordered: list[Endpoint] = []
        self._members: dict[str, dict[_EndpointOrder, Endpoint]] = {}
        """By owner."""
        self._words = RecordVerdicts()
        self._groups: PersistentMap[str, EndpointGroup] = PersistentMap()
        self._view = ClusterView(health=self._words.health).with_index(self._groups)
        self._problems: tuple[Problem, ...] = ()
        self._touched = _ChangedParts()

    def view(self, records: Mapping[str, bytes]) -> tuple[ClusterView, tuple[Problem, ...]]:
        """The picture of exactly these records, and what could not be understood."""
        known = self._known
        changes: dict[str, bytes | None] = {k: v for k, v in records.items() if k not in known or known[k][0] != v}
        return self.follow(changes | dict.fromkeys(known.keys() - records.keys()))

    def follow(self, changes: Mapping[str, bytes | None]) -> tuple[ClusterView, tuple[Problem, ...]]:
        """The picture after these records have become what is given here; None: there is no such record any more."""
        for where, value in changes.items():
            before = self._known.get(where)
            if (None if before is None else before[0]) == value:
                continue
            if before is not None:
                del self._known[where]
                self._drop(where, before[1])
            if value is not None:
                fact = decode_record(where, value, None if before is None else before[1])
                self._known[where] = (value, fact)
                self._take(where, fact)
        if self._touched.anything:
            self._view = self._picture()
            self._touched = _ChangedParts()
        return self._view, self._problems

    # --------------------------------------------------------------------------------------- one record at a time

    def _take(self, where: str, fact: RecordFact | Problem | None) -> None:
        self._touch(fact, is_there=True)
        match fact:
            case Endpoint():
                self._members.setdefault(fact.owner, {})[_place(fact)] = fact
            case EndpointVerdict() | DaemonPresence():
                self._words.take(where, fact)
            case ServiceDeclaration(_, service):
                self._declared.setdefault(service.owner, {})[where] = fact
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
                del self._members[fact.owner][_place(fact)]
            case EndpointVerdict() | DaemonPresence():
                self._words.drop(where, fact)
            case ServiceDeclaration(_, service):
                del self._declared[service.owner][where]
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
            case EndpointVerdict() | DaemonPresence():
                pass  # the words themselves know
            case ServiceDeclaration(_, service):
                touched.owners.add(service.owner)
            case Problem():
                touched.problems = True
            case None:
                pass
            case _:
                touched.claims = True

    # -------------------------------------------------------------------------------------- what follows from them

    def _picture(self) -> ClusterView:
        touched, before = self._touched, self._view
        claims = self._claims.picture(before.claims) if touched.claims else before.claims
        services = self._services() if touched.owners else before.services
        if touched.problems or touched.owners:
            told = {**self._broken, **{k: p for each in self._conflicts.values() for k, p in each.items()}}
            self._problems = tuple(told[where] for where in sorted(told))
        endpoints = self._endpoints_in_order() if touched.endpoints else before.endpoints
        changed = self._words.settle()
        owners = touched.groups | {e.owner for key in changed if (e := self._by_key.get(key)) is not None}
        self._groups = self._groups.changed({owner: self._grouped(owner) for owner in owners})
        view = ClusterView(services, endpoints, claims)
        return self._words.told(view, before).with_index(self._groups, self._by_key)

    def _services(self) -> tuple[Service, ...]:
        moved = False
        for owner in self._touched.owners:
            declared = self._declared[owner]
            self._conflicts.pop(owner, None)
            if not declared:
                del self._declared[owner]
                moved |= self._first.pop(owner, None) is not None
                continue
            first = declared[min(declared)]
            if self._first.get(owner) != first.service:
                self._first[owner] = first.service
                moved = True
            conflicts = {w: _conflict(first, d) for w, d in declared.items() if d.service != first.service}
            if conflicts:
                self._conflicts[owner] = conflicts
        return tuple(self._first[owner] for owner in sorted(self._first)) if moved else self._view.services

    def _endpoints_in_order(self) -> tuple[Endpoint, ...]:
        touched = self._touched.endpoints
        self._by_key = self._by_key.changed(touched)
        if len(touched) > _FEW:
            self._ordered = sorted(self._by_key.values(), key=_place)
            self._order = [_place(endpoint) for endpoint in self._ordered]
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
            return group_endpoints((members[place] for place in sorted(members)), self._words.health)
        del self._members[owner]
        return None


class _ChangedParts:
    """What the next picture has to be made anew of."""

    def __init__(self) -> None:
        self.anything = self.claims = self.problems = False
        self.owners: set[str] = set()
        """Of services."""
        self.endpoints: dict[EndpointKey, Endpoint | None] = {}
        """None: gone."""
        self.groups: set[str] = set()
        """Owners of endpoints that came, went or changed."""


class _ClaimRecords:
    """What they are now. Each is one record's: `decode_record` knows one spelling of a key."""

    def __init__(self) -> None:
        self._vips: dict[Name, Address] = {}
        self._owners: dict[Name, str] = {}
        self._ports: dict[tuple[Transport, int], tuple[Name, int]] = {}
        self._holders: dict[Address, Name] = {}

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

    def picture(self, before: Claims) -> Claims:
        now = Claims(dict(self._vips), dict(self._owners), dict(self._ports), dict(self._holders))
        return before if now == before else now


def _place(endpoint: Endpoint) -> _EndpointOrder:
    return endpoint.id, endpoint.worker


def _conflict(first: ServiceDeclaration, other: ServiceDeclaration) -> Problem:
    return Problem(
        Code.LABELS_DIFFER_BETWEEN_INSTANCES,
        Severity.WARNING,
        f"service {first.service.owner}",
        f"worker {other.worker} declares it otherwise than worker {first.worker}, whose labels count",
        "give it the same labels on all workers",
    )
