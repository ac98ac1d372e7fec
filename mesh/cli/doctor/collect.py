"""Collects the facts of this host for `vipmesh doctor`, and changes nothing.

A query may make the kernel load a module (ip_vs, nf_tables), as the start of the daemon does.
"""

import asyncio
import ctypes
import json
import os
import shutil
import time
from argparse import Namespace
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import replace
from ipaddress import ip_address
from pathlib import Path
from urllib.parse import urlsplit

from mesh.cli.client import AdminClient
from mesh.cli.doctor.facts import DescribedEngine, DoctorFacts, KernelModule, KernelSetting, ListeningSocket
from mesh.cli.doctor.log_facts import collected_outputs
from mesh.cli.doctor.rules import DoctorInput, forwards_in_kernel
from mesh.cluster.cut_off import finding_of
from mesh.cluster.records.encode import own_prefixes
from mesh.config import etcd_url
from mesh.config.labels.parse import parse_labels
from mesh.config.secrets import secret_files
from mesh.config.settings import Driver, Settings
from mesh.daemon.host_needs import host_needs, own_certificates
from mesh.daemon.open_store import etcd_credentials
from mesh.daemon.resolver import resolver_address
from mesh.dataplane.ipvs import plane as ipvs
from mesh.dataplane.nftables import plane as nftables
from mesh.host import HostError
from mesh.host.certificates import CertificateFacts, read_certificates
from mesh.host.fact_reader import read_host_facts
from mesh.host.firewall.direct_access import DirectEndpoint, direct_endpoints
from mesh.host.firewall.facts import FirewallFacts, read_facts
from mesh.host.firewall.programs import SystemPrograms
from mesh.host.sysctl import PROC_SYS, router_settings
from mesh.model.codes import Code
from mesh.model.engine_facts import EngineFacts
from mesh.model.errors import MeshError
from mesh.model.service import Endpoint, Name, Scheduler, Transport
from mesh.sources.compose.files import load_compose_project
from mesh.sources.compose.limits import compose_limits
from mesh.sources.compose.model import ComposeFile
from mesh.sources.docker.client import CLIENT_ERRORS, explain_failure, open_client, shake_hands
from mesh.sources.docker.engine_facts import LabelledContainer, ask_engine
from mesh.store import StoreError
from mesh.store.etcd import EtcdClient
from mesh.store.etcd.messages import RangeResponse
from mesh.store.etcd.tls import TlsCertificates
from mesh.util.regular_file import world_readable

_CAPABILITIES = {10: "CAP_NET_BIND_SERVICE", 12: "CAP_NET_ADMIN"}  # linux/capability.h
_MODULES = ("ip_vs", "nf_tables", "nf_conntrack", "dummy", *(f"ip_vs_{scheduler}" for scheduler in Scheduler))
_ALSO = ("net.ipv4.ip_unprivileged_port_start",)
_WAITING = {"tcp": "0A", "udp": "07"}  # TCP_LISTEN; TCP_CLOSE, a datagram socket without a peer
_ERROR = 5  # TIME_ERROR of adjtimex(2): the clock is not synchronised
_PATIENCE = 2.0
"""Seconds that a member of etcd, or the container engine, has to accept a connection."""


def doctor_input(settings: Settings) -> DoctorInput:
    """Return what the settings require of a host with this kernel."""
    driver, version = settings.dataplane_driver, settings.vip_pool.version
    with_ipvs = driver in (Driver.AUTO, Driver.IPVS)
    sysctls = (
        router_settings(os.uname().release, ipv6=version == 6, ipvs=with_ipvs) if forwards_in_kernel(settings) else {}
    )
    return DoctorInput(settings, sysctls, resolver_address(settings))


