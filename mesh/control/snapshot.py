"""One moment of a worker: what it has seen, planned and found, taken down cheaply and told at leisure.

At ten thousand endpoints the status, the metrics and what the page shows take tens of milliseconds each. So the loop
gives away its pictures, which nobody changes, and whoever asked works on them in a thread.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

from mesh.api.status import Facts, ServiceStatus, WorkerStatus, services, workers
from mesh.cluster.failure_detector import withhold
from mesh.control.local_overlay import Local, health_of
from mesh.control.planner import Plan
from mesh.health.snapshot import Judged, known
from mesh.model import ClusterView, EndpointKey, Health, Instance


@dataclass(frozen=True, slots=True)
class Observed:
    """The newest of everything that can be told of a worker."""

    facts: Facts
    view: ClusterView | None = None
    """None until the store has answered once."""
    instances: tuple[Instance, ...] | None = None
    """What runs here; None until every source has answered once."""
    probed: Mapping[str, Health] = field(default_factory=dict)
    """What this worker's probes say, by endpoint id."""
    judged: Judged = field(default_factory=Judged)
    """What they have come to, with those of other workers' endpoints."""
    plan: Plan | None = None
    """What the last pass has planned."""
    problems: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """What was refused or ignored, by the part that found it."""
    errors: Mapping[str, int] = field(default_factory=dict)
    """How many of a part's problems are errors; the others are warnings."""
    failures: tuple[str, ...] = ()
    """What the data plane would not do."""
    frozen: Mapping[str, str] = field(default_factory=dict)
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

    @property
    def newest(self) -> ClusterView | None:
        """The picture of the cluster with the own endpoints as they are now, and without what is out of reach."""
        if self.view is None:
            return None
        here = None if self.instances is None else {instance.id: instance for instance in self.instances}
        view = Local(self.facts.worker).after(self.view, here, self.probed).picture()
        return withhold(view, self.lost, isolated=self.isolated).judged(self.judged.health)

    def health(self, view: ClusterView) -> Mapping[EndpointKey, Health]:
        """What is known of the endpoints of `newest`, with the own ones that have not answered yet."""
        return health_of(view, self.facts.worker, self.probed)


def worker_status(observed: Observed, *, in_detail: bool = False) -> WorkerStatus:
    """What an operator should know. `in_detail`: with the last verdicts and the counts, which change all the time."""
    facts, view = observed.facts, observed.newest
    found: tuple[ServiceStatus, ...] = ()
    if view is not None and observed.plan is not None:
        found = services(view, known(view, observed.health(view), observed.judged, in_detail=in_detail), observed.plan)
    return WorkerStatus(
        version=facts.version,
        worker=facts.worker,
        data_plane=facts.data_plane,
        data_plane_reason=facts.data_plane_reason,
        dns=facts.dns,
        services=found,
        problems=tuple(line for part in sorted(observed.problems) for line in observed.problems[part]),
        failures=observed.failures,
        frozen=tuple(observed.frozen[part] for part in sorted(observed.frozen)),
        repairs=observed.repairs,
        digest=observed.digest,
        suspicions=observed.judged.suspicions,
        probes=observed.judged.probes if in_detail else None,
        store=facts.store,
        workers=workers(facts.worker, found),
    )
