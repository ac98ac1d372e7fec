"""Tables -> transactions of nft(8), and back.

All that is in our nftables table is ours, so nothing has to be told apart from others'. What the plane cannot do like
IPVS it does as near as it can, and says so once: schedulers that look at the load take turns, thresholds are noted and
not enforced. What would lead traffic astray is refused.
"""

import asyncio
import logging
from collections.abc import Collection, Iterable, Mapping, Sequence
from ipaddress import IPv4Network, IPv6Network, ip_address

from mesh import nft
from mesh.dataplane import DataPlaneError, Failure, VipInterface
from mesh.dataplane.nftables import conntrack, ruleset
from mesh.diff import (
    AddRealServer,
    AddVirtualServer,
    BindVip,
    DeleteRealServer,
    DeleteVirtualServer,
    EditRealServer,
    EditVirtualServer,
    Operation,
    RefusedError,
    UnbindVip,
    settle,
)
from mesh.drain import Place
from mesh.model import Forwarding, RealKey, Scheduler, Table, VirtualKey, VirtualServer

log = logging.getLogger("vipmesh")

_TAKES_TURNS = frozenset({Scheduler.LC, Scheduler.WLC, Scheduler.SED, Scheduler.NQ})


async def available() -> str | None:
    """None if this kernel offers nftables and we may use it; otherwise why not, in one line."""
    try:
        await nft.check("table ip vipmesh_lb { chain c { type nat hook prerouting priority -100; }; }\n")
    except nft.NftError as error:
        return str(error)
    return None


