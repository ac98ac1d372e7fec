"""The resolver address for containers: one address that is the same on every worker.

It is on the VIP interface, so that `docker run --dns` and daemon.json need not name the worker. A pool on loopback has
no resolver: there a container would ask itself.
"""

import logging
from collections.abc import Collection

from mesh.config.settings import Settings
from mesh.config.values import Network
from mesh.dataplane import VipInterface
from mesh.host.host_problems import withheld_vips
from mesh.model.codes import Code
from mesh.model.service import Address

log = logging.getLogger("vipmesh")

DNS_PORT = 53


def resolver_address(settings: Settings) -> Address | None:
    """The resolver address; None if there is none."""
    if settings.dns_resolver == "off" or (settings.dns_resolver == "auto" and settings.vip_pool.is_loopback):
        return None
    if settings.dns_resolver == "auto":
        return str(settings.vip_pool[1])  # the first host address is never claimed by a service
    return settings.dns_resolver


async def bind_resolver(
    interface: VipInterface, address: Address | None, occupied: Collection[Network] = ()
) -> Address | None:
    """Bind the address, so that the name server can listen on it.

    None, with a warning, if that is not permitted, or if it would take the traffic of another host: the address is in
    one of the `occupied` networks and not bound yet.
    """
    if address is None:
        return None
    try:
        if withheld_vips([address], occupied, await interface.addresses()):
            log.warning(
                "resolver for containers: %s is not bound, it is in a network of this host; move [vip] pool",
                address,
                extra=Code.NO_RESOLVER_FOR_CONTAINERS.extra,
            )
            return None
        await interface.bind(address)
    except OSError as error:
        log.warning(
            "resolver for containers: %s cannot be bound (%s); run as root",
            address,
            error.strerror,
            extra=Code.NO_RESOLVER_FOR_CONTAINERS.extra,
        )
        return None
    return address
