"""The part of the daemon that takes the steps of rollouts, as long as it is this worker's turn.

Every worker follows the records of rollouts: it tells its evidence and runs checks while one runs. One of them acts. It
reads the evidence of all workers once a second, has it judged, and writes the next step with its shares in one
transaction. Where it ends in the middle of a step, another one goes on from the record.
"""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

from mesh.cluster.records.encode import build_view
from mesh.control.snapshot import WorkerSnapshot
from mesh.model.codes import Code
from mesh.model.part import DaemonPart, ProblemPart
from mesh.model.problem import Problem, Severity
from mesh.model.release_rollout import ReleaseRollout
from mesh.model.view import ClusterView
from mesh.platform.rollouts.evidence_history import EvidenceHistory
from mesh.platform.rollouts.evidence_records import MAX_JUDGED_SERVICES, decode_all_evidence
from mesh.platform.rollouts.evidence_reporter import OpenEvidenceStore
from mesh.platform.rollouts.judge import JudgeLimits, JudgeVerdict, judge
from mesh.platform.rollouts.rollout_sight import release_rules, rollout_problem, seen_releases, turn
from mesh.platform.rollouts.rollout_steps import RolloutSight, SeenRelease, advance, by_hand
from mesh.platform.rollouts.rollout_watch import RolloutWatch
from mesh.platform.rollouts.rollout_writes import BY_ROLLOUT, rollout_keys, rollout_shares, write_rollout
from mesh.store import Store, StoreError
from mesh.store.usage import UsageStore
from mesh.util.bulkhead import Bulkhead

bulkhead = Bulkhead(DaemonPart.ROLLOUTS)

TICK = 1.0
"""Seconds between two looks."""
KEPT_EVERY = 10.0
"""Seconds after which the time of a step is written: what another daemon repeats of it at most."""


class RolloutReports(Protocol):
    """Takes what is wrong with rollouts."""

    def found(self, part: str, problems: tuple[Problem, ...]) -> None:
        """Replace the problems of this part."""
        ...


@dataclass(frozen=True, slots=True)
class RolloutSources:
    """What the actor looks at, and what it tells others of it."""

    observe: Callable[[], WorkerSnapshot]
    open_evidence: OpenEvidenceStore
    watch: RolloutWatch
    reports: RolloutReports
    clock: Callable[[], float] = lambda: asyncio.get_running_loop().time()
    """Seconds of a monotonic clock."""


@dataclass(slots=True)
class _Followed:
    """What this worker knows of one rollout. It is mutable and belongs to the actor."""

    stored: ReleaseRollout | None
    """As the store has it."""
    changed: float
    """When that has changed last, by the clock of the loop."""
    now: ReleaseRollout | None
    """How far it is, with the time that is not written yet."""
    acted: float | None = None
    """When this worker acted on it last; None if it did not since it was changed by another one."""
    verdict: JudgeVerdict | None = None
    before_write: tuple[ReleaseRollout | None, ...] = ()
    """What the view still has while it lacks the last own write."""


