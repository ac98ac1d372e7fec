"""The composition root: makes the parts that the settings ask for, runs them in one TaskGroup, ends them in order.

It decides nothing about traffic; that is `plan` and `diff`. What it may refuse is a start that could do harm: a VIP
pool that overlaps the host's own network, a second daemon on the same store, an address that is taken.
"""

import asyncio
import logging
from collections.abc import Callable, Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path

from mesh import __version__
from mesh.api.admin import AdminApi
from mesh.config import Driver, Settings
from mesh.dataplane import DataPlane, DataPlaneError, VipInterface
from mesh.dataplane.ipvs import driver as ipvs
from mesh.dataplane.userspace import UserspaceDataPlane
from mesh.host import routes
from mesh.host.addresses import HostAddresses
from mesh.host.interface import LoopbackAddresses, MeshInterface
from mesh.host.source_nat import SourceNat
from mesh.host.sysctl import RouterSettings
from mesh.model import Address, Name, VirtualKey
from mesh.probes.prober import Prober
from mesh.published import PublishedPorts
from mesh.reconcile import Reconciler, Site, Upkeep
from mesh.sources.compose import ComposeSource
from mesh.status import Facts, WorkerStatus
from mesh.store.sqlite import SqliteStore
from meshdns.forward import Forwarder, upstreams_from_resolv_conf
from meshdns.server import NameServer
from meshdns.zone import Zone

log = logging.getLogger("vipmesh")

RESOLV_CONF = Path("/etc/resolv.conf")


class StartError(Exception):
    """The daemon does not start: one line each for what is wrong and what to change."""


@dataclass(frozen=True, slots=True)
class Running:
    """A daemon that answers, for whoever started it in the same process."""

    status: Callable[[], WorkerStatus]
    dns: tuple[tuple[str, int], ...]
    """Where the name server answers."""
    reload: Callable[[], None]
    """Read the sources again now."""
    listening_on: Callable[[VirtualKey], tuple[Address, int]]
    """Where a virtual server is really reached: its own address and port unless a port offset is set."""


async def run(
    settings: Settings,
    environment: Mapping[str, str],
    stop: asyncio.Event,
    started: Callable[[Running], None] = lambda _: None,
) -> None:
    """Run a worker until `stop` is set. `started` is called once everything listens.

    Raises `StartError`, `DataPlaneError`, `StoreError`, `NameServerError` or `AdminError` before anything was changed.
    """
    await refuse_overlap(settings)
    async with AsyncExitStack() as stack:
        store = await SqliteStore.open(Path(settings.store_url.removeprefix("sqlite:///")), settings.node_name)
        stack.push_async_callback(store.close)
        site = _site(settings)
        published = PublishedPorts()
        interface = LoopbackAddresses() if settings.vip_pool.is_loopback else MeshInterface()
        if isinstance(interface, MeshInterface):
            stack.push_async_callback(interface.close)
        plane, reason = await choose_plane(settings, interface, published)
        stack.push_async_callback(plane.close)
        names = NameServer(settings.dns_listen, _zone(settings, {}, serial=0), _forwarder(settings))
        await names.start()
        stack.push_async_callback(names.stop)
        wake = asyncio.Event()
        prober = Prober(wake.set)
        sources = _sources(settings, environment)
        loop = Reconciler(
            site,
            Facts(__version__, settings.node_name, plane.name, reason, tuple(f"{h}:{p}" for h, p in names.addresses)),
            host=HostAddresses(settings.node_address),
            sources=sources,
            store=store,
            plane=plane,
            upkeep=_upkeep(settings) if isinstance(plane, ipvs.IpvsDataPlane) else [],
            published=published,
            prober=prober,
            publish=_Publisher(settings, names),
            wake=wake,
        )
        api = AdminApi(settings.admin_listen, loop.status)
        await api.start()
        stack.push_async_callback(api.stop)
        log.info("data plane %s: %s; dns on %s", plane.name, reason, ", ".join(f"{h}:{p}" for h, p in names.addresses))
        async with asyncio.TaskGroup() as tasks:
            parts = [
                tasks.create_task(prober.run(), name="prober"),
                tasks.create_task(loop.run(), name="reconciler"),
            ]
            started(Running(loop.status, names.addresses, _reload(sources), _listening_on(plane)))
            await stop.wait()
            for part in parts:
                part.cancel()


