"""The data plane of a worker whose kernel has IPVS: turns tables into netlink messages and back.

Other programs may use the same IPVS (keepalived, ipvsadm by hand). So nothing is ever flushed, and virtual servers that
are not ours are neither reported nor changed: ours are those inside the VIP pool and those for which `published` is
true.

The state is always read from the kernel and never remembered.

A virtual server that is added deletes the tracked connections that its clients had already begun without it.
"""

import asyncio
import errno
import logging
import os
from collections.abc import AsyncIterator, Callable, Collection, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from functools import lru_cache
from ipaddress import IPv4Network, IPv6Network, ip_address

from typing_extensions import override

from mesh.dataplane import DataPlane, DataPlaneError, OperationFailure, VipInterface
from mesh.dataplane.conntrack.connections import TrackedConnections
from mesh.dataplane.drain import BackendKey
from mesh.dataplane.ipvs import messages as codec
from mesh.dataplane.ipvs.convert import (
    IpvsChange,
    as_edit,
    encode_change,
    failure_reason,
    operation_key,
    to_virtual_server,
)
from mesh.dataplane.ipvs.fast_parse import DestinationParser, ServiceParser
from mesh.dataplane.ipvs.socket import BATCH, IpvsSocket
from mesh.dataplane.ipvs.stats import parse_endpoint_traffic, parse_traffic
from mesh.dataplane.kernel import move_vip
from mesh.dataplane.operations import AddVirtualServer, BindVip, Operation, UnbindVip
from mesh.model.codes import Code
from mesh.model.errors import CodedText
from mesh.model.service import Address
from mesh.model.table import Table, TrafficCounters, VirtualKey

_FEW = 64
"""Up to so many virtual servers are requested one by one; more are picked from the list of all."""

log = logging.getLogger("vipmesh")


async def unavailable_reason() -> str | None:
    """Return None if this kernel has IPVS and we may program it; otherwise the reason, in one line."""
    try:
        ipvs = await IpvsSocket.open()
        try:
            await ipvs.dump(codec.get_info(), codec.parse_info)
        finally:
            ipvs.close()
    except DataPlaneError as error:
        return str(error)
    return None


