"""One record of the store -> what it says. Pure.

A record that cannot be understood, or that no kernel could take, is a problem to tell, never an exception.
"""

from functools import lru_cache
from typing import NamedTuple, TypeAlias, TypeVar
from urllib.parse import quote, unquote

import msgspec

from mesh.cluster.records.validate import sound_address, sound_endpoint, sound_port, sound_service
from mesh.model.codes import Code
from mesh.model.problem import Problem, Severity
from mesh.model.service import Address, Endpoint, EndpointKey, Health, Name, Service, Transport

T = TypeVar("T")

ALIKE = 16384
"""Different services that are read once, whoever declares them."""


class VipRecord(msgspec.Struct, frozen=True):
    """Value of `claims/services`."""

    vip: Address


class HolderRecord(msgspec.Struct, frozen=True):
    """Value of `claims/vips`."""

    name: Name


class OwnerRecord(msgspec.Struct, frozen=True):
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


class HeldVip(NamedTuple):
    """A service has this VIP."""

    name: Name
    vip: Address


class Held(NamedTuple):
    """The same, seen from the VIP."""

    vip: Address
    name: Name


class OwnedName(NamedTuple):
    """A routing name is held."""

    name: Name
    owner: str


class HeldPort(NamedTuple):
    """A published port is held; it leads to (service name, container port)."""

    port: tuple[Transport, int]
    leads_to: tuple[Name, int]


class Declared(NamedTuple):
    """A worker offers a service."""

    worker: str
    service: Service


class Judged(NamedTuple):
    """What the probes of a worker say of an endpoint, of its own or of one whose worker is gone."""

    worker: str
    endpoint: EndpointKey
    said: VerdictRecord


class Present(NamedTuple):
    """The daemon of a worker is there."""

    worker: str


Fact: TypeAlias = HeldVip | Held | OwnedName | HeldPort | Declared | Judged | Present | Endpoint
"""What one record says."""


def decode(where: str, value: bytes, before: Fact | Problem | None = None) -> Fact | Problem | None:
    """What the record with this key says. None: it is of a newer version, or of something else. `before`: what it said
    until now, which saves taking the key of a verdict apart: most of what changes are verdicts.
    """
    try:
        if isinstance(before, Judged):
            return Judged(before.worker, before.endpoint, _read(value, VerdictRecord))
        parts = [unquote(part) for part in where.split("/")]
        fact = _fact(parts, value)
        if fact is not None and where != key(*parts):
            raise ValueError(f"two keys would mean the same; this one is written {key(*parts)}")
    except (msgspec.MsgspecError, ValueError, RecursionError) as error:
        return Problem(
            Code.RECORD_UNREADABLE,
            Severity.ERROR,
            f"record {where}",
            f"it cannot be read: {error}",
            "delete it or write it anew",
        )
    return fact


def session(value: bytes) -> str | None:
    """Which life of which daemon wrote this record of a daemon; None: none did, it is something else."""
    try:
        return _read(value, DaemonRecord).session
    except (ValueError, RecursionError):
        return None


def key(*parts: str) -> str:
    """The parts between slashes, each percent-encoded where it holds anything odd."""
    return "/".join(quote(part, safe="") for part in parts)


def _fact(parts: list[str], value: bytes) -> Fact | None:
    match parts:
        case ["claims", "services", name]:
            return HeldVip(name, sound_address(_read(value, VipRecord).vip))
        case ["claims", "vips", address]:
            return Held(sound_address(address), _read(value, HolderRecord).name)
        case ["claims", "names", name]:
            return OwnedName(name, _read(value, OwnerRecord).owner)
        case ["claims", "ports", transport, port]:
            held = _read(value, PortRecord)
            number = sound_port(int(port))
            if port != str(number):
                raise ValueError(f"two keys would mean the same; port {number} is written {number}")
            return HeldPort((Transport(transport), number), (held.name, sound_port(held.container_port)))
        case ["workers", worker, "services", _]:
            return Declared(worker, _service(value))
        case ["workers", worker, "endpoints", id]:
            return sound_endpoint(_read(value, Endpoint), (worker, id))
        case ["workers", worker, "daemon"]:
            return Present(worker)
        case ["health", worker, id]:
            return Judged(worker, (worker, id), _read(value, VerdictRecord))
        case ["health", worker, owner, id]:
            return Judged(worker, (owner, id), _read(value, VerdictRecord))
    return None


@lru_cache(ALIKE)
def _service(value: bytes) -> Service:
    """Every worker that runs a service declares it, most in the same words: they are read once, and kept once."""
    return sound_service(_read(value, Service))


def _read(value: bytes, type_: type[T]) -> T:
    return msgspec.json.decode(value, type=type_)