async def refuse_overlap(settings: Settings) -> None:
    """Raises `StartError` if the VIP pool overlaps a route or an address of this host: VIPs would hide real hosts."""
    found = await routes.overlaps(settings.vip_pool)
    if found:
        raise StartError(
            f"[vip] pool {settings.vip_pool} overlaps {', '.join(found)} of this host; "
            f"choose a network that nothing here uses, such as 10.113.0.0/16"
        )


async def choose_plane(settings: Settings, interface: VipInterface, published: PublishedPorts) -> tuple[DataPlane, str]:
    """The data plane that the settings name, and the reason in words. Raises `DataPlaneError`."""
    userspace = UserspaceDataPlane(interface, low_port_offset=settings.dataplane_low_port_offset)
    if settings.dataplane_driver is Driver.USERSPACE:
        return userspace, "asked for by [dataplane] driver"
    if settings.dataplane_driver is Driver.AUTO and settings.vip_pool.is_loopback:
        return userspace, f"the pool {settings.vip_pool} is on loopback, which IPVS does not forward"
    missing = await ipvs.available()
    if missing is None:
        return ipvs.IpvsDataPlane(settings.vip_pool, interface, published), "this kernel has IPVS"
    if settings.dataplane_driver is Driver.IPVS:
        raise DataPlaneError(f"[dataplane] driver is ipvs, but {missing}")
    return userspace, missing


class _Publisher:
    """Names -> the zone that is answered, each time with a higher serial."""

    def __init__(self, settings: Settings, names: NameServer) -> None:
        self._settings = settings
        self._names = names
        self._serial = 0

    def __call__(self, names: Mapping[Name, Address]) -> None:
        self._serial += 1
        self._names.replace(_zone(self._settings, names, self._serial))


def _zone(settings: Settings, names: Mapping[Name, Address], serial: int) -> Zone:
    return Zone.build(
        {name: (vip,) for name, vip in names.items()}, [settings.dns_domain], ttl=settings.dns_ttl, serial=serial
    )


def _forwarder(settings: Settings) -> Forwarder:
    upstream: Sequence[tuple[str, int]] = settings.dns_upstream
    if not upstream and RESOLV_CONF.exists():
        upstream = upstreams_from_resolv_conf(RESOLV_CONF.read_text(), exclude=settings.dns_listen)
    return Forwarder(upstream)


def _sources(settings: Settings, environment: Mapping[str, str]) -> list[ComposeSource]:
    if not settings.source_compose_files:
        log.warning("no source of instances: set [source.compose] files; what was registered before stays in force")
        return []
    return [ComposeSource(settings.source_compose_files, env=environment)]


def _upkeep(settings: Settings) -> list[Upkeep]:
    return [RouterSettings(), SourceNat(settings.vip_pool, settings.node_local_networks)]


def _reload(sources: Sequence[ComposeSource]) -> Callable[[], None]:
    def reload() -> None:
        for source in sources:
            source.touch()

    return reload


def _listening_on(plane: DataPlane) -> Callable[[VirtualKey], tuple[Address, int]]:
    if isinstance(plane, UserspaceDataPlane):
        return plane.listening_on
    return lambda key: (key.address, key.port)


def _site(settings: Settings) -> Site:
    return Site(
        worker=settings.node_name,
        domain=settings.dns_domain,
        pool=settings.vip_pool,
        publish=settings.publish_ports,
        drain_timeout=settings.dataplane_drain_timeout,
    )
