"""Turns services into records: the input of a zone, and the records that each service adds to it.

A service gives its name addresses and adds other names beside it:

    web.mesh.internal              A, AAAA  the addresses of the service
                                   TXT      a description of the service for people
    tasks.web.mesh.internal        A, AAAA  the endpoints that receive traffic, one record each
    a1.web.mesh.internal           A, AAAA  one endpoint, whether it receives traffic or not
                                   TXT      a description of the endpoint
    _80._tcp.web.mesh.internal     SRV      the port on the address of the service
    7.0.112.10.in-addr.arpa        PTR      from an address back to the name
"""

import ipaddress
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple, TypeAlias

from meshdns.rdata import ResourceRecord, address_record, encode_name, pointer_record, srv_record, text_record

TASKS_LABEL = "tasks"
"""The label of the name that lists all endpoints that receive traffic."""


@dataclass(frozen=True, slots=True)
class DnsEndpoint:
    """One endpoint of a service."""

    label: str
    """One label below the service's name. Endpoints with the same label share that name. An endpoint labelled `tasks`
    gets no name of its own.
    """
    address: str
    """An IPv4 or IPv6 address."""
    serving: bool
    """Whether the endpoint receives traffic."""
    about: tuple[str, ...] = ()
    """The strings of its TXT record, `key=value` each; empty for no TXT record."""


@dataclass(frozen=True, slots=True, order=True)
class DnsPort:
    """A port that the service's address listens on."""

    number: int
    """The port number."""
    transport: str
    """`tcp`, `udp` or `sctp`."""


@dataclass(frozen=True, slots=True)
class DnsService:
    """The addresses behind one name, and the endpoints and ports published below it."""

    addresses: tuple[str, ...]
    """IPv4 and IPv6 addresses, usually VIPs."""
    endpoints: tuple[DnsEndpoint, ...] = ()
    """The endpoints of the service; empty for a name with addresses only."""
    ports: tuple[DnsPort, ...] = ()
    """The ports with an SRV record."""
    about: tuple[str, ...] = ()
    """The strings of its TXT record, `key=value` each; empty for no TXT record."""
    canonical: bool = False
    """Whether PTR records lead from its addresses to this name; of several names with one address, at most one is
    canonical.
    """


class RecordChange(NamedTuple):
    """The records that a service has at one wire name from now on."""

    place: bytes
    """The wire name."""
    records: tuple[ResourceRecord, ...] | None
    """The new records, or None if the service has nothing at this name any more. An empty tuple keeps a name without
    records in existence: `tasks` while no endpoint receives traffic.
    """
    own: bool
    """True for the service's own name, False for a name that it adds."""


def record_changes(name: str, before: DnsService | None, now: DnsService | None) -> Iterator[RecordChange]:
    """Yield what differs between two versions of a service.

    `before` is None for a new service, `now` for a removed one.

    Only names whose inputs differ are encoded, since usually one endpoint of many has changed. Names over 255 bytes are
    left out. Raises ValueError for an invalid name or address.
    """
    target = encode_name(name)
    old, new = _ingredients(before), _ingredients(now)
    # Removals go first: an old and a new part may have the same wire name (`A1` and `a1`, two spellings of an IPv6
    # address), and the new one must stay.
    for part in [part for part in old if part not in new]:
        yield from _change(target, part, None)
    for part, made_of in new.items():
        if old.get(part) != made_of:
            yield from _change(target, part, made_of)


_Part: TypeAlias = tuple[str, str]
"""The kind of a name, and which name of that kind."""
_OWN, _TASKS = ("own", ""), ("tasks", "")


def _ingredients(service: DnsService | None) -> dict[_Part, tuple[Any, ...]]:
    """Return the inputs of each name's records.

    This is cheap: nothing is encoded, and endpoints are compared as objects.
    """
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
    """Encode the records of one name; `made_of` is None to remove them."""
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
                texts = (record for endpoint in made_of for record in _about(endpoint.about))
                found = (*(address_record(endpoint.address) for endpoint in made_of), *texts)
        case "port":
            place = encode_name(which)[:-1] + target
            found = None if made_of is None else (srv_record(0, 0, made_of[0], target),)
        case _:
            place = encode_name(ipaddress.ip_address(which).reverse_pointer)
            found = None if made_of is None else (pointer_record(target),)
    if len(place) <= 255:
        yield RecordChange(place, found, own=kind == "own")


def _about(words: tuple[str, ...]) -> tuple[ResourceRecord, ...]:
    """Return the TXT record of a description as a tuple of one; empty for no description."""
    return (text_record(words),) if words else ()


def reverse_domains(network: ipaddress.IPv4Network | ipaddress.IPv6Network) -> tuple[str, ...]:
    """Return the reverse domains that cover a network: `10.112.0.0/16` gives `112.10.in-addr.arpa`.

    A network that does not end at a byte (IPv4) or nibble (IPv6) boundary has several.
    """
    step = 8 if network.version == 4 else 4
    # Round the prefix up to a whole label, then take each of the networks that this splits it into.
    whole = -(-network.prefixlen // step) * step
    parts = network.subnets(new_prefix=whole)
    cut = (network.max_prefixlen - whole) // step
    return tuple(".".join(part.network_address.reverse_pointer.split(".")[cut:]) for part in parts)
