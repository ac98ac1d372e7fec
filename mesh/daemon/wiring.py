"""The composition root: makes the parts that the settings ask for, runs them in one TaskGroup, ends them in order.

It decides nothing about traffic; that is `make_plan` and `diff_tables`. What it may refuse is a start that could do
harm: a VIP pool that overlaps the host's own network, a second daemon on the same store, an address that is taken.
"""

import asyncio
import logging
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from ipaddress import ip_address
from pathlib import Path

from mesh import __version__
from mesh.api.http.server import AdminApi
from mesh.api.status import WorkerStatus, worker_status
from mesh.cluster.records.encode import build_view
from mesh.config.settings import Driver, Settings
from mesh.control.assembly import LoopParts, control_loop
from mesh.control.context import ClusterState, LoopContext
from mesh.control.dns_zone import ZonePublisher
from mesh.control.drain_requests import DrainRequests
from mesh.control.graceful_stop import ContainerEngine, DrainSignals, GracefulStopper
from mesh.control.handover import IpvsHandover, NftablesHandover
from mesh.control.ports import HostUpkeep, WorkerConfig
from mesh.control.snapshot import WorkerFacts
from mesh.daemon.open_store import open_store
from mesh.daemon.peer_endpoint import PeerEndpoint, PeerEndpointError, open_peer_endpoint
from mesh.daemon.resolver import DNS_PORT, bind_resolver, resolver_address
from mesh.daemon.snapshots import SnapshotCollector, admin_listen_config
from mesh.dataplane import DataPlane, DataPlaneError, VipInterface
from mesh.dataplane.ipvs import plane as ipvs
from mesh.dataplane.nftables import plane as nftables
from mesh.dataplane.ownership import PublishedPorts
from mesh.dataplane.userspace import UserspaceDataPlane
from mesh.health.checks.command import CommandCheck
from mesh.health.prober import Prober
from mesh.host import overlap as routes
from mesh.host.addresses import HostAddresses
from mesh.host.listeners import listening_ports
from mesh.host.masquerade import Masquerade
from mesh.host.rlimits import raise_file_limit
from mesh.host.sysctl import RouterSettings
from mesh.host.vip_interface import LoopbackAddresses, MeshInterface
from mesh.model.codes import Code
from mesh.model.errors import ActionRefusedError, CodedText, MeshError
from mesh.model.part import ProblemPart
from mesh.model.service import Address, Endpoint
from mesh.model.table import RealKey, VirtualKey
from mesh.sources.compose.source import ComposeSource
from mesh.sources.docker.engine import DockerEngine
from mesh.sources.docker.exec import DockerExec
from mesh.sources.docker.instances import InstanceRules
from mesh.sources.docker.source import DockerSource
from mesh.store import Store, StoreError
from mesh.util.offload import shorten_thread_switches
from meshdns.acl import LOCAL_NETWORKS
from meshdns.forwarder import Forwarder
from meshdns.server import NameServer, NameServerError
from meshdns.service_records import reverse_domains
from meshdns.thread import ThreadedServer
from meshdns.upstreams import Upstreams
from meshdns.zone import Zone, ZoneBuilder

log = logging.getLogger("vipmesh")

RESOLV_CONF = Path("/etc/resolv.conf")


class StartError(MeshError):
    """The daemon does not start."""

    def __init__(self, code: Code, message: str, details: Sequence[CodedText] = ()) -> None:
        """`details`: more that is wrong, a line each."""
        super().__init__(code, "\n".join((message, *map(str, details))))
        self.lines = (CodedText(message, code), *details)


