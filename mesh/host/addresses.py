"""The worker's own addresses, and notifications of changes to the host's network.

Published ports listen on every address of the worker, including addresses that appear later. The kernel announces
changes by rtnetlink(7) multicast. A message is only a reason to look again; the addresses are then read. The same
notification makes the control loop restore a VIP that was removed from the interface, long before the audit would.
"""

import asyncio
import errno
import socket
from collections.abc import AsyncGenerator
from contextlib import aclosing
from ipaddress import ip_address
from typing import Any

from pyroute2 import IPRoute

from mesh.model.service import Address

# linux/rtnetlink.h
_RTMGRP_LINK = 0x1
_RTMGRP_IPV4_IFADDR = 0x10
_RTMGRP_IPV6_IFADDR = 0x100
_RTMGRP_IPV4_ROUTE = 0x40
_RTMGRP_IPV6_ROUTE = 0x400

_SETTLE = 0.05
"""Seconds to wait after a message: an interface that comes up causes several."""


class HostAddresses:
    """The addresses that published ports listen on: all of the worker's own, or only the configured one."""

    def __init__(self, only: Address | None = None, own_interface: str = "mesh0") -> None:
        self._only = only
        self._own_interface = own_interface

    async def watch(self) -> AsyncGenerator[frozenset[Address], None]:
        """Yield the addresses at once, and again after each change of the host's network, even if they are the same.

        Raises `OSError` if the kernel cannot be asked.
        """
        async with aclosing(watch_network_changes()) as notifications:
            async for _ in notifications:
                yield frozenset([self._only]) if self._only else await worker_addresses(self._own_interface)


async def worker_addresses(own_interface: str = "mesh0") -> frozenset[Address]:
    """Return the addresses at which others reach this host: without loopback, link-local addresses and VIPs.

    Raises `OSError` if the kernel cannot be asked.
    """
    return await asyncio.to_thread(_worker_addresses, own_interface)


async def watch_network_changes(*, routes: bool = False) -> AsyncGenerator[None, None]:
    """Yield at once, and again after links or addresses of this host have changed; with `routes`, also after routes.

    Changes of one moment are reported once.

    Raises `OSError` if the kernel offers no notifications.
    """
    loop = asyncio.get_running_loop()
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, socket.NETLINK_ROUTE) as sock:
        sock.setblocking(False)
        groups = _RTMGRP_LINK | _RTMGRP_IPV4_IFADDR | _RTMGRP_IPV6_IFADDR
        sock.bind((0, groups | _RTMGRP_IPV4_ROUTE | _RTMGRP_IPV6_ROUTE if routes else groups))
        changed = asyncio.Event()
        loop.add_reader(sock.fileno(), _drain, sock, changed)
        try:
            while True:
                yield
                await changed.wait()
                await asyncio.sleep(_SETTLE)
                # Cleared before the consumer reads the addresses: a change during its reading leads to another one.
                changed.clear()
        finally:
            loop.remove_reader(sock.fileno())


def _drain(sock: socket.socket, changed: asyncio.Event) -> None:
    """Read all waiting messages. Their content does not matter, nor does it matter if some were lost."""
    changed.set()
    while True:
        try:
            sock.recv(65536)
        except BlockingIOError:
            return
        except OSError as error:
            if error.errno != errno.ENOBUFS:  # messages were lost because the buffer was full: still a change
                raise


def _worker_addresses(own_interface: str) -> frozenset[Address]:
    with IPRoute() as route:
        own = {link["index"] for link in route.get_links() if link.get_attr("IFLA_IFNAME") == own_interface}
        found = [_address(entry) for entry in route.get_addr() if entry["index"] not in own]
    return frozenset(text for text in found if _reachable(text))


def _address(entry: Any) -> Address:
    return str(ip_address(entry.get_attr("IFA_LOCAL") or entry.get_attr("IFA_ADDRESS")))


def _reachable(text: Address) -> bool:
    address = ip_address(text)
    return not (address.is_loopback or address.is_link_local or address.is_unspecified or address.is_multicast)
