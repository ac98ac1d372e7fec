"""What is known of the health of all endpoints, and what traffic makes of it.

A worker knows its own endpoints by its own probes, and the others' by what their workers say; of those whose workers
cannot say anything it asks its part itself (`mesh.health.takeover`). A mass failure is suspected before it is obeyed
(`mesh.health.panic`). This is the thin shell that holds the pictures those rules need.
"""

import asyncio
import logging
import time
from collections.abc import Collection, Mapping, Sequence
from functools import partial
from typing import Protocol

from mesh.health.correlation import FailureGroup, FailureGroupKind
from mesh.health.panic import (
    FailureSuspicion,
    PanicState,
    ProbeEvidence,
    panic_effort,
    panic_overrides,
    resume_panic_state,
    update_panic_state,
)
from mesh.health.snapshot import HealthSnapshot, PastChecks, ProbeStatus
from mesh.health.state_machine import Verdict
from mesh.health.takeover import choose_probers, taken_over_probes
from mesh.health.targets import ProberCounters, ProbeTarget
from mesh.model.codes import Code
from mesh.model.eligibility import probe_targets
from mesh.model.errors import CodedText
from mesh.model.persistent_map import changed_keys
from mesh.model.service import DrainReason, EndpointKey, Health
from mesh.model.table import RealKey
from mesh.model.view import ClusterView, HealthReport
from mesh.util.offload import compute


class HealthProber(Protocol):
    """The prober, as far as the loop needs it."""

    @property
    def stats(self) -> ProberCounters:
        """What it has done so far."""
        ...

    def watch(self, targets: Mapping[str, ProbeTarget]) -> None:
        """Probe exactly these endpoints."""
        ...

    def health(self) -> Mapping[str, Health]:
        """The verdict on each of them; one that has not answered yet is `STARTING`."""
        ...

    def held_back(self) -> frozenset[str]:
        """Of them, those that answer and are not believed yet, since they come and go."""
        ...

    def failing(self) -> frozenset[str]:
        """Of them, those that failed their last check, whatever their health is."""
        ...

    def history(self, key: str) -> Sequence[Verdict]:
        """What the last probes of one endpoint found, oldest first; empty if it was never asked."""
        ...

    def histories(self) -> Mapping[str, PastChecks]:
        """The same of all of them, as it goes on."""
        ...


log = logging.getLogger("vipmesh")


class HealthMonitor:
    """Of one worker. All methods are for the thread of the event loop."""

    def __init__(self, worker: str, prober: HealthProber, floor: int) -> None:
        """`floor`: per cent of the endpoints that stay in traffic when most fail at once."""
        self._worker = worker
        self._prober = prober
        self._percent = floor
        self._floor = PanicState()
        self._asked: Mapping[str, EndpointKey] = {}
        """What the prober is told to ask, by the names that the prober knows."""
        self._names: Mapping[EndpointKey, str] = {}
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
        former life has left in traffic although they failed.
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
        self._names = {key: self._name(key) for key in (*own, *others)}
        self._asked = {name: key for key, name in self._names.items()}
        self._prober.watch(
            {
                self._names[key]: ProbeTarget(
                    probe,
                    real.address,
                    real.port,
                    begins.get(key, Health.STARTING),
                    aside=view.by_key[key].drain is DrainReason.MAINTENANCE,
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

    async def weigh(self, view: ClusterView) -> ClusterView:
        """The view with the health that traffic shall follow now. The view has the own verdicts already."""
        view = view.judged(self._in_place_of_others(view))
        before, now = self._floor, asyncio.get_running_loop().time()
        work = partial(update_panic_state, before, view, self._asks(view), floor=self._percent, now=now)
        self._floor = await compute(panic_effort(before, view), work)
        self._tell(before)
        return view.judged(panic_overrides(view, self._kept(view), self._held_back(view)))

    def own(self) -> Mapping[str, Health]:
        """What the own probes say of the own endpoints, by id."""
        return self._prober.health()  # those of others have names that no endpoint has

    def said(self) -> Mapping[EndpointKey, HealthReport]:
        """What to tell the others of all that this worker asks; the same object while nothing has changed."""
        verdicts, held_back, kept = self._prober.health(), self._prober.held_back(), self._floor.kept
        if (verdicts, held_back, kept, self._asked) != self._said_for:
            self._said_for = verdicts, held_back, kept, self._asked
            self._said = {
                key: HealthReport(health, key in kept, name in held_back)
                for name, health in verdicts.items()
                if (key := self._asked.get(name)) is not None
            }
        return self._said

    def judged(self, view: ClusterView) -> HealthSnapshot:
        """This moment, for people and programs that ask."""
        done = self._prober.stats
        return HealthSnapshot(
            self._in_place_of_others(view),
            self._kept(view),
            self._held_back(view),
            self._names,
            self._prober.histories(),
            self.suspicions(),
            ProbeStatus(len(self._asked), done.checks, done.failures, done.late),
            time.time() - asyncio.get_running_loop().time(),
        )

    def histories(self) -> Mapping[str, Sequence[Verdict]]:
        """The last verdicts on the own endpoints, by id, oldest first."""
        own = (id for worker, id in self._names if worker == self._worker)
        return {id: history for id in own if (history := self._prober.history(id))}

    def suspicions(self) -> tuple[CodedText, ...]:
        """What is suspected now, a line each."""
        return tuple(CodedText(_told(one), Code.MASS_FAILURE) for one in self._floor.suspicions)

    def _name(self, key: EndpointKey) -> str:
        worker, id = key
        return id if worker == self._worker else f"{id} of {worker}"

    def _kept(self, view: ClusterView) -> frozenset[EndpointKey]:
        """Whoever asks an endpoint decides, and the others follow, or their tables would differ. While nobody can tell
        the others anything, each decides for itself."""
        decides = frozenset(
            key for key in self._floor.kept if key[0] == self._worker or key[0] in view.workers & view.silent
        )
        return decides.union(key for key in view.kept if key[0] != self._worker or key not in self._names)

    def _held_back(self, view: ClusterView) -> frozenset[EndpointKey]:
        mine = (self._asked.get(name) for name in self._prober.held_back())
        others = [key for key in view.held_back if key not in self._names]
        return frozenset(key for key in (*mine, *others) if key is not None)

    def _in_place_of_others(self, view: ClusterView) -> Mapping[EndpointKey, Health]:
        """Of the endpoints of a worker that is gone the better verdict counts, of this worker or of another one."""
        if not self._others:
            return {}
        verdicts = self._prober.health()
        return {
            key: verdict
            for key in self._others
            if (verdict := verdicts.get(self._names[key], Health.STARTING)) is not Health.STARTING
            and not (key[0] not in view.workers and view.health.get(key) is Health.HEALTHY)
        }

    def _asks(self, view: ClusterView) -> ProbeEvidence:
        failing = frozenset(self._asked[name] for name in self._prober.failing() if name in self._asked)
        if not view.silent:
            return ProbeEvidence(failing)
        live = (view.workers | {self._worker}) - view.silent
        judges = {
            e.key: self._worker if e.key in self._names else choose_probers(e.key, live)[0]
            for e in view.endpoints
            if e.worker in view.silent
        }
        return ProbeEvidence(failing, judges)

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
