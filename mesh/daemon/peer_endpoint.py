"""Starts the peer listener and picks witnesses: hosts whose replies show that our own network works."""

import asyncio
import logging
from dataclasses import dataclass

from mesh.cluster.ping import listen_for_pings
from mesh.config import etcd_url
from mesh.config.settings import Settings
from mesh.config.values import parse_socket_address
from mesh.host.addresses import worker_addresses
from mesh.host.node_ip import on_other_hosts, own_address, resolve_urls
from mesh.model.codes import Code
from mesh.model.errors import MeshError
from mesh.model.table import RealKey

log = logging.getLogger("vipmesh")

DEFAULT_PEER_PORT = 9781
RESOLVE_TIMEOUT = 2.0
"""Seconds that a start waits for the addresses of the store's members."""


class PeerEndpointError(MeshError):
    """The worker cannot listen at the configured address. The text ends with the remedy."""


@dataclass(frozen=True, slots=True)
class PeerEndpoint:
    """The peer listener of this worker, and its witnesses."""

    listens: RealKey | None = None
    """The address of the listener; None if there is none: then other workers detect its loss by its lease alone."""
    witnesses: tuple[RealKey, ...] = ()
    """The store's members on other hosts."""
    server: asyncio.Server | None = None
    """The listener; None if there is none."""


async def open_peer_endpoint(settings: Settings) -> PeerEndpoint:
    """Start the listener. Raises `PeerEndpointError` if it cannot listen at the configured address; `auto` continues
    without a listener.
    """
    if settings.store_url.startswith("sqlite:"):
        return PeerEndpoint()  # there are no others
    members = await _members(settings)
    witnesses = on_other_hosts(members, await worker_addresses())
    listens = _listen_address(settings, members)
    if listens is None:
        return PeerEndpoint(witnesses=witnesses)
    try:
        return PeerEndpoint(listens, witnesses, await listen_for_pings(listens, settings.node_name))
    except OSError as error:
        reason = f"cannot listen on {listens} for the other workers: {error.strerror or error}"
        if settings.peers_listen != "auto":
            remedy = 'set [peers] listen to an address of this host and a free port, to "auto" or to "off"'
            raise PeerEndpointError(Code.PEER_LISTENER_UNAVAILABLE, f"[peers] listen: {reason}; {remedy}") from error
        log.warning(
            "%s; the loss of this worker is noticed only when its lease ends; set [peers] listen to another port",
            reason,
            extra=Code.PEER_LISTENER_UNAVAILABLE.extra,
        )
        return PeerEndpoint(witnesses=witnesses)


async def _members(settings: Settings) -> list[RealKey]:
    try:
        async with asyncio.timeout(RESOLVE_TIMEOUT):
            return await resolve_urls(etcd_url.parse_etcd_url(settings.store_url).members)
    except TimeoutError:
        log.warning(
            "[store] url: its host names do not resolve; until the next start only other workers are witnesses",
            extra=Code.PEER_LISTENER_UNAVAILABLE.extra,
        )
        return []


def _listen_address(settings: Settings, members: list[RealKey]) -> RealKey | None:
    if settings.peers_listen == "off":
        return None
    if settings.peers_listen != "auto":
        return RealKey(*parse_socket_address(settings.peers_listen))
    address = settings.node_address or own_address(members)
    return None if address is None else RealKey(address, DEFAULT_PEER_PORT)
