"""Makes one control loop of its parts, in the order in which they depend on one another."""

from collections.abc import Awaitable, Callable, Collection, Coroutine, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from mesh.cluster.claims import ClaimRequest, plan_claims
from mesh.cluster.peer_monitor import PeerMonitor, Reachability
from mesh.cluster.sync import ClusterSync
from mesh.control.cluster_follower import ClusterFollower, PeerDirectory
from mesh.control.conditions import LoopConditions
from mesh.control.context import LoopContext
from mesh.control.drain_requests import DrainRequests
from mesh.control.host_upkeep import AddressWatcher, UpkeepRunner
from mesh.control.pass_runner import PassRunner, PortGuard
from mesh.control.ports import HostNetwork, HostUpkeep, WorkerConfig
from mesh.control.reconciler import AUDIT, Reconciler
from mesh.control.service_plan import ServicePlan
from mesh.control.snapshot import WorkerFacts
from mesh.control.snapshot_builder import SnapshotBuilder
from mesh.control.source_watcher import SourceWatcher
from mesh.control.stats import LoopStats
from mesh.control.sync import DataPlaneSync
from mesh.control.view_tracker import ViewTracker
from mesh.dataplane import DataPlane
from mesh.health.monitor import HealthMonitor, HealthProber
from mesh.model.errors import CodedText
from mesh.model.part import FrozenPart
from mesh.model.problem import Problem
from mesh.model.service import Name, Transport
from mesh.model.table import RealKey
from mesh.model.view import ClusterView
from mesh.sources import Source
from mesh.store import Store


@dataclass(frozen=True, slots=True, kw_only=True)
class LoopParts:
    """What a control loop joins."""

    # 10 fields: one for each technology that a worker is made of; whoever starts a worker names each of them.
    host: HostNetwork
    sources: Sequence[Source]
    store: Store
    plane: DataPlane
    prober: HealthProber
    publish: Callable[[Mapping[Name, ServicePlan]], None]
    """Replaces the names that the name server answers."""
    upkeep: Sequence[HostUpkeep] = ()
    """The settings of the host that the data plane depends on."""
    listening: Callable[[], Awaitable[Collection[tuple[Transport, int]]]] | None = None
    """The ports that programs of this worker listen on; None: the data plane finds out by itself."""
    drains: DrainRequests = field(default_factory=DrainRequests)
    """What operators want drained."""
    witnesses: Collection[RealKey] | None = None
    """The store's members on other hosts, to ping beside the other workers; None: no worker is pinged, and all of them
    count as reachable."""


@dataclass(frozen=True, slots=True)
class ControlLoop:
    """A control loop that is ready to run."""

    reconciler: Reconciler
    snapshots: SnapshotBuilder
    peers: PeerDirectory
    figures: LoopStats


def control_loop(site: WorkerConfig, facts: WorkerFacts, parts: LoopParts, context: LoopContext) -> ControlLoop:
    """The control loop of one worker. `parts` that wake it must use the events of the `context`."""
    cluster, events, figures = context.cluster, context.events, context.figures
    journal, reachability = LoopConditions(), Reachability()
    judging = HealthMonitor(site.worker, parts.prober, site.probe_floor)

    def decide(seen: ClusterView) -> tuple[tuple[ClaimRequest, ...], tuple[Problem, ...]]:
        return plan_claims(seen.services, seen.claims, pool=site.pool, ports=site.publish)

    share = ClusterSync(site.worker, parts.store, journal, decide, listens=site.listens, answers=reachability.answers)
    sources = SourceWatcher(site, parts.sources, drains=parts.drains, journal=journal, events=events, offer=share.offer)
    follower = ClusterFollower(
        share, cluster, judging=judging, reachability=reachability, journal=journal, wake=events.wake.set
    )
    tracker = ViewTracker(site.worker, cluster, sources, judging, reachability)
    programming = DataPlaneSync(
        parts.plane, parts.publish, journal, figures, audit=AUDIT, drain_timeout=site.drain_timeout
    )
    upkeep, ports = UpkeepRunner(parts.upkeep, journal, AUDIT), PortGuard(parts.listening, journal)
    runner = PassRunner(
        programming,
        upkeep=upkeep,
        ports=ports,
        drains=parts.drains,
        journal=journal,
        figures=figures,
        resolver=site.resolver,
    )

    def troubles() -> Mapping[str, CodedText]:
        store = {FrozenPart.STORE.value: trouble} if (trouble := parts.store.trouble) else {}
        return {**sources.frozen(), **store}

    snapshots = SnapshotBuilder(
        facts, site.domain, tracker=tracker, judging=judging, runner=runner, journal=journal, troubles=troubles
    )
    peers = PeerDirectory(site.worker, share, cluster)
    watchers: dict[str, Callable[[], Coroutine[Any, Any, None]]] = {
        "sources": sources.run,
        "host": AddressWatcher(parts.host, cluster, events.wake.set).run,
    }
    if parts.witnesses is not None:
        watchers["other workers"] = PeerMonitor(reachability, peers, events.wake.set, parts.witnesses).run
    reconciler = Reconciler(context, follower, tracker, runner, watchers, has_sources=bool(parts.sources))
    return ControlLoop(reconciler, snapshots, peers, figures)
