"""Maintenance by hand: out of traffic, not probed, and back only after an answer; in virtual time."""

from collections.abc import Mapping

import pytest

from mesh.control.drain_requests import DrainRequests
from mesh.control.graceful_stop import DrainSignals, GracefulStopper
from mesh.model.errors import ActionRefusedError
from mesh.model.service import DrainReason, Endpoint, Instance
from tests.control.reported import status_of
from tests.control.test_mass_failure import FALL, addresses, answers
from tests.control.test_reconciler import PROBED, Bench, instance

pytestmark = pytest.mark.looptime

LABELS: Mapping[str, str] = {}


def one(drain: DrainReason | None = None) -> Instance:
    return Instance("a", "demo/web", "10.2.0.1", LABELS, drain=drain)


@pytest.mark.parametrize(
    ("asked", "engine", "shown"),
    [
        ([], None, None),
        ([], DrainReason.PAUSED, DrainReason.PAUSED),
        ([DrainReason.ASKED], None, DrainReason.ASKED),
        ([DrainReason.ASKED], DrainReason.STOPPING, DrainReason.STOPPING),
        ([DrainReason.MAINTENANCE], None, DrainReason.MAINTENANCE),
        ([DrainReason.MAINTENANCE], DrainReason.STOPPING, DrainReason.MAINTENANCE),
        ([DrainReason.MAINTENANCE, DrainReason.ASKED], None, DrainReason.MAINTENANCE),
        ([DrainReason.ASKED, DrainReason.MAINTENANCE], None, DrainReason.MAINTENANCE),
    ],
)
def test_what_is_asked_and_what_the_engine_says(
    asked: list[DrainReason], engine: DrainReason | None, shown: DrainReason | None
) -> None:
    leaving = DrainRequests()
    for why in asked:
        leaving.ask("a", why)
    assert [instance.drain for instance in leaving.marked([one(engine)])] == [shown]
    assert leaving.knows("a")
    assert not leaving.knows("b")
    leaving.undo("a")
    assert [instance.drain for instance in leaving.marked([one(engine)])] == [engine]


def test_it_holds_over_a_restart() -> None:
    leaving = DrainRequests(adopted=[Endpoint("a", "demo/web", "w1", "10.2.0.1", drain=DrainReason.MAINTENANCE)])
    assert [instance.drain for instance in leaving.marked([one()])] == [DrainReason.MAINTENANCE]


async def test_an_endpoint_in_maintenance_is_neither_used_nor_asked() -> None:
    bench = Bench()
    answers(bench, 1, 2)
    async with bench.running() as loop:
        stopping = GracefulStopper(bench.leaving, [], 30.0, DrainSignals())
        bench.source.say([instance(n, PROBED) for n in (1, 2)])
        await bench.passes(5)
        assert addresses(bench) == {"1", "2"}
        id = instance(1).id
        assert await stopping.maintain(id) == id
        assert addresses(bench) == {"2"}
        await bench.passes(1)
        asked = len(bench.check.times("10.2.0.1", 80))
        answers(bench, 1, ok=False)
        await bench.passes(FALL)
        assert len(bench.check.times("10.2.0.1", 80)) == asked
        (shown, _) = status_of(loop).services[0].endpoints
        assert (shown.serving, shown.drain, shown.health) == (False, "maintenance", "healthy")
        assert stopping.undrain(id) == id
        await bench.passes(FALL)
        assert addresses(bench) == {"2"}, "it has to answer first"
        answers(bench, 1)
        await bench.passes(3)
        assert addresses(bench) == {"1", "2"}
        with pytest.raises(ActionRefusedError, match="not run by a container engine"):
            await stopping.stop(id)
        with pytest.raises(ActionRefusedError, match="runs on this worker"):
            await stopping.maintain("nobody")
