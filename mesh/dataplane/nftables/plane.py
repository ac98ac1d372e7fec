"""The data plane of nftables: tables to transactions and back.

The kernel is read, never remembered: what was read last is taken again only while netfilter says that the ruleset is
still the same one. Every `apply` is one transaction between the VIPs that come and go; if nft refuses it, each virtual
server gets one of its own, so that a bad one stops no other.
"""

import asyncio
from collections.abc import AsyncIterator, Callable, Collection, Mapping, Sequence
from contextlib import asynccontextmanager
from functools import lru_cache
from ipaddress import ip_address

from mesh.dataplane import DataPlaneError, Failure, VipInterface
from mesh.dataplane.nftables import nft
from mesh.dataplane.nftables.base import Network, base, script
from mesh.dataplane.nftables.changes import Changes, changes, part, published_part, virtual_key
from mesh.dataplane.nftables.listing import ABSENT, Listing, ListingError, State, state
from mesh.dataplane.nftables.netfilter import NetfilterSocket
from mesh.dataplane.nftables.sample import sample
from mesh.dataplane.vips import move_vip
from mesh.diff import BindVip, Operation, UnbindVip
from mesh.drain import Place
from mesh.model import Table, Transport, VirtualKey, VirtualServer


async def available(pool: Network) -> str | None:
    """None if this host can balance by nftables and we may program it; otherwise why not, in one line."""
    try:
        await nft.commit(sample(pool), check=True)
        netfilter = NetfilterSocket(pool.version)
        try:
            await netfilter.generation()
            await netfilter.entries([VirtualKey(str(pool[1]), 9, Transport.UDP)])
        finally:
            await netfilter.close()
    except DataPlaneError as error:
        return str(error)
    except nft.NftError as error:
        return f"nft cannot set up what is needed ({error}): install nftables 1.0.2 or newer and a kernel from 5.10"
    return None


