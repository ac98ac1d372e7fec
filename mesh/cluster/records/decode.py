"""One record of the store -> what it says. Pure.

A record that cannot be understood, or that no kernel could take, is a problem to tell, never an exception.
"""

from functools import lru_cache
from typing import NamedTuple, TypeAlias, TypeVar
from urllib.parse import quote, unquote

import msgspec

from mesh.cluster.records.validate import validate_address, validate_endpoint, validate_port, validate_service
from mesh.model.codes import Code
from mesh.model.problem import Problem, Severity
from mesh.model.service import Address, Endpoint, EndpointKey, Health, Name, Service, Transport

T = TypeVar("T")

MAX_CACHED_SERVICES = 16384
"""Different services that are read once, whoever declares them."""


class VipRecord(msgspec.Struct, frozen=True):
    """Value of `claims/services`."""

    vip: Address


class VipHolderRecord(msgspec.Struct, frozen=True):
    """Value of `claims/vips`."""

    name: Name


class NameOwnerRecord(msgspec.Struct, frozen=True):
    """Value of `claims/names`."""

    owner: str


class PortRecord(msgspec.Struct, frozen=True):
    """Value of `claims/ports`."""

    name: Name
    container_port: int


class DaemonRecord(msgspec.Struct, frozen=True):
    """Value of `workers/<worker>/daemon`."""

    version: str
    session: str
    listens: str | None = None


class VerdictRecord(msgspec.Struct, frozen=True, omit_defaults=True):
    """Value of `health`."""

    health: Health
    kept: bool = False
    """It stays in traffic although it is unhealthy: too many have failed at once."""
    held_back: bool = False


class ServiceVipClaim(NamedTuple):
    """A service has this VIP."""

    name: Name
    vip: Address


class VipHolderClaim(NamedTuple):
    """The same, seen from the VIP."""

    vip: Address
    name: Name


class NameClaim(NamedTuple):
    """A routing name is held."""

    name: Name
    owner: str


class PortClaim(NamedTuple):
    """A published port is held; it leads to (service name, container port)."""

    port: tuple[Transport, int]
    leads_to: tuple[Name, int]


class ServiceDeclaration(NamedTuple):
    """A worker offers a service."""

    worker: str
    service: Service


class EndpointVerdict(NamedTuple):
    """What the probes of a worker say of an endpoint, of its own or of one whose worker is gone."""

    worker: str
    endpoint: EndpointKey
    said: VerdictRecord


class DaemonPresence(NamedTuple):
    """The daemon of a worker is there."""

    worker: str


RecordFact: TypeAlias = (
    ServiceVipClaim
    | VipHolderClaim
    | NameClaim
    | PortClaim
    | ServiceDeclaration
    | EndpointVerdict
    | DaemonPresence
    | Endpoint
)
"""What one record says."""


def decode_record(where: str, value: bytes, before: RecordFact | Problem | None = None) -> RecordFact | Problem | None:
    """What the record with this key says. None: it is of a newer version, or of something else. `before`: what it said
    until now, which saves taking the key of a verdict apart: most of what changes are verdicts.
    """
    try:
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
            f"record {where}",
            f"it cannot be read: {error}",
            "delete it or write it anew",
        )
    return fact


def daemon_session(value: bytes) -> str | None:
    """Which life of which daemon wrote this record of a daemon; None: none did, it is something else."""
    try:
        return _read(value, DaemonRecord).session
    except (ValueError, RecursionError):
        return None


def record_key(*parts: str) -> str:
    """The parts between slashes, each percent-encoded where it holds anything odd."""
    return "/".join(quote(part, safe="") for part in parts)


def _fact(parts: list[str], value: bytes) -> RecordFact | None:
    match parts:
        case ["claims", "services", name]:
            return ServiceVipClaim(name, validate_address(_read(value, VipRecord).vip))
        case ["claims", "vips", address]:
            return VipHolderClaim(validate_address(address), _read(value, VipHolderRecord).name)
        case ["claims", "names", name]:
            return NameClaim(name, _read(value, NameOwnerRecord).owner)
        case ["claims", "ports", transport, port]:
            return _held_port(transport, port, _read(value, PortRecord))
        case ["workers", worker, "services", _]:
            return ServiceDeclaration(worker, _service(value))
        case ["workers", worker, "endpoints", id]:
            return validate_endpoint(_read(value, Endpoint), (worker, id))
        case ["workers", worker, "daemon"]:
            return DaemonPresence(worker)
        case ["health", worker, id]:
            return EndpointVerdict(worker, (worker, id), _read(value, VerdictRecord))
        case ["health", worker, owner, id]:
            return EndpointVerdict(worker, (owner, id), _read(value, VerdictRecord))
    return None


def _held_port(transport: str, port: str, held: PortRecord) -> PortClaim:
    number = validate_port(int(port))
    if port != str(number):
        raise ValueError(f"two keys would mean the same; port {number} is written {number}")
    return PortClaim((Transport(transport), number), (held.name, validate_port(held.container_port)))


@lru_cache(MAX_CACHED_SERVICES)
def _service(value: bytes) -> Service:
    """Every worker that runs a service declares it, most in the same words: they are read once, and kept once."""
    return validate_service(_read(value, Service))


def _read(value: bytes, type_: type[T]) -> T:
    return msgspec.json.decode(value, type=type_)
