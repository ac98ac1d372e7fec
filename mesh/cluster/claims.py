"""Decides the VIP, the routing names and the published ports of each service.

A pure function from the declared services and the existing claims to the missing claims, the wishes. Every worker
computes the same wishes; the store's transactions decide a race, and a worker that loses reads and decides again.

* A VIP is chosen by a hash of the service's name, or the next free address if that is taken: the choice depends neither
  on the order of the services nor on the worker. The first host address is reserved for the resolver.
* A name belongs to the first owner that claimed it (`may_take_over` says when another owner may have it).
* A name outside the allowed domains is refused, unless it was served before there were such domains
  (`mesh.config.name_policy`).
* A service that is removed keeps its VIP and its ports: when it returns, its clients find it at the same address. A
  published port may be taken once no service has declared it for `[claims] keep`. A VIP stays its name's for good; only
  when the pool is full does a new service get the one that is unused for the longest time.
"""

import shlex
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from hashlib import blake2b
from ipaddress import ip_address
from typing import TypeAlias

from mesh.cluster.claim_quotas import QuotaUse
from mesh.config.name_policy import EVERY_NAME, NamePolicy, older_names
from mesh.config.values import Network
from mesh.model.claims import ClaimQuotas, Claims, LapsedClaims
from mesh.model.codes import Code
from mesh.model.problem import Problem, Severity
from mesh.model.service import Address, Name, PortPublication, Service, Transport

DEFAULT_QUOTAS = ClaimQuotas()
"""The quotas of the default settings."""


@dataclass(frozen=True, slots=True)
class ClaimVip:
    """A VIP for a service that has none."""

    name: Name
    address: Address


@dataclass(frozen=True, slots=True)
class MoveVip:
    """Another VIP for a service: its label asks for a VIP that differs from the one that it holds."""

    name: Name
    old: Address
    new: Address


@dataclass(frozen=True, slots=True)
class ClaimName:
    """A routing name without an owner."""

    name: Name
    owner: str


@dataclass(frozen=True, slots=True)
class TakeOverName:
    """A routing name that its holder no longer declares."""

    name: Name
    old_owner: str
    owner: str


@dataclass(frozen=True, slots=True)
class GiveUpName:
    """A routing name that its owner no longer declares, given up for another one: the owner has reached its quota."""

    name: Name
    owner: str


@dataclass(frozen=True, slots=True)
class ClaimPort:
    """A published port."""

    transport: Transport
    port: int
    name: Name
    container_port: int


@dataclass(frozen=True, slots=True)
class TakeOverPort:
    """A published port that no service has declared for a long time."""

    transport: Transport
    port: int
    old: tuple[Name, int]
    """The former service name and container port."""
    name: Name
    container_port: int


@dataclass(frozen=True, slots=True)
class MovePort:
    """Another container port for a published port: the labels of the service that holds it say so."""

    transport: Transport
    port: int
    name: Name
    old_container_port: int
    container_port: int


@dataclass(frozen=True, slots=True)
class TakeBackVip:
    """A VIP for a service that has none, from a name that has not been used for a long time: the pool is full."""

    name: Name
    address: Address
    old_name: Name
    """The name that held the VIP."""


@dataclass(frozen=True, slots=True)
class PutBackVip:
    """The VIP of a service, whose record by address says the name of another one that has a different VIP, or none."""

    name: Name
    address: Address
    wrong_name: Name
    """The name that the record by address has."""


@dataclass(frozen=True, slots=True)
class RecordOlderNames:
    """The names outside the allowed domains that the cluster serves when it first knows such domains."""

    names: tuple[Name, ...]


@dataclass(frozen=True, slots=True)
class RecordDeclaration:
    """The declaration that is in force for a service from now on, without its probe."""

    service: Service
    before: Service | None
    """The one that the store has; None if it has none."""


ClaimRequest: TypeAlias = (
    ClaimVip
    | MoveVip
    | TakeBackVip
    | PutBackVip
    | ClaimName
    | TakeOverName
    | GiveUpName
    | ClaimPort
    | MovePort
    | TakeOverPort
    | RecordOlderNames
    | RecordDeclaration
)


