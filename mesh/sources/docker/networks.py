"""The networks of containers, for clients of the connectivity test: which there are, and a container of each."""

import asyncio
import re
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from ipaddress import ip_address, ip_network
from typing import Any

import aiodocker
import aiohttp
import msgspec

from mesh.model.request import RequestResult, ServiceRequest
from mesh.model.service import Address
from mesh.sources.docker.client import list_containers, open_client, translate_surprises
from mesh.sources.docker.instances import TEST_LABEL, container_name, is_test
from mesh.sources.docker.messages import ContainerDetails, ContainerSummary, NetworkDetails

AGENT_ENTRYPOINT = ("python3", "-m", "mesh.host.request_agent")
"""The program of such a container, in vipmesh's own image."""
MAX_OUTPUT_BYTES = 4 << 20
"""Bytes of its output that are read; a result has some two hundred."""

_START_PATIENCE = 30.0
"""Seconds that the engine has to start a container."""
_LEFT_OVER_AFTER = 300.0
"""Seconds after which a container that does not run is nobody's."""
_WITHOUT_CLIENTS = frozenset({"host", "null", "overlay"})
"""Drivers of networks whose containers have no address of their own on this host."""
_OWN_CONTAINER = re.compile(r"/containers/([0-9a-f]{64})/")


@dataclass(frozen=True, slots=True)
class NetworkClient:
    """A container that can stand for all clients of its network."""

    container: str
    """Its ID."""
    name: str
    address: Address
    """Its address on the network."""


@dataclass(frozen=True, slots=True)
class ContainerNetwork:
    """A network of containers on this host."""

    name: str
    subnets: tuple[str, ...]
    """As canonical text, `172.18.0.0/16`; of the address family that was asked for."""
    internal: bool
    """Whether it has no way out, as its operator asked for."""
    clients: tuple[NetworkClient, ...] = ()
    """Its running containers, the best one first: one that is in no other network."""


def container_networks(
    networks: Iterable[NetworkDetails], containers: Sequence[ContainerSummary], version: int
) -> tuple[ContainerNetwork, ...]:
    """Return the networks with addresses of this IP version whose containers can be clients, by name."""
    found = []
    for network in sorted(networks, key=lambda network: network.name):
        subnets = tuple(_subnets(network, version))
        if network.driver not in _WITHOUT_CLIENTS and subnets:
            clients = tuple(client for _, client in sorted(_clients(network.name, containers, version)))
            found.append(ContainerNetwork(network.name, subnets, network.internal, clients))
    return tuple(found)


def _subnets(network: NetworkDetails, version: int) -> Iterable[str]:
    for config in network.ipam.config or ():
        try:
            subnet = ip_network(config.subnet, strict=False)
        except ValueError:
            continue
        if subnet.version == version:
            yield str(subnet)


def _clients(
    network: str, containers: Sequence[ContainerSummary], version: int
) -> Iterable[tuple[tuple[int, str], NetworkClient]]:
    """Yield its containers, each with its rank: its number of networks, and its name."""
    for container in containers:
        attached = container.network_settings.networks or {}
        attachment = attached.get(network)
        if container.state != "running" or attachment is None or is_test(container):
            continue
        address = attachment.ip_address if version == 4 else attachment.ip6_address
        if address:
            name = container_name(container)
            yield (len(attached), name), NetworkClient(container.id, name, str(ip_address(address)))


async def read_container_networks(url: str, version: int) -> tuple[ContainerNetwork, ...]:
    """Return the networks of an engine. Raises `CLIENT_ERRORS`."""
    async with open_client(url) as docker:
        with translate_surprises():
            found = await docker.networks.list()
        networks = msgspec.convert([dict(network) for network in found], list[NetworkDetails])
        return container_networks(networks, await list_containers(docker), version)


async def read_pid(url: str, container: str) -> int | None:
    """Return the process ID of a container, or None if it does not run. Raises `CLIENT_ERRORS`."""
    async with open_client(url) as docker:
        return (await _details(docker, container)).state.pid or None


