"""Decodes the records of the store. Pure.

A record that cannot be decoded, or that no kernel could take, is returned as a problem, never raised as an exception.
"""

from typing import NamedTuple, TypeAlias, TypeVar
from urllib.parse import quote, unquote

import msgspec

from mesh.model.codes import Code
from mesh.model.probe import Probe
from mesh.model.problem import Problem, Severity
from mesh.model.release_rollout import ReleaseRollout
from mesh.model.release_shares import ReleaseShares
from mesh.model.service import Address, Endpoint, EndpointKey, Health, Name, Service, Transport
from mesh.model.validation import (
    validate_address,
    validate_endpoint,
    validate_name,
    validate_port,
    validate_rollout,
    validate_service,
    validate_shares,
    validate_text,
    validate_texts,
)
from mesh.util.sized_cache import SizedCache

T = TypeVar("T")

MAX_RECORD_BYTES = 256 << 10
"""The most bytes of a record."""
MAX_KEY_LENGTH = 4096
"""The most characters of a key."""
SERVICE_CACHE = 1 << 23
"""Bytes of distinct service declarations that are decoded only once, however many workers write them."""
MAX_REASON_LENGTH = 200
"""The most characters of the answer of a probe."""


class VipRecord(msgspec.Struct, frozen=True):
    """The value of `claims/services`."""

    vip: Address


class VipHolderRecord(msgspec.Struct, frozen=True):
    """The value of `claims/vips`."""

    name: Name


class NameOwnerRecord(msgspec.Struct, frozen=True):
    """The value of `claims/names`."""

    owner: str


class MovedNameRecord(msgspec.Struct, frozen=True):
    """The value of `claims/names` after an operator has moved the name; `moved_from` is the former owner."""

    owner: str
    moved_from: str


class OlderNamesRecord(msgspec.Struct, frozen=True):
    """The value of `claims/older-names`."""

    names: tuple[Name, ...]


class PortRecord(msgspec.Struct, frozen=True):
    """The value of `claims/ports`."""

    name: Name
    container_port: int


class SharesRecord(msgspec.Struct, frozen=True):
    """The value of `claims/shares`. Workers up to version 0.1.0 neither write nor read it."""

    shares: dict[str, int]
    """Release -> hundredths of a per cent."""
    among: tuple[str, ...]
    by: str = ""


class DaemonRecord(msgspec.Struct, frozen=True):
    """The value of `workers/<worker>/daemon`."""

    version: str
    session: str
    listens: str | None = None
    admin: str | None = None
    """Where other workers ask its admin API (`address:port`). Workers up to version 0.1.0 neither write nor read it."""
    data_plane: str | None = None
    """Its name, for operators. Workers up to version 0.1.0 neither write nor read it."""


class OwnProbeRecord(msgspec.Struct, frozen=True):
    """The part of `workers/<worker>/services` that versions without it ignore."""

    own_probe: Probe | None = None
    """The probe of a service whose probe has headers, without their values; None: as in the service itself."""


class OwnDeclarationRecord(msgspec.Struct, frozen=True):
    """The part of `workers/<worker>/endpoints` that has the same of what the endpoint declares itself."""

    declared: OwnProbeRecord | None = None


class VerdictRecord(msgspec.Struct, frozen=True, omit_defaults=True):
    """The value of `health`."""

    health: Health
    kept: bool = False
    """Whether it stays in traffic although it is unhealthy, since too many fail at once."""
    held_back: bool = False
    run: str | None = None
    """The run that was probed. Health of a former process does not count for the present one."""
    reason: str | None = None
    """The answer of the probe that made the endpoint unhealthy. Workers up to version 0.1.0 neither write nor read it.
    """


class ServiceVipClaim(NamedTuple):
    """A service has this VIP."""

    name: Name
    vip: Address


class VipHolderClaim(NamedTuple):
    """A VIP has this service: the claim of `ServiceVipClaim`, by address."""

    vip: Address
    name: Name


class NameClaim(NamedTuple):
    """A routing name is held."""

    name: Name
    owner: str


class OlderNames(NamedTuple):
    """The names that were served before there were domains for names."""

    names: frozenset[Name]


class DeclarationClaim(NamedTuple):
    """A declaration is in force for its owner, which is in it."""

    service: Service


class PortClaim(NamedTuple):
    """A published port is held; it leads to a service name and container port."""

    port: tuple[Transport, int]
    leads_to: tuple[Name, int]


class ServiceDeclaration(NamedTuple):
    """A worker offers a service."""

    worker: str
    service: Service


class EndpointVerdict(NamedTuple):
    """The health of an endpoint by the probes of a worker: its own worker, or one that probes for a departed worker."""

    worker: str
    endpoint: EndpointKey
    record: VerdictRecord


class DaemonPresence(NamedTuple):
    """The daemon of a worker is registered."""

    worker: str


RecordFact: TypeAlias = (
    ServiceVipClaim
    | VipHolderClaim
    | NameClaim
    | OlderNames
    | PortClaim
    | DeclarationClaim
    | ServiceDeclaration
    | EndpointVerdict
    | DaemonPresence
    | ReleaseShares
    | ReleaseRollout
    | Endpoint
)
"""The meaning of one record."""


