"""Places that test requests are sent from: this host, and a container in each network of containers."""

import asyncio
import random
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from ipaddress import ip_network
from pathlib import Path
from typing import Protocol, TypeVar

from mesh.api.connectivity.plan import ConnectivityPlan
from mesh.api.connectivity.report import UntestedClient
from mesh.host import HostError
from mesh.host.namespaces import (
    may_enter_namespaces,
    nameservers_of,
    parse_nameservers,
    run_in_namespace,
)
from mesh.host.requests import MAX_AT_ONCE, PortsCallback, has_address, local_address_towards, send_requests
from mesh.model.request import RequestResult, ServiceRequest
from mesh.model.service import Address
from mesh.sources.docker.client import CLIENT_ERRORS, explain_failure
from mesh.sources.docker.networks import (
    ContainerNetwork,
    NetworkClient,
    own_container,
    read_container_networks,
    read_image,
    read_pid,
    send_from_container,
)

EPHEMERAL_PORTS = range(32768, 61000)
"""Ports of outgoing connections, as the kernel chooses them (ip_local_port_range)."""
RESOLV_CONF = Path("/etc/resolv.conf")
MOUNTINFO = Path("/proc/self/mountinfo")
_SENDERS = ThreadPoolExecutor(16, "requests")
T = TypeVar("T")


class UnusableClientError(Exception):
    """Nothing can be sent from this client. The text is the reason; the report has it as an `UntestedClient`."""

    def __init__(self, reason: str, remedy: str | None) -> None:
        """`remedy`: how it can be tested; None if it is not meant to reach VIPs."""
        super().__init__(reason)
        self.remedy = remedy


class RequestClient(Protocol):
    """A place that requests are sent from."""

    name: str
    """The name in the report: `host`, `network shop_default (container shop-web-1)`."""

    async def send(
        self, requests: Sequence[ServiceRequest], patience: float, on_ports: PortsCallback | None = None
    ) -> tuple[RequestResult, ...]:
        """Send requests and return their results in the same order.

        `on_ports` is called in another thread, before anything is sent. Raises `UnusableClientError`.
        """
        ...


class HostClient:
    """Sends requests from this host itself."""

    name = "host"

    async def send(
        self, requests: Sequence[ServiceRequest], patience: float, on_ports: PortsCallback | None = None
    ) -> tuple[RequestResult, ...]:
        """See `RequestClient.send`."""
        return await _in_sender(partial(_send_from_host, requests, patience, on_ports))


async def _in_sender(work: Callable[[], T]) -> T:
    """Return the result of work that waits for answers, in a thread that no other part of the daemon waits for."""
    return await asyncio.get_running_loop().run_in_executor(_SENDERS, work)


def _send_from_host(
    requests: Sequence[ServiceRequest], patience: float, on_ports: PortsCallback | None
) -> tuple[RequestResult, ...]:
    try:
        nameservers = parse_nameservers(RESOLV_CONF.read_text(errors="replace"))
    except OSError:
        nameservers = ()
    return send_requests(requests, nameservers, patience, on_ports)


