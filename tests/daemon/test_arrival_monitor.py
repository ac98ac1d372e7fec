"""The daemon's own check of whether requests arrive, over fake networks and clients."""

import asyncio
from collections.abc import Sequence
from dataclasses import replace

import pytest

from mesh.api.connectivity.plan import ConnectivityPlan
from mesh.control.arrival import ArrivalPair, ArrivalState, ArrivalTracker
from mesh.daemon.arrival_monitor import AGAIN_AFTER, MAX_NETWORKS, ArrivalMonitor
from mesh.daemon.request_clients import RequestClient
from mesh.model.part import DaemonPart
from mesh.model.problem import Problem
from mesh.model.request import RequestOutcome, ServiceRequest
from mesh.sources.docker.networks import ContainerNetwork, NetworkClient
from mesh.util.bulkhead import INTERNAL_ERRORS
from tests.daemon.test_connectivity import PLAN, FakeClient, FakeTrace, tools

DESK = ContainerNetwork("desk", ("172.19.0.0/16",), False, (NetworkClient("id", "client-1", "172.19.0.2"),))
PAIR = ArrivalPair("demo/web", "172.19.0.0/16")
WITH_ENGINE = replace(PLAN, engine="unix:///run/docker.sock")


class ArrivalWorld:
    """A host whose networks and outcomes a test changes while it runs."""

    def __init__(self) -> None:
        self.plan = WITH_ENGINE
        self.networks: Sequence[ContainerNetwork] = [DESK]
        self.from_networks = RequestOutcome.ANSWERED
        self.from_host = RequestOutcome.ANSWERED
        self.clients: list[FakeClient] = []
        self.problems: list[Problem] = []
        self.tracker = ArrivalTracker(self._report)
        self.error: Exception | None = None
        self.monitor = ArrivalMonitor(
            self._make_plan,
            self.tracker,
            60.0,
            read_networks=self._read_networks,
            tools=tools(FakeTrace("docker-user"), [{}] * 100),
            make_client=self._make_client,
            host=FakeClient("host", lambda _: self.from_host),
        )

    def _report(self, problems: tuple[Problem, ...]) -> None:
        self.problems = list(problems)

    async def _make_plan(self) -> ConnectivityPlan:
        return self.plan

    async def _read_networks(self, engine: str, version: int) -> Sequence[ContainerNetwork]:
        assert (engine, version) == (WITH_ENGINE.engine, 4)
        if self.error is not None:
            raise self.error
        return self.networks

    def _make_client(self, engine: str, network: ContainerNetwork) -> RequestClient:
        def answer(_: ServiceRequest) -> RequestOutcome:
            return self.from_networks

        self.clients.append(FakeClient(network.name, answer))
        return self.clients[-1]


async def test_requests_that_arrive_are_observed() -> None:
    world = ArrivalWorld()
    assert await world.monitor.check()
    assert world.tracker.arrivals.state(PAIR) is ArrivalState.ARRIVES
    assert [len(client.sent) for client in world.clients] == [1]


async def test_a_failure_is_confirmed_soon_and_then_a_problem_with_the_line_that_helps() -> None:
    world = ArrivalWorld()
    world.from_networks = RequestOutcome.NO_ANSWER
    assert not await world.monitor.check(), "the next round is due soon"
    assert world.problems == []
    assert await world.monitor.check()
    (problem,) = world.problems
    assert "DOCKER-ISOLATION-STAGE-2" in problem.reason
    assert problem.remedy.startswith("iptables -I DOCKER-USER ")
    world.from_networks = RequestOutcome.ANSWERED
    assert await world.monitor.check()
    assert world.problems == []


async def test_what_fails_from_the_host_as_well_is_no_problem() -> None:
    world = ArrivalWorld()
    world.from_networks = world.from_host = RequestOutcome.NO_ANSWER
    assert await world.monitor.check()
    assert await world.monitor.check()
    assert world.tracker.arrivals.state(PAIR) is ArrivalState.NEVER_TRIED


async def test_results_of_a_removed_service_are_dropped() -> None:
    world = ArrivalWorld()
    await world.monitor.check()
    world.plan = replace(WITH_ENGINE, targets=())
    await world.monitor.check()
    assert world.tracker.arrivals.pairs == ()


@pytest.mark.parametrize(
    "network",
    [replace(DESK, internal=True), replace(DESK, clients=()), replace(DESK, subnets=("172.18.0.0/16",))],
    ids=["internal", "without a container", "that the endpoint is in"],
)
async def test_a_network_that_has_nothing_to_say_is_left_out(network: ContainerNetwork) -> None:
    world = ArrivalWorld()
    world.networks = [network]
    assert await world.monitor.check()
    assert world.tracker.arrivals.pairs == ()


async def test_an_engine_that_does_not_answer_changes_nothing() -> None:
    world = ArrivalWorld()
    await world.monitor.check()
    world.error = ConnectionRefusedError()
    assert await world.monitor.check()
    assert world.tracker.arrivals.state(PAIR) is ArrivalState.ARRIVES


async def test_a_round_is_bounded_and_every_network_has_its_turn() -> None:
    world = ArrivalWorld()
    world.networks = [
        replace(DESK, name=f"n{number}", subnets=(f"10.{number}.0.0/16",)) for number in range(MAX_NETWORKS + 4)
    ]
    await world.monitor.check()
    assert len(world.clients) == MAX_NETWORKS
    await world.monitor.check()
    assert {client.name for client in world.clients} == {network.name for network in world.networks}


@pytest.mark.looptime
async def test_rounds_follow_one_another_sooner_while_a_failure_is_not_confirmed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("mesh.daemon.arrival_monitor.may_enter_namespaces", lambda: True)
    world, loop = ArrivalWorld(), asyncio.get_running_loop()
    rounds: list[float] = []
    results = [True, False, True]

    async def check() -> bool:
        rounds.append(loop.time())
        return results.pop(0) if results else True

    monkeypatch.setattr(world.monitor, "check", check)
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(AGAIN_AFTER + 60 + AGAIN_AFTER + 60 + 1):
            await world.monitor.run()
    gaps = [round(later - earlier) for earlier, later in zip([0.0, *rounds], rounds, strict=False)]
    assert gaps == [AGAIN_AFTER, 60, AGAIN_AFTER, 60]


async def test_without_the_right_it_ends_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mesh.daemon.arrival_monitor.may_enter_namespaces", lambda: False)
    world = ArrivalWorld()
    async with asyncio.timeout(5):
        await world.monitor.run()
    assert world.clients == []


async def test_a_network_whose_check_raises_costs_no_other() -> None:
    world, before = ArrivalWorld(), INTERNAL_ERRORS.counts()[DaemonPart.DAEMON]
    world.networks = [replace(DESK, name="strange", subnets=()), DESK]
    assert await world.monitor.check()
    assert world.tracker.arrivals.state(PAIR) is ArrivalState.ARRIVES
    assert INTERNAL_ERRORS.counts()[DaemonPart.DAEMON] == before + 1
    INTERNAL_ERRORS.forget()