def decode_record(where: str, value: bytes, before: RecordFact | Problem | None = None) -> RecordFact | Problem | None:
    """Decode the record with this key; None if it belongs to a newer version or to something else.

    `before` is the former meaning of the record, or None. It saves parsing the key of a verdict: most changes are
    verdicts.
    """
    try:
        if len(value) > MAX_RECORD_BYTES or len(where) > MAX_KEY_LENGTH:
            raise ValueError(f"it has more than {MAX_RECORD_BYTES} bytes, or its key more than {MAX_KEY_LENGTH}")
        if isinstance(before, EndpointVerdict):
            return EndpointVerdict(before.worker, before.endpoint, _read(value, VerdictRecord))
        parts = [unquote(part) for part in where.split("/")]
        fact = _fact(parts, value)
        if fact is not None and where != record_key(*parts):
            raise ValueError(f"two keys would mean the same; this one is written {record_key(*parts)}")
    except (msgspec.MsgspecError, ValueError, RecursionError) as error:
        return Problem(
            Code.RECORD_UNREADABLE,
            Severity.ERROR,
            f"record {_shown(where)}",
            f"it cannot be read: {_shown(str(error))}",
            "delete it or write it again",
        )
    return fact


def _shown(text: str) -> str:
    """Return text from outside for one line: control characters escaped, cut after 200 characters."""
    kept = "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text[:200])
    return kept if len(text) <= 200 else f"{kept}..."


def daemon_session(value: bytes) -> str | None:
    """The session of the daemon that wrote this daemon record; None if it is not a daemon record."""
    try:
        return _read(value, DaemonRecord).session
    except (ValueError, RecursionError):
        return None


def moved_from(value: bytes) -> str | None:
    """The former owner in the record of a name that an operator has moved; None in any other record."""
    try:
        return _read(value, MovedNameRecord).moved_from
    except (msgspec.MsgspecError, ValueError, RecursionError):
        return None


def record_key(*parts: str) -> str:
    """Join the parts by slashes, each percent-encoded where needed."""
    return "/".join(quote(part, safe="") for part in parts)


def _fact(parts: list[str], value: bytes) -> RecordFact | None:
    match parts:
        case ["claims", *rest]:
            return _claim(rest, value)
        case ["workers", worker, "services", _]:
            return ServiceDeclaration(validate_text(worker, "a worker"), _service(value))
        case ["workers", worker, "endpoints", id]:
            return validate_endpoint(_endpoint(value), (worker, id))
        case ["workers", worker, "daemon"]:
            return DaemonPresence(validate_text(worker, "a worker"))
        case ["health", worker, id]:
            validate_texts((worker, id), "a worker or an ID")
            return EndpointVerdict(worker, (worker, id), _read(value, VerdictRecord))
        case ["health", worker, owner, id]:
            validate_texts((worker, owner, id), "a worker or an ID")
            return EndpointVerdict(worker, (owner, id), _read(value, VerdictRecord))
    return None


def _claim(parts: list[str], value: bytes) -> RecordFact | None:
    match parts:
        case ["services", name]:
            return ServiceVipClaim(validate_name(name), validate_address(_read(value, VipRecord).vip))
        case ["vips", address]:
            return VipHolderClaim(validate_address(address), validate_name(_read(value, VipHolderRecord).name))
        case ["names", name]:
            return NameClaim(validate_name(name), validate_text(_read(value, NameOwnerRecord).owner, "an owner"))
        case ["older-names"]:
            return OlderNames(frozenset(map(validate_name, _read(value, OlderNamesRecord).names)))
        case ["declarations", owner]:
            service = _service(value).shared
            if service.owner != owner:
                raise ValueError("it is about another service than its key")
            return DeclarationClaim(service)
        case ["shares" | "rollouts" as kind, owner]:
            return _shares(owner, _read(value, SharesRecord)) if kind == "shares" else _rollout(owner, value)
        case ["ports", transport, port]:
            return _held_port(transport, port, _read(value, PortRecord))
    return None


def _shares(owner: str, record: SharesRecord) -> ReleaseShares:
    among = tuple(sorted(set(record.among)))
    return validate_shares(ReleaseShares(owner, record.shares, among, record.by))


def _rollout(owner: str, value: bytes) -> ReleaseRollout:
    rollout = validate_rollout(_read(value, ReleaseRollout))
    if rollout.owner != owner:
        raise ValueError("it is about another service than its key")
    return rollout


def _held_port(transport: str, port: str, held: PortRecord) -> PortClaim:
    if len(port) > 5:
        raise ValueError("it is not a port")
    number = validate_port(int(port))
    if port != str(number):
        raise ValueError(f"two keys would mean the same; port {number} is written {number}")
    name = validate_name(held.name)
    return PortClaim((Transport(transport), number), (name, validate_port(held.container_port)))


_SERVICES: SizedCache[bytes, Service] = SizedCache(SERVICE_CACHE)


def _service(value: bytes) -> Service:
    """Decode and keep each distinct declaration once: every worker that runs a service declares it, mostly with equal
    bytes.
    """
    if (decoded := _SERVICES.get(value)) is None:
        decoded = _decoded_service(value)
        _SERVICES.put(value, decoded, len(value))
    return decoded


def _decoded_service(value: bytes) -> Service:
    return _with_own_probe(validate_service(_read(value, Service)), _read(value, OwnProbeRecord))


def _endpoint(value: bytes) -> Endpoint:
    endpoint = _read(value, Endpoint)
    own = None if endpoint.declared is None else _read(value, OwnDeclarationRecord).declared
    if endpoint.declared is None or own is None:
        return endpoint
    return endpoint.with_declared(_with_own_probe(validate_service(endpoint.declared), own))


def _with_own_probe(service: Service, own: OwnProbeRecord) -> Service:
    probe = own.own_probe or service.probe
    if probe is None or (probe is service.probe and not probe.headers):
        return service
    # Version 0.1.0 writes the values too. They are not used: only the endpoint's own worker runs a probe with headers.
    return validate_service(service.with_probe(probe.without_header_values()))


def _read(value: bytes, type_: type[T]) -> T:
    return msgspec.json.decode(value, type=type_)
