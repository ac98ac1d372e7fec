"""Finds the address at which other workers reach this host: the one from which it reaches the store.

Routing answers this without sending a packet: connecting a UDP socket chooses its source address (connect(2)).
"""

import asyncio
import socket
from collections.abc import Collection, Iterable
from ipaddress import ip_address
from urllib.parse import urlsplit

from mesh.model.service import Address
from mesh.model.table import RealKey

_ELSEWHERE = {socket.AF_INET: "192.0.2.1", socket.AF_INET6: "2001:db8::1"}
"""Documentation addresses (RFC 5737, RFC 3849) that lead to the default route; nothing is sent to them."""


async def resolve_urls(urls: Iterable[str]) -> list[RealKey]:
    """Return the first address and the port of each URL, in order; URLs that do not resolve now are left out."""
    loop = asyncio.get_running_loop()
    found = []
    for url in urls:
        parts = urlsplit(url)
        try:
            answers = await loop.getaddrinfo(parts.hostname, parts.port, type=socket.SOCK_STREAM)
        except socket.gaierror:
            continue
        found += [RealKey(str(place[0]), int(place[1])) for *_, place in answers[:1]]
    return found


def own_address(towards: Iterable[RealKey]) -> Address | None:
    """Return the source address towards the first of these places that has a route, except over loopback.

    If there is none, the default route decides; None if there is no such route either.
    """
    # Any port will do, since no packet is sent.
    for place in [*towards, *(RealKey(address, 9) for address in _ELSEWHERE.values())]:
        source = source_address(place)
        if source is not None and not ip_address(source).is_loopback:
            return source
    return None


def on_other_hosts(places: Iterable[RealKey], own: Collection[Address]) -> tuple[RealKey, ...]:
    """Return the places that are not on this host; `own` is the host's addresses."""
    return tuple(p for p in places if p.address not in own and not ip_address(p.address).is_loopback)


def source_address(place: RealKey) -> Address | None:
    """Return the address from which packets to a place are sent; None if there is no route."""
    with socket.socket(socket.AF_INET6 if ":" in place.address else socket.AF_INET, socket.SOCK_DGRAM) as sock:
        try:
            sock.connect((place.address, place.port))
        except OSError:
            return None
        return str(ip_address(sock.getsockname()[0].partition("%")[0]))
