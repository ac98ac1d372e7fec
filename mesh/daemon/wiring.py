"""The composition root: creates the parts that the settings ask for, runs them in one TaskGroup, stops them in order.

It decides nothing about traffic; `make_plan` and `diff_tables` do. It only refuses a start that could do harm: a second
daemon on the same store, an address that is in use.
"""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Collection, Iterator, Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, replace
from functools import partial
from ipaddress import ip_address
from pathlib import Path

from mesh import __version__
from mesh.api.channel.certificates import ChannelCertificates
from mesh.api.channel.https import HttpsWorkerChannel
from mesh.api.connectivity.plan import PlanFacts
from mesh.api.http.history import HistoryHandler
from mesh.api.http.past_events import PastEventsHandler
from mesh.api.http.server import AdminApi
from mesh.api.stack_readiness import SnapshotReadiness
from mesh.api.status import StatusDetail, WorkerStatus, worker_status
from mesh.cluster.claim_actions import ClaimActions
from mesh.cluster.records.encode import build_view, own_prefixes
from mesh.cluster.worker_removal import WorkerRemoval
from mesh.config.claim_quotas import claim_quotas
from mesh.config.name_policy import name_policy
from mesh.config.secrets import secret_files
from mesh.config.settings import Driver, PrivateAnswers, Settings
from mesh.config.values import Network
from mesh.control.arrival_watcher import PassiveSources
from mesh.control.assembly import ControlLoop, LoopParts, control_loop
from mesh.control.cluster_follower import PeerDirectory
from mesh.control.context import ClusterState, LoopContext
from mesh.control.dns_zone import ZonePublisher
from mesh.control.drain_requests import DrainRequests
from mesh.control.endpoint_actions import EndpointActions
from mesh.control.event_recorder import ContainerExit, ContainerExits, EventRecorder
from mesh.control.graceful_stop import ContainerEngine, DrainSignals, GracefulStopper
from mesh.control.handover import IpvsHandover, NftablesHandover
from mesh.control.host_watcher import HostFactSources
from mesh.control.own_commands import DeclaredCommandRunner
from mesh.control.ports import HostUpkeep, WorkerConfig
from mesh.control.snapshot import WorkerFacts
from mesh.control.source_nat import SourceNatUpkeep
from mesh.control.weight_requests import WeightRequests
from mesh.daemon.admin_address import admin_address
from mesh.daemon.arrival_monitor import ArrivalMonitor
from mesh.daemon.connectivity import ConnectivityTester
from mesh.daemon.firewall import firewall_settings
from mesh.daemon.host_needs import host_needs, own_certificates
from mesh.daemon.loss_finder import NFT_TOOLS
from mesh.daemon.open_store import open_store, usage_opener
from mesh.daemon.peer_endpoint import PeerEndpoint, PeerEndpointError, open_peer_endpoint
from mesh.daemon.resolver import DNS_PORT, bind_resolver, resolver_address
from mesh.daemon.rollout_evidence import EvidenceSources, rollout_evidence
from mesh.daemon.ship_monitor import ShipMonitor
from mesh.daemon.snapshots import SnapshotCollector, admin_listen_config
from mesh.daemon.usage_reporting import usage_reporter
from mesh.dataplane import DataPlane, DataPlaneError, VipInterface
from mesh.dataplane.conntrack.connections import TrackedConnections
from mesh.dataplane.conntrack.stale import OwnKeys
from mesh.dataplane.flow_reader import FlowReader
from mesh.dataplane.ipvs import plane as ipvs
from mesh.dataplane.nftables import plane as nftables
from mesh.dataplane.ownership import PublishedPorts
from mesh.dataplane.userspace import UserspaceDataPlane
from mesh.health.checks.command import CommandCheck
from mesh.health.prober import Prober
from mesh.host import overlap as routes
from mesh.host.addresses import HostAddresses
from mesh.host.fact_reader import HostFactReader, read_host_facts
from mesh.host.firewall.isolation import NetworkIsolation
from mesh.host.firewall.programs import SystemPrograms
from mesh.host.firewall.upkeep import FirewallUpkeep
from mesh.host.hairpin import HairpinPorts
from mesh.host.held_connections import HeldConnections
from mesh.host.host_problems import host_problems
from mesh.host.listeners import listening_ports
from mesh.host.local_networks import read_local_networks
from mesh.host.masquerade import Masquerade
from mesh.host.request_counts import RequestCounter
from mesh.host.rlimits import DescriptorShares, raise_file_limit, share_descriptors
from mesh.host.sysctl import RouterSettings
from mesh.host.vip_interface import LoopbackAddresses, MeshInterface
from mesh.model.claims import ClaimLimits, ClaimPace
from mesh.model.codes import Code
from mesh.model.engine_facts import EngineFacts
from mesh.model.errors import ActionRefusedError, CodedText, MeshError
from mesh.model.part import DaemonPart, ProblemPart
from mesh.model.past_event import NumberedEvent
from mesh.model.service import Address, Endpoint
from mesh.model.table import RealKey, VirtualKey
from mesh.platform.autoscaling.autoscaler import Autoscaler
from mesh.platform.fleet.swarm import SwarmFleet
from mesh.platform.logs.reading.engine_reader import EngineLogReader
from mesh.platform.logs.reading.worker_reader import ShipSocketClient, WorkerLogReader
from mesh.platform.logs.wanted import WantedLogFinder
from mesh.platform.rollouts.rollout_actions import RolloutActions
from mesh.platform.rollouts.rollout_watch import RolloutWatch
from mesh.platform.stacks.acting_daemon import ActingDaemon
from mesh.platform.stacks.history_keeper import DeployHistoryKeeper
from mesh.platform.stacks.operations import StackOperations
from mesh.sources.compose.limits import compose_limits
from mesh.sources.compose.source import ComposeSource
from mesh.sources.docker.client import outbound_address
from mesh.sources.docker.engine import DockerEngine
from mesh.sources.docker.engine_facts import ask_engine_facts
from mesh.sources.docker.exec import DockerExec
from mesh.sources.docker.identity import LabelRules, label_constraint
from mesh.sources.docker.instances import InstanceRules
from mesh.sources.docker.networks import read_container_networks
from mesh.sources.docker.source import DockerSource
from mesh.store import Store, StoreError
from mesh.store.cached import CachedStore
from mesh.store.event_ring import EventRing, RingLimits
from mesh.store.sqlite_event_ring import SqliteEventRing
from mesh.util.bulkhead import Bulkhead, contain_event_loop
from mesh.util.offload import shorten_thread_switches
from meshdns import bulkhead as dns_bulkhead
from meshdns.acl import LOCAL_NETWORKS
from meshdns.cache import ForwardCache
from meshdns.forwarder import Forwarder, ForwardLimits
from meshdns.server import NameServer, NameServerError, ServerRates
from meshdns.service_records import reverse_domains
from meshdns.thread import ThreadedServer
from meshdns.upstreams import Upstreams
from meshdns.zone import Zone, ZoneBuilder

