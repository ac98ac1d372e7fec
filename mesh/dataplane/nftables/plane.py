"""The nftables data plane: turns tables into transactions and back.

The state is read from the kernel. A previous reading is used again only while netfilter reports that the ruleset is
still the same. If only our own transaction has come in between, its effect is added to the previous reading, so that a
single change does not cost a listing of everything; the next reading of the whole table lists it all the same.

All operations between two VIP operations are one transaction. If nft refuses it, each virtual server gets a transaction
of its own, so that a bad one does not stop the others.

Features of IPVS that nftables lacks are approximated, and a warning is logged once. Operations that would misdirect
traffic are refused.
"""

import asyncio
import logging
from collections.abc import AsyncIterator, Collection, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from functools import partial
from ipaddress import ip_address

from typing_extensions import override

from mesh.dataplane import DataPlane, DataPlaneError, OperationFailure, VipInterface
from mesh.dataplane.conntrack.socket import NetfilterSocket
from mesh.dataplane.conntrack.stale import is_stray
from mesh.dataplane.drain import BackendKey
from mesh.dataplane.kernel import move_vip
from mesh.dataplane.nftables.accounting import TrafficAccounting
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
from mesh.dataplane.nftables.service_chain import FOREIGN_VALUE
from mesh.dataplane.nftables.traffic_counters import COUNTER_TABLE
from mesh.dataplane.operations import BindVip, Operation, UnbindVip
from mesh.model.codes import Code
from mesh.model.errors import CodedText
from mesh.model.service import Address, Transport
from mesh.model.table import Table, TrafficCounters, VirtualKey, VirtualServer
from mesh.util import nft

log = logging.getLogger("vipmesh")

_FEW = 100
"""Operations that are prepared on the event loop, which takes a few milliseconds; more are prepared in a thread."""


