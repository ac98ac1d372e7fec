"""The data plane of nftables: tables to transactions and back.

The kernel is read, never remembered: what was read last is taken again only while netfilter says that the ruleset is
still the same one. Where just our own transaction has come in between, what it did is added to that, so that one change
does not cost a listing of everything; the next reading of the whole lists it all the same.

Operations between two VIPs are one transaction; if nft refuses it, each virtual server gets one of its own, so that a
bad one stops no other.

What cannot be done as IPVS does it is done as near as can be, and said once; what would lead traffic astray is refused.
"""

import asyncio
import logging
from collections.abc import AsyncIterator, Collection, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from functools import partial
from ipaddress import ip_address

from mesh.dataplane import DataPlaneError, OperationFailure, VipInterface
from mesh.dataplane.drain import BackendKey
from mesh.dataplane.kernel import move_vip
from mesh.dataplane.nftables.commands import (
    NftChanges,
    operation_key,
    plan_changes,
    server_commands,
    unsupported_features,
)
from mesh.dataplane.nftables.feature_check import sample_commands
from mesh.dataplane.nftables.parse import (
    ABSENT_RULESET,
    ListingError,
    RulesetListing,
    RulesetState,
    committed_state,
    parse_state,
)
from mesh.dataplane.nftables.ruleset import TABLE, Network, base_chains, base_script
from mesh.dataplane.nftables.socket import NetfilterSocket
from mesh.dataplane.operations import BindVip, Operation, UnbindVip
from mesh.model.codes import Code
from mesh.model.errors import CodedText
from mesh.model.service import Transport
from mesh.model.table import Table, TrafficCounters, VirtualKey, VirtualServer
from mesh.util import nft

log = logging.getLogger("vipmesh")

_FEW = 100
"""Operations that are prepared on the event loop; that takes a few milliseconds."""


async def unavailable_reason(version: int = 4) -> str | None:
    """None if this host can balance by nftables and we may program it; otherwise why not, in one line.

    `version`: of IP. Asks nft and the kernel for everything that may be needed, and changes nothing.
    """
    try:
        await nft.check_script("\n".join(sample_commands(version)) + "\n")
        netfilter = NetfilterSocket(version)
        try:
            await netfilter.entries([VirtualKey("::" if version == 6 else "0.0.0.0", 9, Transport.UDP)])
        finally:
            await netfilter.close()
    except (nft.NftError, DataPlaneError) as error:
        return str(error)
    return None


async def remove_tables() -> list[str]:
    """Take away the tables of this data plane, of either address family; those that were there. Raises `NftError`."""
    return [f"{family} {TABLE}" for family in ("ip", "ip6") if await nft.delete_table(family, TABLE)]


