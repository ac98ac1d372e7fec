"""Which services wait while an engine restarts, for how long, and what lets them go."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

import pytest

from mesh.control.connection_holds import REST
from mesh.host import HostError
from mesh.model.codes import Code
from mesh.model.service import Instance
from mesh.testing.host import FakeConnectionHolder
from mesh.testing.store import MemoryCluster, MemoryStore
from mesh.testing.worker import FakeWorker, WorkerBed
from tests.builders import SMALL_POOL, WEB_KEY, numbered_instance

pytestmark = pytest.mark.looptime
HOLD = 10
WEB = [numbered_instance(1)]
AWAY = "docker engine: gone"


class Host:
    """A worker whose packet filter can hold connections."""

    def __init__(self, seconds: float = HOLD) -> None:
        self.holder = FakeConnectionHolder()
        self.worker = FakeWorker(
            "w1", MemoryStore(MemoryCluster(), "w1"), WorkerBed(SMALL_POOL, hold=seconds), holder=self.holder
        )

    @property
    def held(self) -> dict[str, int]:
        return {str(key): seconds for key, seconds in self.holder.held.items()}

    async def sees(
        self, instances: Sequence[Instance], *, away: bool = False, code: Code = Code.ENGINE_UNREACHABLE
    ) -> None:
        """The next list of the engine, or of the processes while it is away; and a moment for it."""
        source = self.worker.source
        if away:
            source.fall_silent(AWAY, code)
            source.see_in_silence(instances)
        else:
            source.say(instances)
        await asyncio.sleep(1)


@asynccontextmanager
async def running(host: Host) -> AsyncIterator[Host]:
    async with asyncio.TaskGroup() as tasks:
        task = tasks.create_task(host.worker.run())
        yield host
        task.cancel()


async def test_what_its_engine_ended_waits_and_is_let_go_once_it_is_served() -> None:
    async with running(Host()) as host:
        await host.sees(WEB)
        assert host.held == {}
        await host.sees([], away=True)
        (key,) = host.held
        assert key.startswith("tcp://10.112.0.")
        assert HOLD - 1 <= host.held[key] <= HOLD
        assert {str(k) for k in host.worker.loop.snapshots.observe().held} == {key}
        await host.sees(WEB, away=True)
        assert host.held == {}
        assert host.worker.loop.snapshots.observe().held == frozenset()


@pytest.mark.parametrize(
    ("seconds", "away"), [pytest.param(HOLD, False, id="the engine answers"), pytest.param(0, True, id="switched off")]
)
async def test_what_ends_otherwise_is_refused_at_once(seconds: float, away: bool) -> None:
    async with running(Host(seconds)) as host:
        await host.sees(WEB)
        await host.sees([], away=away)
        assert host.held == {}


async def test_a_compose_file_that_cannot_be_read_is_no_engine_that_restarts() -> None:
    async with running(Host()) as host:
        await host.sees(WEB)
        await host.sees([], away=True, code=Code.COMPOSE_NOT_YAML)
        assert host.held == {}


async def test_a_service_that_others_serve_does_not_wait() -> None:
    async with running(Host()) as host:
        await host.sees([numbered_instance(1), numbered_instance(2)])
        await host.sees(WEB, away=True)
        assert host.held == {}


async def test_a_hold_ends_and_an_engine_that_fails_again_holds_nothing() -> None:
    async with running(Host()) as host:
        await host.sees(WEB)
        await host.sees([], away=True)
        assert host.held
        await asyncio.sleep(HOLD)
        assert host.worker.loop.snapshots.observe().held == frozenset()
        for again, expected in ((REST / 2, False), (REST, True)):
            await host.sees(WEB)
            await asyncio.sleep(again)
            assert host.held == {}
            await host.sees([], away=True)
            assert bool(host.held) is expected


async def test_what_a_former_process_held_ends_by_itself_and_its_table_goes() -> None:
    host = Host()
    host.holder.held = {WEB_KEY: 7}
    async with running(host):
        await host.sees(WEB)
        assert host.holder.held == {WEB_KEY: 7}
        await asyncio.sleep(3 * HOLD)
        assert host.holder.held == {}


async def test_what_was_held_long_enough_is_not_held_again_with_another() -> None:
    others = [numbered_instance(1), numbered_instance(2, {"mesh.routing.port_81": "db.test"}, "shop/db")]
    async with running(Host()) as host:
        await host.sees(others)
        await host.sees(others[1:], away=True)
        (first,) = host.held
        await asyncio.sleep(HOLD - 1.5)
        await host.sees([], away=True)
        assert len(host.held) == 2
        await asyncio.sleep(HOLD + 10)
        assert first not in host.held


async def test_a_packet_filter_that_refuses_leaves_the_pass_alone(caplog: pytest.LogCaptureFixture) -> None:
    async with running(Host()) as host:
        await host.sees(WEB)
        host.holder.error = HostError(Code.NFT_FAILED, "there is no program nft")
        await host.sees([], away=True)
        assert "there is no program nft" in caplog.text
        assert host.worker.loop.snapshots.observe().held == frozenset()
        assert not host.worker.plane.table.virtual_servers
