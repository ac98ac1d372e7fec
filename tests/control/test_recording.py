"""Events of a real control loop: the state that is recorded after each pass, drains with who requested them."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from mesh.control.drain_requests import REQUESTER
from mesh.control.event_recorder import ContainerExits, EventRecorder
from mesh.model.past_event import EventKind, PastEvent
from mesh.store.event_ring import RingLimits
from mesh.testing.event_ring import FakeEventRing
from tests.builders import PROBED_WEB_LABELS, numbered_instance
from tests.control.test_reconciler import Bench

pytestmark = pytest.mark.looptime
K = EventKind
RISE = 20.0


@asynccontextmanager
async def recording(bench: Bench, ring: FakeEventRing) -> AsyncIterator[None]:
    """A worker and its recorder, until both stop."""
    async with bench.running() as loop, asyncio.TaskGroup() as tasks:
        due = asyncio.Event()
        recorder = EventRecorder(
            "w1", ring, look=loop.event_moment, due=due, exits=ContainerExits(), conditions=loop.conditions
        )
        task = tasks.create_task(recorder.run())
        yield
        await asyncio.sleep(11)  # the recorder looks at least every ten seconds
        await recorder.stop()
        task.cancel()


async def kept(ring: FakeEventRing, *kinds: EventKind) -> list[PastEvent]:
    return [each.event for each in await ring.read() if each.event.kind in kinds]


async def test_what_a_control_loop_does_is_recorded() -> None:
    bench, ring = Bench(), FakeEventRing(RingLimits(1000, 1e9))
    for octet in (1, 2):
        bench.check.set(f"10.2.0.{octet}", 80, True, "status 200")
    async with recording(bench, ring):
        bench.source.say([numbered_instance(n, PROBED_WEB_LABELS) for n in (1, 2)])
        await bench.passes(RISE)
        bench.check.set("10.2.0.2", 80, False, "status 503")
        await bench.passes(3 * RISE)
        token = REQUESTER.set("uid 1000 (pid 7)")
        bench.leaving.ask("demo/web/10.2.0.1")
        REQUESTER.reset(token)
        await bench.passes(RISE)
        bench.source.say([numbered_instance(2, PROBED_WEB_LABELS)])
        await bench.passes(RISE)
    healthy = await kept(ring, K.ENDPOINT_HEALTHY)
    assert {(each.endpoint, each.reason) for each in healthy} == {
        ("demo/web/10.2.0.1", "status 200"),
        ("demo/web/10.2.0.2", "status 200"),
    }
    (failed,) = await kept(ring, K.ENDPOINT_FAILED)
    assert (failed.endpoint, failed.reason) == ("demo/web/10.2.0.2", "status 503")
    (drained,) = await kept(ring, K.ENDPOINT_DRAINED)
    assert (drained.endpoint, drained.by) == ("demo/web/10.2.0.1", "uid 1000 (pid 7)")
    (gone,) = await kept(ring, K.ENDPOINT_GONE)
    assert gone.endpoint == "demo/web/10.2.0.1"
    (vip,) = await kept(ring, K.SERVICE_VIP)
    assert vip.vip is not None
    assert len(await kept(ring, K.DAEMON_STARTED, K.DAEMON_STOPPED)) == 2


async def test_a_restart_of_the_loop_does_not_lose_endpoints_that_run() -> None:
    bench, ring = Bench(), FakeEventRing(RingLimits(1000, 1e9))
    bench.check.set("10.2.0.1", 80, True, "status 200")
    for _ in range(2):
        bench.source = type(bench.source)()
        async with recording(bench, ring):
            await bench.passes(1)
            bench.source.say([numbered_instance(1, PROBED_WEB_LABELS)])
            await bench.passes(RISE)
    assert len(await kept(ring, K.ENDPOINT_CAME)) == 1
    assert await kept(ring, K.ENDPOINT_GONE, K.SERVICE_EMPTY, K.SERVICE_GONE) == []


async def test_a_refused_label_begins_and_ends() -> None:
    bench, ring = Bench(), FakeEventRing(RingLimits(1000, 1e9))
    async with recording(bench, ring):
        bench.source.say([numbered_instance(1, {"mesh.routing.port_0": "web.test"})])
        await bench.passes(RISE)
        bench.source.say([])
        await bench.passes(RISE)
    (refused,) = await kept(ring, K.LABEL_REFUSED)
    (ended,) = await kept(ring, K.PROBLEM_ENDED)
    assert (refused.owner, ended.owner) == ("demo/web", "demo/web")