class RolloutActor:
    """Takes the steps of rollouts. The owner must run `run`."""

    def __init__(self, worker: str, store: Store, sources: RolloutSources) -> None:
        self._worker = worker
        self._store = store
        self._sources = sources
        self._followed: dict[str, _Followed] = {}
        self._history = EvidenceHistory()
        self._evidence: UsageStore | None = None
        self._ruled: tuple[object, frozenset[str]] = ((), frozenset())
        """The endpoints of a view, and the owners of those whose labels name a strategy by shares."""

    async def run(self) -> None:
        """Act until cancelled."""
        try:
            while True:
                await bulkhead.run("rollouts", self.step)
                await asyncio.sleep(TICK)
        finally:
            store, self._evidence = self._evidence, None
            if store is not None:
                await store.close()

    async def step(self) -> None:
        """Look once at all rollouts, and take the steps that are due."""
        snapshot = self._sources.observe()
        view = snapshot.view
        if view is None:
            return
        running = {owner: each for owner, each in view.rollouts.items() if each.is_running}
        self._sources.watch.judged = {o: each.new for o, each in list(running.items())[:MAX_JUDGED_SERVICES]}
        owners = view.rollouts.keys() | self._owners(view)
        self._follow(owners, view)
        problems = [problem for each in view.rollouts.values() if (problem := rollout_problem(each)) is not None]
        if mine := [owner for owner in sorted(owners) if self._is_turn(owner, view)]:
            effective = snapshot.effective() if any(owner in running for owner in mine) else None
            judged = view if effective is None else effective.shared.base
            try:
                await self._take_evidence([each for owner, each in running.items() if owner in mine])
                for owner in mine:
                    await self._act(owner, judged)
            except StoreError as error:
                remedy = "shares stay as they are, and no step is taken until the store answers"
                problems.append(Problem(Code.ROLLOUT_NOT_WRITTEN, Severity.WARNING, "rollouts", str(error), remedy))
        self._sources.reports.found(ProblemPart.ROLLOUT_STEPS, tuple(problems))

    def _owners(self, view: ClusterView) -> frozenset[str]:
        if self._ruled[0] is not view.endpoints:
            owners = frozenset(each.owner for each in view.endpoints if each.release_rules is not None)
            self._ruled = view.endpoints, owners
        return self._ruled[1]

    def _follow(self, owners: Sequence[str] | set[str], view: ClusterView) -> None:
        """Take what others have written."""
        now = self._sources.clock()
        for owner in owners:
            stored, known = view.rollouts.get(owner), self._followed.get(owner)
            if known is not None and stored == known.stored:
                known.before_write = ()
            elif known is None or stored not in known.before_write:
                self._followed[owner] = _Followed(stored, now, stored)
        self._followed = {owner: each for owner, each in self._followed.items() if owner in owners}

    def _is_turn(self, owner: str, view: ClusterView) -> bool:
        followed = self._followed[owner]
        if followed.before_write:
            return False  # what follows from the last write is not seen yet
        actor = "" if followed.stored is None else followed.stored.actor
        unchanged = self._sources.clock() - followed.changed
        return turn(self._worker, sorted(view.workers), actor, unchanged)

    async def _take_evidence(self, running: Sequence[ReleaseRollout]) -> None:
        """Read what all workers have seen of these. Raises `StoreError`."""
        judged = {each.owner: tuple(name for name in (each.old, each.new) if name is not None) for each in running}
        if not judged:
            self._history = EvidenceHistory()
            return
        if self._evidence is None:
            self._evidence = await self._sources.open_evidence()
        records = decode_all_evidence(await self._evidence.read())
        self._history.take(records, judged, self._sources.clock())

    async def _act(self, owner: str, view: ClusterView) -> None:
        """Take the step of one rollout that is due. Raises `StoreError`."""
        followed = self._followed[owner]
        now = self._sources.clock()
        passed = 0.0 if followed.acted is None else now - followed.acted
        followed.acted = now
        seen, before = seen_releases(view, owner), followed.now
        sight = RolloutSight(owner, seen)
        if before is not None and before.is_running:
            followed.verdict = self._judge(before, seen, followed.verdict)
            sight = RolloutSight(owner, seen, followed.verdict)
        after = advance(before, sight, passed)
        if after is not None and before is not None and before.is_running:
            shares = view.shares.get(owner)
            if not before.is_paused and (shares is None or not shares.by.startswith(BY_ROLLOUT)) and after.is_running:
                after = by_hand(after, "" if shares is None else shares.by)
        followed.now = after
        moved = _place(after) != _place(before)
        if moved or (after is not None and after.is_running and self._is_due(followed)):
            await self._write(owner, followed, view, moved)

    def _is_due(self, followed: _Followed) -> bool:
        return self._sources.clock() - followed.changed >= KEPT_EVERY

    async def _write(self, owner: str, followed: _Followed, view: ClusterView, moved: bool) -> None:
        """Write how far it is, and its shares if it has moved. Raises `StoreError`."""
        records = (await self._store.read()).records
        there, _ = build_view({key: records[key] for key in rollout_keys(owner) if key in records})
        if there.rollouts.get(owner) != followed.stored or not self._is_turn(owner, view):
            followed.acted = None
            return  # somebody else was faster; the next round looks again
        after = None if followed.now is None else replace(followed.now, actor=self._worker, beat=followed.now.beat + 1)
        shares = there.shares.get(owner)
        if after is None:
            shares = shares if shares is not None and not shares.by.startswith(BY_ROLLOUT) else None
        elif moved and not after.is_paused:
            shares = rollout_shares(after, release_rules(view, owner)) if after.old is not None else shares
        if await write_rollout(self._store, owner, records, after, shares):
            if moved:
                followed.verdict = None
                if followed.stored is not None and followed.stored.is_running:
                    self._history.restart(owner)
            followed.before_write = (followed.stored,)
            followed.stored, followed.now = after, after
            followed.changed = self._sources.clock()

    def _judge(
        self, rollout: ReleaseRollout, seen: Mapping[str, SeenRelease], before: JudgeVerdict | None
    ) -> JudgeVerdict:
        each = seen.get(rollout.new)
        rules = None if each is None else each.rules
        limits = JudgeLimits()
        if rules is not None and rules.max_failures is not None:
            limits = replace(limits, max_failures=rules.max_failures)
        if rules is not None and rules.min_connections is not None:
            limits = replace(limits, min_connections=rules.min_connections)
        if not rollout.points:
            limits = replace(limits, min_connections=0)  # it gets none
        now = self._sources.clock()
        new = self._history.evidence(rollout.owner, rollout.new)
        old = self._history.evidence(rollout.owner, rollout.old or "")
        checks = self._history.checks(rollout.owner, rollout.new, () if rules is None else rules.checks)
        return judge(new, old, limits, checks, now=now, before=before)


def _place(rollout: ReleaseRollout | None) -> tuple[object, ...]:
    """Return what of a rollout is written at once when it changes."""
    if rollout is None:
        return ()
    return rollout.old, rollout.new, rollout.phase, rollout.step, rollout.points, rollout.is_paused
