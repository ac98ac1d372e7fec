"""Detects that the record of a claim was rewritten although its owner runs, and says when to put it back. Pure.

Whoever can write the store could give the name, VIP or published port of a running service to another one. So each
worker remembers the claims of the services that it runs. If a record changes, it is put back as it was, after a pause
that doubles with each time. Some changes are as they must be: a name that an operator has moved, a VIP that the label
`routing.vip` asks for, and whatever happened while this worker could not see the store for so long that its services
counted as gone.
"""

from collections.abc import Collection, Container, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import TypeAlias

from mesh.cluster.records.decode import (
    NameClaim,
    PortClaim,
    ServiceDeclaration,
    ServiceVipClaim,
    VipHolderClaim,
    decode_record,
    moved_from,
    record_key,
)
from mesh.model.claims import Claims
from mesh.model.codes import Code
from mesh.model.problem import Problem, Severity
from mesh.model.service import Name, Service

FIRST_PAUSE, LONGEST_PAUSE = 1.0, 60.0
"""Seconds between the first and the second time that a record is put back, and the most seconds between two times."""
REPORTED = 600.0
"""Seconds for which a record that was rewritten is reported, and after which its pauses begin again."""

_ClaimFact: TypeAlias = NameClaim | ServiceVipClaim | VipHolderClaim | PortClaim


@dataclass(frozen=True, slots=True)
class _HeldClaim:
    """A claim of a service that this worker runs."""

    owner: str
    name: Name
    """The service name."""
    fact: _ClaimFact
    value: bytes
    """The record, with fields that only newer versions know."""


@dataclass(slots=True)
class _Rewriting:
    """What became of one record that was rewritten."""

    problem: Problem
    there: bytes | None
    """The value that it has instead; None if it was deleted."""
    since: float
    """When it was rewritten last."""
    due: float
    """When it may be put back."""
    pause: float = FIRST_PAUSE
    """Seconds until the time after the next one."""
    is_open: bool = True
    """Whether it is to be put back."""


@dataclass(frozen=True, slots=True)
class Restoration:
    """A record to put back."""

    key: str
    there: bytes | None
    """The value that it has now; None if it was deleted."""
    value: bytes


