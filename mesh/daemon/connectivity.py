"""Runs a connectivity test: sends the requests of a plan from each client, then traces those that did not come back.

Clients are this host, one container of each network of containers, and what other workers answer. The first run is
not traced, so that a test of a healthy host costs no more than its requests.
"""

import asyncio
import os
import random
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, replace
from functools import partial
from ipaddress import ip_network
from pathlib import Path
from typing import Protocol, TypeVar

from mesh.api.connectivity.counters import guess_loss
from mesh.api.connectivity.plan import ConnectivityPlan, ConnectivityTarget, PlanFacts, make_connectivity_plan
from mesh.api.connectivity.report import (
    ConnectivityReport,
    ConnectivityRow,
    UntestedClient,
    is_drop,
    make_report,
    make_row,
)
from mesh.api.connectivity.trace import PacketLoss, judge_loss
from mesh.api.explain.query import explain
from mesh.control.snapshot import DetailedSnapshot
from mesh.host import HostError
from mesh.host.namespaces import (
    may_enter_namespaces,
    nameservers_of,
    parse_nameservers,
    run_in_namespace,
)
from mesh.host.packet_trace import trace_packets
from mesh.host.requests import MAX_AT_ONCE, PortsCallback, has_address, local_address_towards, send_requests
from mesh.model.request import RequestOutcome, RequestResult, ServiceRequest
from mesh.model.service import Address, Name, Transport
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
from mesh.util.nft import NftError
from mesh.util.offload import compute
from mesh.util.program import ADMIN_PATH

PATIENCE = 2.0
"""Seconds until a request counts as not answered: a lost first packet is sent again after one second."""
TRACE_PATIENCE = 1.2
"""The same for requests that are sent again to be traced."""
EPHEMERAL_PORTS = range(32768, 61000)
"""Ports of outgoing connections, as the kernel chooses them (ip_local_port_range)."""
MAX_TRACED_CLIENTS = 16
"""Clients whose requests are traced; each takes `TRACE_PATIENCE`."""
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


class TraceSession(Protocol):
    """A running trace of packets, see `mesh.host.packet_trace`."""

    lines: list[str]

    async def watch(self, transport: Transport, ports: Collection[int]) -> None:
        """Trace packets of these ports from now on."""
        ...

    async def flush(self) -> None:
        """Wait until every packet before this call is in `lines`."""
        ...


Tracer = Callable[[], AbstractAsyncContextManager[TraceSession]]
"""Begins a trace. Entering it raises `NftError` where packets cannot be traced."""
DropReader = Callable[[], Awaitable[Mapping[str, str]]]
"""Reads the texts of iptables-save(8) -c of the legacy backend, by address family; empty if it is not used."""


# --------------------------------------------------------------------------------------------------------- clients


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


# ------------------------------------------------------------------------------------------------------------- test


@dataclass(frozen=True, slots=True)
class LossTools:
    """What finds out where packets are lost."""

    tracer: Tracer
    read_drops: DropReader


async def run_connectivity_test(
    plan: ConnectivityPlan,
    clients: Sequence[RequestClient],
    untested: Sequence[UntestedClient] = (),
    tools: LossTools | None = None,
) -> ConnectivityReport:
    """Send every request from every client at once, and return what came back. `tools`: None if nothing is traced."""
    loop = asyncio.get_running_loop()
    began = loop.time()
    found = await asyncio.gather(*(_send_all(client, plan) for client in clients))
    resolved = await asyncio.gather(*map(partial(_ask_resolver, plan), clients, found))
    losses, untraced = await _find_losses(plan, clients, found, tools) if tools is not None else ({}, None)
    rows: list[ConnectivityRow] = []
    missed = list(untested)
    for client, results, names in zip(clients, found, resolved, strict=True):
        if isinstance(results, UntestedClient):
            missed.append(results)
            continue
        for target, result in zip(plan.targets, results, strict=True):
            loss, guess = losses.get((client.name, target), (None, False))
            resolves = target.name in names
            rows.append(make_row(client.name, target, result, plan, loss, guess=guess, resolves=resolves))
    return make_report(plan.worker, rows, missed, loop.time() - began, untraced)


