"""Asks a container engine about itself: `GET /version`, `GET /info`, its networks, and containers on several networks.

Fields that an engine does not have stay unknown; another form of the response is one that is not understood.
"""

import asyncio
import logging
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from ipaddress import ip_address, ip_network

import msgspec

from mesh.config.labels.values import escape_unprintable
from mesh.config.values import Network
from mesh.model.engine_facts import AttachedContainer, EngineFacts, EngineNetwork
from mesh.model.service import Address
from mesh.sources.docker.client import CLIENT_ERRORS, explain_failure, list_containers, open_client, translate_surprises
from mesh.sources.docker.instances import container_name, has_mesh_label
from mesh.sources.docker.messages import ContainerSummary, DockerMessage

log = logging.getLogger("vipmesh")

ANSWER = 5.0
"""Seconds that the engine has for all requests together: these facts are never urgent."""
_MOST = 1024
"""Networks, address pools and containers that are taken from one response."""
_NO_MASQUERADE = ("com.docker.network.bridge.enable_ip_masquerade", "false")


class EngineComponent(DockerMessage, frozen=True):
    """One program of the engine."""

    name: str = ""


class EngineAbout(DockerMessage, frozen=True):
    """`GET /version`."""

    version: str = ""
    api_version: str = ""
    components: list[EngineComponent] | None = None


class EngineAddressPool(DockerMessage, frozen=True):
    """A network that new networks are taken from."""

    base: str = ""


class EngineSwarm(DockerMessage, frozen=True):
    """The state of swarm mode."""

    local_node_state: str = ""
    """`inactive`, `pending`, `active`, `error`, `locked`; empty if the engine has no swarm mode."""


class EngineFirewall(DockerMessage, frozen=True):
    """How the engine filters, since API version 1.49."""

    driver: str = ""


class EngineInfo(DockerMessage, frozen=True):
    """`GET /info`."""

    live_restore_enabled: bool | None = None
    docker_root_dir: str = ""
    swarm: EngineSwarm | None = None
    firewall_backend: EngineFirewall | None = None
    default_address_pools: list[EngineAddressPool] | None = None


class SubnetEntry(DockerMessage, frozen=True):
    """One subnet of a network."""

    subnet: str = ""


class AddressManagement(DockerMessage, frozen=True):
    """The subnets of a network."""

    config: list[SubnetEntry] | None = None


class NetworkEntry(DockerMessage, frozen=True):
    """One entry of `GET /networks`."""

    name: str
    ipam: AddressManagement | None = msgspec.field(default=None, name="IPAM")
    options: Mapping[str, str] | None = None


@dataclass(frozen=True, slots=True)
class LabelledContainer:
    """A running container with labels."""

    labels: Mapping[str, str]
    addresses: tuple[Address, ...] = ()
    """Its addresses if it is on one network; empty if it is on several or on none."""


@dataclass(frozen=True, slots=True)
class EngineAnswer:
    """What an engine has told."""

    facts: EngineFacts
    containers: tuple[LabelledContainer, ...]

    @property
    def labels(self) -> tuple[Mapping[str, str], ...]:
        """The labels of each running container that has some."""
        return tuple(container.labels for container in self.containers)


async def ask_engine_facts(url: str) -> EngineFacts | None:
    """Return the facts of an engine, as `ask_engine` does."""
    answer = await ask_engine(url)
    return None if answer is None else answer.facts


async def ask_engine(url: str) -> EngineAnswer | None:
    """Return what the engine at `unix:///path` or `tcp://HOST:PORT` tells.

    None if it does not answer as an engine does. That is no news: its source reports it.
    """
    try:
        async with asyncio.timeout(ANSWER), open_client(url, ANSWER) as docker:
            with translate_surprises():
                about, info = await docker.version(), await docker.system.info()
                networks = await docker.networks.list()
            containers = await list_containers(docker)
        facts = engine_facts(
            msgspec.convert(about, EngineAbout),
            msgspec.convert(info, EngineInfo),
            msgspec.convert(networks, list[NetworkEntry]),
            containers,
        )
    except CLIENT_ERRORS as error:
        log.debug("the facts of the engine at %s are not known: %s", url, explain_failure(error, ANSWER))
        return None
    return EngineAnswer(facts, tuple(_labelled(containers)))


def engine_facts(
    about: EngineAbout, info: EngineInfo, networks: Iterable[NetworkEntry], containers: Iterable[ContainerSummary]
) -> EngineFacts:
    """Return the facts from the responses of an engine."""
    found = [
        EngineNetwork(
            escape_unprintable(network.name),
            tuple(_networks(entry.subnet for entry in (network.ipam and network.ipam.config) or ())),
            (network.options or {}).get(_NO_MASQUERADE[0]) != _NO_MASQUERADE[1],
        )
        for network in networks
    ]
    return EngineFacts(
        version=escape_unprintable(about.version),
        api_version=escape_unprintable(about.api_version),
        is_podman=any("podman" in component.name.lower() for component in about.components or ()),
        firewall_backend=escape_unprintable(info.firewall_backend.driver) if info.firewall_backend else "",
        live_restore=info.live_restore_enabled,
        in_swarm=info.swarm is not None and info.swarm.local_node_state not in ("", "inactive"),
        data_directory=info.docker_root_dir if info.docker_root_dir.isprintable() else "",
        address_pools=tuple(_networks(pool.base for pool in info.default_address_pools or ())),
        networks=tuple(sorted(found, key=lambda network: network.name)[:_MOST]),
        on_several_networks=tuple(sorted(_attached(containers), key=lambda container: container.name)[:_MOST]),
    )


def _networks(texts: Iterable[str]) -> Iterator[Network]:
    """Yield the networks among the texts. An engine that tells something else tells nothing."""
    for text, _ in zip(texts, range(_MOST), strict=False):
        try:
            yield ip_network(text, strict=False)
        except ValueError:
            continue


def _attached(containers: Iterable[ContainerSummary]) -> Iterator[AttachedContainer]:
    """Yield the containers with labels of the mesh that have addresses on several networks."""
    for container in containers:
        if not has_mesh_label(container.labels):
            continue
        networks, addresses = _addresses(container)
        if networks > 1 and addresses:
            yield AttachedContainer(escape_unprintable(container_name(container)), addresses)


def _labelled(containers: Iterable[ContainerSummary]) -> Iterator[LabelledContainer]:
    for container in containers:
        if container.labels:
            networks, addresses = _addresses(container)
            yield LabelledContainer(container.labels, addresses if networks == 1 else ())


def _addresses(container: ContainerSummary) -> tuple[int, tuple[Address, ...]]:
    """Return the number of networks of a container, and its addresses there."""
    places = [place for place in (container.network_settings.networks or {}).values() if place is not None]
    addresses = (address for place in places for address in (place.ip_address, place.ip6_address))
    return len(places), tuple(filter(_is_address, addresses))


def _is_address(text: str) -> bool:
    try:
        ip_address(text)
    except ValueError:
        return False
    return True