log = logging.getLogger("vipmesh")
bulkhead = Bulkhead(DaemonPart.DAEMON)

RESOLV_CONF = Path("/etc/resolv.conf")


class StartError(MeshError):
    """The daemon cannot start."""

    def __init__(self, code: Code, message: str, details: Sequence[CodedText] = ()) -> None:
        """`details`: further problems, one line each."""
        super().__init__(code, "\n".join((message, *map(str, details))))
        self.lines = (CodedText(message, code), *details)


@dataclass(frozen=True, slots=True)
class RunningDaemon:
    """A daemon that answers, for the code that started it in the same process."""

    status: Callable[[], WorkerStatus]
    dns: tuple[tuple[str, int], ...]
    """The addresses of the name server."""
    reload: Callable[[], None]
    """Reads the sources again now."""
    listening_on: Callable[[VirtualKey], tuple[Address, int]]
    """The address and port at which a virtual server is reached: its own unless a port offset is set."""
    is_alive: Callable[[], bool] = lambda: True
    """Whether the control loop still makes passes."""


async def run_daemon(
    settings: Settings,
    environment: Mapping[str, str],
    stop: asyncio.Event,
    started: Callable[[RunningDaemon], None] = lambda _: None,
) -> None:
    """Run a worker until `stop` is set. `started` is called once everything listens.

    Raises `StartError`, `DataPlaneError`, `StoreError` or `AdminApiError` before anything was changed.
    """
    shorten_thread_switches()
    shares = share_descriptors(raise_file_limit(), len(settings.dns_listen) + 1, descriptor_shares(settings))
    contain_event_loop(asyncio.get_running_loop())
    dns_bulkhead.report_to(Bulkhead(DaemonPart.NAMES).caught)
    async with AsyncExitStack() as stack:
        store = await open_store(settings)
        stack.push_async_callback(store.close)
        context = LoopContext(ClusterState(settings.vip_pool, name_policy(settings)))
        published = PublishedPorts(context.cluster.claims, context.cluster.all_addresses)
        interface = LoopbackAddresses() if settings.vip_pool.is_loopback else MeshInterface()
        if isinstance(interface, MeshInterface):
            stack.push_async_callback(interface.close)
        prober, commands = _prober(settings, context, shares)
        isolation = NetworkIsolation()
        plane, reason = await choose_data_plane(
            settings, interface, published, prober.suspect, isolation.barred, shares=shares
        )
        stack.push_async_callback(plane.close)
        resolver = await bind_resolver(interface, resolver_address(settings), await _occupied(settings))
        listen = settings.dns_listen if resolver is None else (*settings.dns_listen, (resolver, DNS_PORT))
        zone_builder = _zone_builder(settings)
        empty = zone_builder.update({})[0]
        names = ThreadedServer(lambda: _name_server(settings, listen, empty, shares.dns_connections))
        try:
            await names.start()
        except NameServerError as error:
            remedy = '; or set [dns] resolver = "off"' if resolver is not None and resolver in str(error) else ""
            raise StartError(Code.DNS_CANNOT_LISTEN, f"{error}{remedy}") from error
        stack.push_async_callback(names.stop)
        peer_endpoint = await _open_peer_endpoint(settings, stack)
        drains, weights = await _operator_requests(store, settings.node_name, context)
        signals, exits = DrainSignals(), ContainerExits()
        sources, engines = _sources(settings, environment, signals, exits)
        stopper = GracefulStopper(drains, engines, settings.dataplane_drain_timeout, signals)
        handovers = await _handovers(settings, plane, interface, published, lambda: context.stats.passes > 0)
        loop = control_loop(
            _worker_config(settings, resolver, peer_endpoint),
            _facts(settings, plane, reason, names.addresses),
            LoopParts(
                host=HostAddresses(settings.node_address),
                sources=sources,
                store=store,
                plane=plane,
                upkeep=[*_upkeep(settings, plane, published, stack), *handovers],
                endpoint_upkeep=HairpinPorts(settings.vip_pool.version) if plane.forwards_in_kernel else None,
                firewall=_firewall(settings, plane, isolation),
                holder=HeldConnections() if plane.forwards_in_kernel else None,
                listening=listening_ports if plane.forwards_in_kernel else None,
                passive=_passive_sources(settings, plane),
                facts=HostFactSources(
                    HostFactReader(settings.vip_pool, own_certificates(settings), secrets=secret_files(settings)),
                    host_needs(settings, plane.name),
                    _engine_facts(settings),
                ),
                prober=prober,
                publish=_publisher(zone_builder, names),
                drains=drains,
                weights=weights,
                witnesses=peer_endpoint.witnesses,
            ),
            context,
        )
        evidence = rollout_evidence(
            settings, RolloutWatch(), EvidenceSources(loop, context, plane, prober, commands, exits.follow(), store)
        )
        ring = _event_ring(settings)
        collector = SnapshotCollector(
            loop,
            passed=context.events.passed,
            plane=plane,
            prober=prober,
            names=names,
            most_series=(settings.metrics_services, settings.metrics_endpoints),
            past=ring,
            unlabelled=partial(_unlabelled_containers, sources),
        )
        recorder = _recorder(
            settings.node_name,
            ring,
            stack,
            loop=loop,
            context=context,
            exits=exits,
            on_events=collector.feed.happened,
        )
        fleet = None if settings.source_docker_socket is None else SwarmFleet(settings.source_docker_socket)
        connectivity = ConnectivityTester(
            loop.snapshots.evidence, lambda: _plan_facts(settings, resolver, loop.peers.workers(), plane)
        )
        api = AdminApi(
            replace(admin_listen_config(settings), connections=shares.admin_connections),
            loop.snapshots.observe,
            EndpointActions(settings.node_name, stopper, weights, loop.traffic).verbs(),
            collector.measure,
            collector.feed,
            explain=collector.explain,
            connectivity=connectivity,
            past=PastEventsHandler(lambda: settings.node_name, settings.dns_domain, ring),
            claims=ClaimActions(store),
            channel=_channel(settings, loop.peers, stack),
            removal=WorkerRemoval(settings.node_name, store),
            history=HistoryHandler(lambda: settings.node_name, collector.history),
            stacks=StackOperations(fleet, SnapshotReadiness(loop.snapshots.observe), store),
            shares=RolloutActions(store),
            logs=_log_reader(settings),
        )
        await api.start()
        stack.push_async_callback(api.stop)
        log.info("data plane %s: %s; dns on %s", plane.name, reason, ", ".join(f"{h}:{p}" for h, p in names.addresses))
        async with asyncio.TaskGroup() as tasks:
            parts = [
                tasks.create_task(bulkhead.keep_running("store", store.run), name="store"),
                tasks.create_task(bulkhead.keep_running("prober", prober.run), name="prober"),
                tasks.create_task(bulkhead.keep_running("reconciler", loop.reconciler.run), name="reconciler"),
                tasks.create_task(bulkhead.keep_running("stopping", stopper.run), name="stopping"),
                tasks.create_task(bulkhead.keep_running("events", collector.feed.run), name="events"),
                tasks.create_task(bulkhead.keep_running("past events", recorder.run), name="past events"),
                tasks.create_task(bulkhead.keep_running("history", collector.recorder.run), name="history"),
                tasks.create_task(bulkhead.keep_running("logs", _ship_monitor(settings, loop).run), name="logs"),
                tasks.create_task(bulkhead.keep_running("evidence", evidence.reporter.run), name="evidence"),
                tasks.create_task(bulkhead.keep_running("checks", evidence.checker.run), name="checks"),
                tasks.create_task(bulkhead.keep_running("rollouts", evidence.actor.run), name="rollouts"),
                *(
                    tasks.create_task(bulkhead.keep_running(name, run), name=name)
                    for name, run in _swarm_parts(settings, store, loop, prober)
                ),
                *(
                    tasks.create_task(bulkhead.keep_running("arrival", monitor.run), name="arrival")
                    for monitor in _arrival_monitors(settings, loop, connectivity)
                ),
                *(
                    tasks.create_task(bulkhead.keep_running("deploys", keeper.run), name="deploys")
                    for keeper in ([] if fleet is None else [DeployHistoryKeeper(fleet, store)])
                ),
            ]
            started(
                RunningDaemon(
                    lambda: worker_status(loop.snapshots.observe(), StatusDetail.FULL),
                    names.addresses,
                    _reload(sources),
                    plane.listening_on,
                    loop.reconciler.is_alive,
                )
            )
            await stop.wait()
            for part in parts:
                part.cancel()


