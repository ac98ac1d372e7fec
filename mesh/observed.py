"""One moment of a worker: what it has seen, planned and found, taken down cheaply and told at leisure.

At ten thousand endpoints the status, the metrics and what the page shows take tens of milliseconds each. So the loop
gives away its pictures, which nobody changes, and whoever asked works on them in a thread.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

from mesh.local import health_of, own_endpoints, up_to_date
from mesh.model import ClusterView, EndpointKey, Health, Instance
from mesh.peers import withhold
from mesh.plan import Plan
from mesh.status import Facts, WorkerStatus, services, workers


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
    last_probe: Mapping[str, str] = field(default_factory=dict)
    """What the last probe of an endpoint found, by its id."""
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
        own = own_endpoints(self.view, self.facts.worker)
        return withhold(up_to_date(self.view, own, self.instances, self.probed), self.lost, isolated=self.isolated)


def worker_status(observed: Observed) -> WorkerStatus:
    """What an operator should know."""
    facts, view = observed.facts, observed.newest
    last = {(facts.worker, id): words for id, words in observed.last_probe.items()}
    known = (
        services(view, health_of(view, facts.worker, observed.probed), observed.plan, last)
        if view and observed.plan
        else ()
    )
    return WorkerStatus(
        version=facts.version,
        worker=facts.worker,
        data_plane=facts.data_plane,
        data_plane_reason=facts.data_plane_reason,
        dns=facts.dns,
        services=known,
        problems=tuple(line for part in sorted(observed.problems) for line in observed.problems[part]),
        failures=observed.failures,
        frozen=tuple(observed.frozen[part] for part in sorted(observed.frozen)),
        repairs=observed.repairs,
        digest=observed.digest,
        store=facts.store,
        workers=workers(facts.worker, known),
    )
