"""One record of the store -> what it says. Pure.

A record that cannot be understood, or that no kernel could take, is a problem to tell, never an exception.
"""

from ipaddress import ip_address
from typing import NamedTuple, TypeAlias, TypeVar
from urllib.parse import quote, unquote

import msgspec

from mesh.model import Address, Endpoint, EndpointKey, Health, Name, Service, Transport
from mesh.problem import Problem, Severity

T = TypeVar("T")


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


class VerdictRecord(msgspec.Struct, frozen=True):
    """Value of `health`."""

    health: Health


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
    """What the probes of its worker say of an endpoint."""

    endpoint: EndpointKey
    health: Health


Fact: TypeAlias = HeldVip | Held | OwnedName | HeldPort | Declared | Judged | Endpoint
"""What one record says."""


def decode(where: str, value: bytes) -> Fact | Problem | None:
    """What the record with this key says. None: it is of a newer version, or of something else."""
    try:
        parts = [unquote(part) for part in where.split("/")]
        fact = _fact(parts, value)
        if fact is not None and where != key(*parts):
            raise ValueError(f"two keys would mean the same; this one is written {key(*parts)}")
    except (msgspec.MsgspecError, ValueError, RecursionError) as error:
        return Problem(Severity.ERROR, f"record {where}", f"it cannot be read: {error}", "delete it or write it anew")
    return fact


def key(*parts: str) -> str:
    """The parts between slashes, each percent-encoded where it holds anything odd."""
    return "/".join(quote(part, safe="") for part in parts)


def _fact(parts: list[str], value: bytes) -> Fact | None:
    match parts:
        case ["claims", "services", name]:
            return HeldVip(name, _address(_read(value, VipRecord).vip))
        case ["claims", "vips", address]:
            return Held(_address(address), _read(value, HolderRecord).name)
        case ["claims", "names", name]:
            return OwnedName(name, _read(value, OwnerRecord).owner)
        case ["claims", "ports", transport, port]:
            held = _read(value, PortRecord)
            number = _port(int(port))
            if port != str(number):
                raise ValueError(f"two keys would mean the same; port {number} is written {number}")
            return HeldPort((Transport(transport), number), (held.name, _port(held.container_port)))
        case ["workers", worker, "services", _]:
            return Declared(worker, _sound_service(_read(value, Service)))
        case ["workers", worker, "endpoints", id]:
            return _sound_endpoint(_read(value, Endpoint), (worker, id))
        case ["health", worker, id]:
            return Judged((worker, id), _read(value, VerdictRecord).health)
    return None


def _read(value: bytes, type_: type[T]) -> T:
    return msgspec.json.decode(value, type=type_)


def _sound_service(service: Service) -> Service:
    if service.fixed_vip is not None:
        _address(service.fixed_vip)
    routed = [port for route in service.routes for port in (route.listen_port, route.container_port)]
    published = [port for publish in service.publishes for port in (publish.container_port, publish.port)]
    for port in (*routed, *published):
        if port is not None:
            _port(port)
    return service


def _sound_endpoint(endpoint: Endpoint, key: EndpointKey) -> Endpoint:
    if endpoint.key != key:
        raise ValueError(f"it is about endpoint {endpoint.id} of worker {endpoint.worker}")
    _address(endpoint.address)
    if endpoint.port is not None:
        _port(endpoint.port)
    for mapped in endpoint.host_ports:
        _port(mapped.port)
    if not 0 <= endpoint.weight <= 65535:  # what ipvsadm(8) takes
        raise ValueError(f"{endpoint.weight} is not a weight from 0 to 65535")
    for threshold in (endpoint.max_connections, endpoint.min_connections):
        if not 0 <= threshold < 1 << 32:
            raise ValueError(f"{threshold} is not a number of connections from 0 to 4294967295")
    return endpoint


def _address(text: Address) -> Address:
    ip_address(text)
    return text


def _port(number: int) -> int:
    if not 1 <= number <= 65535:
        raise ValueError(f"{number} is not a port from 1 to 65535")
    return number
