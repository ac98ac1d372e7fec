"""Weights, drains and stops that operators request: what stays of a service, and what a client that leaves ends."""

import asyncio
from collections.abc import Callable

import pytest

from mesh.control.drain_requests import REQUESTER
from mesh.control.endpoint_actions import EndpointAction, EndpointActions
from mesh.control.event_recorder import ContainerExits, EventRecorder
from mesh.control.graceful_stop import DrainSignals, GracefulStopper
from mesh.control.last_serving import service_left_empty
from mesh.model.codes import Code
from mesh.model.errors import ActionRefusedError
from mesh.model.past_event import EventKind
from mesh.model.service import DrainReason, Health
from mesh.model.weight import effective_weight
from mesh.store.event_ring import RingLimits
from mesh.testing.event_ring import FakeEventRing
from tests.builders import PROBED_WEB_LABELS, WEB_LABELS, numbered_instance
from tests.control.reported import status_of
from tests.control.test_mass_failure import answers
from tests.control.test_reconciler import Bench

pytestmark = pytest.mark.looptime
ID = [numbered_instance(n).id for n in range(4)]


class Engine:
    """An engine that runs every endpoint, and notes what it stopped."""

    def __init__(self) -> None:
        self.stopped: list[str] = []
        self.signalled: list[tuple[str, float]] = []
        """The containers that were sent a signal, and when."""
        self.used: list[int | None] = []
        """The connections of each look, the last ones for ever."""

    def find(self, name: str) -> str | None:
        return name if name in ID else None

    def forgive(self, endpoint: str) -> None:
        pass

    async def connections(self, endpoint: str) -> int | None:
        if not self.used:
            return None
        return self.used.pop(0) if len(self.used) > 1 else self.used[0]

    async def stop(self, endpoint: str) -> None:
        self.stopped.append(endpoint)

    async def signal(self, container: str, signal: str) -> None:
        self.signalled.append((container, asyncio.get_running_loop().time()))


def actions_of(bench: Bench, engine: Engine | None = None) -> EndpointActions:
    stopper = GracefulStopper(bench.leaving, [] if engine is None else [engine], 30.0, DrainSignals())
    return EndpointActions("w1", stopper, bench.weights, bench.loop.traffic)


async def do(actions: EndpointActions, verb: str, name: str, **more: object) -> str:
    return await actions.verbs()[verb](EndpointAction(name, **more))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("label", "asked", "weight"), [(3, None, 3), (3, 7, 7), (3, 0, 0), (0, 7, 7), (0, None, 0), (1, 65535, 65535)]
)
def test_the_weight_that_counts(label: int, asked: int | None, weight: int) -> None:
    assert effective_weight(label, asked) == weight


async def test_a_weight_replaces_that_of_the_label_until_reset_and_survives_a_restart() -> None:
    bench = Bench()
    labels = {**WEB_LABELS, "mesh.routing.weight": "3"}
    instances = [numbered_instance(n, labels) for n in (1, 2)]

    def weights() -> set[int]:
        (server,) = bench.plane.table.virtual_servers.values()
        return {real.weight for real in server.real_servers.values()}

    async with bench.running() as loop:
        bench.source.say(instances)
        await bench.passes()
        assert weights() == {3}
        assert await do(actions_of(bench), "weight", ID[1], weight=8) == ID[1]
        await bench.passes()
        assert weights() == {3, 8}
        shown = {row.id: (row.weight, row.weight_from) for row in status_of(loop).services[0].endpoints}
        assert shown == {ID[1]: (8, "operator"), ID[2]: (3, "label")}
        assert loop.snapshots.observe().view is not None
        bench.adopted = list(loop.snapshots.observe().view.endpoints)  # type: ignore[union-attr]
    bench.source = type(bench.source)()
    async with bench.running() as loop:
        bench.source.say(instances)
        await bench.passes()
        assert weights() == {3, 8}
        await do(actions_of(bench), "weight", ID[1], weight=None)
        await bench.passes()
        assert weights() == {3}
        assert {row.weight_from for row in status_of(loop).services[0].endpoints} == {"label"}


async def test_a_weight_takes_effect_while_the_store_does_not_answer() -> None:
    bench = Bench()
    async with bench.running():
        bench.source.say([numbered_instance(n, WEB_LABELS) for n in (1, 2)])
        await bench.passes()
        bench.cluster.out_of_reach = True
        await do(actions_of(bench), "weight", ID[1], weight=8)
        await bench.passes()
        (server,) = bench.plane.table.virtual_servers.values()
        assert sorted(real.weight for real in server.real_servers.values()) == [1, 8]


async def test_events_say_who_set_a_weight() -> None:
    bench, ring = Bench(), FakeEventRing(RingLimits(1000, 1e9))
    async with bench.running() as loop, asyncio.TaskGroup() as tasks:
        recorder = EventRecorder(
            "w1", ring, look=loop.event_moment, due=asyncio.Event(), exits=ContainerExits(), conditions=loop.conditions
        )
        task = tasks.create_task(recorder.run())
        bench.source.say([numbered_instance(n, WEB_LABELS) for n in (1, 2)])
        await bench.passes(20)
        for weight in (4, None):
            token = REQUESTER.set("uid 1000 (pid 7)")
            await do(actions_of(bench), "weight", ID[1], weight=weight)
            REQUESTER.reset(token)
            await bench.passes(20)
        await recorder.stop()
        task.cancel()
    events = [each.event for each in await ring.read() if each.event.kind is EventKind.ENDPOINT_WEIGHT]
    assert [(event.endpoint, event.reason, event.by, event.code) for event in events] == [
        (ID[1], "4", "uid 1000 (pid 7)", "VM686"),
        (ID[1], "reset", "uid 1000 (pid 7)", "VM686"),
    ]