def _channel(settings: Settings, peers: PeerDirectory, stack: AsyncExitStack) -> HttpsWorkerChannel:
    """What asks other workers; it is closed with the stack."""
    certificates = None
    if settings.admin_cert is not None and settings.admin_client_ca is not None:
        certificates = ChannelCertificates(settings.admin_cert, settings.admin_key, settings.admin_client_ca)
    channel = HttpsWorkerChannel(peers, certificates)
    stack.push_async_callback(channel.close)
    return channel


def _swarm_parts(
    settings: Settings, store: Store, loop: ControlLoop, prober: Prober
) -> Iterator[tuple[str, Callable[[], Awaitable[None]]]]:
    """Yield what acts for the swarm of the engine, and what tells the usage of scaled containers; nothing without an
    engine.
    """
    if settings.source_docker_socket is None:
        return
    open_usage = usage_opener(settings)
    instances, health = loop.snapshots.own_instances, prober.health
    yield "autoscaling", usage_reporter(settings, instances, health, loop.conditions, open_usage).run
    fleet = SwarmFleet(settings.source_docker_socket)
    scaler = Autoscaler(fleet, open_usage, loop.conditions)
    lease = settings.store_lease_ttl
    yield "acting", ActingDaemon(settings.node_name, fleet, store, loop.conditions, lease=lease, scaler=scaler).run


