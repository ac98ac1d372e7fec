"""A worker on fakes: the real control loop, over a store that several workers of a test may share."""

import asyncio
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from typing_extensions import override

from mesh.config.values import Network
from mesh.control.assembly import LoopParts, control_loop
from mesh.control.connection_holds import ConnectionHolder
from mesh.control.context import ClusterState, LoopContext
from mesh.control.ports import WorkerConfig
from mesh.control.service_plan import ServicePlan
from mesh.control.snapshot import WorkerFacts
from mesh.health.monitor import HealthProber
from mesh.health.snapshot import PastChecks
from mesh.health.state_machine import Verdict
from mesh.health.targets import ProberCounters, ProbeTarget
from mesh.model.errors import CodedText
from mesh.model.service import EndpointKey, Health, Instance, Name
from mesh.model.table import RealKey
from mesh.store import Store
from mesh.testing.dataplane import FakeDataPlane
from mesh.testing.host import FakeHost
from mesh.testing.source import FakeSource


class FakeProber(HealthProber):
    """Implements `HealthProber` without probes: every endpoint has the health `first` until `tell` sets another one."""

    def __init__(self, wake: Callable[[], None], first: Health = Health.HEALTHY) -> None:
        self._wake = wake
        self._first = first
        self.targets: Mapping[EndpointKey, ProbeTarget] = {}
        """What is to be probed."""
        self._watched: tuple[EndpointKey, ...] = ()
        self._told: dict[EndpointKey, Health] = {}
        self._health: Mapping[EndpointKey, Health] | None = None
        """The result of `health`; None if it must be computed again."""
        self._stats = ProberCounters()

    def tell(self, health: Mapping[EndpointKey, Health]) -> None:
        """Set the health of these endpoints."""
        self._told |= health
        self._health = None
        self._wake()

    @property
    @override
    def lack(self) -> CodedText | None:
        return None

    @property
    @override
    def stats(self) -> ProberCounters:
        return self._stats

    @override
    def watch(self, targets: Mapping[EndpointKey, ProbeTarget]) -> None:
        self.targets = targets
        if tuple(targets) != self._watched:
            self._watched = tuple(targets)
            self._health = None
            self._wake()

    @override
    def health(self) -> Mapping[EndpointKey, Health]:
        if self._health is None:
            self._health = {key: self._told.get(key, self._first) for key in self._watched}
        return self._health

    @override
    def history(self, key: EndpointKey) -> Sequence[Verdict]:
        return ()

    @override
    def histories(self) -> Mapping[EndpointKey, PastChecks]:
        return {}

    @override
    def held_back(self) -> frozenset[EndpointKey]:
        return frozenset()

    @override
    def failing(self) -> frozenset[EndpointKey]:
        return frozenset()


@dataclass(frozen=True, slots=True)
class WorkerBed:
    """The settings that the workers of one test share."""

    pool: Network
    """The VIP pool."""
    ports: range = range(30000, 32000)
    """The ports for `publish: auto`."""
    drain_timeout: float = 30.0
    """Seconds that connections have to finish."""
    hold: float = 0.0
    """Seconds that new connections wait while an engine restarts."""
    probe_floor: int = 0
    """Per cent of a service's endpoints that stay in traffic despite failing probes (`[probes] floor`).

    At 0 every verdict is followed, so that what a worker programs depends on the records alone.
    """


class FakeWorker:
    """One worker. `run` may be cancelled, and another worker started on the same store and data plane."""

    def __init__(
        self,
        name: str,
        store: Store,
        field: WorkerBed,
        *,
        plane: FakeDataPlane | None = None,
        admin: RealKey | None = None,
        holder: ConnectionHolder | None = None,
        publish: Callable[[Mapping[Name, ServicePlan]], None] = lambda _: None,
    ) -> None:
        """`admin` is where it says that its admin API is; `holder` is where connections wait, None for nowhere."""
        self.name = name
        self.store = store
        self.plane = plane or FakeDataPlane()
        self.source = FakeSource()
        context = LoopContext(ClusterState(field.pool))
        self.recording = context.events.recording
        """Set after each pass, for a recorder of past events."""
        self.probes = FakeProber(context.events.wake.set)
        self.loop = control_loop(
            WorkerConfig(
                name,
                "mesh.internal",
                field.pool,
                field.ports,
                field.drain_timeout,
                hold=field.hold,
                probe_floor=field.probe_floor,
                admin=admin,
            ),
            WorkerFacts("0", name, "fake", "a test"),
            LoopParts(
                host=FakeHost(),
                sources=[self.source],
                store=store,
                plane=self.plane,
                holder=holder,
                prober=self.probes,
                publish=publish,
            ),
            context,
        )

    def runs(self, instances: Iterable[Instance]) -> None:
        """Set the instances that run on this worker."""
        self.source.say(tuple(instances))

    def finds(self, health: Mapping[str, Health]) -> None:
        """Set the health of these endpoints of this worker, by their ids, as its probes find it."""
        self.probes.tell({(self.name, id): said for id, said in health.items()})

    async def run(self) -> None:
        """Run the worker until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self.store.run(), name="store")
            tasks.create_task(self.loop.reconciler.run(), name="reconciler")


def spread_instances(services: int, copies: int, workers: int) -> list[list[Instance]]:
    """Return the instances of each worker: so many `copies` of so many `services`, all with a probe, spread evenly."""
    placed: list[list[Instance]] = [[] for _ in range(workers)]
    for number in range(services):
        owner = f"shop/s{number}"
        labels = {"mesh.routing.port_80": f"s{number}.test", "mesh.probe.url": "tcp://container:80"}
        for copy in range(copies):
            worker, last = (number * copies + copy) % workers, number * copies + copy
            address = f"10.{16 + last // 65025}.{last // 255 % 255}.{1 + last % 255}"
            placed[worker].append(Instance(f"{owner}/{address}", owner, address, labels))
    return placed
