"""The interface of the worker that holds the VIPs: `mesh0`, with each VIP as a single host address.

It is a dummy interface: packets to a VIP end at this host, where IPVS takes them, and none ever leaves through it.
Where the kernel has no dummy interfaces, a bridge without ports does the same.

pyroute2's synchronous class runs an event loop of its own, so it is only used in one worker thread of this interface.
"""

import asyncio
import errno
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from ipaddress import ip_address
from typing import Any, TypeVar

from pyroute2 import IPRoute
from pyroute2.netlink.exceptions import NetlinkError

from mesh.model.service import Address

T = TypeVar("T")

_IFF_UP = 0x1  # linux/if.h
_IFA_F_NODAD = 0x02  # linux/if_addr.h


class MeshInterface:
    """Implements `VipInterface` on a real interface of this host, which stays when the process ends.

    The addresses are read from the kernel, without the IPv6 link-local ones that the kernel adds by itself. An
    interface that was taken down from outside holds no addresses; binding one takes it up again.
    """

    def __init__(self, name: str = "mesh0") -> None:
        self.name = name
        self._thread = ThreadPoolExecutor(1, thread_name_prefix=name)
        self._route: IPRoute | None = None
        """The netlink socket; None until it is first used."""

    async def addresses(self) -> frozenset[Address]:
        """Return the VIPs that are bound now; empty if the interface is down or does not exist. Raises `OSError`."""
        return await self._run(self._addresses)

    async def bind(self, address: Address) -> None:
        """Add an address, and make the interface if it is missing; does nothing if the address is bound already.

        Raises `OSError` with the kernel's reason.
        """
        await self._run(lambda route: self._bind(route, address))

    async def unbind(self, address: Address) -> None:
        """Remove an address; does nothing if it is not bound. Raises `OSError` with the kernel's reason."""
        await self._run(lambda route: self._unbind(route, address))

    async def remove(self) -> bool:
        """Delete the interface with all its addresses; returns whether it existed. Raises `OSError`."""
        return await self._run(self._remove)

    async def close(self) -> None:
        """Close the netlink socket and end the thread; the interface stays."""
        if self._route is not None:
            await asyncio.get_running_loop().run_in_executor(self._thread, self._route.close)
            self._route = None
        self._thread.shutdown(wait=False)

    async def _run(self, work: Callable[[Any], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._thread, self._work, work)

    def _work(self, work: Callable[[Any], T]) -> T:
        """Run a function on the netlink socket, in the interface's thread. Raises `OSError`."""
        try:
            if self._route is None:
                self._route = IPRoute()
            return work(self._route)
        except NetlinkError as error:
            raise OSError(error.code, os.strerror(error.code)) from error

    def _addresses(self, route: Any) -> frozenset[Address]:
        index, up = self._find(route)
        if index is None or not up:
            return frozenset()
        found = (address for address, _ in _addresses(route, index))
        return frozenset(address for address in found if not ip_address(address).is_link_local)

    def _bind(self, route: Any, address: Address) -> None:
        index, up = self._find(route)
        if index is None:
            index = self._make(route)
        if not up:
            route.link("set", index=index, state="up")
        # No duplicate address detection: every worker has the same VIPs by design.
        extra = {"flags": _IFA_F_NODAD} if ":" in address else {}
        _unless(errno.EEXIST, route.addr, "add", index=index, address=address, prefixlen=_host_prefix(address), **extra)

    def _unbind(self, route: Any, address: Address) -> None:
        index, _ = self._find(route)
        if index is None:
            return
        for found, prefixlen in _addresses(route, index):
            if found == address:  # whatever its prefix length: it may have been added outside vipmesh
                _unless(errno.EADDRNOTAVAIL, route.addr, "delete", index=index, address=address, prefixlen=prefixlen)

    def _remove(self, route: Any) -> bool:
        index, _ = self._find(route)
        if index is not None:
            _unless(errno.ENODEV, route.link, "delete", index=index)
        return index is not None

    def _find(self, route: Any) -> tuple[int | None, bool]:
        """Return the interface's index, None if it does not exist, and whether it is up."""
        for link in route.get_links():
            if link.get_attr("IFLA_IFNAME") == self.name:
                return int(link["index"]), bool(link["flags"] & _IFF_UP)
        return None, False

    def _make(self, route: Any) -> int:
        """Make the interface; returns its index."""
        try:
            _unless(errno.EEXIST, route.link, "add", ifname=self.name, kind="dummy")
        except NetlinkError as error:
            if error.code != errno.EOPNOTSUPP:
                raise
            _unless(errno.EEXIST, route.link, "add", ifname=self.name, kind="bridge")
        index, _ = self._find(route)
        if index is None:
            raise OSError(errno.ENODEV, f"interface {self.name} went away as soon as it was made")
        return index


class LoopbackAddresses:
    """Implements `VipInterface` for a pool inside 127.0.0.0/8: on Linux all of it answers without being bound (ip(7)).

    There is nothing to read from the kernel, so this class remembers what was bound. That ends with the process, as
    does the user-space data plane that uses it.
    """

    def __init__(self) -> None:
        self._bound: set[Address] = set()

    async def addresses(self) -> frozenset[Address]:
        """Return the addresses that were bound."""
        return frozenset(self._bound)

    async def bind(self, address: Address) -> None:
        """Remember an address. Raises `OSError` (EADDRNOTAVAIL) for an address outside loopback."""
        if ":" in address or not ip_address(address).is_loopback:
            reason = f"{address} is outside 127.0.0.0/8: choose a VIP in it, or a pool on an interface"
            raise OSError(errno.EADDRNOTAVAIL, reason)
        self._bound.add(address)

    async def unbind(self, address: Address) -> None:
        """Forget an address; does nothing if it is not bound."""
        self._bound.discard(address)


def _addresses(route: Any, index: int) -> list[tuple[Address, int]]:
    """Return the addresses of an interface with their prefix lengths."""
    return [
        (str(ip_address(found.get_attr("IFA_LOCAL") or found.get_attr("IFA_ADDRESS"))), int(found["prefixlen"]))
        for found in route.get_addr(index=index)
    ]


def _host_prefix(address: Address) -> int:
    return ip_address(address).max_prefixlen


def _unless(done: int, call: Callable[..., object], *args: object, **settings: object) -> None:
    """Call a function, and ignore the one error that means that the requested state exists already."""
    try:
        call(*args, **settings)
    except NetlinkError as error:
        if error.code != done:
            raise
