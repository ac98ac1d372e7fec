"""The part of the daemon that tells evidence: off while no rollout runs, and whole again after each failure."""

import asyncio
from collections.abc import Collection
from dataclasses import dataclass, field

import pytest
from typing_extensions import override

from mesh.model.codes import Code
from mesh.model.part import DaemonPart, ProblemPart
from mesh.platform.rollouts.evidence_records import ReleaseCounts, WorkerEvidence, decode_all_evidence
from mesh.platform.rollouts.evidence_reporter import EvidenceReporter
from mesh.platform.rollouts.release_evidence import JudgedInstance, ReleaseKey, ReleaseObservation
from mesh.store import StoreError
from mesh.store.usage import LocalUsageStore
from mesh.util.bulkhead import INTERNAL_ERRORS
from mesh.util.conditions import Conditions

OWNER = "shop/web"


class FailingEvidenceStore(LocalUsageStore):
    """Refuses while it is told to."""

    is_away = False

    def __init__(self) -> None:
        super().__init__(lambda: 0.0)
        self.writes = 0
        self.written = asyncio.Event()

    @override
    async def write(self, key: str, value: bytes) -> None:
        if self.is_away:
            raise StoreError(Code.STORE_UNREACHABLE, "the store does not answer; start it")
        self.writes += 1
        await super().write(key, value)
        self.written.set()


@dataclass
class Lab:
    """A reporter with what it asks."""

    owners: list[str] = field(default_factory=lambda: [OWNER])
    breaks: bool = False
    opened: int = 0
    store: FailingEvidenceStore = field(default_factory=FailingEvidenceStore)
    conditions: Conditions = field(default_factory=Conditions)

    def __post_init__(self) -> None:
        self.reporter = EvidenceReporter(
            "w1", lambda: self.owners, self.look, open_store=self.open, conditions=self.conditions
        )

    async def look(self, owners: Collection[str]) -> ReleaseObservation:
        assert owners == self.owners
        if self.breaks:
            raise ValueError("surprise")
        return ReleaseObservation({"a": JudgedInstance(ReleaseKey(OWNER, "v2"))})

    async def open(self) -> FailingEvidenceStore:
        self.opened += 1
        return self.store

    async def told(self) -> dict[str, WorkerEvidence]:
        return decode_all_evidence(await self.store.read())

    def codes(self) -> list[Code]:
        return [problem.code for problem in self.conditions.problems.get(ProblemPart.ROLLOUTS, ())]


async def test_nothing_is_looked_at_or_written_while_no_rollout_runs() -> None:
    lab = Lab(owners=[])
    await lab.reporter.report()
    assert lab.opened == 0


async def test_a_record_says_what_was_counted_since_the_rollout_began() -> None:
    lab = Lab()
    await lab.reporter.report()
    await lab.reporter.report()
    (found,) = (await lab.told()).values()
    assert found.round == 2
    assert found.services == {OWNER: {"v2": ReleaseCounts(1)}}
    lab.owners = []
    await lab.reporter.report()
    lab.owners = [OWNER]
    await lab.reporter.report()
    (anew,) = (await lab.told()).values()
    assert (anew.round, anew.run == found.run) == (1, False)
    assert lab.opened == 1


async def test_a_store_that_is_away_is_reported_while_it_lasts() -> None:
    lab = Lab()
    lab.store.is_away = True
    await lab.reporter.report()
    assert lab.codes() == [Code.EVIDENCE_NOT_WRITTEN]
    lab.store.is_away = False
    await lab.reporter.report()
    assert lab.codes() == []


@pytest.mark.looptime
async def test_a_look_that_breaks_ends_only_itself_and_a_record_comes_every_second() -> None:
    lab = Lab(breaks=True)
    before = INTERNAL_ERRORS.counts().get(DaemonPart.ROLLOUTS, 0)
    task = asyncio.get_running_loop().create_task(lab.reporter.run())
    await asyncio.sleep(0.5)
    assert INTERNAL_ERRORS.counts()[DaemonPart.ROLLOUTS] == before + 1
    lab.breaks = False
    await asyncio.sleep(10)
    assert lab.store.writes == 10
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
