"""What compose files and labels want (`Stack`), and what the fleet must have for it (`Desired`). Pure values."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from mesh.model.problem import Problem, Severity
from mesh.platform.fleet.protocol import FleetContainer, FleetPort, FleetResources, FleetRestart, FleetSpec

STACK_LABEL = "mesh.stack"
"""Label of an engine service: its project."""
SERVICE_LABEL = "mesh.service"
"""Label of an engine service and of its containers: `project/service`, the owner that the routing mesh knows."""
RELEASE_LABEL = "mesh.release"
"""Label of an engine service: its release."""
DIGEST_LABEL = "mesh.digest"
"""Label of an engine service: the digest of the specification that it was made from."""

MOVES_LABEL = "mesh.moves"
"""Label of an engine service: `false` if its instances have data of their workers; absent otherwise."""


AUTOSCALED_LABEL = "mesh.autoscaled"
"""Label of an engine service that is scaled: the number that autoscaling has set last, or `SET_BY_HAND`."""
SET_BY_HAND = "by hand"
"""Its value once a person, or a deploy, has set the number."""


class StackCondition(StrEnum):
    """The state of a service that another one waits for."""

    STARTED = "started"
    """An instance runs."""
    SERVING = "serving"
    """An instance serves, by its probe."""
    COMPLETED = "completed"
    """All instances have ended, with exit status 0."""


@dataclass(frozen=True, slots=True)
class StackNeed:
    """A service that must be there before another one is created."""

    service: str
    condition: StackCondition = StackCondition.SERVING
    is_required: bool = True
    """Otherwise it is only waited for if it is deployed."""


class StackStrategy(StrEnum):
    """How a new release takes the place of the old one."""

    ROLLING = "rolling"
    """New instances serve before old ones drain."""
    REPLACE = "replace"
    """Old instances end before new ones start: both would write to the same data."""


class StackAffinityKind(StrEnum):
    """What an affinity compares."""

    SERVICE = "service"
    LABEL = "label"
    """A label of containers."""


@dataclass(frozen=True, slots=True)
class StackAffinity:
    """Whether instances run only on workers that run something else, or only on others."""

    kind: StackAffinityKind
    name: str
    """The service, or the key of the label."""
    value: str
    """The value of the label; empty for a service."""
    is_together: bool
    """True for `==`, False for `!=`."""
    where: str = ""
    """`FILE:LINE`."""


@dataclass(frozen=True, slots=True)
class StackZones:
    """Over how many values of a worker's label the instances are spread."""

    label: str
    """Label of the worker in the fleet: `az` for `node.labels.az`."""
    count: int
    is_hard: bool
    """Whether nothing is created if there are fewer. Otherwise it is a preference."""
    where: str = ""
    """`FILE:LINE`."""


@dataclass(frozen=True, slots=True)
class StackService:
    """One service as its files want it."""

    name: str
    where: str
    """`FILE:LINE`."""
    container: FleetContainer
    """Without what the translation adds: `image` is the reference as it is written, and `labels` are the file's."""
    instances: int | None = 1
    """None: one on every worker."""
    needs: tuple[StackNeed, ...] = ()
    ports: tuple[FleetPort, ...] = ()
    """The container ports that are routed or published."""
    limits: FleetResources = field(default_factory=FleetResources)
    reservations: FleetResources = field(default_factory=FleetResources)
    constraints: tuple[str, ...] = ()
    affinities: tuple[StackAffinity, ...] = ()
    zones: tuple[StackZones, ...] = ()
    spreads: tuple[str, ...] = ()
    most_per_worker: int = 0
    strategy: StackStrategy = StackStrategy.ROLLING
    why: str = ""
    """Why it is this strategy, for people."""
    parallelism: int = 1
    """How many instances are replaced at a time."""
    can_move: bool = True
    """Whether a drain or a rebalancing may start an instance on another worker: it has no data of its worker."""
    release: str = ""
    """The label `routing.release`; empty if there is none."""
    always_pull: bool = False
    restart: FleetRestart = field(default_factory=FleetRestart)
    networks: tuple[str, ...] = ()
    log_driver: str = ""
    log_options: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Stack:
    """One project as its files want it."""

    project: str
    services: tuple[StackService, ...]
    """In the order of creation: a service comes after those that it needs. Refused ones are not among them."""
    problems: tuple[Problem, ...] = ()
    """What is refused (errors) or ignored (warnings)."""
    refused: frozenset[str] = frozenset()
    """Services that cannot be had as they were meant: what runs of them must stay as it is."""
    broken: bool = False
    """Compose itself refuses the files: services are missing, and must not be taken as removed."""


@dataclass(frozen=True, slots=True)
class StackSite:
    """What every worker of the mesh has in common, and each container is told."""

    nameservers: tuple[str, ...] = ()
    """Addresses of the mesh's name server, the same on each worker; empty if containers cannot reach it."""
    search_domain: str = ""
    """The cluster domain, which names without a dot are completed with."""
    drain_seconds: float = 30.0
    """How long the connections of an instance that is stopped may go on."""


@dataclass(frozen=True, slots=True)
class DesiredService:
    """One release of a service as the fleet must have it."""

    name: str
    """As the compose file names it."""
    spec: FleetSpec
    """Complete: its labels are the bookkeeping, and `instances` is the number in force."""
    release: str
    digest: str
    """Of the specification, without its count and its bookkeeping; 64 hexadecimal digits."""
    needs: tuple[StackNeed, ...] = ()
    strategy: StackStrategy = StackStrategy.ROLLING
    why: str = ""
    parallelism: int = 1
    can_move: bool = True
    image: str = ""
    """The reference as it is written, which is looked up before the translation."""
    always_pull: bool = False
    zones: tuple[StackZones, ...] = ()
    written_instances: int | None = 1
    """The number that the file says; `spec.instances` may be another one that is in force."""

    @property
    def is_global(self) -> bool:
        """Whether there is one instance on every worker."""
        return self.spec.instances is None


@dataclass(frozen=True, slots=True)
class Desired:
    """What the fleet must have for one project."""

    project: str
    services: tuple[DesiredService, ...]
    """In the order of creation."""
    problems: tuple[Problem, ...] = ()
    refused: frozenset[str] = frozenset()
    """Services that must stay as they are."""
    broken: bool = False

    @property
    def errors(self) -> tuple[Problem, ...]:
        """Return the problems that refuse something."""
        return tuple(problem for problem in self.problems if problem.severity is Severity.ERROR)