@dataclass(frozen=True, slots=True)
class RunningDaemon:
    """A daemon that answers, for whoever started it in the same process."""

    status: Callable[[], WorkerStatus]
    dns: tuple[tuple[str, int], ...]
    """Where the name server answers."""
    reload: Callable[[], None]
    """Read the sources again now."""
    listening_on: Callable[[VirtualKey], tuple[Address, int]]
    """Where a virtual server is really reached: its own address and port unless a port offset is set."""
    is_alive: Callable[[], bool] = lambda: True
    """Whether the control loop still comes round."""


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
    raise_file_limit()
    await refuse_overlap(settings)
    async with AsyncExitStack() as stack:
        store = await open_store(settings)
        stack.push_async_callback(store.close)
        context = LoopContext(ClusterState(settings.vip_pool))
        published = PublishedPorts(context.cluster.claims, context.cluster.all_addresses)
        interface = LoopbackAddresses() if settings.vip_pool.is_loopback else MeshInterface()
        if isinstance(interface, MeshInterface):
            stack.push_async_callback(interface.close)
        engine = settings.source_docker_socket
        prober = Prober(context.events.wake.set, commands=CommandCheck(DockerExec(engine)) if engine else None)
        plane, reason = await choose_data_plane(settings, interface, published, prober.suspect)
        stack.push_async_callback(plane.close)
        resolver = await bind_resolver(interface, resolver_address(settings))
        listen = settings.dns_listen if resolver is None else (*settings.dns_listen, (resolver, DNS_PORT))
        draft = _draft(settings)
        empty = draft.update({})[0]
        names = ThreadedServer(lambda: _name_server(settings, listen, empty))
        try:
            await names.start()
        except NameServerError as error:
            or_off = '; or set [dns] resolver = "off"' if resolver is not None and resolver in str(error) else ""
            raise StartError(Code.DNS_CANNOT_LISTEN, f"{error}{or_off}") from error
        stack.push_async_callback(names.stop)
        presence = await _present(settings, stack)
        drains = DrainRequests(
            context.events.instances_changed.set, await read_own_endpoints(store, settings.node_name)
        )
        signals = DrainSignals()
        sources, engines = _sources(settings, environment, signals)
        stopping = GracefulStopper(drains, engines, settings.dataplane_drain_timeout, signals)
        former = await _former(settings, plane, interface, published, lambda: context.figures.passes > 0)
        loop = control_loop(
            _site(settings, resolver, presence.listens),
            _facts(settings, plane, reason, names.addresses),
            LoopParts(
                host=HostAddresses(settings.node_address),
                sources=sources,
                store=store,
                plane=plane,
                upkeep=[*_upkeep(settings, plane), *former],
                listening=listening_ports if plane.forwards_in_kernel else None,
                prober=prober,
                publish=_publisher(draft, names),
                drains=drains,
                witnesses=presence.witnesses,
            ),
            context,
        )
        telling = SnapshotCollector(
            loop,
            passed=context.events.passed,
            plane=plane,
            prober=prober,
            names=names,
            most_services=settings.metrics_services,
        )
        api = AdminApi(
            admin_listen_config(settings),
            loop.snapshots.observe,
            stopping.verbs(),
            telling.measure,
            telling.feed,
            explain=telling.explain,
        )
        await api.start()
        stack.push_async_callback(api.stop)
        log.info("data plane %s: %s; dns on %s", plane.name, reason, ", ".join(f"{h}:{p}" for h, p in names.addresses))
        async with asyncio.TaskGroup() as tasks:
            parts = [
                tasks.create_task(store.run(), name="store"),
                tasks.create_task(prober.run(), name="prober"),
                tasks.create_task(loop.reconciler.run(), name="reconciler"),
                tasks.create_task(stopping.run(), name="stopping"),
                tasks.create_task(telling.feed.run(), name="events"),
            ]
            started(
                RunningDaemon(
                    lambda: worker_status(loop.snapshots.observe(), in_detail=True),
                    names.addresses,
                    _reload(sources),
                    plane.listening_on,
                    loop.reconciler.is_alive,
                )
            )
            await stop.wait()
            for part in parts:
                part.cancel()


async def refuse_overlap(settings: Settings) -> None:
    """Raises `StartError` if the VIP pool overlaps a route or an address of this host: VIPs would hide real hosts."""
    found = await routes.read_overlaps(settings.vip_pool)
    if found:
        raise StartError(
            Code.VIP_POOL_OVERLAPS,
            f"[vip] pool {settings.vip_pool} overlaps {', '.join(found)} of this host; "
            f"choose a network that nothing here uses, such as 10.113.0.0/16",
        )


async def choose_data_plane(
    settings: Settings,
    interface: VipInterface,
    published: PublishedPorts,
    on_refused: Callable[[Address, int], None] = lambda *_: None,
) -> tuple[DataPlane, str]:
    """The data plane that the settings name, and the reason in words. Raises `DataPlaneError`.

    `on_refused` is told of connections that a real server did not accept, by a data plane that sees them.
    """
    driver, pool = settings.dataplane_driver, settings.vip_pool
    userspace = UserspaceDataPlane(interface, settings.dataplane_low_port_offset, on_refused)
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


def _upkeep(settings: Settings, plane: DataPlane) -> list[HostUpkeep]:
    """The settings of the host that the data plane depends on; a proxy depends on none."""
    if not plane.forwards_in_kernel:
        return []
    router = RouterSettings(ipv6=settings.vip_pool.version == 6, ipvs=plane.name == Driver.IPVS)
    return [router, Masquerade(settings.vip_pool, settings.dataplane_local_networks)]