class NamespaceClient:
    """Sends requests from the network namespace of a container, which it enters in a thread."""

    def __init__(self, engine: str, network: ContainerNetwork, client: NetworkClient) -> None:
        """`engine`: the URL of the container engine. `client`: a container of the network."""
        self.name = f"network {network.name} (container {client.name})"
        self._engine = engine
        self._client = client

    async def send(
        self, requests: Sequence[ServiceRequest], patience: float, on_ports: PortsCallback | None = None
    ) -> tuple[RequestResult, ...]:
        """See `RequestClient.send`."""
        try:
            pid = await read_pid(self._engine, self._client.container)
        except CLIENT_ERRORS as error:
            raise UnusableClientError(f"the engine: {explain_failure(error)}", "run it again") from error
        if pid is None:
            raise UnusableClientError(f"container {self._client.name} has just ended", "run it again")
        return await _in_sender(partial(self._send, pid, requests, patience, on_ports))

    def _send(
        self, pid: int, requests: Sequence[ServiceRequest], patience: float, on_ports: PortsCallback | None
    ) -> tuple[RequestResult, ...]:
        try:
            nameservers = nameservers_of(pid)
            return run_in_namespace(pid, partial(self._send_inside, requests, nameservers, patience, on_ports))
        except HostError as error:
            raise UnusableClientError(str(error), "sudo vipmesh test") from error

    def _send_inside(
        self,
        requests: Sequence[ServiceRequest],
        nameservers: Sequence[Address],
        patience: float,
        on_ports: PortsCallback | None,
    ) -> tuple[RequestResult, ...]:
        """Send from the namespace, after it has proved to be the right one."""
        name, address = self._client.name, self._client.address
        if not has_address(address):
            raise UnusableClientError(f"container {name} no longer has the address {address}", "run it again")
        towards = next((request.address for request in requests if request.address is not None), None)
        source = local_address_towards(towards) if towards is not None else address
        if source not in (None, address):
            text = f"container {name} sends through another of its networks, from {source}"
            raise UnusableClientError(text, "run a container that is in this network alone")
        return send_requests(requests, nameservers, patience, on_ports)


class ContainerClient:
    """Sends requests from a short-lived container of vipmesh's own image."""

    def __init__(self, engine: str, network: ContainerNetwork, image: str) -> None:
        """`engine`: the URL of the container engine. `image`: the ID of vipmesh's image."""
        self.name = f"network {network.name} (container of vipmesh)"
        self._engine = engine
        self._network = network
        self._image = image

    async def send(
        self, requests: Sequence[ServiceRequest], patience: float, on_ports: PortsCallback | None = None
    ) -> tuple[RequestResult, ...]:
        """See `RequestClient.send`."""
        if on_ports is not None:
            # Nothing has been sent in its namespace, so that every port is free.
            ports = random.sample(EPHEMERAL_PORTS, len(requests))
            requests = [replace(request, source_port=port) for request, port in zip(requests, ports, strict=True)]
            await asyncio.to_thread(on_ports, frozenset(ports))
        groups = len(requests) // MAX_AT_ONCE + 1
        try:
            return await send_from_container(
                self._engine, self._image, self._network.name, requests, patience, most=groups * 2 * patience
            )
        except CLIENT_ERRORS as error:
            text = f"a container in it cannot be run: {explain_failure(error)}"
            raise UnusableClientError(text, "run `sudo vipmesh test` on the host") from error


async def find_clients(plan: ConnectivityPlan) -> tuple[list[RequestClient], list[UntestedClient]]:
    """Return this host and a client in each network of containers, and the networks that cannot be tested."""
    clients: list[RequestClient] = [HostClient()]
    if plan.engine is None or plan.is_local:
        return clients, []
    enters, container = may_enter_namespaces(), await asyncio.to_thread(_own_container)
    try:
        networks = await read_container_networks(plan.engine, ip_network(plan.pool).version)
        image = await read_image(plan.engine, container) if container is not None and not enters else None
    except CLIENT_ERRORS as error:
        reason = f"docker engine at {plan.engine}: {explain_failure(error)}"
        return clients, [UntestedClient("networks of containers", reason, "sudo vipmesh test")]
    untested = []
    for network in networks:
        found = _network_client(plan.engine, network, image, enters=enters)
        if isinstance(found, UntestedClient):
            untested.append(found)
        else:
            clients.append(found)
    return clients, untested


def _own_container() -> str | None:
    return own_container(MOUNTINFO.read_text())


def _network_client(
    engine: str, network: ContainerNetwork, image: str | None, *, enters: bool
) -> RequestClient | UntestedClient:
    """Return a client in a network, or why there is none. `image`: vipmesh's own, None on a host."""
    name = f"network {network.name}"
    if network.internal:
        return UntestedClient(name, "it is internal: its operator gave it no way out")
    if enters and network.clients:
        return NamespaceClient(engine, network, network.clients[0])
    if image is not None:
        return ContainerClient(engine, network, image)
    if not enters:
        return UntestedClient(name, "only root may enter the network of a container", "sudo vipmesh test")
    return UntestedClient(name, "no container runs in it", "start one, and run the test again")
