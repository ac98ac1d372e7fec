"""Assembles the control loop from its parts, in the order in which they depend on one another."""

from collections.abc import Awaitable, Callable, Collection, Coroutine, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from mesh.cluster.claims import ClaimRequest, plan_claims, plan_declarations
from mesh.cluster.endpoint_authority import EndpointAuthority
from mesh.cluster.peer_monitor import PeerMonitor, Reachability
from mesh.cluster.sync import ClusterSync
from mesh.control.arrival import ArrivalTracker
from mesh.control.arrival_watcher import ArrivalWatcher, PassiveSources
from mesh.control.cluster_follower import ClusterFollower, PeerDirectory
from mesh.control.conditions import LoopConditions
from mesh.control.connection_holds import ConnectionHolder, ConnectionHolds
from mesh.control.context import ClusterState, LoopContext, OwnEndpoints
from mesh.control.digest_publisher import DigestPublisher
from mesh.control.drain_requests import DrainRequests
from mesh.control.host_upkeep import AddressWatcher, EndpointUpkeepRunner, FirewallRunner, UpkeepRunner
from mesh.control.host_watcher import HostFactSources, HostWatcher
from mesh.control.pass_runner import PassRunner, PoolGuard, PortGuard
from mesh.control.past_events import EventMoment
from mesh.control.ports import EndpointUpkeep, Firewall, HostNetwork, HostUpkeep, WorkerConfig
from mesh.control.reconciler import AUDIT, Reconciler
from mesh.control.service_plan import ServicePlan
from mesh.control.snapshot import WorkerFacts
from mesh.control.snapshot_builder import SnapshotBuilder
from mesh.control.source_watcher import SourceWatcher
from mesh.control.stats import LoopStats
from mesh.control.sync import DataPlaneSync
from mesh.control.view_tracker import ViewTracker
from mesh.control.weight_requests import WeightRequests
from mesh.dataplane import DataPlane
from mesh.health.monitor import HealthMonitor, HealthProber
from mesh.host.firewall.direct_access import DirectEndpoint, direct_endpoints
from mesh.model.codes import Code
from mesh.model.errors import CodedText
from mesh.model.part import FrozenPart, ProblemPart
from mesh.model.problem import Problem
from mesh.model.service import Endpoint, Name, Service, Transport
from mesh.model.table import RealKey
from mesh.model.view import ClusterView
from mesh.sources import Source
from mesh.store import Store
from mesh.util.offload import compute


@dataclass(frozen=True, slots=True, kw_only=True)
class LoopParts:
    """The parts that a control loop joins, one for each technology that a worker consists of."""

    # 16 fields: one for each technology that a worker consists of; the code that starts a worker names each of them.
    host: HostNetwork
    sources: Sequence[Source]
    store: Store
    plane: DataPlane
    prober: HealthProber
    publish: Callable[[Mapping[Name, ServicePlan]], None]
    """Replaces the names that the name server answers."""
    upkeep: Sequence[HostUpkeep] = ()
    """Host settings that the data plane depends on."""
    endpoint_upkeep: EndpointUpkeep | None = None
    """Host settings that this worker's endpoints depend on; None if there are none."""
    firewall: Firewall | None = None
    """The firewall of this host; None if the worker depends on none."""
    holder: ConnectionHolder | None = None
    """Where new connections wait while the engine restarts. None if they are refused then."""
    listening: Callable[[], Awaitable[Collection[tuple[Transport, int]]]] | None = None
    """Reads the ports that programs on this worker listen on. None if the data plane detects conflicts by itself."""
    passive: PassiveSources | None = None
    """Where connections of clients are read. None if they are not looked at, as with a proxy in user space."""
    facts: HostFactSources | None = None
    """The facts of the host that are watched. None if they are not: then every VIP may be bound."""
    drains: DrainRequests = field(default_factory=DrainRequests)
    """The drains that operators requested."""
    weights: WeightRequests = field(default_factory=WeightRequests)
    """The weights that operators requested."""
    witnesses: Collection[RealKey] | None = None
    """The store's members on other hosts, pinged beside the other workers. None if nothing is pinged; then every worker
    counts as reachable.
    """


@dataclass(frozen=True, slots=True)
class ControlLoop:
    """A control loop that is ready to run."""

    reconciler: Reconciler
    snapshots: SnapshotBuilder
    peers: PeerDirectory
    stats: LoopStats
    arrival: ArrivalTracker
    """Whether requests arrive, by what any check has observed."""
    conditions: LoopConditions
    """The current problems, for parts beside the loop that find some."""
    event_moment: Callable[[float, bool], EventMoment | None]
    """Takes the state from which past events are recorded, see `EventRecorder`."""
    traffic: Callable[[], ClusterView | None] = lambda: None
    """Returns the view that traffic followed in the last pass; None before the first one."""