async def examine_host(asked: DoctorInput) -> DoctorFacts:
    """Return the facts of this host. Raises `OSError` if the kernel's routes cannot be read."""
    settings = asked.settings
    kernel = forwards_in_kernel(settings)
    socket = settings.source_docker_socket
    described, engine = (None, None) if socket is None else await asyncio.gather(_engine(socket), ask_engine(socket))
    firewall, no_firewall = await _firewall(settings)
    served_names, told = await asyncio.to_thread(_ask_daemon, settings.admin_listen)
    compose = await asyncio.to_thread(_compose, settings)
    return DoctorFacts(
        release=os.uname().release,
        no_ipvs=await ipvs.unavailable_reason() if kernel else None,
        no_nftables=await nftables.unavailable_reason(settings.vip_pool.version) if kernel else None,
        nft=shutil.which("nft", path=f"{os.environ.get('PATH', os.defpath)}:/usr/sbin:/sbin"),
        modules=_modules(os.uname().release),
        sysctls={key: _setting(key) for key in (*asked.sysctls, *_ALSO)},
        capabilities=_capabilities(),
        root=os.geteuid() == 0,
        listeners=tuple(_listeners()),
        host=replace(
            await read_host_facts(settings.vip_pool, certificates=own_certificates(settings)),
            engine=None if engine is None else engine.facts,
            readable_files=world_readable(secret_files(settings)),
        ),
        published=_published(settings, () if engine is None else engine.labels, compose),
        compose=() if compose is None else tuple(compose.problems),
        no_compose=compose is not None and compose.broken,
        direct=frozenset(_direct(settings, () if engine is None else engine.containers)),
        nameservers=tuple(_nameservers()),
        docker_dns=_docker_dns(),
        clock=_clock(),
        store=await _store(settings),
        swarm_certificate=_swarm_certificate(socket, None if engine is None else engine.facts),
        served_names=served_names,
        cut_off=told,
        engine=described if isinstance(described, str) else None,
        described_engine=described if isinstance(described, DescribedEngine) else None,
        outputs=await collected_outputs(settings),
        systemd=_has_systemd(),
        firewall=firewall,
        no_firewall=no_firewall,
    )


def _ask_daemon(listen: str) -> tuple[frozenset[str], tuple[tuple[Code, str, str | None], ...]]:
    """Return the names that the running daemon serves, of this version or an earlier one, and what it says of workers
    that are cut off; empty if none answers.
    """
    try:
        document = json.loads(AdminClient(Namespace(admin=listen, config=None)).ask("/v1/status").body)
        names = frozenset(str(name) for service in document["services"] for name in service["names"])
        told = (finding_of(notice["code"], notice["text"]) for notice in document.get("notices", ()))
        return names, tuple(each for each in told if each is not None)
    except (MeshError, ValueError, LookupError, TypeError, AttributeError):
        return frozenset(), ()


def _text(path: Path) -> str | None:
    """Return the text of a file, or None if it cannot be read."""
    try:
        return path.read_text()
    except (OSError, UnicodeDecodeError):
        return None


def _modules(release: str) -> Mapping[str, KernelModule]:
    folder = Path("/lib/modules", release)
    known = _text(folder / "modules.dep")
    built_in = _names(_text(folder / "modules.builtin") or "")
    loaded = {line.split()[0] for line in (_text(Path("/proc/modules")) or "").splitlines()}
    there = _names(known or "")
    states = {}
    for name in _MODULES:
        if name in loaded or name in built_in or Path("/sys/module", name).exists():
            states[name] = KernelModule.LOADED
        elif name in there:
            states[name] = KernelModule.AVAILABLE
        else:
            states[name] = KernelModule.UNKNOWN if known is None else KernelModule.ABSENT
    return states


def _names(listing: str) -> frozenset[str]:
    """Return the names of modules in a listing: `ip_vs` for `kernel/net/netfilter/ipvs/ip_vs.ko.xz: ...`."""
    paths = (line.partition(":")[0] for line in listing.splitlines())
    return frozenset(Path(path).name.partition(".")[0].replace("-", "_") for path in paths)


def _setting(key: str) -> KernelSetting:
    path = PROC_SYS / key.replace(".", "/")
    value = _text(path)
    return KernelSetting(None if value is None else " ".join(value.split()), os.access(path, os.W_OK))


