"""What a zone is made of: services under their names, as whoever runs the name server tells it.

A service gives a name its addresses, and brings other names with it:

    web.mesh.internal              A, AAAA  the addresses of the service
                                   TXT      what is known of it, for people
    tasks.web.mesh.internal        A, AAAA  the endpoints that take traffic, one record each
    a1.web.mesh.internal           A, AAAA  one endpoint, whether it takes traffic or not
                                   TXT      what is known of it
    _80._tcp.web.mesh.internal     SRV      the port on the address of the service
    7.0.112.10.in-addr.arpa        PTR      back from an address to the name
"""

import ipaddress
from collections.abc import Iterator
from dataclasses import dataclass

from meshdns.records import Record, address, pointer, srv, text, wire

TASKS = "tasks"
"""The label of the name that stands for all endpoints that take traffic."""


@dataclass(frozen=True, slots=True)
class Endpoint:
    """One of those who answer for a service."""

    label: str
    """One label below the service's name. Endpoints with the same label share the name; `tasks` is never one's own."""
    address: str
    serving: bool
    """Whether it takes traffic."""
    about: tuple[str, ...] = ()
    """Its TXT record, `key=value` each."""


@dataclass(frozen=True, slots=True, order=True)
class Port:
    """A port that the service's address listens on."""

    number: int
    transport: str
    """`tcp`, `udp`, `sctp`."""


@dataclass(frozen=True, slots=True)
class Service:
    """What a name leads to."""

    addresses: tuple[str, ...]
    endpoints: tuple[Endpoint, ...] = ()
    ports: tuple[Port, ...] = ()
    about: tuple[str, ...] = ()
    """Its TXT record, `key=value` each."""
    canonical: bool = False
    """Whether its addresses lead back to this name: of several names with one address, one is."""


def records(name: str, service: Service) -> Iterator[tuple[bytes, tuple[Record, ...]]]:
    """Each wire name that comes with a service, and its records; the name of the service comes first.

    A name without records exists all the same: `tasks` while no endpoint takes traffic. What comes with a name so long
    that there is no room below it is left out. Raises ValueError for a name or an address that is none.
    """
    target = wire(name)
    yield target, (*map(address, service.addresses), *_about(service.about))
    yield from ((place, found) for place, found in _below(target, service) if len(place) <= 255)
    if service.canonical:
        for each in service.addresses:
            yield wire(ipaddress.ip_address(each).reverse_pointer), (pointer(target),)


def _below(target: bytes, service: Service) -> Iterator[tuple[bytes, tuple[Record, ...]]]:
    if service.endpoints:
        yield wire(TASKS)[:-1] + target, tuple(address(e.address) for e in service.endpoints if e.serving)
    labelled: dict[str, list[Endpoint]] = {}
    for endpoint in service.endpoints:
        if endpoint.label != TASKS:
            labelled.setdefault(endpoint.label, []).append(endpoint)
    for label, group in labelled.items():
        told = (record for endpoint in group for record in _about(endpoint.about))
        yield wire(label)[:-1] + target, (*(address(e.address) for e in group), *told)
    for port in service.ports:
        yield wire(f"_{port.number}._{port.transport}")[:-1] + target, (srv(0, 0, port.number, target),)


def _about(words: tuple[str, ...]) -> tuple[Record, ...]:
    return (text(words),) if words else ()


def reverse_domains(network: ipaddress.IPv4Network | ipaddress.IPv6Network) -> tuple[str, ...]:
    """The domains that hold the names of all addresses of a network: `10.112.0.0/16` -> `112.10.in-addr.arpa`.

    A network that does not end at an octet (IPv4) or a nibble (IPv6) has several.
    """
    step = 8 if network.version == 4 else 4
    whole = -(-network.prefixlen // step) * step
    parts = network.subnets(new_prefix=whole)
    cut = (network.max_prefixlen - whole) // step
    return tuple(".".join(part.network_address.reverse_pointer.split(".")[cut:]) for part in parts)
