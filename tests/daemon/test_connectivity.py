"""A connectivity test over fake clients and a fake trace: what is sent, what is sent again, and what is asked whom."""

import asyncio
from collections.abc import AsyncIterator, Callable, Collection, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import pytest
from typing_extensions import override

from mesh.api.connectivity.plan import ConnectivityPlan, ConnectivityTarget, TargetKind
from mesh.api.connectivity.report import RowState
from mesh.daemon.connectivity import run_connectivity_test
from mesh.daemon.loss_finder import LossTools, TraceSession
from mesh.daemon.request_clients import ContainerClient, HostClient, RequestClient, UnusableClientError
from mesh.host.requests import PortsCallback
from mesh.model.codes import Code
from mesh.model.request import RequestOutcome, RequestResult, ServiceRequest
from mesh.model.service import Transport
from mesh.sources.docker.networks import ContainerNetwork
from mesh.util.nft import NftError

TRACES = Path(__file__).parents[1] / "data" / "traces"
ADDRESS = ConnectivityTarget(
    "web.test", "demo/web", TargetKind.VIP, Transport.TCP, "10.113.0.7", 80, endpoints=("172.18.0.2",)
)
NAME = replace(ADDRESS, name="web.test")
PLAN = ConnectivityPlan("w1", "nftables", "10.113.0.0/16", None, "10.113.0.1", "10.113.0.1", 0.0, (ADDRESS, NAME))
CLIENT_PORT = 40000


class FakeClient(RequestClient):
    """A client whose requests have the outcomes that `answer` says."""

    def __init__(self, name: str, answer: Callable[[ServiceRequest], RequestOutcome]) -> None:
        self.name = name
        self.sent: list[ServiceRequest] = []
        self._answer = answer

    @override
    async def send(
        self, requests: Sequence[ServiceRequest], patience: float, on_ports: PortsCallback | None = None
    ) -> tuple[RequestResult, ...]:
        if on_ports is not None:
            await asyncio.to_thread(on_ports, frozenset({CLIENT_PORT}))
        self.sent += requests
        outcomes = [self._answer(request) for request in requests]
        return tuple(
            RequestResult(
                outcome,
                patience,
                "",
                None if outcome is RequestOutcome.NO_NAME else ADDRESS.address,
                "172.19.0.2",
                CLIENT_PORT,
            )
            for outcome in outcomes
        )


class FakeTrace(TraceSession):
    """A trace of a recorded request."""

    def __init__(self, name: str) -> None:
        self.lines: list[str] = []
        self.watched: set[int] = set()
        self._name = name

    @override
    async def watch(self, transport: Transport, ports: Collection[int]) -> None:
        self.watched |= set(ports)

    @override
    async def flush(self) -> None:
        if self.watched:
            self.lines += (TRACES / f"{self._name}.txt").read_text().splitlines()


def tools(trace: FakeTrace | None, drops: Sequence[Mapping[str, str]] = ({}, {})) -> LossTools:
    """`trace` None: packets cannot be traced. `drops`: the counters at each reading."""
    readings = list(drops)

    @asynccontextmanager
    async def tracer() -> AsyncIterator[TraceSession]:
        if trace is None:
            raise NftError(Code.NOT_PERMITTED, "nft is not permitted")
        yield trace

    async def read_drops() -> Mapping[str, str]:
        return readings.pop(0)

    return LossTools(tracer, read_drops)


def answered(_: ServiceRequest) -> RequestOutcome:
    return RequestOutcome.ANSWERED


def lost(_: ServiceRequest) -> RequestOutcome:
    return RequestOutcome.NO_ANSWER


async def test_what_came_back_is_neither_sent_again_nor_traced() -> None:
    trace, host = FakeTrace("rule"), FakeClient("host", answered)
    report = await run_connectivity_test(PLAN, [host], [], tools(trace))
    assert ([row.state for row in report.rows], report.works) == ([RowState.OK] * 2, True)
    assert (len(host.sent), trace.watched) == (2, set())


async def test_what_did_not_is_sent_again_by_address_and_traced() -> None:
    trace, desk = FakeTrace("docker-user"), FakeClient("network desk", lost)
    report = await run_connectivity_test(PLAN, [FakeClient("host", answered), desk], [], tools(trace))
    assert trace.watched == {CLIENT_PORT}
    assert [request.name for request in desk.sent] == [None, "web.test", None, None]
    failed = [row for row in report.rows if row.client == "network desk"]
    assert {row.lost_cause for row in failed} == {"rule"}
    assert {row.remedy for row in failed} == {
        "iptables -I DOCKER-USER -m conntrack --ctstate DNAT --ctorigdst 10.113.0.0/16 -j ACCEPT"
    }
    assert (report.passed, report.failed, report.works) == (2, 2, False)