async def _former(
    settings: Settings,
    plane: DataPlane,
    interface: VipInterface,
    published: PublishedPorts,
    taken_over: Callable[[], bool],
) -> list[HostUpkeep]:
    """What another data plane may have left; a pool on loopback never had one in the kernel."""
    pool = settings.vip_pool
    if pool.is_loopback or await nftables.unavailable_reason(pool.version) is not None:
        return []
    if plane.name == Driver.NFTABLES:
        return [IpvsHandover(taken_over, ipvs.IpvsDataPlane(pool, interface, published))]
    return [NftablesHandover(taken_over)]


def _facts(settings: Settings, plane: DataPlane, reason: str, dns: Sequence[tuple[str, int]]) -> WorkerFacts:
    listens = tuple(f"{host}:{port}" for host, port in dns)
    return WorkerFacts(__version__, settings.node_name, plane.name, reason, listens, settings.store_url)


def _draft(settings: Settings) -> ZoneBuilder:
    """The zone without services yet. Its serial is of the start: nobody copies the zone, and so nobody compares."""
    domains = [settings.dns_domain, *reverse_domains(settings.vip_pool)]
    return ZoneBuilder(domains, ttl=settings.dns_ttl, serial=int(time.time()))


def _publisher(draft: ZoneBuilder, names: ThreadedServer) -> ZonePublisher:
    draft.serve_at([host for host, _ in names.addresses if not ip_address(host).is_unspecified])
    return ZonePublisher(lambda services: names.replace(*draft.update(services)))


def _name_server(settings: Settings, listen: Sequence[tuple[str, int]], zone: Zone) -> NameServer:
    upstreams = Upstreams(settings.dns_upstream, settings.dns_forward, resolv_conf=RESOLV_CONF)
    forwarder = Forwarder(upstreams, outstanding=settings.dns_outstanding)
    return NameServer(listen, zone, forwarder, allowed=settings.dns_allow or LOCAL_NETWORKS)


def _sources(
    settings: Settings, environment: Mapping[str, str], signals: DrainSignals
) -> tuple[list[ComposeSource | DockerSource], list[ContainerEngine]]:
    """The sources of instances, and the engines that run containers; each may be empty."""
    sources: list[ComposeSource | DockerSource] = []
    engines: list[ContainerEngine] = []
    if settings.source_compose_files:
        sources.append(ComposeSource(settings.source_compose_files, env=environment, name=_source_name(sources)))
    if settings.source_docker_socket is not None:
        rules = InstanceRules(
            domain=settings.dns_domain,
            endpoint_address=settings.source_docker_endpoint_address,
            alone=settings.store_url.startswith("sqlite:"),
            worker=settings.node_address,
            version=settings.vip_pool.version,
        )
        docker = DockerSource(settings.source_docker_socket, rules, name=_source_name(sources), on_drain=signals.put)
        sources.append(docker)
        engines.append(DockerEngine(settings.source_docker_socket, docker, ActionRefusedError))
    if not sources:
        log.warning(
            "no source of instances: set [source.docker] socket or [source.compose] files; "
            "what was registered before stays in force",
            extra=Code.NO_SOURCE.extra,
        )
    return sources, engines


def _source_name(sources: Sequence[ComposeSource | DockerSource]) -> str:
    """The name of the next source."""
    return f"{ProblemPart.SOURCE} {len(sources)}"


async def read_own_endpoints(store: Store, worker: str) -> list[Endpoint]:
    """What this worker has registered before; nothing if the store does not answer."""
    try:
        seen, _ = build_view((await store.read()).records)
    except StoreError as error:
        log.warning(
            "store: %s; drains that were asked for before the start are not known",
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


async def _present(settings: Settings, stack: AsyncExitStack) -> PeerEndpoint:
    try:
        presence = await open_peer_endpoint(settings)
    except PeerEndpointError as error:
        raise StartError(error.code, str(error)) from error
    if presence.server is not None:
        stack.callback(presence.server.close)
        log.info("the other workers ask for this one on %s", presence.listens)
    return presence


def _site(settings: Settings, resolver: Address | None, listens: RealKey | None) -> WorkerConfig:
    return WorkerConfig(
        worker=settings.node_name,
        domain=settings.dns_domain,
        pool=settings.vip_pool,
        publish=settings.publish_ports,
        drain_timeout=settings.dataplane_drain_timeout,
        resolver=resolver,
        listens=listens,
        probe_floor=settings.probes_floor,
    )
