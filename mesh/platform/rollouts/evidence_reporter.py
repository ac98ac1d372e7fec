"""Tells what this worker sees of the releases in a rollout, once a second. Off while no rollout runs."""

import asyncio
import uuid
from collections.abc import Awaitable, Callable, Collection
from typing import TypeAlias

from mesh.model.codes import Code
from mesh.model.part import DaemonPart, ProblemPart
from mesh.model.problem import Problem, Severity
from mesh.platform.rollouts.evidence_records import encode_evidence, evidence_key
from mesh.platform.rollouts.release_evidence import EvidenceCollector, ReleaseObservation
from mesh.store import StoreError
from mesh.store.usage import UsageStore
from mesh.util.bulkhead import Bulkhead
from mesh.util.conditions import Conditions

EVIDENCE_INTERVAL = 1.0
"""Seconds from one record to the next."""

bulkhead = Bulkhead(DaemonPart.ROLLOUTS)

LookAtReleases: TypeAlias = Callable[[Collection[str]], Awaitable[ReleaseObservation]]
"""Looks at the services of these owners on this worker."""
OpenEvidenceStore: TypeAlias = Callable[[], Awaitable[UsageStore]]


class EvidenceReporter:
    """Looks and writes, second after second. The owner must run `run`."""

    def __init__(
        self,
        worker: str,
        watched: Callable[[], Collection[str]],
        look: LookAtReleases,
        *,
        open_store: OpenEvidenceStore,
        conditions: Conditions,
    ) -> None:
        """`watched` returns the owners of services in a rollout. The store is opened with the first of them."""
        self._worker = worker
        self._watched = watched
        self._look = look
        self._open_store = open_store
        self._conditions = conditions
        self._collector: EvidenceCollector | None = None
        self._store: UsageStore | None = None

    async def run(self) -> None:
        """Report until cancelled."""
        try:
            while True:
                await bulkhead.run("evidence", self.report)
                await asyncio.sleep(EVIDENCE_INTERVAL)
        finally:
            store, self._store = self._store, None  # a run that is started again opens another one
            if store is not None:
                await store.close()

    async def report(self) -> None:
        """Take one look and write all that was counted; nothing if no rollout runs."""
        owners = self._watched()
        if not owners:
            self._collector = None
            self._conditions.found(ProblemPart.ROLLOUTS, ())
            return
        if self._collector is None:
            self._collector = EvidenceCollector(uuid.uuid4().hex)
        observation = await self._look(owners)
        evidence = self._collector.observe(observation, owners, asyncio.get_running_loop().time())
        problems: list[Problem] = []
        try:
            if self._store is None:
                self._store = await self._open_store()
            await self._store.write(evidence_key(self._worker), encode_evidence(evidence))
        except StoreError as error:
            remedy = "it is told again every second; until then no release is promoted"
            problems.append(
                Problem(Code.EVIDENCE_NOT_WRITTEN, Severity.WARNING, "evidence of releases", str(error), remedy)
            )
        self._conditions.found(ProblemPart.ROLLOUTS, problems)
