"""Finds where requests were lost: sends them again, traced by nft(8), or beside the counters of iptables."""

import asyncio
import os
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from typing import Protocol

from mesh.api.connectivity.counters import guess_loss
from mesh.api.connectivity.plan import ConnectivityPlan, ConnectivityTarget
from mesh.api.connectivity.report import UntestedClient, is_drop
from mesh.api.connectivity.trace import PacketLoss, judge_loss, parse_trace
from mesh.daemon.request_clients import RequestClient, UnusableClientError
from mesh.host.packet_trace import trace_packets
from mesh.host.requests import MAX_AT_ONCE
from mesh.model.request import RequestOutcome, RequestResult, ServiceRequest
from mesh.model.service import Address, Transport
from mesh.util.nft import NftError
from mesh.util.program import ADMIN_PATH

TRACE_PATIENCE = 1.2
"""Seconds until a request that is sent again counts as not answered."""
MAX_TRACED_CLIENTS = 16
"""Clients whose requests are traced; each takes `TRACE_PATIENCE`."""
_WATCH_PATIENCE = 30.0
"""Seconds that nft has to match the ports of a test."""


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


@dataclass(frozen=True, slots=True)
class LossTools:
    """What finds out where packets are lost."""

    tracer: Tracer
    read_drops: DropReader


Losses = dict[tuple[str, ConnectivityTarget], tuple[PacketLoss, bool]]
"""Client and target -> where its packets were lost, and whether that is a guess."""


async def find_losses(
    plan: ConnectivityPlan,
    clients: Sequence[RequestClient],
    found: Sequence[Sequence[RequestResult] | UntestedClient],
    tools: LossTools,
) -> tuple[Losses, str | None]:
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
    losses: Losses = {}
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
) -> Losses:
    loop = asyncio.get_running_loop()
    trace.lines.clear()

    def on_ports(ports: frozenset[int]) -> None:
        # Called in the thread that sends: it may not send before the rules match its ports.
        asyncio.run_coroutine_threadsafe(_watch(trace, ports), loop).result(_WATCH_PATIENCE)

    try:
        results = await client.send(_again(plan, failed), TRACE_PATIENCE, on_ports)
    except UnusableClientError:
        return {}
    await trace.flush()
    packets = parse_trace(trace.lines)
    losses: Losses = {}
    for (target, _), result in zip(failed, results, strict=True):
        if result.source_port is not None and _needs_trace(target, result):
            losses[client.name, target] = (
                judge_loss(packets, target.transport, result.source_port, target.endpoints),
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
