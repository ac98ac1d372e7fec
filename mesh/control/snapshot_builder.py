"""Takes snapshots of a worker: cheap to take, and immutable, so that status and metrics are computed in a thread."""

import asyncio
from collections.abc import Callable, Mapping, Sequence

from mesh.cluster.worker_directory import MAX_TOLD
from mesh.control.arrival import Arrivals
from mesh.control.cluster_follower import PeerDirectory
from mesh.control.conditions import LoopConditions
from mesh.control.digest import TableDigest
from mesh.control.drain_requests import DrainRequests
from mesh.control.pass_runner import PassRunner
from mesh.control.past_events import EventMoment
from mesh.control.service_plan import ServicePlan
from mesh.control.snapshot import DetailedSnapshot, WorkerFacts, WorkerSnapshot
from mesh.control.view_tracker import ViewTracker
from mesh.control.weight_requests import WeightRequests
from mesh.health.monitor import HealthMonitor
from mesh.model.codes import Code
from mesh.model.collected_logs import CollectedLogs
from mesh.model.errors import CodedText
from mesh.model.part import ProblemPart
from mesh.model.problem import Problem
from mesh.model.service import Instance, Name
from mesh.model.table import RealKey
from mesh.model.view import ClusterView


class SnapshotBuilder:
    """Takes snapshots of a worker. All methods must be called in the event loop's thread."""

    # 9 parameters: one for each part of the worker that a snapshot shows.

    def __init__(
        self,
        facts: WorkerFacts,
        domain: Name,
        *,
        tracker: ViewTracker,
        health_monitor: HealthMonitor,
        runner: PassRunner,
        conditions: LoopConditions,
        troubles: Callable[[], Mapping[str, CodedText]],
        arrivals: Callable[[], Arrivals],
        admin_addresses: Callable[[], Mapping[str, RealKey]],
        peers: PeerDirectory,
    ) -> None:
        """`domain` completes a bare name. `troubles`: why the last good state of a part stays in force, by part.
        `arrivals`: whether requests arrive. `admin_addresses`: where the workers say that their admin APIs are. `peers`
        knows the other workers.
        """
        self._facts = facts
        self._domain = domain
        self._tracker = tracker
        self._health_monitor = health_monitor
        self._runner = runner
        self._conditions = conditions
        self._troubles = troubles
        self._arrivals = arrivals
        self._admin_addresses = admin_addresses
        self._peers = peers
        self._digest = TableDigest()
        self._collected: CollectedLogs | None = None

    def collects(self, collected: CollectedLogs | None, problems: Sequence[Problem]) -> None:
        """Show these figures of the collection of logs from now on, and what is wrong with it."""
        self._collected = collected
        self._conditions.found(ProblemPart.LOGS, problems)

    def observe(self) -> WorkerSnapshot:
        """Take a snapshot."""
        tracker, conditions, runner = self._tracker, self._conditions, self._runner
        view, here, (lost, isolated) = tracker.view, tracker.instances, tracker.lost
        return WorkerSnapshot(
            self._facts,
            view,
            None if here is None else tuple(here.values()),
            self._health_monitor.probed(),
            self._health_monitor.judged(view or ClusterView()),
            runner.plan,
            self._problems(),
            tuple(failure.coded for failure in conditions.failures),
            {**conditions.frozen, **self._troubles()},
            conditions.repairs,
            runner.draining,
            self.digest(),
            lost,
            isolated,
            self._arrivals(),
            conditions.internal_errors.counts(),
            self._admin_addresses(),
            None if runner.plan is None else runner.left,
            *self._peers.seen(),
            tracker.since,
            runner.held,
            conditions.acting,
            conditions.scaling,
            self._collected,
            tracker.slow_starts,
        )

    def _problems(self) -> Mapping[str, tuple[Problem, ...]]:
        """Return the problems of all parts, and what the other workers tell."""
        found, told = self._conditions.current_problems(), self._peers.told()
        return {**found, ProblemPart.PEERS: (*found.get(ProblemPart.PEERS, ()), *told)} if told else found

    def told(self) -> tuple[Problem, ...]:
        """Return the problems that concern the other workers."""
        found = self._conditions.problems.get(ProblemPart.FIREWALL, ())
        return tuple(problem for problem in found if problem.code is Code.PEERS_DROPPED and problem.owner)[:MAX_TOLD]

    def service_plans(self) -> Mapping[str, ServicePlan]:
        """Return the plan of each service in the last pass by owner; empty before the first one."""
        return {} if self._runner.plan is None else self._runner.plan.parts

    def own_instances(self) -> Mapping[str, Instance]:
        """Return the instances on this worker by ID; empty until every source has answered once."""
        return self._tracker.instances or {}

    def evidence(self) -> DetailedSnapshot:
        """Take a snapshot with everything that `explain` needs."""
        runner = self._runner
        return DetailedSnapshot(
            self.observe(),
            self._domain,
            self._health_monitor.histories(),
            runner.contested,
            runner.names,
            runner.left,
            asyncio.get_running_loop().time(),
        )

    def event_moment(
        self, drains: DrainRequests, weights: WeightRequests, at: float, just_started: bool
    ) -> EventMoment | None:
        """The state to record at this time (seconds since 1970), from the last pass; None before the first one.

        `just_started`: own endpoints that run may not be registered again yet.
        """
        effective, conditions = self._tracker.last, self._conditions
        if effective is None:
            return None
        instances = self._tracker.instances
        running = None if instances is None else frozenset(instances) if just_started else frozenset()
        troubles = {**conditions.frozen, **self._troubles()}
        troubles |= {str(failure.operation): failure.coded for failure in conditions.failures}
        troubles |= {text.text.partition(":")[0]: text for text in self._health_monitor.suspicions()}
        return EventMoment(
            at,
            self._facts.worker,
            effective.known,
            effective.traffic,
            running,
            conditions.current_problems(),
            troubles,
            conditions.repairs,
            conditions.scaling,
            lambda key: self._health_monitor.last_answer(key) or effective.known.reasons.get(key),
            drains.requesters,
            weights.requesters,
        )

    def digest(self) -> str | None:
        """The digest of the last plan; None before the first one."""
        effective = self._tracker.last
        if self._runner.plan is None:
            return None
        return self._digest(self._runner.plan, {} if effective is None else effective.shared.settled)
