"""Keeps source NAT, and makes connections begin again that began without it.

Whether the source of a connection is rewritten is decided for its first packet. So after the rules were set up or
repaired, connections to our virtual servers that never saw a reply are deleted from the kernel's table of connections.
"""

from collections.abc import Container, Sequence

from typing_extensions import override

from mesh.control.ports import HostUpkeep
from mesh.dataplane import DataPlane, DataPlaneError
from mesh.dataplane.conntrack.connections import TrackedConnections
from mesh.host import HostError
from mesh.model.claims import Claims
from mesh.model.service import Address
from mesh.model.table import VirtualKey


class SourceNatUpkeep(HostUpkeep):
    """Repairs source NAT and then deletes the connections that began without it.

    The first repair also deletes UDP flows that go elsewhere than the data plane would send them: a process that was
    killed may have left them.
    """

    def __init__(
        self,
        source_nat: HostUpkeep,
        plane: DataPlane,
        tracked: TrackedConnections,
        ours: Container[VirtualKey],
    ) -> None:
        """`ours` contains the keys that only our virtual servers can have."""
        self._source_nat = source_nat
        self._plane = plane
        self._tracked = tracked
        self._ours = ours
        self._first = True
        self._repaired: list[str] = []
        """The lines of repairs after which connections are still to be deleted."""

    @override
    async def repair(self, addresses: frozenset[Address], claims: Claims) -> Sequence[str]:
        self._repaired += await self._source_nat.repair(addresses, claims)
        try:
            if self._repaired:
                await self._tracked.forget_unanswered(self._ours)
            if self._first:
                await self._tracked.forget_stray_datagrams(self._ours, await self._plane.read())
        except DataPlaneError as error:
            raise HostError(error.code, f"connections that began without source NAT may hang: {error}") from error
        self._first = False
        done, self._repaired = self._repaired, []
        return done
