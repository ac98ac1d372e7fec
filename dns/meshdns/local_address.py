"""Finds out whether a client is on this host."""

import ipaddress
import socket


def is_local_address(host: str) -> bool:
    """Return whether an address is one of this host's own, loopback included. Nothing is sent.

    The kernel is asked from which address it would send there (connect(2) of a datagram socket): for an own address it
    is that address itself. Binding would be simpler but succeeds for any address with `ip_nonlocal_bind`.
    """
    address = ipaddress.ip_address(host.partition("%")[0])
    if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped:
        address = address.ipv4_mapped
    if address.is_loopback:
        return True
    family = socket.AF_INET6 if address.version == 6 else socket.AF_INET
    try:
        with socket.socket(family, socket.SOCK_DGRAM) as trial:
            trial.connect((str(address), 9))
            return ipaddress.ip_address(trial.getsockname()[0]) == address
    except OSError:
        return False
