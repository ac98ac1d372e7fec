"""One moment of a worker: what it has seen, planned and found, taken down cheaply and told at leisure.

At ten thousand endpoints the status, the metrics and what the page shows take tens of milliseconds each. So the loop
gives away its pictures, which nobody changes, and whoever asked works on them in a thread.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from mesh.control.local_overlay import known_health
from mesh.control.planner import Plan
from mesh.control.view import EffectiveView, ViewInputs, effective_view
from mesh.health.snapshot import HealthSnapshot
from mesh.health.state_machine import Verdict
from mesh.model.errors import CodedText
from mesh.model.problem import Problem
from mesh.model.service import Address, EndpointKey, Health, Instance, Name, Transport
from mesh.model.table import Table
from mesh.model.view import ClusterView


@dataclass(frozen=True, slots=True)
class WorkerFacts:
    """What does not change while the daemon runs."""

    version: str
    worker: str
    data_plane: str
    data_plane_reason: str
    dns: tuple[str, ...] = field(default=())
    store: str = ""
    """Where claims and endpoints are kept: a URL without secrets."""


@dataclass(frozen=True, slots=True)
class WorkerSnapshot:
    """The newest of everything that can be told of a worker."""

    facts: WorkerFacts
    view: ClusterView | None = None
    """None until the store has answered once."""
    instances: tuple[Instance, ...] | None = None
    """What runs here; None until every source has answered once."""
    probed: Mapping[EndpointKey, Health] = field(default_factory=dict)
    """What this worker's probes say."""
    judged: HealthSnapshot = field(default_factory=HealthSnapshot)
    """What they have come to, with those of other workers' endpoints."""
    plan: Plan | None = None
    """What the last pass has planned."""
    problems: Mapping[str, tuple[Problem, ...]] = field(default_factory=dict)
    """What was refused or ignored, by the part that found it."""
    failures: tuple[CodedText, ...] = ()
    """What the data plane would not do."""
    frozen: Mapping[str, CodedText] = field(default_factory=dict)
    """Why a part's last good state stays in force: `store`, `data plane`, `source 0`, `host 1`."""
    repairs: int = 0
    draining: int = 0
    """Real servers that are on their way out."""
    digest: str | None = None
    """Of the plan."""
    lost: frozenset[EndpointKey] = frozenset()
    """Endpoints that this worker does not reach."""
    isolated: bool = False
    """Whether it takes that to be its own fault."""

    @property
    def size(self) -> int:
        """How many things there are to look at."""
        return 0 if self.view is None else len(self.view.services) + len(self.view.endpoints)

    def effective(self) -> EffectiveView | None:
        """The view that the next pass would plan from; None until the store has answered once. Computed at each call.

        It follows the panic decisions of the last pass: they are made once in a pass, and never for a status.
        """
        if self.view is None:
            return None
        return effective_view(
            ViewInputs(
                self.facts.worker,
                self.view,
                instances=None if self.instances is None else {instance.id: instance for instance in self.instances},
                probed=self.probed,
                lost=self.lost,
                isolated=self.isolated,
                takeover=self.judged.health,
                kept=self.judged.kept,
                held_back=self.judged.held_back,
            )
        )

    @property
    def all_problems(self) -> tuple[Problem, ...]:
        """What every part has found, in order of the parts' names."""
        return tuple(problem for part in sorted(self.problems) for problem in self.problems[part])

    def health(self, view: ClusterView) -> Mapping[EndpointKey, Health]:
        """What is known of the endpoints of a view, with the own ones that have not answered yet."""
        return known_health(view, self.facts.worker, self.probed)


@dataclass(frozen=True, slots=True)
class DetailedSnapshot:
    """The newest of everything, with its details."""

    observed: WorkerSnapshot
    domain: Name
    """What completes a bare name."""
    verdicts: Mapping[EndpointKey, Sequence[Verdict]] = field(default_factory=dict)
    """The last verdicts on this worker's endpoints, oldest first."""
    contested: frozenset[tuple[Transport, int]] = frozenset()
    """Published ports that programs of this worker listen on."""
    names: Mapping[Name, Address] = field(default_factory=dict)
    """What the name server answers."""
    programmed: Table = field(default_factory=Table)
    """What the last pass has left in the data plane."""
    now: float = 0.0
    """The clock of `Verdict.at`, in seconds."""

    @property
    def problems(self) -> tuple[Problem, ...]:
        """What was refused or ignored."""
        return self.observed.all_problems
