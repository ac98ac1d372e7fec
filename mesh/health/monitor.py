"""Decides what this worker probes, and keeps what the rules over the results need to remember.

A worker knows its own endpoints by its own probes, and the others' by what their workers say; of those whose workers
cannot say anything it asks its part itself (`mesh.health.takeover`). A mass failure is suspected before it is obeyed
(`mesh.health.panic`). In which order these rules make a view is in `mesh.control.view`.
"""

import asyncio
import logging
import time
from collections.abc import Collection, Mapping, Sequence
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
from mesh.model.service import DrainReason, EndpointKey, Health
from mesh.model.table import RealKey
from mesh.model.view import ClusterView, HealthReport


class HealthProber(Protocol):
    """The prober, as far as the loop needs it."""

    @property
    def stats(self) -> ProberCounters:
        """What it has done so far."""
        ...

    def watch(self, targets: Mapping[EndpointKey, ProbeTarget]) -> None:
        """Probe exactly these endpoints."""
        ...

    def health(self) -> Mapping[EndpointKey, Health]:
        """The verdict on each of them, `STARTING` before its first one; the same object while nothing has changed."""
        ...

    def held_back(self) -> frozenset[EndpointKey]:
        """Of them, those that answer and are not believed yet, since they come and go."""
        ...

    def failing(self) -> frozenset[EndpointKey]:
        """Of them, those that failed their last check, whatever their health is."""
        ...

    def history(self, key: EndpointKey) -> Sequence[Verdict]:
        """What the last probes of one endpoint found, oldest first; empty if it was never asked."""
        ...

    def histories(self) -> Mapping[EndpointKey, PastChecks]:
        """The same of all of them, as it goes on."""
        ...


log = logging.getLogger("vipmesh")


