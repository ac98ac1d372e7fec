"""Decides what this worker probes, and keeps the state of the rules over the results.

A worker knows its own endpoints by its own probes, and the others by what their workers publish. It probes its share of
the endpoints of workers that cannot publish anything itself (`mesh.health.takeover`). A mass failure is suspected
before it is obeyed (`mesh.health.panic`). The order in which these rules make a view is in `mesh.control.view`.
"""

import asyncio
import logging
import time
from collections.abc import Collection, Iterable, Mapping, Sequence
from types import MappingProxyType
from typing import Protocol

from mesh.health.correlation import FailureGroup, FailureGroupKind
from mesh.health.panic import FailureSuspicion, PanicInput, PanicState, ProbeEvidence, resume_panic_state
from mesh.health.snapshot import HealthSnapshot, PastChecks, ProbeStatus
from mesh.health.state_machine import Verdict
from mesh.health.takeover import (
    held_back_in_force,
    kept_in_force,
    probing_workers,
    taken_over_probes,
    takeover_verdicts,
)
from mesh.health.targets import ProberCounters, ProbeTarget
from mesh.model.codes import Code
from mesh.model.eligibility import probe_targets
from mesh.model.errors import CodedText
from mesh.model.persistent_map import changed_keys
from mesh.model.probe import Probe
from mesh.model.service import DrainReason, Endpoint, EndpointKey, Health, Service
from mesh.model.table import RealKey
from mesh.model.view import ClusterView, HealthReport


class HealthProber(Protocol):
    """The prober, as far as the loop needs it."""

    @property
    def stats(self) -> ProberCounters:
        """The counters of the prober since its start."""
        ...

    def watch(self, targets: Mapping[EndpointKey, ProbeTarget]) -> None:
        """Probe exactly these endpoints."""
        ...

    def health(self) -> Mapping[EndpointKey, Health]:
        """The verdict on each probed endpoint, `STARTING` before its first one; the same object while nothing has
        changed.
        """
        ...

    def held_back(self) -> frozenset[EndpointKey]:
        """Probed endpoints that answer but flapped recently, and stay unhealthy for now."""
        ...

    def failing(self) -> frozenset[EndpointKey]:
        """Probed endpoints that failed their last check, whatever their health."""
        ...

    def history(self, key: EndpointKey) -> Sequence[Verdict]:
        """The last check results of one endpoint, oldest first; empty if it was never probed."""
        ...

    def histories(self) -> Mapping[EndpointKey, PastChecks]:
        """The histories of all probed endpoints. They keep changing with the probes."""
        ...


log = logging.getLogger("vipmesh")


