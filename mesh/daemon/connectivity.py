"""Runs a connectivity test: sends the requests of a plan from each client, and finds where the lost ones are lost.

The first run is not traced, so that a test of a healthy host costs no more than its requests.
"""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial

from mesh.api.connectivity.plan import ConnectivityPlan, PlanFacts, make_connectivity_plan
from mesh.api.connectivity.report import ConnectivityReport, ConnectivityRow, UntestedClient, make_report, make_row
from mesh.api.explain.query import explain
from mesh.control.snapshot import DetailedSnapshot
from mesh.daemon.loss_finder import NFT_TOOLS, TRACE_PATIENCE, LossTools, find_losses
from mesh.daemon.request_clients import HostClient, RequestClient, UnusableClientError, find_clients
from mesh.model.request import RequestOutcome, RequestResult
from mesh.model.service import Name
from mesh.util.offload import compute

PATIENCE = 2.0
"""Seconds until a request counts as not answered: a lost first packet is sent again after one second."""


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
    losses, untraced = await find_losses(plan, clients, found, tools) if tools is not None else ({}, None)
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
