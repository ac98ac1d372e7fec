"""Logs that nobody writes to are left alone until the kernel tells of them, and nothing is missed by that."""

import json
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from mesh.config.labels.logs import LogLabels
from mesh.platform.logs.counters import LogCounters
from mesh.platform.logs.documents import LogOrigin
from mesh.platform.logs.file_watch import FileWatch, KernelFileWatch
from mesh.platform.logs.idle_logs import QUIET_TIME, SWEEP_TIME
from mesh.platform.logs.positions import PositionFile
from mesh.platform.logs.refused_documents import RefusedDocumentFile
from mesh.platform.logs.shipper import LogShipper, ShipperFiles
from mesh.platform.logs.tail import ContainerTail
from mesh.platform.logs.targets import LogTarget
from mesh.testing.file_watch import ManualFileWatch
from mesh.testing.log_sink import MemoryLogSink

STEP = 0.2


class Lab:
    """A shipper whose turns are counted, and the logs of some containers."""

    def __init__(self, directory: Path, watch: FileWatch, names: str = "a") -> None:
        self.directory = directory
        self.now = 0.0
        self.sink = MemoryLogSink()
        self.counters = LogCounters()
        files = ShipperFiles(PositionFile(directory / "positions.json"), RefusedDocumentFile(directory / "refused"))
        self.shipper = LogShipper(self.sink, files, {}, self.counters, lambda: self.now, watch=watch)
        self.targets = {
            name: LogTarget(
                LogOrigin(name, name, f"{name}/web", "w1"), LogLabels("app"), str(self.path(name)), runs=True
            )
            for name in names
        }
        for name in names:
            self.path(name).touch()
        self.shipper.update(list(self.targets.values()))

    def path(self, name: str) -> Path:
        return self.directory / f"{name}.log"

    def write(self, name: str, text: str) -> None:
        entry = {"log": f"{text}\n", "stream": "stdout", "time": "2026-11-30T11:59:16.358097495Z"}
        with self.path(name).open("a") as file:
            file.write(json.dumps(entry) + "\n")

    async def turns(self, seconds: float) -> None:
        end = self.now + seconds
        while self.now < end:
            self.now += STEP
            self.shipper.follow_rotation()
            while await self.shipper.ship_once():
                pass

    def messages(self) -> list[str]:
        return [json.loads(each.body)["message"] for each in self.sink.stored.values()]


@pytest.fixture
def kernel() -> Iterator[KernelFileWatch]:
    watch = KernelFileWatch()
    yield watch
    watch.close()


def looks(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """Note which logs are looked at from now on."""
    seen: list[Path] = []
    follow = ContainerTail.follow

    def noted(tail: ContainerTail) -> None:
        seen.append(tail.path)
        follow(tail)

    monkeypatch.setattr(ContainerTail, "follow", noted)
    return seen


async def test_an_idle_log_is_left_alone_and_its_next_line_comes_in_the_next_turn(
    tmp_path: Path, kernel: KernelFileWatch, monkeypatch: pytest.MonkeyPatch
) -> None:
    lab = Lab(tmp_path, kernel, "ab")
    lab.write("a", "first")
    await lab.turns(2 * QUIET_TIME)
    seen = looks(monkeypatch)
    await lab.turns(STEP)
    assert seen == []
    lab.write("a", "second")
    await lab.shipper.ship_once()
    assert lab.messages() == ["first", "second"]
    await lab.turns(STEP)
    assert set(seen) == {lab.path("a")}


@pytest.mark.parametrize("change", ["rename", "cut", "remove", "write"])
async def test_whatever_becomes_of_an_idle_log_is_seen_in_the_next_turn(
    tmp_path: Path, kernel: KernelFileWatch, change: str
) -> None:
    lab = Lab(tmp_path, kernel)
    lab.write("a", "one")
    await lab.turns(2 * QUIET_TIME)
    path = lab.path("a")
    if change == "rename":
        path.replace(path.with_name("a.log.1"))
    elif change == "cut":
        os.truncate(path, 0)
    elif change == "remove":
        path.unlink()
    lab.write("a", "another line")
    await lab.turns(2 * STEP)
    assert lab.messages() == ["one", "another line"]


async def test_a_log_on_a_file_system_that_tells_nothing_is_looked_at_now_and_then(tmp_path: Path) -> None:
    watch = ManualFileWatch()
    lab = Lab(tmp_path, watch, "abcdefgh")
    lab.write("c", "first")
    await lab.turns(2 * QUIET_TIME)
    assert watch.asked == set("abcdefgh")
    lab.write("c", "second")
    await lab.turns(SWEEP_TIME + STEP)
    assert lab.messages() == ["first", "second"]


async def test_what_is_written_while_the_kernel_is_asked_is_seen(tmp_path: Path) -> None:
    lab = Lab(tmp_path, ManualFileWatch(before=lambda key: lab.write(key, "meanwhile")))
    await lab.turns(QUIET_TIME + 2 * STEP)
    assert lab.messages()[:1] == ["meanwhile"]


async def test_where_nothing_can_be_told_every_log_is_looked_at_in_each_turn(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lab = Lab(tmp_path, ManualFileWatch(refuses=True))
    await lab.turns(2 * QUIET_TIME)
    seen = looks(monkeypatch)
    await lab.turns(STEP)
    assert seen == [lab.path("a")]


async def test_a_removed_container_whose_log_is_idle_is_forgotten(tmp_path: Path, kernel: KernelFileWatch) -> None:
    lab = Lab(tmp_path, kernel)
    await lab.turns(2 * QUIET_TIME)
    lab.path("a").unlink()
    lab.shipper.update([])
    await lab.turns(STEP)
    assert lab.shipper.state({}).logs == 0


def test_the_kernel_tells_once_of_each_file_under_all_of_its_keys(tmp_path: Path, kernel: KernelFileWatch) -> None:
    path = tmp_path / "log"
    path.touch()
    assert kernel.ask("one", path)
    assert kernel.ask("two", path)
    assert kernel.told() == set()
    path.write_text("x")
    path.write_text("y")
    assert kernel.told() == {"one", "two"}
    path.write_text("z")
    assert kernel.told() == set()
    assert not kernel.ask("three", tmp_path / "missing")