class IpvsDataPlane(DataPlane):
    """Implements `DataPlane` on IPVS. It opens its socket on first use, and opens another one after an error."""

    name = "ipvs"
    forwards_in_kernel = True

    def __init__(
        self,
        pool: IPv4Network | IPv6Network,
        interface: VipInterface,
        published: Callable[[VirtualKey], bool] = lambda _: False,
        tcp_timeout: int = 7200,
    ) -> None:
        """`published` says whether a virtual server outside the pool is ours. `tcp_timeout` is in seconds.

        By default IPVS forgets an idle TCP connection after 900 s; a client that sends on it later is refused.
        """
        self._pool = pool
        self._interface = interface
        self._published = published
        self._tcp_timeout = tcp_timeout
        self._in_pool = lru_cache(1 << 16)(lambda address: ip_address(address) in pool)
        self._parse_service, self._parse_destination = ServiceParser(), DestinationParser()
        self._ipvs: IpvsSocket | None = None
        self._opening = asyncio.Lock()
        self._tracked = TrackedConnections(pool.version)
        self._bypassed: frozenset[VirtualKey] = frozenset()
        """New virtual servers whose earlier connections are still to be deleted."""
        self._blind = False
        """Whether the last attempt to do so failed."""

    def owns(self, key: VirtualKey) -> bool:
        """Return whether a virtual server is ours."""
        return self._in_pool(key.address) or self._published(key)

    @override
    async def read(self, only: Collection[VirtualKey] | None = None) -> Table:
        try:
            bound = await self._interface.addresses()
        except OSError as error:
            raise DataPlaneError(
                Code.VIP_INTERFACE, f"the VIP interface cannot be read ({error}): see `ip address`"
            ) from error
        async with self._connection() as ipvs:
            servers = {
                service.key: to_virtual_server(service, destinations)
                for service, destinations in await self._listing(ipvs, only)
            }
        if only is None:
            await self._forget_bypassing(())
        return Table(servers, frozenset(address for address in bound if self._in_pool(address)))

    @override
    async def apply(self, operations: Sequence[Operation]) -> Sequence[OperationFailure]:
        """Up to `BATCH` operations in a row share a datagram, unless a VIP is bound or unbound between them."""
        failures: list[OperationFailure] = []
        changes: list[IpvsChange] = []  # changes that share a datagram
        for operation in operations:
            # A VIP is not IPVS's: everything before it must have happened when it is bound or unbound.
            if isinstance(operation, BindVip | UnbindVip):
                failures += await self._program(changes)
                changes = []
                failures += await self._move_vip(operation)
                continue
            changes.append(operation)
            if len(changes) == BATCH:
                failures += await self._program(changes)
                changes = []
        failures += await self._program(changes)
        refused = {failure.operation for failure in failures}
        # Last, since a packet that arrives before its VIP is bound would bypass the virtual server again.
        await self._forget_bypassing(o.key for o in operations if isinstance(o, AddVirtualServer) and o not in refused)
        return failures

    @override
    async def connections(self, only: Collection[VirtualKey] | None = None) -> Mapping[BackendKey, int]:
        """Return the connections that IPVS counts as active, for each real server.

        UDP has no established connections, so its real servers need no time to drain. Raises `DataPlaneError`.
        """
        async with self._connection() as ipvs:
            return {
                (service.key, destination.key): destination.active
                for service, destinations in await self._listing(ipvs, only)
                for destination in destinations
            }

    @override
    async def traffic(self) -> Mapping[VirtualKey, TrafficCounters]:
        async with self._connection() as ipvs:
            counted = await ipvs.dump(codec.get_services(), parse_traffic)
        return {key: traffic for key, traffic in filter(None, counted) if self.owns(key)}

    @override
    async def endpoint_traffic(self) -> Mapping[BackendKey, TrafficCounters]:
        async with self._connection() as ipvs:
            services = await ipvs.dump(codec.get_services(), self._parse_service)
            keys = [service.key for service in services if service is not None and self.owns(service.key)]
            counted = await ipvs.dump_each([codec.get_destinations(key) for key in keys], parse_endpoint_traffic)
        return {(key, real): traffic for key, found in zip(keys, counted, strict=True) for real, traffic in found}

    @override
    def listening_on(self, key: VirtualKey) -> tuple[Address, int]:
        return key.address, key.port

    @override
    async def close(self) -> None:
        """Close the socket; the kernel keeps forwarding."""
        self._close_ipvs()
        await self._tracked.close()

    def _close_ipvs(self) -> None:
        if self._ipvs is not None:
            self._ipvs.close()
            self._ipvs = None

    async def _forget_bypassing(self, keys: Iterable[VirtualKey]) -> None:
        """Delete the tracked connections that began before these virtual servers existed.

        IPVS takes their packets, but conntrack has already decided not to rewrite their source, so that replies of
        endpoints elsewhere would be lost. What fails is tried again by the next `read` of everything.
        """
        self._bypassed |= frozenset(keys)
        if not self._bypassed:
            return
        due = self._bypassed
        try:
            await self._tracked.forget_bypassing(due)
        except DataPlaneError as error:
            if not self._blind:
                log.warning("connections that began before their service may hang: %s", error, extra=error.code.extra)
            self._blind = True
            return
        self._bypassed -= due
        self._blind = False

    async def _listing(
        self, ipvs: IpvsSocket, only: Collection[VirtualKey] | None
    ) -> list[tuple[codec.IpvsService, list[codec.IpvsDestination]]]:
        """Return our virtual servers, each with its real servers."""
        if only is None or len(only) > _FEW:
            services = await ipvs.dump(codec.get_services(), self._parse_service)
        else:
            asked = [codec.get_service(key) for key in only]
            found = await ipvs.dump_each(asked, codec.parse_service, absent=errno.ESRCH)
            services = [service for replies in found for service in replies]
        ours = [
            service
            for service in services
            if service is not None and self.owns(service.key) and (only is None or service.key in only)
        ]
        asked = [codec.get_destinations(service.key) for service in ours]
        return list(zip(ours, await ipvs.dump_each(asked, self._parse_destination), strict=True))

    async def _program(self, changes: Sequence[IpvsChange]) -> list[OperationFailure]:
        """Make the changes, and refuse changes that are not ours. Without changes of ours, no socket is opened."""
        ours = [change for change in changes if self.owns(operation_key(change))]
        # One reason or None for each change that is ours, in order; the others get their reason below.
        reasons = iter(await self._reasons(ours) if ours else ())
        failures = []
        for change in changes:
            key = operation_key(change)
            reason = next(reasons) if self.owns(key) else self._not_ours(str(key))
            if reason is not None:
                failures.append(OperationFailure(change, reason))
        return failures

    async def _reasons(self, changes: Sequence[IpvsChange]) -> list[CodedText | None]:
        """Send the changes; returns why each failed, or None if it did not. Adding what exists edits it instead."""
        async with self._connection() as ipvs:
            acks = await ipvs.execute([encode_change(change) for change in changes])
            existing = [index for index, ack in enumerate(acks) if ack.error == errno.EEXIST]
            again = await ipvs.execute([encode_change(as_edit(changes[index])) for index in existing])
        for index, ack in zip(existing, again, strict=True):
            acks[index] = ack
        reasons = (failure_reason(change, ack) for change, ack in zip(changes, acks, strict=True))
        return [None if text is None else CodedText(text, Code.OPERATION_REFUSED) for text in reasons]

    async def _move_vip(self, operation: BindVip | UnbindVip) -> list[OperationFailure]:
        """Bind or unbind a VIP, if it is inside the pool."""
        if not self._in_pool(operation.address):
            return [OperationFailure(operation, self._not_ours(operation.address))]
        reason = await move_vip(self._interface, operation)
        return [] if reason is None else [OperationFailure(operation, reason)]

    def _not_ours(self, what: str) -> CodedText:
        reason = f"{what} is outside the VIP pool {self._pool} and not published: widen the pool or choose another VIP"
        return CodedText(reason, Code.OUTSIDE_VIP_POOL)

    @asynccontextmanager
    async def _connection(self) -> AsyncIterator[IpvsSocket]:
        """Yield the open socket. After an error it is closed, since IPVS may have been unloaded and loaded again."""
        try:
            async with self._opening:
                if self._ipvs is None:
                    self._ipvs = await IpvsSocket.open()
                    await self._keep_idle_connections(self._ipvs)
                ipvs = self._ipvs
            yield ipvs
        except DataPlaneError:
            self._close_ipvs()
            raise

    async def _keep_idle_connections(self, ipvs: IpvsSocket) -> None:
        """Set the timeout of idle TCP connections if it differs."""
        (timeouts,) = await ipvs.dump(codec.get_config(), codec.parse_timeouts)
        if timeouts.tcp == self._tcp_timeout:
            return
        (ack,) = await ipvs.execute([codec.set_config(codec.IpvsTimeouts(tcp=self._tcp_timeout))])
        if ack.error:
            log.warning(
                "IPVS TCP timeout stays at %d s: %s",
                timeouts.tcp,
                os.strerror(ack.error),
                extra=Code.IPVS_TIMEOUT.extra,
            )
        else:
            log.info("IPVS TCP timeout: %d s, was %d s", self._tcp_timeout, timeouts.tcp)