def _log_reader(settings: Settings) -> WorkerLogReader:
    """What reads the lines of services on this worker."""
    engine = None
    if settings.source_docker_socket is not None:
        engine = EngineLogReader(settings.source_docker_socket, label_rules(settings), settings.node_name)
    return WorkerLogReader(settings.node_name, ShipSocketClient(settings.ship_socket), engine)


def _ship_monitor(settings: Settings, loop: ControlLoop) -> ShipMonitor:
    """What asks `vipmesh ship` how it is."""
    wanted = WantedLogFinder(settings.source_docker_socket, label_rules(settings))
    return ShipMonitor(ShipSocketClient(settings.ship_socket), wanted.find, loop.snapshots.collects)


def label_rules(settings: Settings) -> LabelRules:
    """Which labels of containers count."""
    return LabelRules(settings.source_docker_image_labels, tuple(map(label_constraint, settings.source_docker_require)))


def _arrival_monitors(
    settings: Settings, loop: ControlLoop, connectivity: ConnectivityTester
) -> tuple[ArrivalMonitor, ...]:
    """The check of whether requests arrive; empty if it is turned off."""
    if not settings.host_arrival_interval:
        return ()
    monitor = ArrivalMonitor(
        lambda: connectivity.plan(None),
        loop.arrival,
        settings.host_arrival_interval,
        read_networks=read_container_networks,
        tools=NFT_TOOLS,
    )
    return (monitor,)