async def test_the_last_serving_endpoint_needs_force() -> None:
    bench = Bench()
    answers(bench, 1, 2)
    answers(bench, 3, ok=False)
    async with bench.running():
        bench.source.say([numbered_instance(n, PROBED_WEB_LABELS) for n in (1, 2, 3)])
        await bench.passes(10)
        actions = actions_of(bench, Engine())
        both = (("w1", ID[1]), ("w1", ID[2]))
        for verb in ("drain", "maintenance", "stop"):
            with pytest.raises(ActionRefusedError, match=f"`vipmesh {verb} {ID[1]} --force`") as refused:
                await do(actions, verb, ID[1], together=both)
            assert refused.value.code is Code.LAST_SERVING_ENDPOINT
        assert await do(actions, "drain", ID[3]) == ID[3], "it does not serve"
        assert await do(actions, "drain", ID[1]) == ID[1]
        for verb in ("drain", "maintenance", "stop"):
            with pytest.raises(ActionRefusedError, match=f"`vipmesh {verb} {ID[2]} --force`"):
                await do(actions, verb, ID[2])
        with pytest.raises(ActionRefusedError, match=f"`vipmesh weight {ID[2]} 0 --force`"):
            await do(actions, "weight", ID[2], weight=0)
        assert await do(actions, "weight", ID[2], weight=1) == ID[2]
        assert await do(actions, "drain", ID[2], force=True) == ID[2]


async def test_a_service_with_one_endpoint_needs_no_force() -> None:
    bench = Bench()
    async with bench.running():
        bench.source.say([numbered_instance(1, WEB_LABELS)])
        await bench.passes()
        assert await do(actions_of(bench), "drain", ID[1]) == ID[1]


async def test_endpoints_of_other_workers_count() -> None:
    bench = Bench()
    async with bench.running() as loop:
        bench.source.say([numbered_instance(n, WEB_LABELS) for n in (1, 2)])
        await bench.passes()
        view = loop.traffic()
        assert view is not None
        assert service_left_empty(view, {("w1", ID[1])}) is None
        assert service_left_empty(view, {("w1", ID[1]), ("w2", ID[2])}) is None, "another endpoint with the same ID"
        assert service_left_empty(view, {("w1", ID[1]), ("w1", ID[2])}) == view.services[0].name
        assert service_left_empty(view.judged({("w1", ID[2]): Health.HEALTHY}), {("w1", "unknown")}) is None


def leaving_after(passes: int) -> Callable[[int | None], None]:
    """What a client does that goes away after so many passes."""
    left = [passes]

    def each_pass(_: int | None) -> None:
        left[0] -= 1
        if left[0] <= 0:
            raise ActionRefusedError(Code.ACTION_INTERRUPTED, "the client has gone")

    return each_pass


async def test_a_client_that_leaves_during_the_drain_stops_no_container() -> None:
    bench, engine = Bench(), Engine()
    async with bench.running():
        bench.source.say([numbered_instance(n, WEB_LABELS) for n in (1, 2)])
        await bench.passes()
        (key,) = bench.plane.table.virtual_servers
        for real in bench.plane.table.virtual_servers[key].real_servers:
            bench.plane.active[key, real] = 2
        with pytest.raises(ActionRefusedError, match="the client has gone"):
            await do(actions_of(bench, engine), "stop", ID[1], each_pass=leaving_after(1))
        assert engine.stopped == []
        assert bench.leaving.asked == {}, "it takes connections again"
        with pytest.raises(ActionRefusedError, match="the client has gone"):
            await do(actions_of(bench, engine), "drain", ID[1], each_pass=leaving_after(2))
        assert bench.leaving.asked == {ID[1]: DrainReason.ASKED}, "the drain has begun"


async def test_a_drain_tells_how_many_connections_are_left() -> None:
    bench = Bench()
    told: list[int | None] = []
    async with bench.running():
        bench.source.say([numbered_instance(n, WEB_LABELS) for n in (1, 2)])
        await bench.passes()
        (key,) = bench.plane.table.virtual_servers
        for real in bench.plane.table.virtual_servers[key].real_servers:
            bench.plane.active[key, real] = 2

        def each_pass(connections: int | None) -> None:
            told.append(connections)
            for real in bench.plane.table.virtual_servers[key].real_servers:
                bench.plane.active[key, real] = 0

        assert await do(actions_of(bench), "drain", ID[1], each_pass=each_pass) == ID[1]
    assert told[0] == 2


@pytest.mark.parametrize(
    ("used", "least", "most"),
    [
        pytest.param([None], 0.0, 0.5, id="the engine does not know"),
        pytest.param([0], 0.9, 1.6, id="other workers learn of the drain a moment later"),
        pytest.param([3] * 20 + [0] * 5 + [1] + [0], 3.4, 4.1, id="connections through other workers"),
        pytest.param([1], 8.0, 8.1, id="connections that outlast the stop timeout"),
    ],
)
async def test_a_container_gets_its_real_signal_when_no_worker_has_a_connection_to_it(
    used: list[int | None], least: float, most: float
) -> None:
    bench, engine, signals = Bench(), Engine(), DrainSignals()
    engine.used = used
    async with bench.running(), asyncio.TaskGroup() as tasks:
        bench.source.say([numbered_instance(n) for n in range(2)])
        await bench.passes()
        stopping = tasks.create_task(GracefulStopper(bench.leaving, [engine], 30.0, signals).run())
        began = asyncio.get_running_loop().time()
        signals.put("c0", ID[0], 10.0)
        bench.source.say([numbered_instance(0).with_drain(DrainReason.STOPPING), numbered_instance(1)])
        await asyncio.sleep(12)
        stopping.cancel()
    ((container, at),) = engine.signalled
    assert container == "c0"
    assert least <= at - began <= most