class NftablesDataPlane:
    """The `DataPlane` of nftables, for the address family of the pool; all that is in its table is ours.

    Opens its socket when it is first used, and anew after an error.
    """

    name = "nftables"

    def __init__(self, pool: Network, interface: VipInterface) -> None:
        self._pool = pool
        self._interface = interface
        self._base = base_chains(pool.version)
        self._netfilter: NetfilterSocket | None = None
        self._generation: int | None = None
        """The ruleset's that was seen last; None: it changed meanwhile."""
        self._seen = ABSENT_RULESET
        self._listed = False
        """What was seen is what nft has listed, and not what our transactions have made of it."""
        self._told: set[str] = set()

    async def read(self, only: Collection[VirtualKey] | None = None) -> Table:
        """See `DataPlane.read`."""
        try:
            bound = await self._interface.addresses()
        except OSError as error:
            raise DataPlaneError(
                Code.VIP_INTERFACE, f"the VIP interface cannot be read ({error}): see `ip address`"
            ) from error
        servers = (await self._state(whole=only is None)).servers
        table = Table(dict(servers), frozenset(address for address in bound if ip_address(address) in self._pool))
        return table if only is None else table.part(only)

    async def apply(self, operations: Sequence[Operation]) -> Sequence[OperationFailure]:
        """See `DataPlane.apply`."""
        failures: list[OperationFailure] = []
        run: list[Operation] = []  # those that share a transaction
        for operation in operations:
            if isinstance(operation, BindVip | UnbindVip):
                failures += await self._program(run)
                run = []
                failures += await self._move_vip(operation)
            else:
                run.append(operation)
        return failures + await self._program(run)

    async def connections(self, only: Collection[VirtualKey] | None = None) -> Mapping[BackendKey, int]:
        """See `DataPlane.connections`: those that were opened and not ended by both sides. UDP has none."""
        table = (await self.read(only)).virtual_servers
        counts = {(key, real): 0 for key, server in table.items() for real in server.real_servers}
        counted = {key for key, _ in counts if key.transport is not Transport.UDP}
        async with self._asking() as netfilter:
            for entry in await netfilter.entries(counted):
                if entry.open and (entry.virtual, entry.real) in counts:
                    counts[entry.virtual, entry.real] += 1
        return counts

    async def traffic(self) -> Mapping[VirtualKey, TrafficCounters]:
        """See `DataPlane.traffic`: our rules have no counters, which would cost each first packet a little."""
        return {}

    async def close(self) -> None:
        """The kernel keeps forwarding."""
        if self._netfilter is not None:
            netfilter, self._netfilter = self._netfilter, None
            await netfilter.close()

    async def _state(self, *, whole: bool = False) -> RulesetState:
        """What is programmed; `whole`: as nft lists it."""
        async with self._asking() as netfilter:
            generation = await netfilter.generation()
            if self._generation == generation and (self._listed or not whole):
                return self._seen
            try:
                listed = await nft.list_table_json(self._base.family, TABLE)
            except nft.NftError as error:
                raise DataPlaneError(error.code, str(error)) from error
            understand = partial(self._understand, listed, self._seen)
            self._seen = await asyncio.to_thread(understand)
            # somebody may be at it: then this was whole when it was listed, and is read anew next time
            self._generation = generation if await netfilter.generation() == generation else None
            self._listed = True
            return self._seen

    def _understand(self, listed: str | None, before: RulesetState) -> RulesetState:
        try:
            return ABSENT_RULESET if listed is None else parse_state(RulesetListing.of(listed), self._base, before)
        except ListingError as error:
            remedy = f"`nft delete table {self._base.table}` on the host lets it be set up anew"
            raise DataPlaneError(
                Code.NETLINK_FAILED, f"what nft lists of our table is not understood ({error}): {remedy}"
            ) from error

    async def _program(self, operations: Sequence[Operation]) -> list[OperationFailure]:
        """One transaction; without operations, nothing is read."""
        if not operations:
            return []
        before = await self._state()
        prepare = partial(self._prepare, before, operations)
        wanted, parts = prepare() if len(operations) <= _FEW else await asyncio.to_thread(prepare)
        self._tell(operation for index, operation in enumerate(operations) if index not in wanted.refused)
        reasons = await self._commit(before, parts)
        if parts and not reasons:
            await self._follow(before, wanted)
        await self._forget(before, wanted, reasons)
        failures = []
        for index, operation in enumerate(operations):
            reason = wanted.refused.get(index) or reasons.get(operation_key(operation))
            if reason is not None:
                failures.append(OperationFailure(operation, reason))
        return failures

    def _tell(self, operations: Iterable[Operation]) -> None:
        for line in (line for operation in operations for line in unsupported_features(operation)):
            if line not in self._told:
                self._told.add(line)
                log.warning("data plane nftables: %s", line, extra=Code.NFTABLES_CONNECTIONS_UNSEEN.extra)

    def _prepare(
        self, before: RulesetState, operations: Sequence[Operation]
    ) -> tuple[NftChanges, dict[VirtualKey, list[str]]]:
        """What the operations come to, and the commands for each virtual server that changes by them."""
        wanted = plan_changes(before.servers, operations, self._pool.version)
        parts = {key: server_commands(self._base, before, key, after) for key, after in wanted.after.items()}
        return wanted, {key: lines for key, lines in parts.items() if lines}

    async def _commit(self, before: RulesetState, parts: Mapping[VirtualKey, list[str]]) -> dict[VirtualKey, CodedText]:
        """Why each virtual server could not be made so; empty if all could."""
        if not parts:
            return {}
        fixed = [] if before.intact else base_script(self._base, before.hooks)
        try:
            await _load([*fixed, *(line for lines in parts.values() for line in lines)])
        except nft.NftError as error:
            if len(parts) == 1 and before.intact:
                return dict.fromkeys(parts, error.coded)
            return await self._commit_each(fixed, parts)
        return {}

    async def _follow(self, before: RulesetState, wanted: NftChanges) -> None:
        """See what our transaction has made of what was seen, if nobody else's has come in between."""
        async with self._asking() as netfilter:
            generation = await netfilter.generation()
        if self._generation is not None and generation == self._generation + 1:
            self._seen, self._generation = committed_state(before, wanted.after, self._base), generation
            self._listed = False

    async def _commit_each(
        self, fixed: Sequence[str], parts: Mapping[VirtualKey, list[str]]
    ) -> dict[VirtualKey, CodedText]:
        """As `_commit`, with a transaction for each virtual server."""
        reasons: dict[VirtualKey, CodedText] = {}
        try:
            await _load(fixed)
        except nft.NftError as error:
            remedy = f"`nft delete table {self._base.table}` lets it be set up anew"
            reason = f"what all virtual servers stand on cannot be set up ({error}): {remedy}"
            return dict.fromkeys(parts, CodedText(reason, error.code))
        for key, lines in parts.items():
            try:
                await _load(lines)
            except nft.NftError as error:
                reasons[key] = error.coded
        return reasons

    async def _forget(self, before: RulesetState, wanted: NftChanges, failed: Collection[VirtualKey]) -> None:
        """Connections to what has left are reset by their next packet, or balanced anew where they can be.

        Datagrams that were sent before a virtual server existed go past it for as long as their client keeps sending.
        """
        staying = {
            key: frozenset(after.real_servers if after else ())
            for key, after in wanted.after.items()
            if key not in failed and _may_lead_astray(key, before.servers.get(key), after)
        }
        async with self._asking() as netfilter:
            entries = await netfilter.entries(staying.keys())
            stray = [entry for entry in entries if entry.real not in staying[entry.virtual]]
            datagrams = Transport.UDP
            await netfilter.forget([e for e in stray if e.translated or e.virtual.transport is datagrams])

    async def _move_vip(self, operation: BindVip | UnbindVip) -> list[OperationFailure]:
        if ip_address(operation.address) not in self._pool:
            text = f"{operation.address} is outside the VIP pool {self._pool}: widen the pool"
            reason: CodedText | None = CodedText(text, Code.OUTSIDE_VIP_POOL)
        else:
            reason = await move_vip(self._interface, operation)
        return [] if reason is None else [OperationFailure(operation, reason)]

    @asynccontextmanager
    async def _asking(self) -> AsyncIterator[NetfilterSocket]:
        if self._netfilter is None:
            self._netfilter = NetfilterSocket(self._pool.version)
        try:
            yield self._netfilter
        except DataPlaneError:
            await self.close()
            raise


def _may_lead_astray(key: VirtualKey, before: VirtualServer | None, after: VirtualServer | None) -> bool:
    """Whether the kernel may know connections that the virtual server no longer leads where they go."""
    if before is None:
        return after is not None and key.transport is Transport.UDP
    return after is None or not before.real_servers.keys() <= after.real_servers.keys()


async def _load(lines: Sequence[str]) -> None:
    await nft.load_script("\n".join(lines) + "\n")