def _capabilities() -> frozenset[str]:
    lines = dict(line.partition(":")[::2] for line in (_text(Path("/proc/self/status")) or "").splitlines())
    effective = int(lines.get("CapEff", "0").strip() or "0", 16)
    return frozenset(name for bit, name in _CAPABILITIES.items() if effective >> bit & 1)


def _listeners() -> Iterator[ListeningSocket]:
    """Yield every socket of this network namespace that waits for clients, proc_net(5)."""
    owners: dict[str, tuple[str, bool]] | None = None
    for transport, state in _WAITING.items():
        for family in ("", "6"):
            for line in (_text(Path(f"/proc/net/{transport}{family}")) or "").splitlines()[1:]:
                fields = line.split()
                if fields[3] != state:
                    continue
                owners = _owners() if owners is None else owners
                host, _, port = fields[1].partition(":")
                program, ours = owners.get(fields[9], (None, False))
                yield ListeningSocket(transport, _address(host), int(port, 16), program, ours)


def _address(hexadecimal: str) -> str:
    """Return an address from its words in host byte order: `127.0.0.1` for `0100007F`."""
    words = (hexadecimal[at : at + 8] for at in range(0, len(hexadecimal), 8))
    return str(ip_address(b"".join(bytes.fromhex(word)[::-1] for word in words)))


def _owners() -> dict[str, tuple[str, bool]]:
    """Return the program of each socket, by inode, and whether it is a vipmesh daemon; only what this user may see."""
    found: dict[str, tuple[str, bool]] = {}
    for process in Path("/proc").glob("[0-9]*"):
        name = (_text(process / "comm") or "").strip()
        links = list(_links(process / "fd"))
        line = (_text(process / "cmdline") or "").split("\0")
        ours = any(Path(word).name == "vipmesh" or word == "mesh" for word in line[:4])
        found.update((link[8:-1], (name, ours)) for link in links if link.startswith("socket:["))
    return found


def _links(folder: Path) -> Iterator[str]:
    """Yield what a process has open; nothing for a process of another user, or one that has ended."""
    with suppress(OSError):
        for link in folder.iterdir():
            with suppress(FileNotFoundError):  # closed meanwhile
                yield str(link.readlink())


def _nameservers() -> Iterator[str]:
    for line in (_text(Path("/etc/resolv.conf")) or "").splitlines():
        words = line.split()
        if len(words) > 1 and words[0] == "nameserver":
            yield words[1]


def _docker_dns() -> tuple[str, ...] | None:
    try:
        known = json.loads(_text(Path("/etc/docker/daemon.json")) or "{}")
    except ValueError:
        return None
    servers = known.get("dns") if isinstance(known, dict) else None
    return tuple(map(str, servers)) if isinstance(servers, list) else None


def _has_systemd() -> bool:
    """Return whether systemd runs this host: sd_booted(3)."""
    return Path("/run/systemd/system").exists()


def _clock() -> bool | None:
    """Return whether the clock is synchronised, or None if that is unknown: adjtimex(2) without a change."""
    room = ctypes.create_string_buffer(1024)  # struct timex is smaller on every architecture
    state = ctypes.CDLL(None, use_errno=True).adjtimex(room)
    return None if state < 0 else state != _ERROR


def _compose(settings: Settings) -> ComposeFile | None:
    """Return the compose files as the daemon of this version reads them, or None if it reads none."""
    if not settings.source_compose_files:
        return None
    return load_compose_project(settings.source_compose_files, os.environ, compose_limits(settings)).content


def _published(
    settings: Settings, labels: Iterable[Mapping[str, str]], compose: ComposeFile | None
) -> Mapping[tuple[Transport, int], Name]:
    """Return the published ports that these labels and the compose files ask for, with the service's name."""
    declared = [*labels]
    if compose is not None:
        declared += [service.labels for service in compose.services.values() if service.is_active]
    parsed = [parse_labels(each, owner="doctor", subject="", domain=settings.dns_domain).service for each in declared]
    return {
        (publish.transport, publish.port): service.name
        for service in parsed
        if service is not None
        for publish in service.publishes
        if publish.port is not None
    }