async def _occupied(settings: Settings) -> list[Network]:
    """The networks of this host that overlap the pool of VIPs."""
    return [overlap.network for overlap in await routes.read_overlaps(settings.vip_pool)]


def _prober(settings: Settings, context: LoopContext, shares: DescriptorShares) -> tuple[Prober, CommandCheck | None]:
    """The prober, and its check by commands."""
    commands = _command_check(settings, context)
    prober = Prober(
        context.events.wake.set,
        max_in_flight=shares.checks,
        commands=commands,
        body_bytes=settings.probes_body_bytes,
    )
    return prober, commands


def _command_check(settings: Settings, context: LoopContext) -> CommandCheck | None:
    """The check by commands in containers of the engine; None without an engine."""
    if settings.source_docker_socket is None:
        return None
    runner = DeclaredCommandRunner(DockerExec(settings.source_docker_socket), context.commands)
    return CommandCheck(runner, settings.probes_commands, settings.probes_commands_per_second)


def descriptor_shares(settings: Settings) -> DescriptorShares:
    """How many of each kind may be open at a time if the limit of open files permits it."""
    return DescriptorShares(
        checks=settings.probes_concurrent,
        dns_connections=settings.dns_tcp_connections,
        admin_connections=settings.admin_connections,
        proxied_connections=settings.dataplane_proxy_connections,
        proxied_sessions=settings.dataplane_proxy_sessions,
    )


async def refuse_overlap(settings: Settings) -> None:
    """Raises `StartError` if the VIP pool overlaps a network of this host. For new settings while a daemon runs: the
    present ones keep working. A start goes on, since without it the host would have no name server.
    """
    facts = await read_host_facts(settings.vip_pool)
    for problem in host_problems(facts, host_needs(settings, "")):
        if problem.code is Code.VIP_POOL_OVERLAPS:
            raise StartError(problem.code, str(problem))


