"""The records of the store: which keys there are, and what their values mean.

Values are JSON with a version, `"v": 1`. A reader ignores fields that it does not know, so that workers of two versions
can share a store while one is rolled out. A record that cannot be understood, or that no kernel could take, is a
problem to tell, never an exception: one broken record must not stop the others.

    claims/services/<name>              {"vip"}                       the VIP of a service, for good
    claims/vips/<address>               {"name"}                      the same, seen from the address: it is unique
    claims/names/<routing name>         {"owner"}
    claims/ports/<transport>/<port>     {"name", "container_port"}
    workers/<worker>/services/<owner>   a `Service`                   leased
    workers/<worker>/endpoints/<id>     an `Endpoint`                 leased
    workers/<worker>/daemon             {"version", "session", "listens"}  leased; written last: the rest is there
    health/<worker>/<id>                {"health"}                    leased; what its worker's probes say

Parts between slashes are percent-encoded where they hold a slash or anything odd.
"""

from collections.abc import Iterable, Mapping
from ipaddress import ip_address
from typing import Any, NamedTuple, TypeAlias, TypeVar
from urllib.parse import quote, unquote

import msgspec

from mesh.model import Address, Claims, ClusterView, Endpoint, EndpointKey, Health, Name, Service, Transport
from mesh.problem import Problem, Severity

VERSION = 1

T = TypeVar("T")


class _Vip(msgspec.Struct, frozen=True):
    vip: Address


class _Holder(msgspec.Struct, frozen=True):
    name: Name


class _Owner(msgspec.Struct, frozen=True):
    owner: str


class _Port(msgspec.Struct, frozen=True):
    name: Name
    container_port: int


class _Daemon(msgspec.Struct, frozen=True):
    version: str
    session: str
    listens: str | None


class _Verdict(msgspec.Struct, frozen=True):
    health: Health


def service_claim(name: Name, vip: Address) -> tuple[str, bytes]:
    """Key and value of the VIP that a service holds."""
    return _key("claims", "services", name), _value(_Vip(vip))


def vip_claim(vip: Address, name: Name) -> tuple[str, bytes]:
    """Key and value of who holds a VIP."""
    return _key("claims", "vips", vip), _value(_Holder(name))


def name_claim(name: Name, owner: str) -> tuple[str, bytes]:
    """Key and value of who holds a routing name."""
    return _key("claims", "names", name), _value(_Owner(owner))


def port_claim(transport: Transport, port: int, name: Name, container_port: int) -> tuple[str, bytes]:
    """Key and value of who holds a published port."""
    return _key("claims", "ports", transport, str(port)), _value(_Port(name, container_port))


def own_prefixes(worker: str) -> tuple[str, ...]:
    """Where the leased records of one worker are; nobody else writes there."""
    return _key("workers", worker) + "/", _key("health", worker) + "/"


def registration(worker: str, services: Iterable[Service], endpoints: Iterable[Endpoint]) -> dict[str, bytes]:
    """The leased records of one worker."""
    records = {_key("workers", worker, "services", service.owner): _value(service) for service in services}
    return records | {_key("workers", worker, "endpoints", endpoint.id): _value(endpoint) for endpoint in endpoints}


def daemon(worker: str, version: str, session: str, listens: str | None = None) -> tuple[str, bytes]:
    """Key and value of the daemon itself: `session` is another one after each start, `listens` where it answers."""
    return _key("workers", worker, "daemon"), _value(_Daemon(version, session, listens))


def verdict(worker: str, id: str, health: Health) -> tuple[str, bytes]:
    """Key and value of what a worker's probes say of one of its endpoints."""
    return _key("health", worker, id), _value(_Verdict(health))


def worker_of(key: str) -> str | None:
    """Whose leased record it is, percent-encoded; None: a claim."""
    kind, _, rest = key.partition("/")
    return rest.partition("/")[0] if kind in ("workers", "health") else None


def view(records: Mapping[str, bytes]) -> tuple[ClusterView, tuple[Problem, ...]]:
    """The picture that the records give, and what could not be understood."""
    return Reader().view(records)