class HealthMonitor:
    """Decides what this worker probes, and tells what came of it. All methods are for the thread of the event loop."""

    def __init__(self, worker: str, prober: HealthProber, floor: int) -> None:
        """`floor`: per cent of the endpoints that stay in traffic when most fail at once."""
        self._worker = worker
        self._prober = prober
        self._percent = floor
        self._floor = PanicState()
        self._asked: frozenset[EndpointKey] = frozenset()
        """What the prober is told to ask."""
        self._others: frozenset[EndpointKey] = frozenset()
        """Those of them that belong to other workers."""
        self._view: ClusterView | None = None
        """What that follows from; None: there was none yet."""
        self._said: Mapping[EndpointKey, HealthReport] = {}
        self._said_for: tuple[object, ...] = ()

    def watch(
        self, view: ClusterView, adopted: Collection[RealKey] = (), kept: frozenset[EndpointKey] = frozenset()
    ) -> None:
        """Ask what there is to ask.

        At the first call: `adopted` are the real servers that carry traffic already, and `kept` the endpoints that a
        former process has left in traffic although they failed.
        """
        before, self._view = self._view, view
        if before is not None and not adopted and not kept and not self._has_other_questions(before, view):
            return
        own = probe_targets(view, (endpoint for endpoint in view.endpoints if endpoint.worker == self._worker))
        others = taken_over_probes(view, self._worker)
        begins: dict[EndpointKey, Health] = {}
        if adopted or kept:
            begins |= {key: Health.HEALTHY for key, (_, real) in probe_targets(view).items() if real in adopted}
            begins |= dict.fromkeys(kept & begins.keys(), Health.UNHEALTHY)
            up = [key for key, health in begins.items() if health is Health.HEALTHY]
            self._floor = resume_panic_state(view, up, kept & begins.keys(), asyncio.get_running_loop().time())
        begins |= {key: Health.HEALTHY for key in others if view.health.get(key) is Health.HEALTHY}
        self._others = frozenset(others)
        self._asked = frozenset((*own, *others))
        self._prober.watch(
            {
                key: ProbeTarget(
                    probe,
                    real.address,
                    real.port,
                    begins.get(key, Health.STARTING),
                    aside=view.by_key[key].drain is DrainReason.MAINTENANCE,
                    instead_of=None if key[0] == self._worker else key[0],
                )
                for key, (probe, real) in (*own.items(), *others.items())
            }
        )

    def _has_other_questions(self, before: ClusterView, view: ClusterView) -> bool:
        """Whether what to ask may be something else: it seldom is when others' endpoints come and go."""
        if before.silent or view.silent:
            was, now = ((each.services, each.endpoints, each.silent, each.workers) for each in (before, view))
            return was != now
        return view.services is not before.services or any(
            worker == self._worker for worker, _ in changed_keys(before.by_key, view.by_key)
        )

    def probed(self) -> Mapping[EndpointKey, Health]:
        """What the own probes say, of own endpoints and of those that are asked in the place of other workers."""
        return self._prober.health()

    def takeover(self, view: ClusterView) -> Mapping[EndpointKey, Health]:
        """What the own probes say of other workers' endpoints, as far as it counts."""
        return takeover_verdicts(view, self._others, self._prober.health()) if self._others else {}

    def held_back(self, view: ClusterView) -> frozenset[EndpointKey]:
        """The endpoints that answer and are not believed yet."""
        return held_back_in_force(view, self._prober.held_back(), self._asked)

    def panic_input(self, view: ClusterView) -> PanicInput:
        """What the next update of the panic state follows from; its result is for `decided`."""
        failing = frozenset(key for key in self._prober.failing() if key in self._asked)
        asked = ProbeEvidence(failing, probing_workers(view, self._worker, self._asked))
        return PanicInput(self._floor, asked, self._percent, asyncio.get_running_loop().time())

    def decided(self, floor: PanicState) -> None:
        """The panic state is this from now on; what is suspected, or no longer, is logged."""
        before, self._floor = self._floor, floor
        self._tell(before)

    @property
    def asked(self) -> frozenset[EndpointKey]:
        """What this worker probes."""
        return self._asked

    def said(self) -> Mapping[EndpointKey, HealthReport]:
        """What to tell the others of all that this worker asks; the same object while nothing has changed."""
        verdicts, held_back, kept = self._prober.health(), self._prober.held_back(), self._floor.kept
        if (verdicts, held_back, kept, self._asked) != self._said_for:
            self._said_for = verdicts, held_back, kept, self._asked
            self._said = {
                key: HealthReport(health, key in kept, key in held_back)
                for key, health in verdicts.items()
                if key in self._asked
            }
        return self._said

    def judged(self, view: ClusterView) -> HealthSnapshot:
        """This moment, for people and programs that ask."""
        done = self._prober.stats
        return HealthSnapshot(
            self.takeover(view),
            kept_in_force(view, self._floor.kept, self._worker, self._asked),
            self.held_back(view),
            self._prober.histories(),
            self.suspicions(),
            ProbeStatus(len(self._asked), done.checks, done.failures, done.late),
            time.time() - asyncio.get_running_loop().time(),
        )

    def histories(self) -> Mapping[EndpointKey, Sequence[Verdict]]:
        """The last verdicts on the own endpoints, oldest first; without those that were never asked."""
        own = (key for key in self._asked if key[0] == self._worker)
        return {key: history for key in own if (history := self._prober.history(key))}

    def suspicions(self) -> tuple[CodedText, ...]:
        """What is suspected now, a line each."""
        return tuple(CodedText(_told(one), Code.MASS_FAILURE) for one in self._floor.suspicions)

    def _tell(self, before: PanicState) -> None:
        known = {one.group for one in before.suspicions}
        still = {one.group for one in self._floor.suspicions}
        for one in self._floor.suspicions:
            if one.group not in known:
                log.error("probes: %s", _told(one), extra=Code.MASS_FAILURE.extra)
        for one in before.suspicions:
            if one.group not in still:
                log.info("probes: %s: enough answer again, verdicts are obeyed", _named(one.group))


def _named(group: FailureGroup) -> str:
    return f"service {group.name}" if group.kind is FailureGroupKind.SERVICE else f"what worker {group.name} asks"


def _told(one: FailureSuspicion) -> str:
    """In words that help at night."""
    common = (
        "something that all of them need"
        if one.group.kind is FailureGroupKind.SERVICE
        else "the network of that worker"
    )
    stays = f"kept in traffic until others answer: {one.kept}" if one.kept else "enough others are in traffic"
    return (
        f"{_named(one.group)}: {one.failing} of {one.of} endpoints fail at once, so {common} is suspected, or the way "
        f"there; {stays}; set probe.floor or [probes] floor to 0 to obey every verdict"
    )
