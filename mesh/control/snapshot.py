"""An immutable snapshot of a worker. Taking it is cheap; status and metrics are computed from it in a thread.

At ten thousand endpoints the status, the metrics and the data of the page take tens of milliseconds each. The loop
hands out its immutable views, and each document is computed from them outside the event loop.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from mesh.cluster.worker_directory import RegisteredWorker
from mesh.control.arrival import Arrivals
from mesh.control.local_overlay import known_health
from mesh.control.planner import Plan
from mesh.control.slow_start import SlowStarts
from mesh.control.view import EffectiveView, ViewInputs, effective_view
from mesh.health.snapshot import HealthSnapshot
from mesh.health.state_machine import Verdict
from mesh.model.collected_logs import CollectedLogs
from mesh.model.errors import CodedText
from mesh.model.part import DaemonPart
from mesh.model.problem import Problem
from mesh.model.service import Address, EndpointKey, Health, Instance, Name, Transport
from mesh.model.service_scaling import ServiceScaling
from mesh.model.table import RealKey, Table, VirtualKey
from mesh.model.view import ClusterView


@dataclass(frozen=True, slots=True)
class WorkerFacts:
    """Facts that do not change while the daemon runs."""

    version: str
    worker: str
    data_plane: str
    data_plane_reason: str
    dns: tuple[str, ...] = field(default=())
    store: str = ""
    """The URL of the store, without secrets."""


@dataclass(frozen=True, slots=True)
class WorkerSnapshot:
    """The newest state of a worker."""

    facts: WorkerFacts
    view: ClusterView | None = None
    """The cluster view; None until the store has answered once."""
    instances: tuple[Instance, ...] | None = None
    """The instances on this worker; None until every source has answered once."""
    probed: Mapping[EndpointKey, Health] = field(default_factory=dict)
    """Health by this worker's probes."""
    judged: HealthSnapshot = field(default_factory=HealthSnapshot)
    """The results of health monitoring, including taken-over endpoints of other workers."""
    plan: Plan | None = None
    """The plan of the last pass; None before the first one."""
    problems: Mapping[str, tuple[Problem, ...]] = field(default_factory=dict)
    """Refused or ignored configuration and other problems, by the part that found them."""
    failures: tuple[CodedText, ...] = ()
    """Operations that the data plane refused in the last pass."""
    frozen: Mapping[str, CodedText] = field(default_factory=dict)
    """Parts whose last good state stays in force, with the reason: `store`, `data plane`, `source 0`, `host 1`."""
    repairs: int = 0
    draining: int = 0
    """The number of real servers that are draining."""
    digest: str | None = None
    """The digest of the plan; None before the first one."""
    lost: frozenset[EndpointKey] = frozenset()
    """Endpoints that this worker cannot reach."""
    isolated: bool = False
    """Whether this worker is probably cut off itself."""
    arrivals: Arrivals = field(default_factory=Arrivals)
    """Whether requests arrive, by what any check has observed."""
    internal_errors: Mapping[DaemonPart, int] = field(default_factory=dict)
    """How many internal errors were caught since the start, by part."""
    admin_addresses: Mapping[str, RealKey] = field(default_factory=dict)
    """Where the workers say that their admin APIs are, by name; without those that publish none."""
    programmed: Table | None = None
    """The table that the last pass has left in the data plane; None before the first one."""
    registered: Mapping[str, RegisteredWorker] = field(default_factory=dict)
    """The workers that the store has, by name."""
    unleased: frozenset[str] = frozenset()
    """The other workers whose lease has ended and whose records are kept."""
    heard: Mapping[str, float] = field(default_factory=dict)
    """When each other worker answered a ping last, in seconds since 1970."""
    since: Mapping[EndpointKey, float] = field(default_factory=dict)
    """Since when this worker has seen each endpoint in its state, in seconds since 1970."""
    held: frozenset[VirtualKey] = frozenset()
    """The virtual servers without an endpoint whose new connections wait for one."""
    acting: str | None = None
    """The worker whose daemon acts for the swarm; None if that is not known, or there is no swarm."""
    scaling: tuple[ServiceScaling, ...] = ()
    """The last decision of autoscaling on each service, if this worker's daemon acts for the swarm."""
    collected: CollectedLogs | None = None
    """How far `vipmesh ship` is; None if nothing answers and no container asks for it."""
    slow_starts: SlowStarts = field(default_factory=SlowStarts)
    """The endpoints that ramp, by the last pass."""

    @property
    def size(self) -> int:
        """The number of services and endpoints, to estimate the effort of working on the snapshot."""
        return 0 if self.view is None else len(self.view.services) + len(self.view.endpoints)

    def effective(self) -> EffectiveView | None:
        """The view that the next pass would plan from; None until the store has answered once. Computed at each call.

        It uses the panic decisions of the last pass: they are made once per pass, never for a status.
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
                slow_starts=self.slow_starts,
            )
        )

    @property
    def all_problems(self) -> tuple[Problem, ...]:
        """The problems of all parts, in order of the parts' names."""
        return tuple(problem for part in sorted(self.problems) for problem in self.problems[part])

    def health(self, view: ClusterView) -> Mapping[EndpointKey, Health]:
        """The health of the endpoints of a view, including own endpoints without a result yet."""
        return known_health(view, self.facts.worker, self.probed)


@dataclass(frozen=True, slots=True)
class DetailedSnapshot:
    """A snapshot of a worker with the details that `explain` needs."""

    observed: WorkerSnapshot
    domain: Name
    """The domain that is appended to a bare name."""
    verdicts: Mapping[EndpointKey, Sequence[Verdict]] = field(default_factory=dict)
    """The last check results of this worker's endpoints, oldest first."""
    contested: frozenset[tuple[Transport, int]] = frozenset()
    """Published ports that programs of this worker listen on."""
    names: Mapping[Name, Address] = field(default_factory=dict)
    """The names that the name server answers."""
    programmed: Table = field(default_factory=Table)
    """The table that the last pass has left in the data plane."""
    now: float = 0.0
    """The current time on the clock of `Verdict.at`, in seconds."""
    unlabelled: Mapping[str, str] = field(default_factory=dict)
    """The names of containers that run on this worker without labels of the mesh, by the container's ID."""

    @property
    def problems(self) -> tuple[Problem, ...]:
        """The problems of all parts, in order of the parts' names."""
        return self.observed.all_problems