def control_loop(config: WorkerConfig, facts: WorkerFacts, parts: LoopParts, context: LoopContext) -> ControlLoop:
    """Assemble the control loop of one worker. `parts` that wake it must use the events of `context`."""
    cluster, events, stats = context.cluster, context.events, context.stats
    conditions, reachability = LoopConditions(), Reachability()
    arrival = ArrivalTracker(partial(conditions.found, ProblemPart.ARRIVAL))
    health_monitor = HealthMonitor(config.worker, parts.prober, config.probe_floor)

    firewall = FirewallRunner(
        parts.firewall,
        conditions,
        AUDIT,
        partial(_direct_endpoints, cluster, config.worker),
        lambda: frozenset(listener.address for listener in sync.peer_addresses.values()),
    )
    watched = None
    if parts.facts is not None:
        watched = HostWatcher(parts.facts, cluster.claims, conditions, events.wake.set, lambda: firewall.reads_rules)

    def decide(seen: ClusterView) -> tuple[tuple[ClaimRequest, ...], tuple[Problem, ...]]:
        avoid = watched.occupied if watched is not None else ()
        wishes, problems = plan_claims(
            seen.services,
            seen.claims,
            pool=config.pool,
            ports=config.publish,
            policy=config.names,
            avoid=avoid,
            quotas=config.claims.quotas,
        )
        return (*wishes, *plan_declarations(seen.services, seen.claims)), problems

    sync = ClusterSync(
        config.worker,
        parts.store,
        conditions,
        decide,
        listens=config.listens,
        admin=config.admin,
        data_plane=facts.data_plane,
        answers=reachability.answers,
        authority=EndpointAuthority(config.worker, config.pool, config.endpoint_networks),
        limits=config.claims,
    )
    own_endpoints = OwnEndpoints()

    async def offer(services: tuple[Service, ...], endpoints: tuple[Endpoint, ...]) -> None:
        context.commands.declare(services, endpoints)
        own_endpoints.offer(endpoints)
        records = await compute(len(services) + len(endpoints), partial(sync.encode_offer, services, endpoints))
        sync.offer(services, endpoints, records)

    sources = SourceWatcher(
        config,
        parts.sources,
        drains=parts.drains,
        weights=parts.weights,
        conditions=conditions,
        events=events,
        offer=offer,
    )
    follower = ClusterFollower(
        sync,
        cluster,
        health_monitor=health_monitor,
        reachability=reachability,
        conditions=conditions,
        store_trouble=lambda: parts.store.trouble,
        wake=events.wake.set,
    )
    tracker = ViewTracker(config.worker, cluster, sources, health_monitor, reachability)
    data_plane_sync = DataPlaneSync(
        parts.plane, parts.publish, conditions, stats, audit=AUDIT, drain_timeout=config.drain_timeout
    )
    holds = ConnectionHolds(parts.holder, config.hold, lambda: _is_engine_away(sources.frozen()))
    upkeep = UpkeepRunner(parts.upkeep, firewall, holds, conditions, AUDIT)
    ports = PortGuard(parts.listening, conditions)
    runner = PassRunner(
        data_plane_sync,
        upkeep=upkeep,
        ports=ports,
        pool=PoolGuard(watched.known_occupied if watched is not None else None, conditions, config.resolver),
        drains=parts.drains,
        conditions=conditions,
        stats=stats,
    )

    def network_changed() -> None:
        events.wake.set()
        firewall.look_again()

    def troubles() -> Mapping[str, CodedText]:
        store = {FrozenPart.STORE.value: told} if (told := reachability.cut_off(parts.store.trouble).store) else {}
        probes = {FrozenPart.PROBES.value: lack} if (lack := parts.prober.lack) else {}
        return {**sources.frozen(), **store, **probes}

    peers = PeerDirectory(config.worker, sync, cluster, reachability)
    snapshots = SnapshotBuilder(
        facts,
        config.domain,
        tracker=tracker,
        health_monitor=health_monitor,
        runner=runner,
        conditions=conditions,
        troubles=troubles,
        arrivals=lambda: arrival.arrivals,
        admin_addresses=partial(_admin_addresses, sync, config),
        peers=peers,
    )
    watchers: dict[str, Callable[[], Coroutine[Any, Any, None]]] = {
        "sources": sources.run,
        "host": AddressWatcher(parts.host, cluster, sync.move, network_changed).run,
        "firewall": firewall.run,
        "firewall rules": firewall.watch,
        "digest": DigestPublisher(snapshots.digest, sync.publish_digest, snapshots.told).run,
    }
    if parts.endpoint_upkeep is not None:
        watchers["endpoint settings"] = EndpointUpkeepRunner(
            parts.endpoint_upkeep,
            own_endpoints,
            conditions,
            part=f"{FrozenPart.HOST} {len(parts.upkeep)}",
            audit=AUDIT,
        ).run
    if parts.passive is not None:
        look = ArrivalWatcher(parts.passive, arrival, lambda: runner.plan, lambda: cluster.addresses or ())
        watchers["arrival"] = look.run
    if watched is not None:
        watchers["host facts"] = watched.run
    if parts.witnesses is not None:
        watchers["other workers"] = PeerMonitor(reachability, peers, events.wake.set, parts.witnesses).run
    reconciler = Reconciler(context, follower, tracker, runner, watchers, has_sources=bool(parts.sources))
    event_moment = partial(snapshots.event_moment, parts.drains, parts.weights)

    return ControlLoop(reconciler, snapshots, peers, stats, arrival, conditions, event_moment, tracker.traffic)


def _admin_addresses(sync: ClusterSync, config: WorkerConfig) -> Mapping[str, RealKey]:
    """Return where the workers say that their admin APIs are, without addresses that cannot be another worker's."""
    others = {worker: at for worker, at in sync.admin_addresses.items() if sync.admin_refusal(at.address) is None}
    return others if config.admin is None else {**others, config.worker: config.admin}


def _is_engine_away(frozen: Mapping[str, CodedText]) -> bool:
    return any(why.code is Code.ENGINE_UNREACHABLE for why in frozen.values())


def _direct_endpoints(cluster: ClusterState, worker: str) -> frozenset[DirectEndpoint]:
    """Return where other workers reach the endpoints of a worker; empty without other workers."""
    view = cluster.view
    if view is None or not view.workers - {worker}:
        return frozenset()
    return direct_endpoints(view.services, (each for each in view.endpoints if each.worker == worker))
