"""What another data plane of ours left in the kernel when the worker last ran, and how it goes without a cut.

A worker that forwarded by nftables because its kernel had no IPVS finds IPVS one day, or is told another driver. The
old rules would go on deciding, by a picture that nobody keeps any more. They are removed, but only after the new data
plane has been programmed: connections that the old rules have led go on by what conntrack notes of them. IPVS notes
its connections itself, so what it forwards is removed once none is left; new ones do not come to it, since nftables
decides before it.
"""

import logging
from collections.abc import Callable, Sequence
from pathlib import Path

from typing_extensions import override

from mesh.control.ports import HostUpkeep
from mesh.dataplane import DataPlane, DataPlaneError
from mesh.dataplane.diff import diff_tables
from mesh.dataplane.nftables import plane as nftables
from mesh.host import HostError
from mesh.model.claims import Claims
from mesh.model.codes import Code
from mesh.model.service import Address
from mesh.model.table import Table
from mesh.util.nft import NftError

log = logging.getLogger("vipmesh")


def _has_ipvs() -> bool:
    """Without loading it."""
    return Path("/proc/net/ip_vs").exists()


class NftablesHandover(HostUpkeep):
    """The rules of our nftables data plane, on a worker that now forwards by another. An `HostUpkeep`."""

    def __init__(self, taken_over: Callable[[], bool]) -> None:
        """`taken_over`: whether what runs now has programmed everything at least once."""
        self._taken_over = taken_over
        self._gone = False

    @override
    async def mend(self, addresses: frozenset[Address], claims: Claims) -> Sequence[str]:
        """Remove the rules once that may be; nothing that counts as a repair. Raises `HostError`."""
        if self._gone or not self._taken_over():
            return ()
        try:
            found = await nftables.remove_tables()
        except NftError as error:
            raise HostError(
                Code.LEFT_BY_EARLIER_START, f"the nftables rules of an earlier start cannot be removed: {error}"
            ) from error
        for table in found:
            log.info("removed nftables table %s of an earlier start: this data plane has taken over", table)
        self._gone = True
        return ()


class IpvsHandover(HostUpkeep):
    """Our virtual servers in IPVS, on a worker that now forwards by nftables. An `HostUpkeep`."""

    def __init__(self, taken_over: Callable[[], bool], former: DataPlane) -> None:
        """`former`: the data plane that made them; only asked while this network namespace has IPVS."""
        self._taken_over = taken_over
        self._former = former
        self._gone = False

    @override
    async def mend(self, addresses: frozenset[Address], claims: Claims) -> Sequence[str]:
        """Remove them once they have no connection left; nothing that counts as a repair. Raises `HostError`."""
        if self._gone or not self._taken_over():
            return ()
        try:
            self._gone = not _has_ipvs() or await self._removed()
        except DataPlaneError as error:
            raise HostError(
                Code.LEFT_BY_EARLIER_START, f"what IPVS forwards since an earlier start cannot be removed: {error}"
            ) from error
        finally:
            await self._former.close()
        return ()

    async def _removed(self) -> bool:
        there = await self._former.read()
        if any((await self._former.connections()).values()):
            return False
        failures = await self._former.apply(diff_tables(there, Table(vips=there.vips)))
        for failure in failures:
            raise DataPlaneError(failure.reason.code, str(failure.coded))
        if there.virtual_servers:
            log.info("removed %d virtual servers of an earlier start from IPVS", len(there.virtual_servers))
        return True
