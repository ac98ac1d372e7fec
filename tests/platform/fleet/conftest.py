"""One contract, two fleets: the engines in memory, and a real engine in a network namespace."""

from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass
from typing import Any

import pytest

from mesh.platform.fleet.protocol import Fleet, FleetAvailability, FleetContainer, FleetSpec, FleetTask
from mesh.platform.fleet.swarm import SwarmFleet
from mesh.testing.fleet import FakeFleet, FakeImageRun
from tests.system.docker.engine import IMAGE, Engine, running_engine
from tests.system.e2e.programs import eventually

ABSENT = "nosuch.invalid/nosuch:1"


@dataclass
class FleetUnderTest:
    """A fleet of one engine, and what a test needs to wait."""

    fleet: Fleet
    engine: Engine | None = None

    def spec(self, name: str = "web", **fields: Any) -> FleetSpec:
        """A service that sleeps and obeys its stop signal."""
        container = FleetContainer(IMAGE, args=("sh", "-c", "trap exit TERM; sleep 600 & wait"))
        return FleetSpec(**{"name": name, "container": container, **fields})

    async def tasks(self, holds: Callable[[list[FleetTask]], bool], service: str = "") -> list[FleetTask]:
        """The tasks that are wanted, as soon as they are as they shall be."""

        async def live() -> list[FleetTask]:
            if isinstance(self.fleet, FakeFleet):
                self.fleet.advance(1)
            return [each for each in await self.fleet.tasks(service) if each.desired in ("running", "ready")]

        return await eventually(live, holds, 40)


@pytest.fixture(scope="module")
def fleet_engine() -> Iterator[Engine]:
    """A real engine that is part of no swarm yet."""
    with running_engine() as engine:
        yield engine
        engine.docker("swarm", "leave", "--force")


@pytest.fixture(params=["fake", "swarm"])
async def under_test(request: pytest.FixtureRequest) -> AsyncIterator[FleetUnderTest]:
    """A fleet of one engine without services."""
    if request.param == "fake":
        fake = FakeFleet()
        fake.images.present[IMAGE] = ""
        fake.images.runs[ABSENT] = FakeImageRun(pull_error=f"No such image: {ABSENT}")
        await fake.initialize()
        yield FleetUnderTest(fake)
        return
    engine: Engine = request.getfixturevalue("fleet_engine")
    fleet = SwarmFleet(engine.url)
    if not (await fleet.state()).is_active:
        await fleet.initialize()
    yield FleetUnderTest(fleet, engine)
    for service in await fleet.services():
        await fleet.remove(service.id)
    (worker,) = await fleet.workers()
    await fleet.set_worker(worker.id, worker.version, {}, FleetAvailability.ACTIVE)
