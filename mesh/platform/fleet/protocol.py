"""What the platform asks of the engines: workers, services, tasks, and changes with the version they were planned on.

Only what a release needs is here: one engine service for each release, without an overlay network, an address of its
own, or an updater (https://docs.docker.com/reference/api/engine/version/v1.41/#tag/Service).
"""

from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Protocol


class FleetMountKind(StrEnum):
    """What is mounted."""

    BIND = "bind"
    VOLUME = "volume"
    TMPFS = "tmpfs"


@dataclass(frozen=True, slots=True)
class FleetMount:
    """A place in a container that something else provides."""

    kind: FleetMountKind
    target: str
    source: str = ""
    """A path of the worker, or the name of a volume; empty for a volume without a name and for tmpfs."""
    read_only: bool = False
    options: Mapping[str, str] = field(default_factory=dict)
    """`propagation` (bind); `nocopy`, `driver`, `driver_opts.NAME`, `labels.NAME` (volume); `size` in bytes and `mode`
    in octal (tmpfs).
    """


@dataclass(frozen=True, slots=True)
class FleetFile:
    """A secret or a config of the engine that is a file in the container."""

    name: str
    target: str
    uid: str = "0"
    gid: str = "0"
    mode: int = 0o444
    is_secret: bool = False


@dataclass(frozen=True, slots=True)
class FleetPort:
    """A port of the container that gets a free port of its worker."""

    port: int
    protocol: str = "tcp"


@dataclass(frozen=True, slots=True)
class FleetResources:
    """An amount of what a worker has; 0: not said."""

    cpu_nanos: int = 0
    """In billionths of a core."""
    memory_bytes: int = 0
    pids: int = 0
    """Limits only."""


@dataclass(frozen=True, slots=True)
class FleetHealthCheck:
    """The engine's own check. Times are in nanoseconds; 0: the image's."""

    test: tuple[str, ...]
    interval: int = 0
    timeout: int = 0
    start_period: int = 0
    retries: int = 0


@dataclass(frozen=True, slots=True)
class FleetContainer:
    """What each instance is made of. An empty value leaves what the image says."""

    image: str
    command: tuple[str, ...] = ()
    """In the place of the image's ENTRYPOINT."""
    args: tuple[str, ...] = ()
    """In the place of the image's CMD."""
    environment: tuple[tuple[str, str | None], ...] = ()
    """In order of names; None: the variable is unset."""
    labels: Mapping[str, str] = field(default_factory=dict)
    hostname: str = ""
    directory: str = ""
    user: str = ""
    groups: tuple[str, ...] = ()
    mounts: tuple[FleetMount, ...] = ()
    files: tuple[FleetFile, ...] = ()
    hosts: tuple[str, ...] = ()
    """Lines of /etc/hosts: `10.0.0.1 name`."""
    nameservers: tuple[str, ...] = ()
    search_domains: tuple[str, ...] = ()
    resolver_options: tuple[str, ...] = ()
    stop_signal: str = ""
    stop_grace: int = 0
    """In nanoseconds; 0: the engine's default of 10 s."""
    health_check: FleetHealthCheck | None = None
    capabilities_added: tuple[str, ...] = ()
    capabilities_dropped: tuple[str, ...] = ()
    sysctls: Mapping[str, str] = field(default_factory=dict)
    ulimits: tuple[tuple[str, int, int], ...] = ()
    """Name, soft and hard limit; in order of names."""
    init: bool | None = None
    read_only: bool = False
    tty: bool = False
    open_stdin: bool = False
    isolation: str = ""


@dataclass(frozen=True, slots=True)
class FleetRestart:
    """When the engine makes another instance in the place of one that ended. Times are in nanoseconds."""

    condition: str = "any"
    """`any`, `on-failure` or `none`."""
    delay: int = 1_000_000_000
    attempts: int = 0
    """0: without end."""
    window: int = 0


@dataclass(frozen=True, slots=True)
class FleetSpec:
    """One engine service as it shall be."""

    name: str
    container: FleetContainer
    labels: Mapping[str, str] = field(default_factory=dict)
    """Of the engine service: the bookkeeping of the platform. They are not on its containers."""
    instances: int | None = 1
    """None: one on every worker."""
    ports: tuple[FleetPort, ...] = ()
    limits: FleetResources = FleetResources()
    reservations: FleetResources = FleetResources()
    constraints: tuple[str, ...] = ()
    """As the engine writes them: `node.labels.az==1`."""
    spreads: tuple[str, ...] = ()
    """Labels over whose values the instances are spread: `node.labels.az`."""
    most_per_worker: int = 0
    """0: as many as there is room for."""
    restart: FleetRestart = FleetRestart()
    networks: tuple[str, ...] = ()
    """Empty: the engine's default bridge. `host`: the network of the worker."""
    log_driver: str = ""
    log_options: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class FleetService:
    """One engine service as it is."""

    id: str
    version: int
    """Changes with each change; a change names the version that it was planned on."""
    spec: FleetSpec
    created: float
    """In seconds since the epoch."""
    changed: float
    unknown: tuple[str, ...] = ()
    """Fields that somebody else set and that `spec` has no place for, as the engine names them."""


