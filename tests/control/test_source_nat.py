"""Source NAT and the connections that began without it."""

from collections.abc import Container

import pytest
from typing_extensions import override

from mesh.control.ports import HostUpkeep
from mesh.control.source_nat import SourceNatUpkeep
from mesh.dataplane import DataPlaneError
from mesh.dataplane.conntrack.connections import TrackedConnections
from mesh.host import HostError
from mesh.model.claims import Claims
from mesh.model.codes import Code
from mesh.model.service import Address
from mesh.model.table import Table, VirtualKey
from mesh.testing.dataplane import FakeDataPlane
from tests.builders import WEB_KEY

MADE = "nftables table ip vipmesh made"


class RecordedConnections(TrackedConnections):
    """Records what is asked for, and fails while `gone` is set."""

    def __init__(self) -> None:
        super().__init__(4)
        self.calls: list[str] = []
        self.gone = False

    @override
    async def forget_unanswered(self, ours: Container[VirtualKey]) -> int:
        return self._record("unanswered")

    @override
    async def forget_stray_datagrams(self, ours: Container[VirtualKey], table: Table) -> int:
        return self._record("stray")

    def _record(self, call: str) -> int:
        if self.gone:
            raise DataPlaneError(Code.NETLINK_FAILED, "netfilter did not answer within 10 s: look into `dmesg`")
        self.calls.append(call)
        return 1


class FakeSourceNat(HostUpkeep):
    """Was repaired once for each line in `lines`."""

    def __init__(self, *lines: str) -> None:
        self.lines = [*lines]

    @override
    async def repair(self, addresses: frozenset[Address], claims: Claims) -> list[str]:
        return [self.lines.pop(0)] if self.lines else []


async def test_connections_begin_again_after_each_repair_and_datagrams_at_the_start() -> None:
    nat, tracked = FakeSourceNat(), RecordedConnections()
    upkeep = SourceNatUpkeep(nat, FakeDataPlane(), tracked, {WEB_KEY})
    assert await upkeep.repair(frozenset(), Claims()) == []
    assert tracked.calls == ["stray"], "a restart leaves attempts of clients alone"
    assert await upkeep.repair(frozenset(), Claims()) == []
    assert tracked.calls == ["stray"]
    nat.lines = [MADE]
    assert await upkeep.repair(frozenset(), Claims()) == [MADE]
    assert tracked.calls == ["stray", "unanswered"]


async def test_what_fails_is_tried_again_and_the_repair_is_reported_then() -> None:
    tracked = RecordedConnections()
    upkeep = SourceNatUpkeep(FakeSourceNat(MADE), FakeDataPlane(), tracked, {WEB_KEY})
    tracked.gone = True
    for _ in range(2):
        with pytest.raises(HostError, match="connections that began without source NAT may hang: netfilter did not"):
            await upkeep.repair(frozenset(), Claims())
    tracked.gone = False
    assert await upkeep.repair(frozenset(), Claims()) == [MADE]
    assert tracked.calls == ["unanswered", "stray"]
    assert await upkeep.repair(frozenset(), Claims()) == []
    assert tracked.calls == ["unanswered", "stray"]
