"""Removes what another data plane of vipmesh left in the kernel, without breaking connections.

A worker that forwarded by nftables because its kernel had no IPVS may find IPVS one day, or get another driver in its
settings. The old rules would go on forwarding by a table that is no longer updated. They are removed, but only after
the new data plane has been programmed: conntrack keeps the connections that the old rules established. UDP flows have
no end, and would follow the old rules to whichever container gets the address next; they move to the new data plane at
once. IPVS tracks connections itself, so its virtual servers are removed once none is left; new connections do not reach
IPVS, since the hooks of nftables come first.
"""

import logging
from collections.abc import Callable, Container, Sequence
from pathlib import Path

from typing_extensions import override

from mesh.control.ports import HostUpkeep
from mesh.dataplane import DataPlane, DataPlaneError
from mesh.dataplane.conntrack.connections import TrackedConnections
from mesh.dataplane.diff import diff_tables
from mesh.dataplane.nftables import plane as nftables
from mesh.host import HostError
from mesh.model.claims import Claims
from mesh.model.codes import Code
from mesh.model.service import Address
from mesh.model.table import Table, VirtualKey
from mesh.util.nft import NftError

log = logging.getLogger("vipmesh")


def _has_ipvs() -> bool:
    """Whether this network namespace has IPVS. Does not load the module."""
    return Path("/proc/net/ip_vs").exists()


class NftablesHandover(HostUpkeep):
    """Removes the rules of the nftables data plane on a worker that now forwards by another one."""

    def __init__(
        self, taken_over: Callable[[], bool], tracked: TrackedConnections, ours: Container[VirtualKey]
    ) -> None:
        """`taken_over`: whether the current data plane has been programmed completely at least once. `ours` contains
        the keys that only our virtual servers can have.
        """
        self._taken_over = taken_over
        self._tracked = tracked
        self._ours = ours
        self._removed = False
        self._gone = False

    @override
    async def repair(self, addresses: frozenset[Address], claims: Claims) -> Sequence[str]:
        """Remove the rules once the current data plane has taken over. Returns no lines: this is not a repair. Raises
        `HostError`.
        """
        if self._gone or not self._taken_over():
            return ()
        try:
            found = await nftables.remove_tables()
            self._removed |= bool(found)
            if self._removed:
                await self._tracked.forget_translated_datagrams(self._ours)
        except (NftError, DataPlaneError) as error:
            raise HostError(
                Code.LEFT_BY_EARLIER_START, f"the nftables rules of an earlier start cannot be removed: {error}"
            ) from error
        finally:
            await self._tracked.close()
        for table in found:
            log.info("nftables table %s of an earlier start is removed: the current data plane has taken over", table)
        self._gone = True
        return ()


class IpvsHandover(HostUpkeep):
    """Removes the virtual servers from IPVS on a worker that now forwards by nftables."""

    def __init__(self, taken_over: Callable[[], bool], former: DataPlane) -> None:
        """`former`: the data plane that made the virtual servers; read only while this network namespace has IPVS."""
        self._taken_over = taken_over
        self._former = former
        self._gone = False

    @override
    async def repair(self, addresses: frozenset[Address], claims: Claims) -> Sequence[str]:
        """Remove the virtual servers once none has a connection left. Returns no lines: this is not a repair. Raises
        `HostError`.
        """
        if self._gone or not self._taken_over():
            return ()
        try:
            self._gone = not _has_ipvs() or await self._removed()
        except DataPlaneError as error:
            raise HostError(
                Code.LEFT_BY_EARLIER_START,
                f"the virtual servers of an earlier start cannot be removed from IPVS: {error}",
            ) from error
        finally:
            await self._former.close()
        return ()

    async def _removed(self) -> bool:
        there = await self._former.read()
        if any((await self._former.connections()).values()):
            return False
        # Keeps the VIPs: the current data plane uses the same ones.
        failures = await self._former.apply(diff_tables(there, Table(vips=there.vips)))
        for failure in failures:
            raise DataPlaneError(failure.reason.code, str(failure.coded))
        if there.virtual_servers:
            log.info("removed %d virtual servers of an earlier start from IPVS", len(there.virtual_servers))
        return True