class FleetAvailability(StrEnum):
    """Whether a worker takes instances."""

    ACTIVE = "active"
    PAUSE = "pause"
    """It keeps what it has."""
    DRAIN = "drain"


@dataclass(frozen=True, slots=True)
class FleetWorker:
    """One engine of the fleet."""

    id: str
    version: int
    name: str
    """Its host name."""
    is_ready: bool
    availability: FleetAvailability
    address: str
    """Empty where the engine does not say."""
    labels: Mapping[str, str]
    """Labels of the worker in the fleet: `node.labels.*`."""
    engine_labels: Mapping[str, str]
    role: str
    """`manager` or `worker`."""
    is_leader: bool
    capacity: FleetResources


@dataclass(frozen=True, slots=True)
class FleetTask:
    """One instance: a place that the engine fills, and what fills it."""

    id: str
    service_id: str
    slot: int
    """From 1; 0 where there is one on every worker."""
    worker_id: str
    """Empty while it has no place."""
    desired: str
    """`running`, `shutdown`, `remove` ..., in the engine's words."""
    state: str
    """`pending`, `preparing`, `running`, `failed`, `rejected` ..., in the engine's words."""
    reason: str
    """The engine's own words for the state: `no suitable node (insufficient resources on 3 nodes)`. May be empty."""
    container_id: str
    """Empty before there is one."""
    exit_code: int | None
    since: float
    """When the state began, in seconds since the epoch."""


@dataclass(frozen=True, slots=True)
class FleetState:
    """What this worker's engine says of the fleet."""

    is_active: bool
    """Whether the engine is part of a fleet."""
    can_act: bool
    """Whether this engine may be asked for services, and answers for the fleet."""
    worker_id: str
    reason: str
    """Why it is not active or cannot act; empty if it can."""
    live_restore: bool = False


class Fleet(Protocol):
    """The engines, asked through the one of this worker.

    Every method raises `FleetUnavailableError` if the engine does not answer in time, its subclass
    `FleetNoQuorumError` if its swarm has no leader, and `FleetRefusedError` if it refuses; all say the
    engine's own reason.
    """

    async def state(self) -> FleetState:
        """Return what this engine is to the fleet."""
        ...

    async def initialize(self) -> FleetState:
        """Make a fleet of this engine alone, which listens on the loopback address only."""
        ...

    async def workers(self) -> tuple[FleetWorker, ...]:
        """Return all workers, in order of their names."""
        ...

    async def services(self, label: str = "") -> tuple[FleetService, ...]:
        """Return the services that have `label` (`NAME` or `NAME=VALUE`), or all, in order of their names."""
        ...

    async def tasks(self, service_id: str = "") -> tuple[FleetTask, ...]:
        """Return the tasks of one service or of all, also those that ended, as long as the engine keeps them."""
        ...

    async def resolve_image(self, reference: str, *, pull: bool) -> str:
        """Return the reference with the digest of the image, or as it is where the engine knows no digest of it.

        `pull` asks the registry even if the image is present.
        """
        ...

    async def create(self, spec: FleetSpec) -> str:
        """Create a service and return its id. Raises `FleetConflictError` if its name is taken."""
        ...

    async def replace(self, service_id: str, version: int, spec: FleetSpec) -> None:
        """Change a service. Raises `FleetConflictError` if somebody changed it since `version`, or it is gone.

        A change of the count or of the labels alone keeps the fields that somebody else set and `FleetService.unknown`
        names. Any other change, also to what `spec` is already, takes them away.
        """
        ...

    async def remove(self, service_id: str) -> None:
        """Remove a service and end its tasks. One that is gone is no error."""
        ...

    async def set_worker(
        self, worker_id: str, version: int, labels: Mapping[str, str], availability: FleetAvailability
    ) -> None:
        """Change a worker. Raises `FleetConflictError` if somebody changed it since `version`, or it is gone."""
        ...

    def changes(self) -> AsyncIterator[str]:
        """Yield the id of each service, worker or container of a task that changed, and "" first and after each gap."""
        ...