async def unavailable_reason(version: int = 4) -> str | None:
    """Return None if this host can balance by nftables and we may program it; otherwise the reason, in one line.

    `version` is the IP version. The check asks nft and the kernel for every feature that may be needed and changes
    nothing.
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
    """Delete the tables of this data plane in both address families; returns those that existed. Raises `NftError`."""
    tables = [(family, table) for family in ("ip", "ip6") for table in (TABLE, COUNTER_TABLE)]
    return [f"{family} {table}" for family, table in tables if await nft.delete_table(family, table)]


class NftablesDataPlane(DataPlane):
    """Implements `DataPlane` on nftables for the address family of the pool; everything in its table is ours.

    It opens its socket on first use, and opens another one after an error.
    """

    name = "nftables"
    forwards_in_kernel = True

    def __init__(self, pool: Network, interface: VipInterface) -> None:
        self._pool = pool
        self._interface = interface
        self._base = base_chains(pool.version)
        self._accounting = TrafficAccounting(pool.version, self._servers, self._note_transaction)
        self._netfilter: NetfilterSocket | None = None
        self._generation: int | None = None
        """The number of the ruleset that `_seen` describes; None if the ruleset changed while it was read."""
        self._seen = ABSENT_RULESET
        """The state that was read last."""
        self._listed = False
        """Whether `_seen` is what nft listed, rather than what our transactions have made of that."""
        self._with_strays: frozenset[VirtualKey] = frozenset()
        """Virtual servers whose stray connections are still to be deleted."""
        self._warned: set[str] = set()
        """Warnings that were logged already."""

    @override
    async def read(self, only: Collection[VirtualKey] | None = None) -> Table:
        try:
            bound = await self._interface.addresses()
        except OSError as error:
            raise DataPlaneError(
                Code.VIP_INTERFACE, f"the VIP interface cannot be read ({error}): see `ip address`"
            ) from error
        servers = (await self._state(whole=only is None)).servers
        if only is None:
            await self._forget_strays(())
        table = Table(dict(servers), frozenset(address for address in bound if ip_address(address) in self._pool))
        return table if only is None else table.part(only)

    @override
    async def apply(self, operations: Sequence[Operation]) -> Sequence[OperationFailure]:
        try:
            return await self._apply(operations)
        finally:
            self._accounting.load()  # last, so that nothing of this waits for it

    @override
    async def connections(self, only: Collection[VirtualKey] | None = None) -> Mapping[BackendKey, int]:
        """Return the number of connections of each real server that were opened and not closed by both sides.

        UDP connections are not counted: they are 0. Raises `DataPlaneError`.
        """
        table = (await self.read(only)).virtual_servers
        counts = {(key, real): 0 for key, server in table.items() for real in server.real_servers}
        counted = {key for key, _ in counts if key.transport is not Transport.UDP}
        async with self._asking() as netfilter:
            for entry in await netfilter.entries(counted):
                if entry.open and (entry.virtual, entry.real) in counts:
                    counts[entry.virtual, entry.real] += 1
        return counts

    @override
    async def traffic(self) -> Mapping[VirtualKey, TrafficCounters]:
        """Return what the kernel has counted at a table of its own, at most a second ago; empty if it cannot count."""
        return (await self._accounting.traffic()).servers

    @override
    async def endpoint_traffic(self) -> Mapping[BackendKey, TrafficCounters]:
        """Return what the kernel has counted at a table of its own, at most a second ago; empty if it cannot count."""
        return (await self._accounting.traffic()).endpoints

    async def counted(self) -> None:
        """Wait until all that is programmed is counted, if the host can count; then `traffic` returns fresh counts."""
        await self._accounting.counted()

    @override
    def listening_on(self, key: VirtualKey) -> tuple[Address, int]:
        return key.address, key.port

    @override
    async def close(self) -> None:
        """Close the sockets; the kernel keeps forwarding."""
        await self._accounting.close()
        await self._close_netfilter()

    async def _close_netfilter(self) -> None:
        if self._netfilter is not None:
            netfilter, self._netfilter = self._netfilter, None
            await netfilter.close()

    async def _apply(self, operations: Sequence[Operation]) -> Sequence[OperationFailure]:
        failures: list[OperationFailure] = []
        run: list[Operation] = []  # operations that share a transaction
        for operation in operations:
            # A VIP is not in the ruleset: everything before it must have happened when it is bound or unbound.
            if isinstance(operation, BindVip | UnbindVip):
                failures += await self._program(run)
                run = []
                failures += await self._move_vip(operation)
            else:
                run.append(operation)
        return failures + await self._program(run)

    async def _servers(self) -> Mapping[VirtualKey, VirtualServer]:
        """Return the virtual servers that are programmed. Raises `DataPlaneError`."""
        return (await self._state()).servers

    def _note_transaction(self, before: int, after: int) -> None:
        """Note a transaction of the table that counts, between two numbers of the ruleset: it leaves ours as it is."""
        # If others have changed the ruleset meanwhile, the number is larger.
        if self._generation == before and after == before + 1:
            self._generation = after

    async def _state(self, *, whole: bool = False) -> RulesetState:
        """Return what is programmed; `whole` insists on what nft lists."""
        async with self._asking() as netfilter:
            generation = await netfilter.generation()
            if self._generation == generation and (self._listed or not whole):
                return self._seen
            try:
                listed = await nft.list_table_json(self._base.family, TABLE)
            except nft.NftError as error:
                raise DataPlaneError(error.code, str(error)) from error
            seen = await asyncio.to_thread(partial(self._understand, listed, self._seen))
            # If the ruleset changed during the listing, the listing is consistent but may be outdated already: without
            # a generation, the next call lists again.
            now = await netfilter.generation()
            self._seen, self._listed, self._generation = seen, True, generation if now == generation else None
            return seen

    def _understand(self, listed: str | None, before: RulesetState) -> RulesetState:
        """Parse a listing; None for no table. Raises `DataPlaneError`."""
        try:
            return ABSENT_RULESET if listed is None else parse_state(RulesetListing.of(listed), self._base, before)
        except ListingError as error:
            remedy = f"`nft delete table {self._base.table}` on the host lets it be set up anew"
            raise DataPlaneError(
                Code.NETLINK_FAILED, f"what nft lists of our table is not understood ({error}): {remedy}"
            ) from error

    async def _program(self, operations: Sequence[Operation]) -> list[OperationFailure]:
        """Make the changes in one transaction. Without operations, nothing is read."""
        if not operations:
            return []
        async with self._accounting.changing:
            before = await self._state()
            prepare = partial(self._prepare, before, operations)
            wanted, parts = prepare() if len(operations) <= _FEW else await asyncio.to_thread(prepare)
            self._tell(operation for index, operation in enumerate(operations) if index not in wanted.refused)
            reasons = await self._commit(before, parts)
            if parts and not reasons:
                await self._follow(before, wanted)
            done = {key: after for key, after in wanted.after.items() if key not in reasons}
            self._accounting.note(before.servers, done)
        await self._forget_strays(
            key
            for key, after in wanted.after.items()
            if key not in reasons and _may_lead_astray(before.servers.get(key), after, intact=before.intact)
        )
        failures = []
        for index, operation in enumerate(operations):
            reason = wanted.refused.get(index) or reasons.get(operation_key(operation))
            if reason is not None:
                failures.append(OperationFailure(operation, reason))
        return failures

    def _tell(self, operations: Iterable[Operation]) -> None:
        """Log what is done differently from what the operations ask for, each warning once."""
        for operation in operations:
            for line in unsupported_features(operation):
                if line not in self._warned:
                    self._warned.add(line)
                    log.warning("data plane nftables: %s", line, extra=Code.NFTABLES_CONNECTIONS_UNSEEN.extra)

    def _prepare(
        self, before: RulesetState, operations: Sequence[Operation]
    ) -> tuple[NftChanges, dict[VirtualKey, list[str]]]:
        """Return the result of the operations, and the commands for each virtual server that they change."""
        wanted = plan_changes(before.servers, operations, self._pool.version)
        parts = {key: server_commands(self._base, before, key, after) for key, after in wanted.after.items()}
        return wanted, {key: lines for key, lines in parts.items() if lines}

    async def _commit(self, before: RulesetState, parts: Mapping[VirtualKey, list[str]]) -> dict[VirtualKey, CodedText]:
        """Run the commands; returns why each virtual server failed that did, empty if all succeeded."""
        if not parts:
            return {}
        fixed = [] if before.intact else base_script(self._base, before.hooks)
        try:
            await _load([*fixed, *(line for lines in parts.values() for line in lines)])
        except nft.NftError as error:
            # A single part that was refused would be refused again.
            if len(parts) == 1 and before.intact:
                return dict.fromkeys(parts, error.coded)
            return await self._commit_each(fixed, parts)
        return {}

    async def _follow(self, before: RulesetState, wanted: NftChanges) -> None:
        """Update the state from our own transaction, unless another transaction has come in between."""
        async with self._asking() as netfilter:
            generation = await netfilter.generation()
        # Every transaction increments the generation by one, so exactly one more means that only ours has happened.
        if self._generation is not None and generation == self._generation + 1:
            self._seen, self._generation = committed_state(before, wanted.after, self._base), generation
            self._listed = False

    async def _commit_each(
        self, fixed: Sequence[str], parts: Mapping[VirtualKey, list[str]]
    ) -> dict[VirtualKey, CodedText]:
        """Run a transaction for each virtual server; returns why each failed that did."""
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

    async def _forget_strays(self, keys: Iterable[VirtualKey]) -> None:
        """Delete the tracked connections of these virtual servers that go elsewhere than the rules would send them.

        The next packet of such a connection is then balanced again or reset. That concerns connections to real servers
        that have left, and connections that began before their virtual server existed: they would bypass it for as long
        as their client keeps sending. What fails is tried again by the next `read` of everything.
        """
        self._with_strays |= frozenset(keys)
        if not self._with_strays:
            return
        due, servers = self._with_strays, (await self._state()).servers
        async with self._asking() as netfilter:
            entries = await netfilter.entries(due)
            stray = [
                e for e in entries if is_stray(e, server.real_servers if (server := servers.get(e.virtual)) else ())
            ]
            await netfilter.forget(stray)
        self._with_strays -= due

    async def _move_vip(self, operation: BindVip | UnbindVip) -> list[OperationFailure]:
        """Bind or unbind a VIP, if it is inside the pool."""
        if ip_address(operation.address) not in self._pool:
            text = f"{operation.address} is outside the VIP pool {self._pool}: widen the pool"
            reason: CodedText | None = CodedText(text, Code.OUTSIDE_VIP_POOL)
        else:
            reason = await move_vip(self._interface, operation)
        return [] if reason is None else [OperationFailure(operation, reason)]

    @asynccontextmanager
    async def _asking(self) -> AsyncIterator[NetfilterSocket]:
        """Yield the open socket; close it after an error."""
        if self._netfilter is None:
            self._netfilter = NetfilterSocket(self._pool.version)
        try:
            yield self._netfilter
        except DataPlaneError:
            await self._close_netfilter()
            raise


def _may_lead_astray(before: VirtualServer | None, after: VirtualServer | None, *, intact: bool) -> bool:
    """Return whether the kernel may track connections that go elsewhere than the virtual server would send them now.

    `intact` is whether the rules that all virtual servers depend on were as they must be.
    """
    if after is None or before is None:
        return after is not before
    if not intact or before.persistence == FOREIGN_VALUE:
        return True  # connections that began while the rules were broken
    return not before.real_servers.keys() <= after.real_servers.keys()


async def _load(lines: Sequence[str]) -> None:
    await nft.load_script("\n".join(lines) + "\n")