async def _store(settings: Settings) -> dict[str, str | None]:
    """Return why each member of the store cannot be used; None for one that can."""
    if settings.store_url.startswith("sqlite:"):
        folder = Path(settings.store_url.removeprefix("sqlite:///")).parent
        there = next(path for path in (folder, *folder.parents) if path.exists())
        return {str(folder): None if os.access(there, os.W_OK) else "this user cannot write there"}
    url = etcd_url.parse_etcd_url(settings.store_url)
    asking = (_ask_member(member, url, settings) for member in url.members)
    return dict(zip(url.members, await asyncio.gather(*asking), strict=True))


async def _ask_member(member: str, url: etcd_url.EtcdUrl, settings: Settings) -> str | None:
    """Read one key of this worker from a member, as the daemon's user and through its quorum; returns why that fails.

    The reason ends with the remedy behind a semicolon.
    """
    try:
        tls = await asyncio.to_thread(TlsCertificates, settings) if url.tls else None
        client = EtcdClient((member,), etcd_credentials(settings), tls)
        try:
            key = f"{url.prefix}{own_prefixes(settings.node_name)[0]}daemon".encode()
            async with asyncio.timeout(_PATIENCE):
                await client.call("kv/range", {"key": key, "keys_only": True}, RangeResponse, within=0)
        finally:
            await client.close()
    except TimeoutError:
        return f"no answer within {_PATIENCE:g} s"
    except StoreError as error:
        return str(error)
    return None


async def _reach(url: str) -> str | None:
    """Return why no server accepts a connection at a URL, or None if one does."""
    place = urlsplit(url)
    if place.scheme == "unix":
        connecting = asyncio.open_unix_connection(place.path)
    else:
        connecting = asyncio.open_connection(place.hostname, place.port)
    try:
        async with asyncio.timeout(_PATIENCE):
            _, writer = await connecting
    except TimeoutError:
        return f"no answer within {_PATIENCE:g} s"
    except OSError as error:
        return error.strerror or str(error)
    writer.close()
    return None


async def _engine(socket: str) -> DescribedEngine | str:
    """Return the engine's description of itself, or why it cannot be used."""
    if (trouble := await _reach(socket)) is not None:
        return trouble
    try:
        async with open_client(socket, _PATIENCE) as docker, asyncio.timeout(_PATIENCE):
            told = await shake_hands(docker)
            api = docker.api_version.removeprefix("v")
    except CLIENT_ERRORS as error:
        return explain_failure(error, _PATIENCE)
    ahead = None if told.time is None else told.time - time.time()
    return DescribedEngine(told.version.product, api, told.version.is_podman, ahead)


def _swarm_certificate(socket: str | None, engine: EngineFacts | None) -> CertificateFacts | None:
    """Return the certificate of the engine's node, if it is part of a swarm and its data is on this host."""
    if socket is None or not socket.startswith("unix:") or engine is None or not engine.in_swarm:
        return None
    if not engine.data_directory.startswith("/"):
        return None
    # swarmkit ca/config.go, NewConfigPaths.
    (found,) = read_certificates([Path(engine.data_directory) / "swarm" / "certificates" / "swarm-node.crt"])
    return found if found.last_day else None


async def _firewall(settings: Settings) -> tuple[FirewallFacts | None, str | None]:
    """Return the facts of the firewall, or why it cannot be read; neither for VIPs on loopback."""
    if settings.vip_pool.is_loopback:
        return None, None
    version = settings.vip_pool.version
    try:
        return read_facts(await SystemPrograms().read(version), version), None
    except HostError as error:
        return None, str(error)


def _direct(settings: Settings, containers: Iterable[LabelledContainer]) -> Iterator[DirectEndpoint]:
    """Yield where other workers reach these containers at their own addresses; nothing if they do not."""
    if not host_needs(settings, "").routes_to_containers:
        return
    for container in containers:
        service = parse_labels(container.labels, owner="doctor", subject="", domain=settings.dns_domain).service
        if service is not None:
            found = [Endpoint("doctor", "doctor", settings.node_name, address) for address in container.addresses]
            yield from direct_endpoints([service], found)