async def _send_all(client: RequestClient, plan: ConnectivityPlan) -> Sequence[RequestResult] | UntestedClient:
    try:
        return await client.send([target.request(plan.linger) for target in plan.targets], PATIENCE)
    except UnusableClientError as error:
        return UntestedClient(client.name, str(error), error.remedy)


async def _ask_resolver(
    plan: ConnectivityPlan, client: RequestClient, results: Sequence[RequestResult] | UntestedClient
) -> frozenset[Name]:
    """Return the names, of those that did not resolve, that the mesh's own name server tells this client."""
    resolver = plan.host_resolver if client.name == HostClient.name else plan.resolver
    if isinstance(results, UntestedClient) or resolver is None:
        return frozenset()
    unresolved = [
        target
        for target, result in zip(plan.targets, results, strict=True)
        if result.outcome is RequestOutcome.NO_NAME and not target.optional
    ]
    if not unresolved:
        return frozenset()
    requests = [replace(target.request(0.0), nameserver=resolver) for target in unresolved]
    try:
        again = await client.send(requests, TRACE_PATIENCE)
    except UnusableClientError:
        return frozenset()
    return frozenset(
        target.name
        for target, result in zip(unresolved, again, strict=True)
        if target.name is not None and result.outcome is not RequestOutcome.NO_NAME
    )


_Losses = dict[tuple[str, ConnectivityTarget], tuple[PacketLoss, bool]]
"""Client and target -> where its packets were lost, and whether that is a guess."""


async def _find_losses(
    plan: ConnectivityPlan,
    clients: Sequence[RequestClient],
    found: Sequence[Sequence[RequestResult] | UntestedClient],
    tools: LossTools,
) -> tuple[_Losses, str | None]:
    """Send what did not come back again, and trace it. Return where it was lost, and why it could not be traced."""
    lost: list[tuple[RequestClient, list[tuple[ConnectivityTarget, Address]]]] = []
    for client, results in zip(clients, found, strict=True):
        if isinstance(results, UntestedClient):
            continue
        failed = [
            (target, result.address)
            for target, result in zip(plan.targets, results, strict=True)
            if result.address is not None and _needs_trace(target, result)
        ]
        if failed:
            lost.append((client, failed[:MAX_AT_ONCE]))
    losses: _Losses = {}
    untraced: str | None = None
    if not lost:
        return losses, untraced
    before = await tools.read_drops()
    try:
        async with tools.tracer() as trace:
            for client, failed in lost[:MAX_TRACED_CLIENTS]:
                losses |= await _trace_client(plan, client, failed, trace)
    except NftError as error:
        # Where nftables cannot trace, the counters below are all there is.
        untraced = str(error)
        await asyncio.gather(*(_send_again(plan, client, failed) for client, failed in lost))
    guess = _guess(before, await tools.read_drops()) if before else None
    for client, failed in lost if guess is not None else ():
        for target, _ in failed:
            known = losses.get((client.name, target))
            if guess is not None and (known is None or not is_drop(known[0])):
                losses[client.name, target] = guess, True
    return losses, untraced


def _needs_trace(target: ConnectivityTarget, result: RequestResult) -> bool:
    if not target.serving or result.outcome in (RequestOutcome.NO_NAME, RequestOutcome.NOT_SENT):
        return False
    # A packet filter that rejects a datagram looks like a refusal by the endpoint.
    return result.outcome is not RequestOutcome.ANSWERED


async def _trace_client(
    plan: ConnectivityPlan,
    client: RequestClient,
    failed: Sequence[tuple[ConnectivityTarget, Address]],
    trace: TraceSession,
) -> _Losses:
    loop = asyncio.get_running_loop()
    trace.lines.clear()

    def on_ports(ports: frozenset[int]) -> None:
        # Called in the thread that sends: it may not send before the rules match its ports.
        asyncio.run_coroutine_threadsafe(_watch(trace, ports), loop).result()

    try:
        results = await client.send(_again(plan, failed), TRACE_PATIENCE, on_ports)
    except UnusableClientError:
        return {}
    await trace.flush()
    losses: _Losses = {}
    for (target, _), result in zip(failed, results, strict=True):
        if result.source_port is not None and _needs_trace(target, result):
            losses[client.name, target] = (
                judge_loss(trace.lines, target.transport, result.source_port, target.endpoints),
                False,
            )
    return losses


