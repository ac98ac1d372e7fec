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
from typing import Any, NamedTuple, TypeAlias

from meshdns.rdata import ResourceRecord, address_record, encode_name, pointer_record, srv_record, text_record

TASKS_LABEL = "tasks"
"""The label of the name that stands for all endpoints that take traffic."""


@dataclass(frozen=True, slots=True)
class DnsEndpoint:
    """One of those who answer for a service."""

    label: str
    """One label below the service's name. Endpoints with the same label share the name; `tasks` is never one's own."""
    address: str
    serving: bool
    """Whether it takes traffic."""
    about: tuple[str, ...] = ()
    """Its TXT record, `key=value` each."""


@dataclass(frozen=True, slots=True, order=True)
class DnsPort:
    """A port that the service's address listens on."""

    number: int
    transport: str
    """`tcp`, `udp`, `sctp`."""


@dataclass(frozen=True, slots=True)
class DnsService:
    """What a name leads to."""

    addresses: tuple[str, ...]
    endpoints: tuple[DnsEndpoint, ...] = ()
    ports: tuple[DnsPort, ...] = ()
    about: tuple[str, ...] = ()
    """Its TXT record, `key=value` each."""
    canonical: bool = False
    """Whether its addresses lead back to this name: of several names with one address, one is."""


class RecordChange(NamedTuple):
    """What a service has at one wire name from now on."""

    place: bytes
    records: tuple[ResourceRecord, ...] | None
    """None: nothing any more. A name without records exists all the same: `tasks` while no endpoint takes traffic."""
    own: bool
    """It is the service's own name, and not one that it brings with it."""


def record_changes(name: str, before: DnsService | None, now: DnsService | None) -> Iterator[RecordChange]:
    """What differs when a service becomes another one, or comes (None before), or goes.

    Only that is worked out: of ten endpoints one has changed. What comes with a name so long that there is no room
    below it is left out. Raises ValueError for a name or an address that is none.
    """
    target = encode_name(name)
    old, new = _ingredients(before), _ingredients(now)
    for part in [part for part in old if part not in new]:
        yield from _change(target, part, None)
    for part, made_of in new.items():
        if old.get(part) != made_of:
            yield from _change(target, part, made_of)


_Part: TypeAlias = tuple[str, str]
"""A kind of name, and which of them."""
_OWN, _TASKS = ("own", ""), ("tasks", "")


def _ingredients(service: DnsService | None) -> dict[_Part, tuple[Any, ...]]:
    """What the records of each name are made of. Cheap: nothing is encoded, and endpoints are compared as objects."""
    if service is None:
        return {}
    parts: dict[_Part, tuple[Any, ...]] = {_OWN: (service.addresses, service.about)}
    if service.endpoints:
        parts[_TASKS] = tuple(endpoint.address for endpoint in service.endpoints if endpoint.serving)
    for endpoint in service.endpoints:
        if endpoint.label != TASKS_LABEL:
            at = "endpoint", endpoint.label
            parts[at] = (*parts.get(at, ()), endpoint)
    for port in service.ports:
        parts["port", f"_{port.number}._{port.transport}"] = (port.number,)
    if service.canonical:
        for each in service.addresses:
            parts["address", each] = ()
    return parts


def _change(target: bytes, part: _Part, made_of: tuple[Any, ...] | None) -> Iterator[RecordChange]:
    kind, which = part
    found: tuple[ResourceRecord, ...] | None = None
    match kind:
        case "own":
            place = target
            if made_of is not None:
                addresses, about = made_of
                found = (*map(address_record, addresses), *_about(about))
        case "tasks":
            place = encode_name(TASKS_LABEL)[:-1] + target
            found = None if made_of is None else tuple(map(address_record, made_of))
        case "endpoint":
            place = encode_name(which)[:-1] + target
            if made_of is not None:
                told = (record for endpoint in made_of for record in _about(endpoint.about))
                found = (*(address_record(endpoint.address) for endpoint in made_of), *told)
        case "port":
            place = encode_name(which)[:-1] + target
            found = None if made_of is None else (srv_record(0, 0, made_of[0], target),)
        case _:
            place = encode_name(ipaddress.ip_address(which).reverse_pointer)
            found = None if made_of is None else (pointer_record(target),)
    if len(place) <= 255:
        yield RecordChange(place, found, own=kind == "own")


def _about(words: tuple[str, ...]) -> tuple[ResourceRecord, ...]:
    return (text_record(words),) if words else ()


def reverse_domains(network: ipaddress.IPv4Network | ipaddress.IPv6Network) -> tuple[str, ...]:
    """The domains that hold the names of all addresses of a network: `10.112.0.0/16` -> `112.10.in-addr.arpa`.

    A network that does not end at an octet (IPv4) or a nibble (IPv6) has several.
    """
    step = 8 if network.version == 4 else 4
    whole = -(-network.prefixlen // step) * step
    parts = network.subnets(new_prefix=whole)
    cut = (network.max_prefixlen - whole) // step
    return tuple(".".join(part.network_address.reverse_pointer.split(".")[cut:]) for part in parts)
