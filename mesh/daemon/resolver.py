"""Where containers ask for names: one address that is the same on every worker.

It is on the interface of the VIPs, so that `docker run --dns` and daemon.json need not know the worker. A pool on
loopback has none: there a container would ask itself.
"""

import logging

from mesh.config.settings import Settings
from mesh.dataplane import VipInterface
from mesh.model.codes import Code
from mesh.model.service import Address

log = logging.getLogger("vipmesh")

DNS_PORT = 53


def resolver_address(settings: Settings) -> Address | None:
    """The address; None: there shall be none."""
    if settings.dns_resolver == "off" or (settings.dns_resolver == "auto" and settings.vip_pool.is_loopback):
        return None
    if settings.dns_resolver == "auto":
        return str(settings.vip_pool[1])  # which is never given to a service
    return settings.dns_resolver


async def bind_resolver(interface: VipInterface, address: Address | None) -> Address | None:
    """Bind it, so that the name server can listen there; None if that is not permitted, which is told."""
    if address is None:
        return None
    try:
        await interface.bind(address)
    except OSError as error:
        log.warning(
            "no resolver for containers: %s cannot be bound: %s; run as root",
            address,
            error.strerror,
            extra=Code.NO_RESOLVER_FOR_CONTAINERS.extra,
        )
        return None
    return address
