"""Says where other workers ask this worker's admin API."""

from ipaddress import ip_address

from mesh.config.settings import Settings
from mesh.config.values import parse_socket_address
from mesh.daemon.peer_endpoint import PeerEndpoint
from mesh.host.node_ip import own_address
from mesh.model.service import Address
from mesh.model.table import RealKey


def admin_address(settings: Settings, peers: PeerEndpoint) -> RealKey | None:
    """Return the address that this worker publishes; None if it has no certificates, no TCP port or no other workers.

    Whoever has no certificate of the cluster could not ask, and could not be sure whom he asks.
    """
    listen = settings.admin_tcp or (None if settings.admin_listen.startswith("unix:") else settings.admin_listen)
    alone = settings.store_url.startswith("sqlite:")
    if alone or listen is None or settings.admin_cert is None or settings.admin_client_ca is None:
        return None
    if settings.admin_advertise is not None:
        return RealKey(*parse_socket_address(settings.admin_advertise))
    return advertised(RealKey(*parse_socket_address(listen)), _own_address(settings, peers))


def advertised(listens: RealKey, own: Address | None) -> RealKey | None:
    """Return where a listener is reached from elsewhere, given the worker's own address; None if it is not.

    One that listens on every address of a family is reached at the worker's own one, if it is of that family. An
    address with a scope means another host on each worker.
    """
    if not listens.port or "%" in listens.address:
        return None
    if not ip_address(listens.address).is_unspecified:
        return listens
    if own is None or (":" in own) is not (":" in listens.address):
        return None
    return RealKey(own, listens.port)


def _own_address(settings: Settings, peers: PeerEndpoint) -> Address | None:
    if settings.node_address is not None:
        return settings.node_address
    return own_address(peers.witnesses) if peers.listens is None else peers.listens.address