def plan_claims(
    services: Sequence[Service],
    claims: Claims,
    *,
    pool: Network,
    ports: range,
    policy: NamePolicy = EVERY_NAME,
    avoid: Collection[Network] = (),
    quotas: ClaimQuotas = DEFAULT_QUOTAS,
) -> tuple[tuple[ClaimRequest, ...], tuple[Problem, ...]]:
    """The claims to make, in an order that works, and the problems of services whose claims are refused.

    `pool` is the network of the VIPs; `ports` is the range for published ports that ask for `auto`; `policy` says which
    names are allowed. A VIP that is chosen is outside of `avoid`, networks of this worker's host, as long as the pool
    has addresses outside. `quotas` limits new claims.
    """
    tentative = _TentativeClaims(claims, pool, ports, policy, avoid, quotas=quotas)
    ordered = sorted(services, key=lambda service: service.owner)
    tentative.names(ordered)
    # Explicit requests come first: an automatic choice must never take what a label asks for.
    held = [s for s in ordered if tentative.owners.get(s.name) == s.owner]
    for service in sorted(held, key=lambda s: s.fixed_vip is None):
        tentative.vip(service)
    wanted = [(publish, service) for service in held for publish in service.publishes]
    tentative.keep_declared_ports(wanted)
    for publish, service in sorted(wanted, key=lambda pair: pair[0].port is None):
        tentative.port(service, publish)
    return tuple(tentative.wishes), tuple(tentative.problems)


def plan_declarations(services: Iterable[Service], claims: Claims) -> tuple[RecordDeclaration, ...]:
    """The declarations in force that the store does not have yet. `services` are those of the view."""
    recorded = ((service, claims.declarations.get(service.owner)) for service in services)
    return tuple(
        RecordDeclaration(service.shared, before)
        for service, before in recorded
        if before is None or not service.shares_with(before)
    )


def is_for_owners(wish: ClaimRequest, owners: Collection[str], names: Collection[Name]) -> bool:
    """Whether the wish is for one of these services, given by owner and by name."""
    match wish:
        case ClaimName(_, owner) | TakeOverName(_, _, owner) | GiveUpName(_, owner):
            return owner in owners
        case ClaimVip() | MoveVip() | TakeBackVip() | PutBackVip() | ClaimPort() | MovePort() | TakeOverPort():
            return wish.name in names
        case RecordDeclaration(service, _):
            return service.owner in owners
        case RecordOlderNames():
            return True  # whoever comes first: the record is of the whole cluster


def apply_claims(claims: Claims, granted: Iterable[ClaimRequest]) -> Claims:
    """The claims after all of the wishes were granted."""
    vips, owners, ports = dict(claims.vips), dict(claims.owners), dict(claims.ports)
    holders, older = dict(claims.holders), claims.older_names
    declarations = dict(claims.declarations)
    for wish in granted:
        match wish:
            case ClaimVip(name, address) | MoveVip(name, _, address) | PutBackVip(name, address, _):
                vips[name] = address
                holders[address] = name
            case ClaimName(name, owner) | TakeOverName(name, _, owner):
                owners[name] = owner
            case GiveUpName(name, _):
                owners.pop(name, None)
            case TakeBackVip(name, address, old_name):
                vips = {held: vip for held, vip in vips.items() if (held, vip) != (old_name, address)}
                vips[name] = address
                holders[address] = name
            case MovePort(transport, port, name, _, container_port):
                ports[transport, port] = (name, container_port)
            case RecordDeclaration(service, _):
                declarations[service.owner] = service
            case ClaimPort() | TakeOverPort():
                ports[wish.transport, wish.port] = (wish.name, wish.container_port)
            case RecordOlderNames(names):
                older = frozenset(names)
    return Claims(vips, owners, ports, holders, older, claims.lapsed, declarations)


def may_take_over(name: Name, holder: str, owner: str, *, holder_runs: bool, lapsed: LapsedClaims | None) -> bool:
    """Whether a service may have a name that its holder does not declare now.

    Within `[claims] grace`, nobody may: the holder restarts or is updated. Afterwards a service of the same project may
    have it, and any service if the holder runs without it (`holder_runs`): it has given the name up. A holder that is
    gone keeps the name towards services of other projects for `[claims] keep`.
    """
    if lapsed is None or name in lapsed.names:
        return True
    return name in lapsed.released and (holder_runs or _project(holder) == _project(owner))