async def choose_data_plane(
    settings: Settings,
    interface: VipInterface,
    published: PublishedPorts,
    on_refused: Callable[[Address, int], None] = lambda *_: None,
    barred: Callable[[Address, Collection[RealKey]], Collection[RealKey]] = lambda *_: (),
    *,
    shares: DescriptorShares | None = None,
) -> tuple[DataPlane, str]:
    """The data plane that the settings name, and the reason in words. Raises `DataPlaneError`.

    `on_refused` is called for connections that a real server refused, by a data plane that sees them. `barred` returns
    the real servers that a client may not reach, for a data plane behind which no rule of the host sees the client.
    """
    driver, pool = settings.dataplane_driver, settings.vip_pool
    shares = shares or descriptor_shares(settings)
    userspace = UserspaceDataPlane(
        interface,
        settings.dataplane_low_port_offset,
        on_refused,
        barred,
        connections=shares.proxied_connections,
        sessions=shares.proxied_sessions,
        idle=(settings.dataplane_tcp_idle, settings.dataplane_udp_idle),
    )
    if driver is Driver.USERSPACE:
        return userspace, "asked for by [dataplane] driver"
    if driver is Driver.AUTO and pool.is_loopback:
        return userspace, f"the pool {pool} is on loopback, which the kernel does not forward"
    no_ipvs = await ipvs.unavailable_reason() if driver is not Driver.NFTABLES else None
    if no_ipvs is None and driver is not Driver.NFTABLES:
        return ipvs.IpvsDataPlane(pool, interface, published), "this kernel has IPVS"
    if driver is Driver.IPVS:
        raise DataPlaneError(Code.DATA_PLANE_UNAVAILABLE, f"[dataplane] driver is ipvs, but {no_ipvs}")
    no_nftables = await nftables.unavailable_reason(pool.version)
    if no_nftables is None:
        return nftables.NftablesDataPlane(pool, interface), no_ipvs or "asked for by [dataplane] driver"
    if driver is Driver.NFTABLES:
        raise DataPlaneError(Code.DATA_PLANE_UNAVAILABLE, f"[dataplane] driver is nftables, but {no_nftables}")
    return userspace, f"{no_ipvs}; {no_nftables}"


def _upkeep(settings: Settings, plane: DataPlane, published: PublishedPorts, stack: AsyncExitStack) -> list[HostUpkeep]:
    """The host settings that the data plane depends on; a proxy depends on none."""
    if not plane.forwards_in_kernel:
        return []
    router = RouterSettings(ipv6=settings.vip_pool.version == 6, ipvs=plane.name == Driver.IPVS)
    tracked = TrackedConnections(settings.vip_pool.version)
    stack.push_async_callback(tracked.close)
    masquerade = Masquerade(settings.vip_pool, settings.dataplane_local_networks)
    return [router, SourceNatUpkeep(masquerade, plane, tracked, OwnKeys(settings.vip_pool, published))]


def _passive_sources(settings: Settings, plane: DataPlane) -> PassiveSources | None:
    """Where connections of clients are read; None for a proxy, whose clients it answers itself."""
    if not plane.forwards_in_kernel:
        return None
    pool = settings.vip_pool
    counts = RequestCounter(pool).read if plane.name == Driver.NFTABLES else None
    return PassiveSources(
        FlowReader(pool.version, ipvs=plane.name == Driver.IPVS), partial(read_local_networks, pool), counts
    )


def _firewall(settings: Settings, plane: DataPlane, isolation: NetworkIsolation) -> FirewallUpkeep | None:
    """The firewall of this host; None if the worker has VIPs on loopback and no containers, which nothing filters."""
    if settings.vip_pool.is_loopback and settings.source_docker_socket is None:
        return None
    return FirewallUpkeep(firewall_settings(settings, Driver(plane.name)), SystemPrograms(), isolation)


async def _handovers(
    settings: Settings,
    plane: DataPlane,
    interface: VipInterface,
    published: PublishedPorts,
    taken_over: Callable[[], bool],
) -> list[HostUpkeep]:
    """Handovers from another data plane; empty if none can have left anything. A pool on loopback was never in the
    kernel.
    """
    pool = settings.vip_pool
    if pool.is_loopback or await nftables.unavailable_reason(pool.version) is not None:
        return []
    if plane.name == Driver.NFTABLES:
        return [IpvsHandover(taken_over, ipvs.IpvsDataPlane(pool, interface, published))]
    return [NftablesHandover(taken_over, TrackedConnections(pool.version), OwnKeys(pool, published))]


