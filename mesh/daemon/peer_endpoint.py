"""Where this worker answers the others, and who beside them tells it that its own network works."""

import asyncio
import logging
from dataclasses import dataclass

from mesh.cluster.ping import listen
from mesh.config import etcd_url
from mesh.config.settings import Settings
from mesh.config.values import socket_address
from mesh.host.addresses import worker_addresses
from mesh.host.node_ip import elsewhere, own_address, resolved
from mesh.model.codes import Code
from mesh.model.errors import MeshError
from mesh.model.table import RealKey

log = logging.getLogger("vipmesh")

PORT = 9781
RESOLVING = 2.0
"""Seconds that a start waits for the addresses of the store's members."""


class PresenceError(MeshError):
    """It cannot listen where the settings say. The text ends with the remedy."""


@dataclass(frozen=True, slots=True)
class Presence:
    """Of one worker."""

    listens: RealKey | None = None
    """None: the others cannot ask it, and find out by its lease alone."""
    witnesses: tuple[RealKey, ...] = ()
    """The store's members on other hosts."""
    server: asyncio.Server | None = None


async def present(settings: Settings) -> Presence:
    """Listen. Raises `PresenceError` if that is impossible where the settings say; `auto` goes on without."""
    if settings.store_url.startswith("sqlite:"):
        return Presence()  # there are no others
    members = await _members(settings)
    witnesses = elsewhere(members, await worker_addresses())
    place = _place(settings, members)
    if place is None:
        return Presence(witnesses=witnesses)
    try:
        return Presence(place, witnesses, await listen(place, settings.node_name))
    except OSError as error:
        reason = f"cannot listen on {place} for the other workers: {error.strerror or error}"
        if settings.peers_listen != "auto":
            remedy = 'set [peers] listen to an address of this host and a free port, to "auto" or to "off"'
            raise PresenceError(Code.PEER_LISTENER_UNAVAILABLE, f"[peers] listen: {reason}; {remedy}") from error
        log.warning(
            "%s; its loss is noticed when its lease ends; set [peers] listen to another port",
            reason,
            extra=Code.PEER_LISTENER_UNAVAILABLE.extra,
        )
        return Presence(witnesses=witnesses)


async def _members(settings: Settings) -> list[RealKey]:
    try:
        async with asyncio.timeout(RESOLVING):
            return await resolved(etcd_url.parse(settings.store_url).members)
    except TimeoutError:
        log.warning(
            "[store] url: the names in it do not resolve; while they do not, other workers alone are witnesses",
            extra=Code.PEER_LISTENER_UNAVAILABLE.extra,
        )
        return []


def _place(settings: Settings, members: list[RealKey]) -> RealKey | None:
    if settings.peers_listen == "off":
        return None
    if settings.peers_listen != "auto":
        return RealKey(*socket_address(settings.peers_listen))
    address = settings.node_address or own_address(members)
    return None if address is None else RealKey(address, PORT)