def _project(owner: str) -> str:
    return owner.rpartition("/")[0]


def claims_in_force(claims: Claims, pool: Network, policy: NamePolicy = EVERY_NAME) -> Claims:
    """The claims without VIPs that no service gets, written by hand or claimed when the pool was another one, and
    without names that the policy refuses; the same object if there are none. The result may be programmed;
    `plan_claims` reports the rest.
    """
    holders = _vip_holders(claims)
    vips = {
        name: vip
        for name, vip in claims.vips.items()
        if is_service_vip(vip, pool) and holders[vip] == name  # else two names would share it
    }
    owners = {name: owner for name, owner in claims.owners.items() if _may_be_served(name, claims, policy)}
    unchanged = len(vips) == len(claims.vips) and len(owners) == len(claims.owners)
    return claims if unchanged else replace(claims, vips=vips, owners=owners)


def _vip_holders(claims: Claims) -> dict[Address, Name]:
    """The name of each VIP. Either record of a VIP reserves it, in case the other one is lost."""
    holders: dict[Address, Name] = {}
    for name, vip in claims.vips.items():
        holders[vip] = min(name, holders.get(vip, name))
    holders.update(claims.holders)
    return holders


def _may_be_served(name: Name, claims: Claims, policy: NamePolicy) -> bool:
    """Whether a name that has an owner is served. Until the older names are recorded, each owned name is one."""
    return claims.older_names is None or name in claims.older_names or policy.refusal(name) is None


@lru_cache(maxsize=1 << 16)  # asked of every VIP whenever one claim is new
def is_service_vip(vip: Address, pool: Network) -> bool:
    """Whether it is in the pool and is not the network's own address, the resolver's after it, or the last one
    (broadcast)."""
    address = ip_address(vip)
    return address in pool and 2 <= int(address) - int(pool.network_address) <= pool.num_addresses - 2


_Span: TypeAlias = tuple[int, int]
"""Neighbouring addresses: the first one as a number, and how many they are."""


def _without(spans: Iterable[_Span], networks: Iterable[Network]) -> Iterator[_Span]:
    """Yield what the networks leave of the spans, in order."""
    taken = sorted((int(network.network_address), int(network.broadcast_address)) for network in networks)
    for first, size in spans:
        at, end = first, first + size
        for low, high in taken:
            if low < end and high >= at:
                if low > at:
                    yield at, low - at
                at = high + 1
        if at < end:
            yield at, end - at


def _nth(spans: Sequence[_Span], number: int) -> int:
    """Return an address by its number among those of all spans, which have so many."""
    for first, size in spans:
        if number < size:
            return first + number
        number -= size
    raise AssertionError("the number is below the sum of the sizes")


