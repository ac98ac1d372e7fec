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
    workers/<worker>/daemon             {"version", "session"}        leased; written last: the rest is there
    health/<worker>/<id>                {"health"}                    leased; what its worker's probes say
    health/<worker>/<owner>/<id>        {"health"}                    leased; in the place of an owner that is gone

Parts between slashes are percent-encoded where they hold a slash or anything odd.
"""

from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple, TypeAlias, TypeVar
from urllib.parse import quote, unquote

import msgspec

from mesh.model import Address, Claims, ClusterView, Endpoint, EndpointKey, Health, Name, Service, Transport
from mesh.problem import Problem, Severity
from mesh.store.sound import sound_address, sound_endpoint, sound_port, sound_service

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


class _Verdict(msgspec.Struct, frozen=True, omit_defaults=True):
    health: Health
    kept: bool = False
    """It stays in traffic although it is unhealthy: too many have failed at once."""
    held_back: bool = False


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


def daemon(worker: str, version: str, session: str) -> tuple[str, bytes]:
    """Key and value of the daemon itself; `session` is another one after each start."""
    return _key("workers", worker, "daemon"), _value(_Daemon(version, session))


def verdict(worker: str, endpoint: EndpointKey, health: Health, *, kept: bool, held_back: bool) -> tuple[str, bytes]:
    """Key and value of what a worker's probes say of an endpoint, of its own or in the place of another worker."""
    owner, id = endpoint
    key = _key("health", worker, id) if owner == worker else _key("health", worker, owner, id)
    return key, _value(_Verdict(health, kept, held_back))


def worker_of(key: str) -> str | None:
    """Whose leased record it is, percent-encoded; None: a claim."""
    kind, _, rest = key.partition("/")
    return rest.partition("/")[0] if kind in ("workers", "health") else None


def daemons(records: Mapping[str, bytes]) -> Mapping[str, str]:
    """The workers whose daemons are there, and how their names stand in keys."""
    found = (key.split("/")[1] for key in records if key.startswith("workers/") and key.endswith("/daemon"))
    return {unquote(worker): worker for worker in found}


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
    worker: str
    endpoint: EndpointKey
    said: _Verdict


class _Present(NamedTuple):
    worker: str


_Fact: TypeAlias = _HeldVip | _Held | _OwnedName | _HeldPort | _Declared | _Judged | _Present | Endpoint
"""What one record says."""


def _decode(key: str, value: bytes) -> _Fact | Problem | None:
    """None: a record of a newer version."""
    try:
        match [unquote(part) for part in key.split("/")]:
            case ["claims", "services", name]:
                return _HeldVip(name, sound_address(_read(value, _Vip).vip))
            case ["claims", "vips", address]:
                return _Held(sound_address(address), _read(value, _Holder).name)
            case ["claims", "names", name]:
                return _OwnedName(name, _read(value, _Owner).owner)
            case ["claims", "ports", transport, port]:
                held = _read(value, _Port)
                return _HeldPort(
                    (Transport(transport), sound_port(int(port))), (held.name, sound_port(held.container_port))
                )
            case ["workers", worker, "services", _]:
                return _Declared(worker, sound_service(_read(value, Service)))
            case ["workers", worker, "endpoints", id]:
                return sound_endpoint(_read(value, Endpoint), (worker, id))
            case ["workers", worker, "daemon"]:
                return _Present(worker)
            case ["health", worker, id]:
                return _Judged(worker, (worker, id), _read(value, _Verdict))
            case ["health", worker, owner, id]:
                return _Judged(worker, (owner, id), _read(value, _Verdict))
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
        self._said: dict[EndpointKey, _Verdict] = {}
        self._said_for_others: list[_Judged] = []
        self._workers: set[str] = set()

    def take(self, fact: _Fact | Problem | None) -> None:
        match fact:
            case Endpoint():
                self._endpoints.append(fact)
            case _Judged(worker, key, said) if worker == key[0]:
                self._said[key] = said
            case _Judged():
                self._said_for_others.append(fact)
            case _Present(worker):
                self._workers.add(worker)
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

    def _verdicts(self) -> dict[EndpointKey, _Verdict]:
        """Whoever asks in the place of a worker that is there counts no more; where two do, one that had an answer."""
        said = dict(self._said)
        for _, key, verdict in self._said_for_others:
            if key[0] not in self._workers and (key not in said or verdict.health is Health.HEALTHY):
                said[key] = verdict
        return said

    def view(self) -> ClusterView:
        said = self._verdicts()
        return ClusterView(
            tuple(self._services[owner][1] for owner in sorted(self._services)),
            tuple(sorted(self._endpoints, key=lambda endpoint: (endpoint.id, endpoint.worker))),
            Claims(self._vips, self._owners, self._ports, self._holders),
            {key: verdict.health for key, verdict in said.items()},
            kept=frozenset(key for key, verdict in said.items() if verdict.kept),
            held_back=frozenset(key for key, verdict in said.items() if verdict.held_back),
            workers=frozenset(self._workers),
        )


def _key(*parts: str) -> str:
    return "/".join(quote(part, safe="") for part in parts)


def _value(record: Any) -> bytes:
    return msgspec.json.encode({"v": VERSION, **msgspec.to_builtins(record)})


def _read(value: bytes, type_: type[T]) -> T:
    return msgspec.json.decode(value, type=type_)
