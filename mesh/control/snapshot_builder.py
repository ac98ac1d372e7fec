"""Takes snapshots of a worker: cheap to take, and immutable, so that status and metrics are computed in a thread."""

import asyncio
from collections.abc import Callable, Mapping

from mesh.control.conditions import LoopConditions
from mesh.control.digest import TableDigest
from mesh.control.pass_runner import PassRunner
from mesh.control.snapshot import DetailedSnapshot, WorkerFacts, WorkerSnapshot
from mesh.control.view_tracker import ViewTracker
from mesh.health.monitor import HealthMonitor
from mesh.model.errors import CodedText
from mesh.model.service import Name
from mesh.model.view import ClusterView


class SnapshotBuilder:
    """Takes down what a worker knows at one moment. All methods are for the thread of the event loop."""

    def __init__(
        self,
        facts: WorkerFacts,
        domain: Name,
        *,
        tracker: ViewTracker,
        judging: HealthMonitor,
        runner: PassRunner,
        journal: LoopConditions,
        troubles: Callable[[], Mapping[str, CodedText]],
    ) -> None:
        """`domain` completes a bare name. `troubles`: why a part's last good state stays in force, by part."""
        self._facts = facts
        self._domain = domain
        self._tracker = tracker
        self._judging = judging
        self._runner = runner
        self._journal = journal
        self._troubles = troubles
        self._digest = TableDigest()

    def observe(self) -> WorkerSnapshot:
        """This moment."""
        tracker, journal, runner = self._tracker, self._journal, self._runner
        view, here, (lost, isolated) = tracker.view, tracker.instances, tracker.lost
        return WorkerSnapshot(
            self._facts,
            view,
            None if here is None else tuple(here.values()),
            self._judging.probed(),
            self._judging.judged(view or ClusterView()),
            runner.plan,
            dict(journal.problems),
            tuple(failure.coded for failure in journal.failures),
            {**journal.frozen, **self._troubles()},
            journal.repairs,
            runner.draining,
            self.digest(),
            lost,
            isolated,
        )

    def evidence(self) -> DetailedSnapshot:
        """This moment, with everything that `explain` looks at."""
        runner = self._runner
        return DetailedSnapshot(
            self.observe(),
            self._domain,
            self._judging.histories(),
            runner.contested,
            runner.names,
            runner.left,
            asyncio.get_running_loop().time(),
        )

    def digest(self) -> str | None:
        """The digest of what was planned last; None: nothing yet."""
        return None if self._runner.plan is None else self._digest(self._runner.plan)
