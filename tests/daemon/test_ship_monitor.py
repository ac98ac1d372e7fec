"""The daemon asks `vipmesh ship` how it is, within bounds, and looks at labels only while nothing answers."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from mesh.daemon.ship_monitor import ShipMonitor
from mesh.model.codes import Code
from mesh.model.collected_logs import CollectedLogs
from mesh.model.problem import Problem
from mesh.platform.logs.reading.worker_reader import ShipSocketClient
from tests.platform.logs.reading.test_ship_server import answering


@dataclass
class MonitorBed:
    """What the monitor asks, and what it has told."""

    socket: Path
    wanted: tuple[str, ...] = ("shop/web",)
    looks: int = 0
    told: list[tuple[CollectedLogs | None, list[Code]]] = field(default_factory=list)

    def monitor(self) -> ShipMonitor:
        return ShipMonitor(ShipSocketClient(self.socket), self.find, self.tell)

    async def find(self) -> tuple[str, ...]:
        self.looks += 1
        return self.wanted

    def tell(self, collected: CollectedLogs | None, problems: Sequence[Problem]) -> None:
        self.told.append((collected, [each.code for each in problems]))


async def test_it_tells_what_is_said_and_that_nothing_is_said(tmp_path: Path) -> None:
    bed = MonitorBed(tmp_path / "run" / "ship.sock")
    monitor = bed.monitor()
    async with answering(tmp_path) as ship:
        ship.add("shop/web", "web1", "a")
        ship.counters.of("shop/web").lines = 5
        await monitor.ask()
        assert bed.told[-1] == (CollectedLogs(True, 1, lines=5), [])
        assert bed.looks == 0
    for _ in range(3):
        await monitor.ask()
    assert bed.told[-1] == (CollectedLogs(False), [Code.SHIP_NOT_RUNNING])
    assert bed.looks == 1, "labels are not looked at each time"


async def test_nothing_is_wrong_where_no_label_asks(tmp_path: Path) -> None:
    bed = MonitorBed(tmp_path / "none.sock", wanted=())
    await bed.monitor().ask()
    assert bed.told == [(None, [])]


async def test_one_that_never_answers_holds_nothing_up_for_long(tmp_path: Path) -> None:
    gone = asyncio.Event()

    async def never(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()
        writer.close()
        await writer.wait_closed()
        gone.set()

    bed = MonitorBed(tmp_path / "frozen.sock")
    async with await asyncio.start_unix_server(never, bed.socket), asyncio.timeout(30):
        await bed.monitor().ask()
        await gone.wait()
    assert bed.told == [(CollectedLogs(False), [Code.SHIP_NOT_RUNNING])]