class ClaimGuard:
    """Remembers the claims of the services that this worker runs. `now` is in seconds."""

    def __init__(self) -> None:
        self._services: Mapping[str, Service] = {}
        """The services that this worker runs, by owner."""
        self._counting: Mapping[str, Service] = {}
        """The declarations that count in the cluster, by owner. They may be of another worker and differ."""
        self._held: dict[str, _HeldClaim] = {}
        """By key."""
        self._rewritten: dict[str, _Rewriting] = {}
        """By key; the ones that were put back lately, too."""
        self._learned: tuple[object, object] | None = None
        """The services and claims of the view that was learned last; None if nothing of it counts."""
        self._unlearned: set[str] = set()
        """Owners of services of whose claims something is still to be learned from that view."""

    def forget(self) -> None:
        """Forget all claims: what the store holds now counts."""
        self._learned = None
        self._held = {}
        self._rewritten = {}

    def offer(self, services: Iterable[Service]) -> None:
        """Replace the services that this worker runs."""
        before, self._services = self._services, {service.owner: service for service in services}
        owners = before.keys() | self._services.keys()
        changed = {owner for owner in owners if before.get(owner) != self._services.get(owner)}
        self._unlearned = (self._unlearned | changed) & self._services.keys()
        self._drop_undeclared(changed)

    def _drop_undeclared(self, owners: Container[str]) -> None:
        self._held = {
            k: claim for k, claim in self._held.items() if claim.owner not in owners or self._is_declared(claim)
        }
        self._rewritten = {key: each for key, each in self._rewritten.items() if key in self._held}

    def learn(self, services: Iterable[Service], claims: Claims, records: Mapping[str, bytes]) -> None:
        """Take the services and claims of the newest view. What the newest `records` of the store do not say is not
        learned.
        """
        # Most views differ in endpoints and verdicts alone.
        if self._learned is None or self._learned[0] is not services or self._learned[1] is not claims:
            self._unlearned = set(self._services)
        if not self._unlearned:
            return
        learning = self._unlearned & self._services.keys()
        self._learned, self._unlearned = (services, claims), set()
        self._counting = {service.owner: service for service in services if service.owner in self._services}
        self._drop_undeclared(learning)
        for key, owner, name, fact in self._own_claims(claims, learning):
            if key in self._held:
                continue
            there = records.get(key)
            by_name = record_key("claims", "names", name)
            # The view may be older than a move of the service's name, with which its VIP and ports have moved.
            is_held = by_name in records and decode_record(by_name, records[by_name]) == NameClaim(name, owner)
            if there is not None and decode_record(key, there) == fact and (is_held or isinstance(fact, NameClaim)):
                self._held[key] = _HeldClaim(owner, name, fact, there)
            else:
                self._unlearned.add(owner)  # the records that say so are still to come

    def follow(self, records: Mapping[str, bytes], changed: Iterable[str] | None, now: float) -> None:
        """Take the newest records; `changed` are the keys that may differ from the last ones, None: any of them."""
        for key in list(self._held) if changed is None else [key for key in changed if key in self._held]:
            if key in self._held:  # a name that was moved takes other claims with it
                self._compare(key, self._held[key], records, now)

    def restorations(self, now: float) -> list[Restoration]:
        """The records to put back now. The next time that one of them is rewritten, it waits for longer."""
        due: list[Restoration] = []
        for key, each in self._rewritten.items():
            if each.is_open and each.due <= now:
                due.append(Restoration(key, each.there, self._held[key].value))
                each.due, each.pause = now + each.pause, min(2 * each.pause, LONGEST_PAUSE)
        return due

    def next_look(self, now: float) -> float | None:
        """Drop what was put back long ago. Return the seconds until something is due; None if nothing will be."""
        for key, each in list(self._rewritten.items()):
            if not each.is_open and now - each.since >= REPORTED:
                del self._rewritten[key]
        times = [each.due if each.is_open else each.since + REPORTED for each in self._rewritten.values()]
        return max(min(times) - now, 0.0) if times else None

    def problems(self) -> tuple[Problem, ...]:
        """The records that were rewritten lately, whether they are put back by now or not."""
        return tuple(self._rewritten[key].problem for key in sorted(self._rewritten))

    @property
    def contested(self) -> frozenset[str]:
        """Owners of services with a record that is not put back yet: nothing is to be claimed for them meanwhile."""
        return frozenset(self._held[key].owner for key, each in self._rewritten.items() if each.is_open)

    def _compare(self, key: str, claim: _HeldClaim, records: Mapping[str, bytes], now: float) -> None:
        there = records.get(key)
        fact = None if there is None else decode_record(key, there)
        known = self._rewritten.get(key)
        if there is not None and fact == claim.fact:
            self._held[key] = replace(claim, value=there)
            if known is not None:
                known.is_open = False
        elif there is not None and _is_intended(claim, fact, there, records):
            self._drop(key, claim)
        elif known is None:
            self._rewritten[key] = _Rewriting(_problem(claim, fact), there, now, now)
        else:
            known.problem, known.there, known.since, known.is_open = _problem(claim, fact), there, now, True

    def _drop(self, key: str, claim: _HeldClaim) -> None:
        """Forget a claim; with the first name of a service, its VIP and ports too, which belong to that name."""
        self._unlearned.add(claim.owner)
        gone = {key}
        if isinstance(claim.fact, NameClaim) and claim.fact.name == claim.name:
            gone |= {other for other, each in self._held.items() if each.owner == claim.owner and _is_of_name(each)}
        self._held = {other: each for other, each in self._held.items() if other not in gone}
        self._rewritten = {other: each for other, each in self._rewritten.items() if other not in gone}

    def _is_declared(self, claim: _HeldClaim) -> bool:
        """Whether a service that this worker runs declares the claim, and the declaration that counts does, too."""
        service = self._services.get(claim.owner)
        return (
            service is not None
            and _declares(service, claim)
            and _declares(self._counting.get(claim.owner, service), claim)
        )

    def _own_claims(self, claims: Claims, owners: Collection[str]) -> Iterator[tuple[str, str, Name, _ClaimFact]]:
        """Yield the claims of services that this worker runs, of these owners: key, owner, service name and meaning."""
        own = {owner: self._services[owner] for owner in owners}
        names = {s.name: s.owner for s in own.values() if claims.owners.get(s.name) == s.owner}
        for owner, service in own.items():
            for name in service.names:
                if claims.owners.get(name) == owner:
                    yield record_key("claims", "names", name), owner, service.name, NameClaim(name, owner)
            vip = claims.vips.get(service.name)
            if vip is not None and service.name in names:
                yield (
                    record_key("claims", "services", service.name),
                    owner,
                    service.name,
                    ServiceVipClaim(service.name, vip),
                )
                yield record_key("claims", "vips", vip), owner, service.name, VipHolderClaim(vip, service.name)
        for (transport, port), leads_to in claims.ports.items():
            holder = names.get(leads_to[0])
            if holder is not None:
                fact = PortClaim((transport, port), leads_to)
                key = record_key("claims", "ports", transport, str(port))
                if self._is_declared(_HeldClaim(holder, leads_to[0], fact, b"")):
                    yield key, holder, leads_to[0], fact


