"""Shared by the tests of the API: a worker with a fixed snapshot, and clients over socket and TCP."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp

from mesh.api.channel.worker_channel import WorkerChannel
from mesh.api.connectivity.plan import ConnectivityPlan, ConnectivityTarget, PeerAddress, TargetKind
from mesh.api.connectivity.report import ConnectivityReport, make_report, make_row
from mesh.api.explain.document import Explanation
from mesh.api.explain.query import explain
from mesh.api.http.past_events import PastEventsHandler
from mesh.api.http.server import AdminApi, AdminListenConfig
from mesh.api.status import notices
from mesh.control.endpoint_actions import EndpointAction
from mesh.control.snapshot import DetailedSnapshot, WorkerSnapshot
from mesh.model.codes import Code
from mesh.model.errors import ActionRefusedError
from mesh.model.problem import Notices
from mesh.model.request import RequestOutcome, RequestResult
from mesh.model.service import Transport
from mesh.platform.logs.reading.worker_reader import ServiceLogSource
from mesh.testing.log_lines import FakeServiceLogs
from tests.api.metrics.test_families import OBSERVED

TOKEN = "0123456789abcdef"


async def drain(action: EndpointAction) -> str:
    """Knows one container."""
    if action.name != "web-1":
        raise ActionRefusedError(Code.NO_SUCH_ENDPOINT, f"no container {action.name!r}")
    return "demo/web-1"


class SampleConnectivity:
    """A connectivity test whose one request is answered; it is asked about anything."""

    async def plan(self, asked: str | None) -> ConnectivityPlan:
        return SAMPLE_PLAN

    async def run(self, asked: str | None) -> ConnectivityReport:
        result = RequestResult(RequestOutcome.ANSWERED, 0.001, "", "10.112.0.7", "192.0.2.11", 40000)
        return make_report("w1", [make_row("host", SAMPLE_PLAN.targets[0], result, SAMPLE_PLAN)], [], 0.002)


SAMPLE_PLAN = ConnectivityPlan(
    "w1",
    "nftables",
    "10.112.0.0/16",
    "unix:///run/docker.sock",
    "10.112.0.1",
    "10.112.0.1",
    0.0,
    (
        ConnectivityTarget(
            "web.test", "demo/web", TargetKind.VIP, Transport.TCP, "10.112.0.7", 80, endpoints=("10.2.0.1",)
        ),
    ),
    (PeerAddress("w2", "192.0.2.12"),),
)

VERBS = dict.fromkeys(("drain", "maintenance", "undrain", "stop", "weight"), drain)


def sample_logs() -> FakeServiceLogs:
    """One instance that has written two lines."""
    found = FakeServiceLogs("w1")
    found.write("a line", second=1)
    found.write("another", second=2)
    return found


def socket_of(directory: Path) -> AdminListenConfig:
    return AdminListenConfig(f"unix://{directory}/admin.sock")


@asynccontextmanager
async def serving(
    entrance: AdminListenConfig,
    observed: WorkerSnapshot = OBSERVED,
    *,
    past: PastEventsHandler | None = None,
    channel: WorkerChannel | None = None,
    logs: ServiceLogSource | None = None,
) -> AsyncIterator[AdminApi]:
    """The API, over while the block runs."""

    async def explained(asked: str) -> tuple[Explanation, Notices]:
        return explain(asked, DetailedSnapshot(observed, "test")), notices(observed)

    api = AdminApi(
        entrance,
        lambda: observed,
        VERBS,
        explain=explained,
        connectivity=SampleConnectivity(),
        past=past,
        channel=channel,
        logs=sample_logs() if logs is None else logs,
    )
    await api.start()
    async with asyncio.TaskGroup() as tasks:
        feed = tasks.create_task(api.feed.run())
        try:
            yield api
        finally:
            await api.stop()
            feed.cancel()


@asynccontextmanager
async def client(directory: Path) -> AsyncIterator[aiohttp.ClientSession]:
    """Over the unix socket."""
    there = aiohttp.UnixConnector(str(directory / "admin.sock"))
    async with aiohttp.ClientSession("http://localhost", connector=there) as session:
        yield session


async def until(answer: aiohttp.ClientResponse, last: str) -> list[tuple[str, Any]]:
    """The events up to the first one of that name, each with its data; fails when there is none in time."""
    found: list[tuple[str, Any]] = []
    async with asyncio.timeout(10):
        while not found or found[-1][0] != last:
            name = ""
            while (line := (await answer.content.readline()).decode()) != "\n":
                assert line, f"it ended with {found}"
                if line.startswith("event: "):
                    name = line.removeprefix("event: ").strip()
                elif line.startswith("data: "):
                    found.append((name, json.loads(line.removeprefix("data: "))))
    return found