COUNTERS = ":DOCKER-USER - [0:0]\n*filter\n:FORWARD DROP [{0}:0]\n"


async def test_where_nothing_can_be_traced_the_counters_are_a_guess() -> None:
    drops = [{"ip": COUNTERS.format(packets)} for packets in (4, 6)]
    report = await run_connectivity_test(PLAN, [FakeClient("desk", lost)], [], tools(None, drops))
    assert {(row.lost_at, row.guess) for row in report.rows} == {("ip filter FORWARD: policy drop", True)}


async def test_a_trace_that_has_seen_the_drop_is_no_guess() -> None:
    drops = [{"ip": COUNTERS.format(packets)} for packets in (4, 6)]
    report = await run_connectivity_test(PLAN, [FakeClient("desk", lost)], [], tools(FakeTrace("rule"), drops))
    assert {row.guess for row in report.rows} == {False}


async def test_without_any_of_it_the_place_is_not_known() -> None:
    report = await run_connectivity_test(PLAN, [FakeClient("desk", lost)], [], tools(None))
    assert {(row.lost_at, row.state) for row in report.rows} == {(None, RowState.FAILED)}
    assert report.untraced == "nft is not permitted"


async def test_a_short_lived_container_gets_ports_that_are_watched_before_it_runs(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    known: list[frozenset[int]] = []
    sent: list[int] = []

    async def send_from_container(
        engine: str, image: str, network: str, requests: Sequence[ServiceRequest], patience: float, *, most: float
    ) -> tuple[RequestResult, ...]:
        assert (engine, image, network, len(known)) == ("unix:///run/docker.sock", "sha256:1", "desk", 1)
        sent.extend(request.source_port for request in requests)
        return ()

    monkeypatch.setattr("mesh.daemon.request_clients.send_from_container", send_from_container)
    client = ContainerClient("unix:///run/docker.sock", ContainerNetwork("desk", (), False), "sha256:1")
    await client.send([ADDRESS.request(0.0)] * 5, 1.0, known.append)
    assert (len(sent), known) == (5, [frozenset(sent)])


async def test_a_name_that_does_not_resolve_is_asked_of_the_name_server_of_the_mesh() -> None:
    def asks_elsewhere(request: ServiceRequest) -> RequestOutcome:
        unknown = request.name is not None and request.nameserver is None
        return RequestOutcome.NO_NAME if unknown else RequestOutcome.ANSWERED

    client = FakeClient("network desk", asks_elsewhere)
    report = await run_connectivity_test(PLAN, [client], [], tools(FakeTrace("rule")))
    assert [row.state for row in report.rows] == [RowState.OK, RowState.SKIPPED]
    assert client.sent[-1].nameserver == "10.113.0.1"
    report = await run_connectivity_test(replace(PLAN, resolver=None), [client], [], tools(FakeTrace("rule")))
    assert [row.state for row in report.rows] == [RowState.OK, RowState.FAILED]


async def test_a_client_that_cannot_send_is_listed_and_the_others_are_tested() -> None:
    class EndedClient(FakeClient):
        @override
        async def send(
            self, requests: Sequence[ServiceRequest], patience: float, on_ports: PortsCallback | None = None
        ) -> tuple[RequestResult, ...]:
            raise UnusableClientError("container web-1 has just ended", "run it again")

    clients = [EndedClient("network shop", answered), FakeClient("host", answered)]
    report = await run_connectivity_test(PLAN, clients, [], tools(None))
    assert [(client.client, client.reason) for client in report.untested] == [
        ("network shop", "container web-1 has just ended")
    ]
    assert [row.client for row in report.rows] == ["host", "host"]


async def test_clients_send_at_the_same_time() -> None:
    together = asyncio.Barrier(2)

    class MeetingClient(FakeClient):
        @override
        async def send(
            self, requests: Sequence[ServiceRequest], patience: float, on_ports: PortsCallback | None = None
        ) -> tuple[RequestResult, ...]:
            async with asyncio.timeout(10):
                await together.wait()
            return await super().send(requests, patience, on_ports)

    report = await run_connectivity_test(PLAN, [MeetingClient(name, answered) for name in ("a", "b")])
    assert report.works


@pytest.mark.parametrize("name", ["/nonexistent", "/proc/self/mem"])
async def test_a_host_without_a_readable_resolv_conf_resolves_no_names(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mesh.daemon.request_clients.RESOLV_CONF", Path(name))
    (result,) = await HostClient().send([ServiceRequest(Transport.TCP, 80, name="web.test")], 0.1)
    assert (result.outcome, result.detail) == (RequestOutcome.NO_NAME, "no name server is configured there")