def _declares(service: Service, claim: _HeldClaim) -> bool:
    if service.name != claim.name:
        return False
    match claim.fact:
        case NameClaim(name, _):
            return name in service.names
        case PortClaim((transport, port), (_, target)):
            return any(
                (each.transport, each.container_port) == (transport, target) and each.port in (None, port)
                for each in service.publishes
            )
    return True


def _is_intended(claim: _HeldClaim, fact: object, there: bytes, records: Mapping[str, bytes]) -> bool:
    """Whether the record was changed by an operator, or because a declaration of the service asks for it."""
    match claim.fact, fact:
        case NameClaim(_, owner), NameClaim():
            return moved_from(there) == owner
        case ServiceVipClaim(), ServiceVipClaim(_, vip):
            return any(service.fixed_vip == vip for service in _declarations(claim.owner, records))
    return False


def _declarations(owner: str, records: Mapping[str, bytes]) -> Iterator[Service]:
    """Yield what each worker declares of the service. It reads the keys of all records: only for a rare change."""
    end = record_key("", "services", owner)
    for key, value in records.items():
        if key.startswith("workers/") and key.endswith(end):
            fact = decode_record(key, value)
            if isinstance(fact, ServiceDeclaration):
                yield fact.service


def _is_of_name(claim: _HeldClaim) -> bool:
    return not isinstance(claim.fact, NameClaim)


def _problem(claim: _HeldClaim, fact: object) -> Problem:
    match claim.fact:
        case NameClaim(name, _):
            what = f"the name {name}"
        case PortClaim((transport, port), _):
            what = f"the published {transport} port {port}"
        case VipHolderClaim(vip, _):
            what = f"the VIP {vip}"
        case _:
            what = f"the VIP {claim.fact.vip}"
    match fact:
        case NameClaim(_, other) | VipHolderClaim(_, other) | PortClaim(_, (other, _)):
            became = f"was given to {other}"
        case ServiceVipClaim(_, vip):
            became = f"was replaced by {vip}"
        case _:
            became = "was deleted or made unreadable"
    return Problem(
        Code.CLAIM_REWRITTEN,
        Severity.ERROR,
        f"service {claim.owner}",
        f"the record of {what} {became} while the service runs; this worker puts it back",
        "find out who writes to the store, and give each worker a role of its own there; "
        "`vipmesh claims move` moves a name on purpose",
        owner=claim.owner,
    )