def _facts(settings: Settings, plane: DataPlane, reason: str, dns: Sequence[tuple[str, int]]) -> WorkerFacts:
    listens = tuple(f"{host}:{port}" for host, port in dns)
    return WorkerFacts(__version__, settings.node_name, plane.name, reason, listens, settings.store_url)


def _engine_facts(settings: Settings) -> Callable[[], Awaitable[EngineFacts | None]] | None:
    """What asks the engine of this host for its facts; None without an engine."""
    engine = settings.source_docker_socket
    return None if engine is None else partial(ask_engine_facts, engine)


def _plan_facts(
    settings: Settings, resolver: Address | None, peers: Mapping[str, RealKey], plane: DataPlane
) -> PlanFacts:
    """What a connectivity test needs beside the snapshot of the worker."""
    return PlanFacts(
        str(settings.vip_pool),
        settings.source_docker_socket,
        resolver,
        dict(peers),
        settings.node_address or outbound_address(settings.vip_pool.version),
        plane.listening_on,
    )


def _zone_builder(settings: Settings) -> ZoneBuilder:
    """The builder of the zone, without services yet. The serial is the time of the start: there are no zone transfers,
    so no secondary compares it.
    """
    domains = [settings.dns_domain, *reverse_domains(settings.vip_pool)]
    return ZoneBuilder(domains, ttl=settings.dns_ttl, serial=int(time.time()))


def _publisher(zone_builder: ZoneBuilder, names: ThreadedServer) -> ZonePublisher:
    zone_builder.serve_at([host for host, _ in names.addresses if not ip_address(host).is_unspecified])
    return ZonePublisher(lambda services: names.replace(*zone_builder.update(services)))


def _name_server(settings: Settings, listen: Sequence[tuple[str, int]], zone: Zone, connections: int) -> NameServer:
    upstreams = Upstreams(settings.dns_upstream, settings.dns_forward, resolv_conf=RESOLV_CONF)
    limits = ForwardLimits(
        settings.dns_outstanding,
        rate=settings.dns_forward_rate,
        refused=(settings.vip_pool,),
        refuse_private=settings.dns_private_answers is PrivateAnswers.REFUSE,
    )
    rates = ServerRates(queries=settings.dns_own_rate, refusals=settings.dns_refusal_rate)
    allowed = settings.dns_allow or LOCAL_NETWORKS
    forwarder = Forwarder(upstreams, limits=limits, cache=ForwardCache(octets=settings.dns_cache_bytes))
    return NameServer(listen, zone, forwarder, allowed=allowed, rates=rates, connections=connections)


def _sources(
    settings: Settings, environment: Mapping[str, str], signals: DrainSignals, exits: ContainerExits
) -> tuple[list[ComposeSource | DockerSource], list[ContainerEngine]]:
    """The sources of instances, and the engines that run containers; each may be empty."""
    sources: list[ComposeSource | DockerSource] = []
    engines: list[ContainerEngine] = []
    if settings.source_compose_files:
        sources.append(
            ComposeSource(
                settings.source_compose_files,
                env=environment,
                name=_source_name(sources),
                limits=compose_limits(settings),
            )
        )
    if settings.source_docker_socket is not None:
        rules = InstanceRules(
            domain=settings.dns_domain,
            endpoint_address=settings.source_docker_endpoint_address,
            alone=settings.store_url.startswith("sqlite:"),
            worker=settings.node_address,
            version=settings.vip_pool.version,
            labels=label_rules(settings),
            most_labels=settings.source_docker_labels,
            label_length=settings.source_docker_label_length,
        )
        docker = DockerSource(
            settings.source_docker_socket,
            rules,
            name=_source_name(sources),
            on_drain=signals.put,
            on_ended=lambda *ended: exits.put(ContainerExit(*ended)),
        )
        sources.append(docker)
        engines.append(DockerEngine(settings.source_docker_socket, docker, ActionRefusedError))
    if not sources:
        log.warning(
            "no source of instances is configured; earlier registrations stay in force; "
            "set [source.docker] socket or [source.compose] files",
            extra=Code.NO_SOURCE.extra,
        )
    return sources, engines