class NftablesDataPlane:
    """The `DataPlane` of nftables, for the address family of the pool."""

    name = "nftables"

    def __init__(self, pool: IPv4Network | IPv6Network, interface: VipInterface) -> None:
        self._pool = pool
        self._family = "ip6" if pool.version == 6 else "ip"
        self._interface = interface
        self._told: set[str] = set()

    async def read(self, only: Collection[VirtualKey] | None = None) -> Table:
        """See `DataPlane.read`."""
        try:
            bound = await self._interface.addresses()
        except OSError as error:
            raise DataPlaneError(f"the VIP interface cannot be read ({error}): see `ip address`") from error
        servers = (await self._listed()).virtual_servers()
        table = Table(servers, frozenset(address for address in bound if ip_address(address) in self._pool))
        return table if only is None else table.part(only)

    async def apply(self, operations: Sequence[Operation]) -> Sequence[Failure]:
        """See `DataPlane.apply`. Changes without a VIP in between are one transaction."""
        failures: list[Failure] = []
        changes: list[Operation] = []
        for operation in operations:
            if isinstance(operation, BindVip | UnbindVip):
                failures += await self._program(changes)
                changes = []
                failures += await self._move_vip(operation)
            else:
                changes.append(operation)
        return failures + await self._program(changes)

    async def connections(self, only: Collection[VirtualKey] | None = None) -> Mapping[Place, int]:
        """See `DataPlane.connections`: what conntrack calls established; datagrams need no time."""
        servers = (await self.read(only)).virtual_servers
        counts = await conntrack.established(list(servers))
        return {(key, real): counts.get((key, real), 0) for key in servers for real in servers[key].real_servers}

    async def close(self) -> None:
        """The kernel keeps forwarding."""

    async def remove(self) -> bool:
        """Take the whole table away; whether there was one. Raises `NftError`."""
        return await nft.delete(self._family, ruleset.TABLE)

    async def _listed(self) -> ruleset.Listed:
        try:
            listing = await nft.listing_json(self._family, ruleset.TABLE)
            return await asyncio.to_thread(ruleset.read, listing)
        except nft.NftError as error:
            raise DataPlaneError(str(error)) from error
        except (KeyError, TypeError, ValueError) as error:
            table = f"{self._family} {ruleset.TABLE}"
            raise DataPlaneError(f"nft lists table {table} in an unknown way ({error!r}): delete it") from error

    async def _program(self, changes: Sequence[Operation]) -> list[Failure]:
        if not changes:
            return []
        listed = await self._listed()
        before = listed.virtual_servers()
        after: dict[VirtualKey, VirtualServer | None] = {}
        failures: list[Failure] = []
        concerned: dict[VirtualKey, list[Operation]] = {}
        for operation in changes:
            key = _virtual_key(operation)
            there = after.get(key, before.get(key))
            reason = self._unsupported(key, operation)
            try:
                settled = settle(Table({key: there} if there is not None else {}), operation)
            except RefusedError:
                reason = reason or f"there is no such virtual or real server to change in nftables: {operation}"
            if reason is not None:
                failures.append(Failure(operation, reason))
                continue
            after[key] = settled.virtual_servers.get(key)
            concerned.setdefault(key, []).append(operation)
        refused = await self._write(after, listed)
        failures += [Failure(operation, reason) for key, reason in refused.items() for operation in concerned[key]]
        await self._forget({key: server for key, server in after.items() if key not in refused}, before)
        return failures

    def _unsupported(self, key: VirtualKey, operation: Operation) -> str | None:
        match operation:
            case AddVirtualServer(_, scheduler) | EditVirtualServer(_, scheduler) if scheduler in _TAKES_TURNS:
                self._tell(f"scheduler {scheduler} looks at the load, which nftables cannot: endpoints take turns")
            case AddRealServer(_, real, settings) | EditRealServer(_, real, settings):
                if settings.forwarding is not Forwarding.MASQUERADE:
                    otherwise = "run on a kernel with IPVS, or write routing.forwarding: masquerade"
                    return f"the nftables data plane cannot do forwarding {settings.forwarding}: {otherwise}"
                if settings.upper_threshold:
                    self._tell("routing.max_connections is not enforced by nftables")
                if (":" in real.address) != (":" in key.address):
                    return f"{real} is of another IP version than {key}: give it an address of the VIP's"
        if (":" in key.address) != (self._pool.version == 6):
            return f"{key} is of another IP version than the pool {self._pool}"
        return None

    def _tell(self, line: str) -> None:
        if line not in self._told:
            self._told.add(line)
            log.warning("data plane nftables: %s", line)

    async def _write(
        self, after: Mapping[VirtualKey, VirtualServer | None], listed: ruleset.Listed
    ) -> dict[VirtualKey, str]:
        """All in one transaction; if nft refuses that, each by itself, and why those were refused."""
        parts = {key: list(ruleset.replace(self._family, key, server, listed)) for key, server in after.items()}
        if not parts:
            return {}
        try:
            await self._load([line for part in parts.values() for line in part])
        except nft.NftError as error:
            if len(parts) == 1:
                return dict.fromkeys(parts, str(error))
            return await self._write_each(parts)
        return {}

    async def _write_each(self, parts: Mapping[VirtualKey, Sequence[str]]) -> dict[VirtualKey, str]:
        refused = {}
        for key, part in parts.items():
            try:
                await self._load(part)
            except nft.NftError as error:
                refused[key] = str(error)
        return refused

    async def _load(self, lines: Iterable[str]) -> None:
        await nft.load("\n".join([*ruleset.base(self._family), *lines]) + "\n")

    async def _forget(
        self, after: Mapping[VirtualKey, VirtualServer | None], before: Mapping[VirtualKey, VirtualServer]
    ) -> None:
        """Connections to what is gone, and what datagrams were led to when there was nothing yet."""
        staying: dict[VirtualKey, Collection[RealKey]] = {
            key: server.real_servers.keys() if server is not None else () for key, server in after.items()
        }
        lost = {
            key: reals
            for key, reals in staying.items()
            if key not in before or before[key].real_servers.keys() - reals or not before[key].real_servers
        }
        if lost:
            await conntrack.forget(lost)

    async def _move_vip(self, operation: BindVip | UnbindVip) -> list[Failure]:
        if ip_address(operation.address) not in self._pool:
            return [Failure(operation, f"{operation.address} is outside the VIP pool {self._pool}: widen the pool")]
        try:
            if isinstance(operation, BindVip):
                await self._interface.bind(operation.address)
            else:
                await self._interface.unbind(operation.address)
        except OSError as error:
            return [Failure(operation, f"{error.strerror or error}: see `ip address`, and run as root")]
        return []


def _virtual_key(operation: Operation) -> VirtualKey:
    match operation:
        case AddVirtualServer(key) | EditVirtualServer(key) | DeleteVirtualServer(key):
            return key
        case AddRealServer(virtual) | EditRealServer(virtual) | DeleteRealServer(virtual):
            return virtual
        case BindVip() | UnbindVip():
            raise TypeError(operation)