async def _watch(trace: TraceSession, ports: frozenset[int]) -> None:
    for transport in (Transport.TCP, Transport.UDP):
        await trace.watch(transport, ports)


def _again(plan: ConnectivityPlan, failed: Sequence[tuple[ConnectivityTarget, Address]]) -> list[ServiceRequest]:
    """Return the requests by address: a name was looked up before."""
    return [
        ServiceRequest(target.transport, target.port, address, None, target.payload, plan.linger)
        for target, address in failed
    ]


async def _send_again(
    plan: ConnectivityPlan, client: RequestClient, failed: Sequence[tuple[ConnectivityTarget, Address]]
) -> None:
    try:
        await client.send(_again(plan, failed), TRACE_PATIENCE)
    except UnusableClientError:
        return  # its container has ended; the first run has its results


def _guess(before: Mapping[str, str], after: Mapping[str, str]) -> PacketLoss | None:
    guesses = (guess_loss(before[family], after[family], family) for family in before if family in after)
    return next((guess for guess in guesses if guess is not None), None)


# ------------------------------------------------------------------------------------------------------- the real ones


@asynccontextmanager
async def trace_with_nft() -> AsyncIterator[TraceSession]:
    """Trace packets with nft(8)."""
    async with trace_packets() as trace:
        yield trace


async def _save(program: str) -> str | None:
    """Return the text of a program of the legacy backend; None if there is none, or if it is not permitted."""
    try:
        process = await asyncio.create_subprocess_exec(
            program,
            "-c",
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.DEVNULL,
            env={**os.environ, "LC_ALL": "C", "PATH": f"{os.environ.get('PATH', '')}:{ADMIN_PATH}"},
        )
    except OSError:
        return None
    text, _ = await process.communicate()
    return text.decode("utf-8", "replace") if process.returncode == 0 else None


async def read_legacy_counters() -> Mapping[str, str]:
    """Return the texts of iptables-save(8) -c of the legacy backend, by address family; empty if it has no rules."""
    found = {"ip": await _save("iptables-legacy-save"), "ip6": await _save("ip6tables-legacy-save")}
    return {family: text for family, text in found.items() if text is not None and "-A " in text}


NFT_TOOLS = LossTools(trace_with_nft, read_legacy_counters)
"""Traces by nft(8), guesses by the counters of iptables' legacy backend."""


class ConnectivityTester:
    """Plans and runs connectivity tests of a running daemon, for the admin API."""

    def __init__(self, take_evidence: Callable[[], DetailedSnapshot], facts: Callable[[], PlanFacts]) -> None:
        """`take_evidence`: takes a snapshot. `facts`: what a plan needs beside it."""
        self._take_evidence = take_evidence
        self._facts = facts
        self._running = asyncio.Lock()

    async def plan(self, asked: str | None) -> ConnectivityPlan:
        """Return the plan for what is asked: a name, VIP, port or container as `explain` takes them; None for all."""
        evidence = self._take_evidence()
        owners = None
        if asked is not None:
            explanation = await compute(evidence.observed.size, partial(explain, asked, evidence))
            owners = {way.owner for way in explanation.ways}
        facts = self._facts()
        return await compute(evidence.observed.size, lambda: make_connectivity_plan(evidence, facts, owners))

    async def run(self, asked: str | None) -> ConnectivityReport:
        """Run a test from this worker; one at a time, so that clients of the API cannot multiply its packets."""
        async with self._running:
            plan = await self.plan(asked)
            clients, untested = await find_clients(plan)
            return await run_connectivity_test(plan, clients, untested, NFT_TOOLS)
