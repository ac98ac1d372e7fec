"""Opens the firewall of this host, keeps it open, and takes everything of ours back."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime

from mesh.host import HostError
from mesh.host.firewall.advice import iptables_program
from mesh.host.firewall.facts import AcceptMark, Backend, FirewallFacts, FirewallTexts, read_facts
from mesh.host.firewall.isolation import NetworkIsolation
from mesh.host.firewall.marking import TABLE, MarkingRules, family_of, render_marking
from mesh.host.firewall.peer_access import PeerDrop, peer_drops
from mesh.host.firewall.plan import (
    Bridges,
    ChainEdit,
    FirewallDemand,
    FirewallPlan,
    FirewallSettings,
    isolated_networks,
    make_firewall_plan,
    removals,
    update_bridges,
)
from mesh.host.firewall.programs import FirewallPrograms
from mesh.host.nft_table import TableChange
from mesh.model.codes import Code
from mesh.model.problem import Problem, Severity
from mesh.util.nft import NftError
from mesh.util.offload import compute

_CHARACTERS = 100
"""Characters of a listing that take as long as one record does, to decide whether they are read in a thread."""


@dataclass(frozen=True, slots=True)
class FirewallReport:
    """The result of one repair."""

    set_up: tuple[str, ...] = ()
    """What was made or removed as planned, one line each."""
    repaired: tuple[str, ...] = ()
    """What had been changed outside vipmesh and is as it was, one line each."""
    problems: tuple[Problem, ...] = ()
    """What this host still drops, each with the remedy."""
    is_read: bool = True
    """Whether the rules could be read, so that the problems are all that there are."""


class FirewallUpkeep:
    """Keeps the firewall open for what one worker translates, and remembers which bridges are open."""

    def __init__(
        self, settings: FirewallSettings, programs: FirewallPrograms, isolation: NetworkIsolation | None = None
    ) -> None:
        """`isolation` is kept up to date for a proxy; None if there is none."""
        self._isolation = isolation or NetworkIsolation()
        self._settings = settings
        self._programs = programs
        self._version = settings.opened.pool.version
        self._family = family_of(settings.opened.pool)
        self._table = programs.marking_table(self._family)
        self._bridges: Bridges | None = None
        """What is known of the bridges; None before the first look."""
        self._accept_mark: AcceptMark | None = None
        """The mark that the engine accepted when its table was there last."""
        self._opened: frozenset[Backend] = frozenset()
        """The backends that had our rule when the last repair ended."""
        self._dropped: dict[PeerDrop, str] = {}
        """Since when requests of other workers are dropped, in UTC."""
        self._is_marking: bool | None = None
        """Whether the table was there when the last repair ended; None before the first one."""

    async def repair(self, demand: FirewallDemand) -> FirewallReport:
        """Read the firewall and make it as it must be. A failure is one of the problems; nothing is raised for it."""
        try:
            return await self._repair(demand)
        except HostError as error:
            # A proxy in user space does not depend on it, and often may not look.
            problems = (_failure(error),) if self._settings.forwards else ()
            return FirewallReport(problems=problems, is_read=False)

    def changes(self) -> AsyncIterator[None]:
        """Yield whenever rules may have changed; ends if that cannot be noticed."""
        return self._programs.changes()

    async def _repair(self, demand: FirewallDemand) -> FirewallReport:
        texts = await self._programs.read(self._version)
        plan = await self._plan(texts, demand)
        changes: list[tuple[str, bool]] = []
        failures: list[Problem] = []
        try:
            changes += await self._mark(plan.marking)
        except NftError as error:
            reason = f"the nftables table {TABLE} cannot be set up: {error}"
            failures.append(_failure(HostError(Code.FIREWALL_FAILED, reason)))
        for edit in plan.edits:
            try:
                await self._programs.edit(edit.backend, self._version, edit.arguments)
            except HostError as error:
                failures.append(_failure(error, describe_edit(edit, self._version)))
            else:
                changes.append((describe_edit(edit, self._version), edit.backend in self._opened & plan.opened))
        if not failures:
            self._opened = plan.opened
        return FirewallReport(
            tuple(line for line, was_there in changes if not was_there),
            tuple(line for line, was_there in changes if was_there),
            (*plan.problems, *failures),
        )

    async def _plan(self, texts: FirewallTexts, demand: FirewallDemand) -> FirewallPlan:
        size = (len(texts.nft) + sum(map(len, texts.saves.values()))) // _CHARACTERS
        facts = await compute(size, lambda: read_facts(texts, self._version))
        now = asyncio.get_running_loop().time()
        self._bridges = update_bridges(self._bridges, texts.bridges, facts, now)
        self._isolation.replace(isolated_networks(self._bridges, facts, texts.networks))
        if facts.has_engine_table:
            self._accept_mark = facts.accept_mark
        facts = replace(facts, accept_mark=self._accept_mark)
        plan = make_firewall_plan(facts, self._settings, demand, self._bridges, is_marking=bool(self._is_marking))
        return replace(plan, problems=(*plan.problems, *self._drops(facts, demand)))

    def _drops(self, facts: FirewallFacts, demand: FirewallDemand) -> Iterator[Problem]:
        """Yield what is dropped of what other workers send, each with the time since when."""
        now = datetime.now(UTC).isoformat(sep=" ", timespec="seconds")
        self._dropped = {drop: self._dropped.get(drop, now) for drop in peer_drops(facts, demand)}
        for drop, since in self._dropped.items():
            yield drop.problem(since, self._version)

    async def _mark(self, rules: MarkingRules | None) -> list[tuple[str, bool]]:
        """Load or remove the table; returns a line, and whether it was a repair. Raises `NftError`."""
        if rules is None:
            removed = self._is_marking is not False and await self._table.remove()
            self._is_marking = False
            return [(f"nftables table {self._family} {TABLE} removed", False)] if removed else []
        change = await self._table.ensure(render_marking(rules))
        was_there, self._is_marking = self._is_marking is True, True
        if change is TableChange.MADE:
            return [(f"nftables table {self._family} {TABLE} made", was_there)]
        if change is TableChange.REPAIRED:
            return [(f"nftables table {self._family} {TABLE} was changed", True)]
        return []


async def remove_opening(programs: FirewallPrograms) -> tuple[list[str], list[HostError]]:
    """Remove every rule and table of ours, of both IP versions.

    Returns a line for each that was removed, and why others stay.
    """
    removed: list[str] = []
    failed: list[HostError] = []
    for version in (4, 6):
        try:
            facts = read_facts(await programs.read(version), version)
            for edit in removals(facts):
                await programs.edit(edit.backend, version, edit.arguments)
                removed.append(describe_edit(edit, version))
        except HostError as error:
            failed.append(error)
    try:
        families = [family for family in ("ip", "ip6") if await programs.marking_table(family).remove()]
        removed += [f"delete nftables table {family} {TABLE}" for family in families]
    except NftError as error:
        failed.append(HostError(Code.FIREWALL_FAILED, f"the nftables table {TABLE} stays: {error}"))
    return removed, failed


def describe_edit(edit: ChainEdit, version: int) -> str:
    """Return the command of an edit, for the log."""
    return " ".join((iptables_program(edit.backend, version), *edit.arguments))


def _failure(error: HostError, line: str | None = None) -> Problem:
    """Return a problem; `line` does by hand what has failed, None if no single line does."""
    remedy = "it is tried again within 10 s; until then connections may be dropped"
    if line is not None:
        remedy = f"run `{line}` on the host; it is tried again within 10 s"
    return Problem(error.code, Severity.WARNING, "firewall", str(error), remedy)