class HealthMonitor:
    """Decides what this worker probes, and reports results. All methods must be called in the event loop's thread."""

    def __init__(self, worker: str, prober: HealthProber, floor_percent: int) -> None:
        """`floor_percent`: the percentage of endpoints that stay in traffic when most fail at once."""
        self._worker = worker
        self._prober = prober
        self._floor_percent = floor_percent
        self._panic = PanicState()
        self._asked: frozenset[EndpointKey] = frozenset()
        """Endpoints that the prober probes."""
        self._taken_over: frozenset[EndpointKey] = frozenset()
        """Probed endpoints that belong to other workers."""
        self._view: ClusterView | None = None
        """The view that the probed endpoints follow from; None before the first one."""
        self._declared: Mapping[str, Probe] = {}
        """The probe that the labels of own endpoints declare, by the owner of the service."""
        self._reports: Mapping[EndpointKey, HealthReport] = {}
        self._reports_for: tuple[object, ...] = ()
        self._runs: Mapping[EndpointKey, str | None] = {}
        """The run of each probed endpoint."""

    def watch(
        self,
        view: ClusterView,
        adopted: Collection[RealKey] = (),
        kept: frozenset[EndpointKey] = frozenset(),
        former: Mapping[EndpointKey, Endpoint] = MappingProxyType({}),
    ) -> None:
        """Probe the endpoints that this worker must probe by this view.

        At the first call: `adopted` are the real servers that carry traffic already, `kept` the endpoints that a former
        process left in traffic although they failed, and `former` the own endpoints that it registered last, empty if
        that is not known. A real server that carries traffic may be a container that has been restarted since.
        """
        before, self._view = self._view, view
        if before is not None and not adopted and not kept and not self._has_other_questions(before, view):
            return
        own = self._own_targets(view)
        taken_over = taken_over_probes(view, self._worker)
        initial: dict[EndpointKey, Health] = {}
        if adopted or kept:
            initial |= {
                key: Health.HEALTHY
                for key, (_, real) in probe_targets(view).items()
                if real in adopted and self._is_same_run(view.by_key[key], former)
            }
            initial |= dict.fromkeys(kept & initial.keys(), Health.UNHEALTHY)
            up = [key for key, health in initial.items() if health is Health.HEALTHY]
            self._panic = resume_panic_state(view, up, kept & initial.keys(), asyncio.get_running_loop().time())
        initial |= {key: Health.HEALTHY for key in taken_over if view.health.get(key) is Health.HEALTHY}
        self._taken_over = frozenset(taken_over)
        self._asked = frozenset((*own, *taken_over))
        self._runs = {key: view.by_key[key].run for key in self._asked}
        self._prober.watch(
            {
                key: ProbeTarget(
                    probe,
                    real.address,
                    real.port,
                    initial.get(key, Health.STARTING),
                    aside=view.by_key[key].drain is DrainReason.MAINTENANCE,
                    instead_of=None if key[0] == self._worker else key[0],
                    run=view.by_key[key].run,
                )
                for key, (probe, real) in (*own.items(), *taken_over.items())
            }
        )

    def declare(self, services: Iterable[Service]) -> None:
        """Replace the services that this worker runs itself. Their probes are those of its own labels, whatever another
        worker declares of the same service.
        """
        before, self._declared = self._declared, {s.owner: s.probe for s in services if s.probe is not None}
        if before != self._declared and self._view is not None:
            view, self._view = self._view, None
            self.watch(view)

    def _own_targets(self, view: ClusterView) -> Mapping[EndpointKey, tuple[Probe, RealKey]]:
        """What to probe of this worker's own endpoints."""
        mine = [endpoint for endpoint in view.endpoints if endpoint.worker == self._worker]
        return probe_targets(view, mine, self._declared)

    def _is_same_run(self, endpoint: Endpoint, former: Mapping[EndpointKey, Endpoint]) -> bool:
        """Whether the endpoint is the process that a former process of this daemon registered, as far as is known."""
        if endpoint.worker != self._worker or not former:
            return True
        before = former.get(endpoint.key)
        return before is not None and endpoint.is_same_run(before)

    def _has_other_questions(self, before: ClusterView, view: ClusterView) -> bool:
        """Whether the probed endpoints may change. They seldom do when endpoints of other workers come and go."""
        if before.silent or view.silent:
            was, now = ((each.services, each.endpoints, each.silent, each.workers) for each in (before, view))
            return was != now
        return view.services is not before.services or any(
            worker == self._worker for worker, _ in changed_keys(before.by_key, view.by_key)
        )

    def probed(self) -> Mapping[EndpointKey, Health]:
        """Health by this worker's probes, of own endpoints and of those taken over from other workers."""
        return self._prober.health()

    def takeover(self, view: ClusterView) -> Mapping[EndpointKey, Health]:
        """Health of other workers' endpoints by this worker's probes, as far as it counts."""
        return takeover_verdicts(view, self._taken_over, self._prober.health()) if self._taken_over else {}

    def held_back(self, view: ClusterView) -> frozenset[EndpointKey]:
        """The endpoints of the view that answer but are still held back."""
        return held_back_in_force(view, self._prober.held_back(), self._asked)

    def panic_input(self, view: ClusterView) -> PanicInput:
        """The input for the next update of the panic state; pass the result of the update to `decided`."""
        failing = frozenset(key for key in self._prober.failing() if key in self._asked)
        asked = ProbeEvidence(failing, probing_workers(view, self._worker, self._asked))
        return PanicInput(self._panic, asked, self._floor_percent, asyncio.get_running_loop().time())

    def decided(self, panic: PanicState) -> None:
        """Replace the panic state; log suspicions that are new or have ended."""
        before, self._panic = self._panic, panic
        self._log_suspicions(before)

    @property
    def asked(self) -> frozenset[EndpointKey]:
        """The endpoints that this worker probes."""
        return self._asked

    def reports(self) -> Mapping[EndpointKey, HealthReport]:
        """The health to publish of all endpoints that this worker probes; the same object while nothing has changed."""
        verdicts, held_back, kept = self._prober.health(), self._prober.held_back(), self._panic.kept
        if (verdicts, held_back, kept, self._runs) != self._reports_for:
            self._reports_for = verdicts, held_back, kept, self._runs
            self._reports = {
                key: HealthReport(health, key in kept, key in held_back, self._runs[key], self._reason(key, health))
                for key, health in verdicts.items()
                if key in self._runs
            }
        return self._reports

    def _reason(self, key: EndpointKey, health: Health) -> str | None:
        """The answer that made an endpoint unhealthy: the first one stands, so that later ones cause no writes."""
        if health is not Health.UNHEALTHY:
            return None
        before = self._reports.get(key)
        if before is not None and before.health is health and before.run == self._runs[key] and before.reason:
            return before.reason
        return self.last_answer(key)

    def judged(self, view: ClusterView) -> HealthSnapshot:
        """A snapshot for status, events and metrics."""
        done = self._prober.stats
        return HealthSnapshot(
            self.takeover(view),
            kept_in_force(view, self._panic.kept, self._worker, self._asked),
            self.held_back(view),
            self._prober.histories(),
            self.suspicions(),
            ProbeStatus(len(self._asked), done.checks, done.failures, done.late),
            time.time() - asyncio.get_running_loop().time(),
        )

    def histories(self) -> Mapping[EndpointKey, Sequence[Verdict]]:
        """The last check results of own endpoints, oldest first; without endpoints that were never probed."""
        own = (key for key in self._asked if key[0] == self._worker)
        return {key: history for key in own if (history := self._prober.history(key))}

    def last_answer(self, key: EndpointKey) -> str | None:
        """The answer to the last probe of an endpoint by this worker; None if it has not probed it."""
        history = self._prober.history(key)
        return history[-1].reason if history else None

    def suspicions(self) -> tuple[CodedText, ...]:
        """The current suspicions, one line each."""
        return tuple(CodedText(_describe(one), Code.MASS_FAILURE) for one in self._panic.suspicions)

    def _log_suspicions(self, before: PanicState) -> None:
        known = {one.group for one in before.suspicions}
        still = {one.group for one in self._panic.suspicions}
        for one in self._panic.suspicions:
            if one.group not in known:
                log.error("probes: %s", _describe(one), extra=Code.MASS_FAILURE.extra)
        for one in before.suspicions:
            if one.group not in still:
                log.info("probes: %s: enough endpoints answer again; verdicts are obeyed", _describe_group(one.group))


def _describe_group(group: FailureGroup) -> str:
    if group.kind is FailureGroupKind.SERVICE:
        return f"service {group.name}"
    return f"endpoints that worker {group.name} probes"


def _describe(one: FailureSuspicion) -> str:
    """The line that operators are shown: the group, its state, the likely cause, and the remedy."""
    cause = (
        "something that all of them depend on, or the network to them,"
        if one.group.kind is FailureGroupKind.SERVICE
        else "the network of that worker"
    )
    stays = f"kept in traffic until others answer: {one.kept}" if one.kept else "enough others are in traffic"
    return (
        f"{_describe_group(one.group)}: {one.failing} of {one.of} endpoints fail at once; {cause} is suspected; "
        f"{stays}; set probe.floor or [probes] floor to 0 to obey every verdict"
    )