def _event_ring(settings: Settings) -> SqliteEventRing:
    """The ring of past events: beside the store or its saved view if the settings do not name a file."""
    file = settings.events_file
    if file is None:
        url = settings.store_url
        beside = Path(url.removeprefix("sqlite:///")) if url.startswith("sqlite:") else settings.store_saved_view
        file = beside.with_name(f"{beside.name}.events")
    return SqliteEventRing(file, RingLimits(settings.events_keep, settings.events_days * 86400.0))


def _recorder(
    worker: str,
    ring: EventRing,
    stack: AsyncExitStack,
    *,
    loop: ControlLoop,
    context: LoopContext,
    exits: ContainerExits,
    on_events: Callable[[Sequence[NumberedEvent]], None],
) -> EventRecorder:
    """The recorder of past events, which records the end of the daemon when the stack is closed."""
    recorder = EventRecorder(
        worker,
        ring,
        look=loop.event_moment,
        due=context.events.recording,
        exits=exits,
        conditions=loop.conditions,
        on_events=on_events,
    )
    stack.push_async_callback(recorder.stop)
    return recorder


def _unlabelled_containers(sources: Sequence[ComposeSource | DockerSource]) -> Mapping[str, str]:
    """The names of running containers without labels of the mesh, by ID."""
    return {
        id: name for source in sources if isinstance(source, DockerSource) for id, name in source.unlabelled().items()
    }


def _source_name(sources: Sequence[ComposeSource | DockerSource]) -> str:
    """The name of the next source."""
    return f"{ProblemPart.SOURCE} {len(sources)}"


async def _operator_requests(store: Store, worker: str, context: LoopContext) -> tuple[DrainRequests, WeightRequests]:
    """What operators requested from an earlier process stays in force."""
    adopted = await read_own_endpoints(store, worker)
    changed = context.events.instances_changed.set
    return DrainRequests(changed, adopted), WeightRequests(changed, adopted)


async def read_own_endpoints(store: Store, worker: str) -> list[Endpoint]:
    """The endpoints that this worker registered before; empty if the store does not answer.

    A lease may end before a restart does. Then they are in the view that the former process has saved.
    """
    prefixes = own_prefixes(worker)
    try:
        saved = await store.saved() if isinstance(store, CachedStore) else None
        former = {} if saved is None else {k: v for k, v in saved.records.items() if k.startswith(prefixes)}
        seen, _ = build_view({**former, **(await store.read()).records})
    except StoreError as error:
        log.warning(
            "store: %s; drains and weights that were requested before the start are not restored",
            error,
            extra=Code.STORE_NOT_READ.extra,
        )
        return []
    return [endpoint for endpoint in seen.endpoints if endpoint.worker == worker]


def _reload(sources: Sequence[ComposeSource | DockerSource]) -> Callable[[], None]:
    def reload() -> None:
        for source in sources:
            source.touch()

    return reload


async def _open_peer_endpoint(settings: Settings, stack: AsyncExitStack) -> PeerEndpoint:
    try:
        peer_endpoint = await open_peer_endpoint(settings)
    except PeerEndpointError as error:
        raise StartError(error.code, str(error)) from error
    if peer_endpoint.server is not None:
        stack.callback(peer_endpoint.server.close)
        log.info("peer listener on %s", peer_endpoint.listens)
    return peer_endpoint


def _worker_config(settings: Settings, resolver: Address | None, peers: PeerEndpoint) -> WorkerConfig:
    return WorkerConfig(
        worker=settings.node_name,
        domain=settings.dns_domain,
        pool=settings.vip_pool,
        publish=settings.publish_ports,
        drain_timeout=settings.dataplane_drain_timeout,
        hold=settings.dataplane_hold,
        resolver=resolver,
        listens=peers.listens,
        admin=admin_address(settings, peers),
        probe_floor=settings.probes_floor,
        names=name_policy(settings),
        endpoint_networks=settings.cluster_endpoint_networks,
        claims=_claim_limits(settings),
    )


def _claim_limits(settings: Settings) -> ClaimLimits:
    pace = ClaimPace(settings.claims_new_at_once, settings.claims_new_per_minute)
    return ClaimLimits(settings.claims_grace, settings.claims_keep, claim_quotas(settings), pace)
