"""The worker's own addresses, and word from the kernel when its network changes.

Published ports listen on every address of the worker, those that appear later included. The kernel tells of changes
by rtnetlink(7) multicast; a message is only a reason to look again, and what counts is what is then read. The same
word makes the loop mend a VIP that somebody took from the interface, long before the audit would.
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

_SETTLE = 0.05
"""Seconds to wait after a message: an interface that comes up tells of it several times."""


class HostAddresses:
    """The addresses that published ports listen on: all of the worker's own, or the one that the settings name."""

    def __init__(self, only: Address | None = None, own_interface: str = "mesh0") -> None:
        self._only = only
        self._own_interface = own_interface

    async def watch(self) -> AsyncGenerator[frozenset[Address], None]:
        """Yields them at once, and again after every change of the host's network, whether or not it was one of them.

        Raises `OSError` if the kernel cannot be asked.
        """
        async with aclosing(watch_network_changes()) as told:
            async for _ in told:
                yield frozenset([self._only]) if self._only else await worker_addresses(self._own_interface)


async def worker_addresses(own_interface: str = "mesh0") -> frozenset[Address]:
    """The addresses of this host that others can reach: without loopback, link-local ones and the VIPs.

    Raises `OSError` if the kernel cannot be asked.
    """
    return await asyncio.to_thread(_worker_addresses, own_interface)


async def watch_network_changes() -> AsyncGenerator[None, None]:
    """Yields at once, and again after links or addresses of this host have changed; several changes come as one.

    Raises `OSError` if the kernel does not offer it.
    """
    loop = asyncio.get_running_loop()
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, socket.NETLINK_ROUTE) as told:
        told.setblocking(False)
        told.bind((0, _RTMGRP_LINK | _RTMGRP_IPV4_IFADDR | _RTMGRP_IPV6_IFADDR))
        changed = asyncio.Event()
        loop.add_reader(told.fileno(), _drain, told, changed)
        try:
            while True:
                yield
                await changed.wait()
                await asyncio.sleep(_SETTLE)
                changed.clear()
        finally:
            loop.remove_reader(told.fileno())


def _drain(told: socket.socket, changed: asyncio.Event) -> None:
    """Read what is there; what it says does not matter, nor that some of it was lost."""
    changed.set()
    while True:
        try:
            told.recv(65536)
        except BlockingIOError:
            return
        except OSError as error:
            if error.errno != errno.ENOBUFS:  # more came than the socket could hold: a change all the same
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