async def read_process(url: str, container: str) -> tuple[str, int] | None:
    """Return the whole ID of a container and its process ID, or None if it does not run or is gone.

    Raises `CLIENT_ERRORS`.
    """
    try:
        async with open_client(url) as docker:
            details = await _details(docker, container)
    except aiodocker.DockerError as error:
        if error.status != 404:
            raise
        return None
    return (details.id, details.state.pid) if details.state.pid > 0 else None


async def _details(docker: aiodocker.Docker, container: str) -> ContainerDetails:
    with translate_surprises():
        return msgspec.convert(await docker.containers.container(container).show(), ContainerDetails)


def own_container(mountinfo: str) -> str | None:
    """Return the ID of the container that this process runs in, from its mountinfo (proc(5)); None on a host.

    The engine mounts /etc/hostname, hosts and resolv.conf from a directory that is named by the ID.
    """
    match = _OWN_CONTAINER.search(mountinfo)
    return match[1] if match else None


async def read_image(url: str, container: str) -> str | None:
    """Return the ID of the image of a container. Raises `CLIENT_ERRORS`."""
    async with open_client(url) as docker:
        return (await _details(docker, container)).image or None


def agent_container_config(image: str, network: str, requests: Sequence[ServiceRequest], patience: float) -> Any:
    """Return the configuration of a short-lived container that sends requests: `POST /containers/create`.

    It has no privilege and no file system to write to, and the engine removes it when it ends.
    """
    return {
        "Image": image,
        "Entrypoint": list(AGENT_ENTRYPOINT),
        "Cmd": [str(patience), msgspec.json.encode(requests).decode()],
        "Labels": {TEST_LABEL: "client"},
        "Healthcheck": {"Test": ["NONE"]},
        "AttachStdout": True,
        "HostConfig": {
            "NetworkMode": network,
            "AutoRemove": True,
            "CapDrop": ["ALL"],
            "ReadonlyRootfs": True,
            "SecurityOpt": ["no-new-privileges:true"],
            "PidsLimit": 64,
            "Memory": 256 << 20,
        },
    }


async def send_from_container(
    url: str, image: str, network: str, requests: Sequence[ServiceRequest], patience: float, *, most: float
) -> tuple[RequestResult, ...]:
    """Send requests from a short-lived container in a network, which is removed whatever happens.

    `most`: seconds that all requests may take together. Raises `CLIENT_ERRORS`.
    """
    async with open_client(url) as docker:
        await _remove_leftovers(docker)
        config = agent_container_config(image, network, requests, patience)
        with translate_surprises():
            container = await docker.containers.create(config)
        try:
            async with asyncio.timeout(_START_PATIENCE + most):
                output = await _run_attached(container)
        finally:
            try:
                await container.delete(force=True, v=True)
            except aiodocker.DockerError as error:
                if error.status not in (404, 409):  # it is gone, or the engine removes it just now
                    raise
    return tuple(msgspec.json.decode(output, type=list[RequestResult]))


async def _remove_leftovers(docker: aiodocker.Docker) -> None:
    """Remove containers of tests that were killed before they could start or remove them."""
    filters = msgspec.json.encode({"label": [TEST_LABEL], "status": ["created", "exited", "dead"]}).decode()
    with translate_surprises():
        found = await docker.containers.list(all=True, filters=filters)
    for container in found:
        # A test that runs beside this one has just created its own.
        if time.time() - float(container["Created"]) > _LEFT_OVER_AFTER:
            await container.delete(force=True, v=True)


async def _run_attached(container: Any) -> bytes:
    """Start a container and return what it prints to its standard output."""
    output = b""
    async with container.attach(stdout=True, stderr=False) as stream:
        await container.start()
        while (message := await stream.read_out()) is not None:
            output += message.data
            if len(output) > MAX_OUTPUT_BYTES:
                raise aiohttp.ClientPayloadError("a test container prints too much")
    return output