class NftablesDataPlane:
    """The `DataPlane` of nftables. Opens its socket when it is first used, and anew after an error."""

    name = "nftables"

    def __init__(
        self, pool: Network, interface: VipInterface, published: Callable[[VirtualKey], bool] = lambda key: False
    ) -> None:
        """`published`: whether a virtual server outside the pool is ours."""
        self._pool = pool
        self._interface = interface
        self._published = published
        self._in_pool = lru_cache(1 << 16)(lambda address: ip_address(address) in pool)
        self._base = base(pool)
        self._netfilter: NetfilterSocket | None = None
        self._seen: tuple[int, State] | None = None
        """The ruleset's generation that was read last, and what it held."""

    def owns(self, key: VirtualKey) -> bool:
        """Whether a virtual server is ours."""
        return self._in_pool(key.address) or self._published(key)

    async def read(self, only: Collection[VirtualKey] | None = None) -> Table:
        """See `DataPlane.read`."""
        try:
            bound = await self._interface.addresses()
        except OSError as error:
            raise DataPlaneError(f"the VIP interface cannot be read ({error}): see `ip address`") from error
        servers = (await self._state()).servers
        shown = servers.keys() if only is None else servers.keys() & only
        table = {key: servers[key] for key in shown if self.owns(key)}
        return Table(table, frozenset(address for address in bound if self._in_pool(address)))

    async def apply(self, operations: Sequence[Operation]) -> Sequence[Failure]:
        """See `DataPlane.apply`."""
        failures: list[Failure] = []
        run: list[Operation] = []  # those that share a transaction
        for operation in operations:
            if isinstance(operation, BindVip | UnbindVip):
                failures += await self._program(run)
                run = []
                failures += await self._move_vip(operation)
            else:
                run.append(operation)
        return failures + await self._program(run)

    async def connections(self, only: Collection[VirtualKey] | None = None) -> Mapping[Place, int]:
        """See `DataPlane.connections`: those that were opened and not ended by both sides. UDP has none."""
        table = (await self.read(only)).virtual_servers
        counts = {(key, real): 0 for key, server in table.items() for real in server.real_servers}
        counted = {key for key, _ in counts if key.transport is not Transport.UDP}
        async with self._asking() as netfilter:
            for entry in await netfilter.entries(counted):
                if entry.open and (entry.virtual, entry.real) in counts:
                    counts[entry.virtual, entry.real] += 1
        return counts

    async def close(self) -> None:
        """The kernel keeps forwarding."""
        if self._netfilter is not None:
            await self._netfilter.close()
            self._netfilter = None

    async def remove(self) -> bool:
        """Delete the whole table, and no other; False: there is none. Raises `DataPlaneError`."""
        if await self._listed() is None:
            return False
        await nft.commit([f"delete table {self._base.table}"])
        return True

    async def _state(self) -> State:
        async with self._asking() as netfilter:
            generation = await netfilter.generation()
            if self._seen is None or self._seen[0] != generation:
                listed = await self._listed()
                understood = await asyncio.to_thread(self._understand, listed) if listed else ABSENT
                if await netfilter.generation() != generation:
                    return understood  # somebody is at it: it was whole when it was listed, and is read anew next time
                self._seen = generation, understood
            return self._seen[1]

    async def _listed(self) -> str | None:
        try:
            return await nft.listing("table", *self._base.table.split())
        except nft.NftError as error:
            raise DataPlaneError(
                f"nft does not list table {self._base.table} ({error}): see `nft list ruleset`"
            ) from error

    def _understand(self, listed: str) -> State:
        try:
            return state(Listing.of(listed), self._base, self._in_pool)
        except ListingError as error:
            remedy = f"`nft delete table {self._base.table}` on the host lets it be set up anew"
            raise DataPlaneError(f"what nft lists of our table is not understood ({error}): {remedy}") from error

    async def _program(self, operations: Sequence[Operation]) -> list[Failure]:
        """One transaction. What is not ours is refused; without operations, nothing is read."""
        if not operations:
            return []
        before = await self._state()
        wanted = changes(before.servers, operations, self._not_ours)
        reasons = await self._commit(before, wanted)
        await self._forget(before, wanted, reasons)
        failures = []
        for index, operation in enumerate(operations):
            reason = wanted.refused.get(index) or reasons.get(virtual_key(operation))
            if reason is not None:
                failures.append(Failure(operation, reason))
        return failures

    async def _commit(self, before: State, wanted: Changes) -> dict[VirtualKey, str]:
        """Why each virtual server could not be made so; empty if all could."""
        fixed = [] if before.intact else script(self._base, before.base_chains)
        parts = {key: part(self._base, before, key, after) for key, after in wanted.after.items()}
        parts = {key: lines for key, lines in parts.items() if lines}
        if not parts:
            return {}
        published = published_part(self._base, before, self._published_then(before, wanted.after))
        try:
            await nft.commit([*fixed, *(line for lines in parts.values() for line in lines), *published])
        except nft.NftError:
            return await self._commit_each(before, fixed, parts, wanted)
        return {}

    async def _commit_each(
        self, before: State, fixed: list[str], parts: Mapping[VirtualKey, list[str]], wanted: Changes
    ) -> dict[VirtualKey, str]:
        """As `_commit`, with a transaction for each virtual server."""
        reasons: dict[VirtualKey, str] = {}
        try:
            await nft.commit(fixed)
        except nft.NftError as error:
            remedy = f"`nft delete table {self._base.table}` lets it be set up anew"
            return dict.fromkeys(parts, f"nft refuses what all virtual servers stand on ({error}): {remedy}")
        for key, lines in parts.items():
            try:
                await nft.commit(lines)
            except nft.NftError as error:
                reasons[key] = f"nft refuses {key} ({error}): look into `dmesg` and `nft list table {self._base.table}`"
        done = {key: after for key, after in wanted.after.items() if key not in reasons}
        await nft.commit(published_part(self._base, before, self._published_then(before, done)))
        return reasons

    def _published_then(self, before: State, after: Mapping[VirtualKey, VirtualServer | None]) -> list[VirtualKey]:
        """The virtual servers outside of the pool, once these have changed."""
        then = before.servers.keys() - {key for key, server in after.items() if server is None} | {
            key for key, server in after.items() if server is not None
        }
        return [key for key in then if not self._in_pool(key.address)]

    async def _forget(self, before: State, wanted: Changes, failed: Collection[VirtualKey]) -> None:
        """Connections to what has left are reset by their next packet, or balanced anew where they can be.

        UDP from before a virtual server existed goes past it for as long as the client keeps sending.
        """
        left: dict[VirtualKey, frozenset[object]] = {}
        for key, after in wanted.after.items():
            was = before.servers.get(key)
            reals = frozenset(after.real_servers if after else ())
            if key not in failed and (
                (was is None and after and key.transport is Transport.UDP)
                or (was is not None and not was.real_servers.keys() <= reals)
            ):
                left[key] = reals
        async with self._asking() as netfilter:
            entries = await netfilter.entries(left.keys())
            await netfilter.forget(
                [
                    entry
                    for entry in entries
                    if entry.real not in left[entry.virtual]
                    and (entry.translated or entry.virtual.transport is Transport.UDP)
                ]
            )

    async def _move_vip(self, operation: BindVip | UnbindVip) -> list[Failure]:
        if not self._in_pool(operation.address):
            return [Failure(operation, self._outside(operation.address))]
        reason = await move_vip(self._interface, operation)
        return [] if reason is None else [Failure(operation, reason)]

    def _not_ours(self, key: VirtualKey) -> str | None:
        return None if self.owns(key) else self._outside(str(key))

    def _outside(self, what: str) -> str:
        return f"{what} is outside the VIP pool {self._pool} and not published: widen the pool or choose another VIP"

    @asynccontextmanager
    async def _asking(self) -> AsyncIterator[NetfilterSocket]:
        if self._netfilter is None:
            self._netfilter = NetfilterSocket(self._pool.version)
        try:
            yield self._netfilter
        except DataPlaneError:
            await self.close()
            raise
