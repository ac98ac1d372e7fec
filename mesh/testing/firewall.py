"""The programs of a firewall in memory, and a firewall that a test holds up."""

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import replace

from typing_extensions import override

from mesh.control.ports import Firewall
from mesh.host import HostError
from mesh.host.firewall.facts import USER_CHAIN, Backend, FirewallTexts
from mesh.host.firewall.plan import FirewallDemand
from mesh.host.firewall.programs import FirewallPrograms, MarkingTable
from mesh.host.firewall.upkeep import FirewallReport
from mesh.host.nft_table import TableChange
from mesh.model.codes import Code


class FakeMarkingTable(MarkingTable):
    """Implements `MarkingTable`; `text` is the script that it was made by, None if there is no table."""

    def __init__(self) -> None:
        self.text: str | None = None
        """A test may set it to None, or to another text, as a change from outside does."""
        self._left: str | None = None

    @override
    async def ensure(self, script: str) -> TableChange:
        before, self.text, left = self.text, script, self._left
        self._left = script
        if before is None:
            return TableChange.MADE
        return TableChange.REPAIRED if left not in (None, before) else TableChange.NONE

    @override
    async def remove(self) -> bool:
        was_there, self.text, self._left = self.text is not None, None, None
        return was_there


class FakeFirewallPrograms(FirewallPrograms):
    """Implements `FirewallPrograms`, as far as the chain `DOCKER-USER` is edited."""

    def __init__(self, rest: Mapping[Backend, str], texts: FirewallTexts | None = None) -> None:
        """`rest` is what iptables-save prints for each backend, without the chain `DOCKER-USER`. `texts` has
        everything else.
        """
        self.rules: dict[Backend, list[str]] = {backend: ["-j RETURN"] for backend in rest}
        """The rules of the chain; a test may change them."""
        self.tables = {family: FakeMarkingTable() for family in ("ip", "ip6")}
        """The tables that mark packets."""
        self.texts = texts or FirewallTexts()
        """What else is read; a test may replace it."""
        self.refusal: str | None = None
        """A message: every edit raises `HostError` with it. None: edits succeed."""
        self.changed = asyncio.Event()
        """Set it for one change that is noticed."""
        self.rest = dict(rest)
        """What iptables-save prints besides; a test may change it."""

    @override
    async def read(self, version: int) -> FirewallTexts:
        saves = {backend: self._save(backend) for backend in self.rest} if version == 4 else {}
        return replace(self.texts, saves=saves)

    @override
    async def edit(self, backend: Backend, version: int, arguments: Sequence[str]) -> None:
        if self.refusal is not None:
            raise HostError(Code.FIREWALL_FAILED, self.refusal)
        rules, (verb, chain, *rest) = self.rules[backend], arguments
        if chain != USER_CHAIN or version != 4:
            raise HostError(Code.FIREWALL_FAILED, "iptables refuses: No chain/target/match by that name.")
        if verb == "-I":
            rules.insert(int(rest[0]) - 1, " ".join(rest[1:]))
        elif verb == "-A":
            rules.append(" ".join(rest))
        elif " ".join(rest) in rules:
            rules.remove(" ".join(rest))
        else:
            raise HostError(Code.FIREWALL_FAILED, "iptables refuses: Bad rule (does a matching rule exist ...).")

    @override
    def marking_table(self, family: str) -> FakeMarkingTable:
        return self.tables[family]

    @override
    async def changes(self) -> AsyncIterator[None]:
        while True:
            await self.changed.wait()
            self.changed.clear()
            yield

    def _save(self, backend: Backend) -> str:
        own = "".join(f"-A {USER_CHAIN} {rule}\n" for rule in self.rules[backend])
        return f"*filter\n{self.rest[backend]}:{USER_CHAIN} - [0:0]\n-A FORWARD -j {USER_CHAIN}\n{own}COMMIT\n"


class FakeFirewall(Firewall):
    """Implements `Firewall`: records what is demanded, and answers as a test says."""

    def __init__(self) -> None:
        self.demands: list[FirewallDemand] = []
        """The demands so far, in order."""
        self.report = FirewallReport()
        """The next answers."""
        self.answers = asyncio.Event()
        """Repairs wait for it."""
        self.answers.set()
        self.changed = asyncio.Event()
        """Set it for one change that is noticed."""

    @override
    async def repair(self, demand: FirewallDemand) -> FirewallReport:
        self.demands.append(demand)
        await self.answers.wait()
        return self.report

    @override
    async def changes(self) -> AsyncIterator[None]:
        while True:
            await self.changed.wait()
            self.changed.clear()
            yield