class _TentativeClaims:
    """The claims as they would be if every wish so far were granted."""

    # 16 attributes: the claims by what they are looked up by, and the rules of one decision. It ends with the object.

    def __init__(
        self,
        claims: Claims,
        pool: Network,
        ports: range,
        policy: NamePolicy,
        avoid: Collection[Network],
        *,
        quotas: ClaimQuotas,
    ) -> None:
        self.wishes: list[ClaimRequest] = []
        self._older = claims.older_names
        if self._older is None and policy is not EVERY_NAME:
            older = older_names(claims.owners, policy)
            self._older = frozenset(older)
            self.wishes.append(RecordOlderNames(older))
        self._policy = policy
        self.problems: list[Problem] = []
        self.owners = dict(claims.owners)
        self._vips = dict(claims.vips)
        self._holders = _vip_holders(claims)
        self._ports = dict(claims.ports)
        self._published = {(transport, target) for (transport, _), target in claims.ports.items()}
        self._pool = pool
        self._range = ports
        self._avoid = avoid
        self._use = QuotaUse(claims, quotas)
        self._lapsed = claims.lapsed
        self._named: set[Name] = set()
        """The service names that are declared: their VIPs are in use."""
        self._idle = list(reversed(claims.lapsed.idle)) if claims.lapsed is not None else []
        """Names whose VIPs may be taken back, in the reverse order."""
        self._lapsed_ports = set(claims.lapsed.ports) if claims.lapsed is not None else set()
        """Ports that may be taken over."""

    def names(self, services: Sequence[Service]) -> None:
        declared = {(service.owner, name) for service in services for name in service.names}
        running = {service.owner for service in services}
        self._named = {service.name for service in services}
        for service in services:
            for name in service.names:
                holder = self.owners.get(name)
                if not self._is_allowed(service, name, holder):
                    if holder == service.owner:
                        del self.owners[name]
                    continue
                is_declared = holder != service.owner and (holder, name) in declared
                if holder not in (None, service.owner) and (
                    is_declared or not self._gives_up(name, holder, service, running)
                ):
                    self._refuse_name(service, name, holder, is_declared=is_declared)
                elif holder == service.owner or self._claim_name(service, name, holder, declared):
                    self.owners[name] = service.owner

    def _claim_name(
        self, service: Service, name: Name, holder: str | None, declared: Collection[tuple[str, Name]]
    ) -> bool:
        """Wish for a name that nobody declares beside this service; return whether its quota permits that."""
        held = [other for other in service.names if self.owners.get(other) == service.owner]
        refusal = self._use.container_refusal(name, held)
        if refusal is None:
            refusal = self._use.owner_refusal(service.owner, name)
            if refusal is not None and self._give_up_one(service, declared):
                refusal = self._use.owner_refusal(service.owner, name)
        if refusal is not None:
            self._refuse(Code.CLAIM_QUOTA, service, *refusal)
            return False
        self._use.name_granted(service.owner, holder)
        if holder is None:
            self._wish(ClaimName(name, service.owner))
        else:
            self._wish(TakeOverName(name, holder, service.owner))
        return True

    def _give_up_one(self, service: Service, declared: Collection[tuple[str, Name]]) -> bool:
        """Give up the owner's name that is unused for the longest time; return whether it has one past its grace."""
        for name in reversed(self._idle):
            if self.owners.get(name) == service.owner and (service.owner, name) not in declared:
                del self.owners[name]
                self._use.name_given_up(service.owner)
                self._wish(GiveUpName(name, service.owner))
                return True
        return False

    def _gives_up(self, name: Name, holder: str, service: Service, running: Collection[str]) -> bool:
        return may_take_over(name, holder, service.owner, holder_runs=holder in running, lapsed=self._lapsed)

    def _refuse_name(self, service: Service, name: Name, holder: str, *, is_declared: bool) -> None:
        reason, remedy = f"the name {name} is held by {holder}", "give it a name of its own"
        if not is_declared:
            reason = f"{reason}, which does not declare it now"
            command = shlex.join(["vipmesh", "claims", "move", name, service.owner])
            remedy = f"type `{command}` to give it to this service, or {remedy}"
        self._refuse(Code.NAME_TAKEN, service, reason, remedy)

    def _is_allowed(self, service: Service, name: Name, holder: str | None) -> bool:
        """Whether a service may have the name. A name that is older than the policy stays with the one who has it."""
        refusal = self._policy.refusal(name)
        if refusal is None:
            return True
        reason, remedy = refusal
        if self._older is not None and name in self._older and holder == service.owner:
            subject = f"service {service.owner}"
            reason = f"{reason}; it is served because it is older than this rule"
            problem = Problem(Code.NAME_NOT_ALLOWED, Severity.WARNING, subject, reason, remedy, owner=service.owner)
            self.problems.append(problem)
            return True
        self._refuse(Code.NAME_NOT_ALLOWED, service, reason, remedy)
        return False

    def vip(self, service: Service) -> None:
        held = self._vips.get(service.name)
        if held is not None and service.fixed_vip in (None, held) and self._is_disputed(service.name, held):
            self._settle(service, held)
            return
        if service.fixed_vip is None:
            if held is None:
                self._choose(service)
            elif not is_service_vip(held, self._pool):
                self._refuse_vip(service, held, _NOT_THIS_CLAIM)
            return
        other = self._holders.get(service.fixed_vip)
        if not is_service_vip(service.fixed_vip, self._pool):
            self._refuse_vip(service, service.fixed_vip, _ANOTHER_VIP)
        elif held == service.fixed_vip:
            return
        elif other not in (None, service.name):
            self._refuse(Code.VIP_TAKEN, service, f"the VIP {service.fixed_vip} is held by {other}", _ANOTHER_VIP)
        else:
            wish = (
                ClaimVip(service.name, service.fixed_vip)
                if held is None
                else MoveVip(service.name, held, service.fixed_vip)
            )
            self._give(service, wish, service.fixed_vip)

    def _is_disputed(self, name: Name, vip: Address) -> bool:
        """Whether the record by address of a service's VIP has another name: someone else wrote one of the two."""
        return is_service_vip(vip, self._pool) and self._holders[vip] != name

    def _settle(self, service: Service, held: Address) -> None:
        """Give the service its VIP back, or another one if the name in the record by address has that VIP too."""
        other = self._holders[held]
        if self._vips.get(other) != held:
            self._give(service, PutBackVip(service.name, held, other), held)
        elif service.fixed_vip is None:
            self._choose(service, held)
        else:
            self._refuse(Code.VIP_TAKEN, service, f"the VIP {held} is held by {other}", _ANOTHER_VIP)

    def keep_declared_ports(self, wanted: Iterable[tuple[PortPublication, Service]]) -> None:
        """Let no other service take a port that its holder declares."""
        declared = {(publish.transport, (service.name, publish.container_port)) for publish, service in wanted}
        self._lapsed_ports = {key for key in self._lapsed_ports if (key[0], self._ports.get(key)) not in declared}

    def port(self, service: Service, publish: PortPublication) -> None:
        target = (service.name, publish.container_port)
        holder = None if publish.port is None else self._ports.get((publish.transport, publish.port))
        if holder == target or (publish.port is None and (publish.transport, target) in self._published):
            self._use.port_held(service.owner, is_new=False)
        elif publish.port and holder and holder[0] == service.name and not _publishes(service, publish, holder):
            self._use.port_held(service.owner, is_new=False)
            self._move_port(service, publish, publish.port, holder)
        elif (refusal := self._use.port_refusal(service, publish)) is not None:
            self._refuse(Code.CLAIM_QUOTA, service, *refusal)
        elif publish.port is None:
            self._choose_port(service, publish)
        elif holder is None:
            self._give_port(service, publish, publish.port)
        elif (publish.transport, publish.port) in self._lapsed_ports:
            self._take_over_port(service, publish, publish.port)
        else:
            reason = f"the published {publish.transport} port {publish.port} is held by {holder[0]}"
            self._refuse(Code.PUBLISHED_PORT_TAKEN, service, reason, "publish another port or auto")

    def _refuse_vip(self, service: Service, vip: Address, remedy: str) -> None:
        """Refuse a VIP that is not for services."""
        if ip_address(vip) not in self._pool:
            self._refuse(Code.VIP_TAKEN, service, f"the VIP {vip} is outside of the pool {self._pool}", remedy)
        else:
            reason = f"the VIP {vip} is one of the first two or the last of the pool {self._pool}"
            self._refuse(Code.VIP_TAKEN, service, f"{reason}, which no service gets", remedy)

    def _choose(self, service: Service, held: Address | None = None) -> None:
        """Choose the first free address from the service's hash on; the network's own address and the resolver's are
        left out, and networks to avoid unless all else is given away. `held`: the VIP in place of which it gets one.
        """
        everything = [(int(self._pool.network_address) + 2, self._pool.num_addresses - 3)]
        spans = list(_without(everything, self._avoid))
        for choices in (spans, everything) if spans != everything else (everything,):
            address = self._first_free(service.name, choices)
            if address is not None:
                new = ClaimVip(service.name, address) if held is None else MoveVip(service.name, held, address)
                self._give(service, new, address)
                return
        if held is None and self._take_back(service):
            return
        self._refuse(
            Code.POOL_EXHAUSTED,
            service,
            f"all {everything[0][1]} VIPs of the pool {self._pool} are given away",
            "set [vip] pool to a larger one",
        )

    def _take_back(self, service: Service) -> bool:
        """Give the service its own former VIP, or else the VIP that is unused for the longest time; return whether
        there is one.
        """
        for address, holder in self._holders.items():
            if holder == service.name and is_service_vip(address, self._pool):
                self._give(service, TakeBackVip(service.name, address, service.name), address)
                return True
        while self._idle:
            name = self._idle.pop()
            vip = self._vips.get(name)
            # A service may have taken the name, and its VIP, in this very decision.
            if vip is not None and is_service_vip(vip, self._pool) and name not in self._named:
                del self._vips[name]
                self._give(service, TakeBackVip(service.name, vip, name), vip)
                return True
        return False

    def _first_free(self, name: Name, spans: Sequence[_Span]) -> Address | None:
        """Return the first address in the spans that is free, from the name's hash on; None if none is."""
        count = sum(size for _, size in spans)
        for step in range(min(count, len(self._holders) + 1)):
            address = str(ip_address(_nth(spans, (_stable(name) + step) % count)))
            if address not in self._holders:
                return address
        return None

    def _choose_port(self, service: Service, publish: PortPublication) -> None:
        start = _stable(f"{service.name} {publish.transport} {publish.container_port}") % len(self._range)
        for step in range(len(self._range)):
            port = self._range[(start + step) % len(self._range)]
            if (publish.transport, port) not in self._ports:
                self._give_port(service, publish, port)
                return
        for port in self._range:
            if (publish.transport, port) in self._lapsed_ports:
                self._take_over_port(service, publish, port)
                return
        reason = f"all {len(self._range)} published {publish.transport} ports are given away"
        self._refuse(Code.POOL_EXHAUSTED, service, reason, "set [publish] ports to a larger range")

    def _give(self, service: Service, wish: ClaimRequest, address: Address) -> None:
        self._wish(wish)
        self._vips[service.name] = address
        self._holders[address] = service.name

    def _give_port(self, service: Service, publish: PortPublication, port: int) -> None:
        self._wish(ClaimPort(publish.transport, port, service.name, publish.container_port))
        self._hold_port(service, publish, port)

    def _take_over_port(self, service: Service, publish: PortPublication, port: int) -> None:
        old = self._ports[publish.transport, port]
        self._wish(TakeOverPort(publish.transport, port, old, service.name, publish.container_port))
        self._lapsed_ports.discard((publish.transport, port))
        self._hold_port(service, publish, port)

    def _move_port(self, service: Service, publish: PortPublication, port: int, old: tuple[Name, int]) -> None:
        """Lead a port that the service holds to another container port."""
        self._wish(MovePort(publish.transport, port, service.name, old[1], publish.container_port))
        self._ports[publish.transport, port] = (service.name, publish.container_port)

    def _hold_port(self, service: Service, publish: PortPublication, port: int) -> None:
        self._use.port_held(service.owner, is_new=True)
        self._ports[publish.transport, port] = (service.name, publish.container_port)
        self._published.add((publish.transport, (service.name, publish.container_port)))

    def _wish(self, wish: ClaimRequest) -> None:
        self.wishes.append(wish)

    def _refuse(self, code: Code, service: Service, reason: str, remedy: str) -> None:
        subject = f"service {service.owner}"
        self.problems.append(Problem(code, Severity.ERROR, subject, reason, remedy, owner=service.owner))


def _publishes(service: Service, publish: PortPublication, target: tuple[Name, int]) -> bool:
    """Whether the service still leads this published port to its former target."""
    there = (publish.transport, publish.port, target[1])
    return any((each.transport, each.port, each.container_port) == there for each in service.publishes)


_ANOTHER_VIP = "write another address or remove the label routing.vip"
_NOT_THIS_CLAIM = "set [vip] pool to one that has it, fix another by the label routing.vip, or forget the claim"


def _stable(text: str) -> int:
    """A hash that is the same in every process and on every worker."""
    return int.from_bytes(blake2b(text.encode(), digest_size=8).digest())
