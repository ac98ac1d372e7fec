"""Maintenance on request: out of traffic, not probed, and back only after a successful check; in virtual time."""

import pytest

from mesh.control.drain_requests import DrainRequests
from mesh.control.graceful_stop import DrainSignals, GracefulStopper
from mesh.model.errors import ActionRefusedError
from mesh.model.service import DrainReason, Instance
from tests.builders import PROBED_WEB_LABELS, endpoint, instance, numbered_instance
from tests.control.reported import status_of
from tests.control.test_mass_failure import FALL, addresses, answers
from tests.control.test_reconciler import Bench

pytestmark = pytest.mark.looptime


def one(drain: DrainReason | None = None) -> Instance:
    return instance(drain=drain)


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
def test_the_drain_reason_of_requests_and_the_engine(
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


def test_maintenance_survives_a_restart() -> None:
    leaving = DrainRequests(adopted=[endpoint(drain=DrainReason.MAINTENANCE)])
    assert [instance.drain for instance in leaving.marked([one()])] == [DrainReason.MAINTENANCE]


async def test_an_endpoint_in_maintenance_gets_no_traffic_and_no_checks() -> None:
    bench = Bench()
    answers(bench, 1, 2)
    async with bench.running() as loop:
        stopping = GracefulStopper(bench.leaving, [], 30.0, DrainSignals())
        bench.source.say([numbered_instance(n, PROBED_WEB_LABELS) for n in (1, 2)])
        await bench.passes(5)
        assert addresses(bench) == {"1", "2"}
        id = numbered_instance(1).id
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