class Reader:
    """Makes one picture after another. A record that has not changed is not decoded again and stays the same object."""

    def __init__(self) -> None:
        self._known: dict[str, tuple[bytes, _Fact | Problem | None]] = {}

    def view(self, records: Mapping[str, bytes]) -> tuple[ClusterView, tuple[Problem, ...]]:
        """See `view`."""
        known, self._known = self._known, {}
        reading = _Reading()
        for key in sorted(records):
            value = records[key]
            before = known.get(key)
            decoded = before if before is not None and before[0] == value else (value, _decode(key, value))
            self._known[key] = decoded
            reading.take(decoded[1])
        return reading.view(), tuple(reading.problems)


class _HeldVip(NamedTuple):
    name: Name
    vip: Address


class _Held(NamedTuple):
    vip: Address
    name: Name


class _OwnedName(NamedTuple):
    name: Name
    owner: str


class _HeldPort(NamedTuple):
    port: tuple[Transport, int]
    leads_to: tuple[Name, int]


class _Declared(NamedTuple):
    worker: str
    service: Service


class _Judged(NamedTuple):
    endpoint: EndpointKey
    health: Health


_Fact: TypeAlias = _HeldVip | _Held | _OwnedName | _HeldPort | _Declared | _Judged | Endpoint
"""What one record says."""


def _decode(key: str, value: bytes) -> _Fact | Problem | None:
    """None: a record of a newer version."""
    try:
        match [unquote(part) for part in key.split("/")]:
            case ["claims", "services", name]:
                return _HeldVip(name, _address(_read(value, _Vip).vip))
            case ["claims", "vips", address]:
                return _Held(_address(address), _read(value, _Holder).name)
            case ["claims", "names", name]:
                return _OwnedName(name, _read(value, _Owner).owner)
            case ["claims", "ports", transport, port]:
                held = _read(value, _Port)
                return _HeldPort((Transport(transport), _port(int(port))), (held.name, _port(held.container_port)))
            case ["workers", worker, "services", _]:
                return _Declared(worker, _sound_service(_read(value, Service)))
            case ["workers", worker, "endpoints", id]:
                return _sound_endpoint(_read(value, Endpoint), (worker, id))
            case ["health", worker, id]:
                return _Judged((worker, id), _read(value, _Verdict).health)
    except (msgspec.MsgspecError, ValueError, RecursionError) as error:
        return Problem(Severity.ERROR, f"record {key}", f"it cannot be read: {error}", "delete it or write it anew")
    return None


class _Reading:
    def __init__(self) -> None:
        self.problems: list[Problem] = []
        self._vips: dict[Name, Address] = {}
        self._owners: dict[Name, str] = {}
        self._ports: dict[tuple[Transport, int], tuple[Name, int]] = {}
        self._holders: dict[Address, Name] = {}
        self._services: dict[str, tuple[str, Service]] = {}
        self._endpoints: list[Endpoint] = []
        self._health: dict[EndpointKey, Health] = {}

    def take(self, fact: _Fact | Problem | None) -> None:
        match fact:
            case Endpoint():
                self._endpoints.append(fact)
            case _Judged(key, health):
                self._health[key] = health
            case _HeldVip(name, vip):
                self._vips[name] = vip
            case _Held(vip, name):
                self._holders[vip] = name
            case _OwnedName(name, owner):
                self._owners[name] = owner
            case _HeldPort(port, leads_to):
                self._ports[port] = leads_to
            case _Declared(worker, service):
                self._declare(worker, service)
            case Problem():
                self.problems.append(fact)
            case None:
                pass

    def _declare(self, worker: str, service: Service) -> None:
        first_worker, first = self._services.setdefault(service.owner, (worker, service))
        if first != service:
            self.problems.append(
                Problem(
                    Severity.WARNING,
                    f"service {service.owner}",
                    f"worker {worker} declares it otherwise than worker {first_worker}, whose labels count",
                    "give it the same labels on all workers",
                )
            )

    def view(self) -> ClusterView:
        return ClusterView(
            tuple(self._services[owner][1] for owner in sorted(self._services)),
            tuple(sorted(self._endpoints, key=lambda endpoint: (endpoint.id, endpoint.worker))),
            Claims(self._vips, self._owners, self._ports, self._holders),
            self._health,
        )


def _key(*parts: str) -> str:
    return "/".join(quote(part, safe="") for part in parts)


def _value(record: Any) -> bytes:
    return msgspec.json.encode({"v": VERSION, **msgspec.to_builtins(record)})


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
