"""Rotation by copytruncate at any moment, with kills: each line once, or counted as LOST."""

import contextlib
import os
import random
import shutil
from pathlib import Path
from unittest.mock import patch

import pytest

from mesh.model.codes import Code
from mesh.platform.logs.file_set import COPY_PATIENCE
from tests.platform.logs.test_files import Container, FilesLab, codes

KEPT = 8
"""Copies that the rotation keeps."""


class Rotation:
    """A program that writes lines, logrotate with `copytruncate` beside it, and a process that is killed."""

    def __init__(self, directory: Path, seed: int, pattern: str, *, is_racing: bool) -> None:
        self.lab = FilesLab(directory)
        self.one: Container = self.lab.add("a", pattern)
        self.log = self.one.directory / "app.log"
        self.random = random.Random(seed)
        self.written = self.rotations = 0
        self.is_racing = is_racing
        """Whether the program writes between a copy and the cut."""
        self.uncopied: set[int] = set()
        """Lines that it wrote then."""

    async def run(self, steps: int) -> None:
        """Take random steps, then let all be delivered."""
        actions = [self.write] * 4 + [self.ship] * 3 + [self.rotate] * 3 + [self.kill, self.kill_before_saving]
        await self.write()
        await self.lab.ship()
        for _ in range(steps):
            await self.random.choice(actions)()
        for _ in range(4):
            await self.lab.ship(COPY_PATIENCE)

    async def write(self) -> None:
        count = self.random.randint(1, 5)
        self.one.write("app.log", *(f"line {self.written + number}" for number in range(1, count + 1)))
        self.written += count

    async def ship(self) -> None:
        await self.lab.ship(self.random.choice((0.2, 1, 6)))

    async def rotate(self) -> None:
        if not self.log.exists():
            return
        for number in range(KEPT, 0, -1):
            if (older := self.log.with_name(f"app.log.{number}")).exists():
                older.replace(self.log.with_name(f"app.log.{number + 1}"))
        self.rotations += 1
        copy = Path(shutil.copy(self.log, self.log.with_name("app.log.1")))
        os.utime(copy, (self.rotations, self.rotations))  # two rotations are never at one tick of the kernel's clock
        if self.random.random() < 0.3:
            await self.random.choice((self.ship, self.kill, self.kill_before_saving))()
        if self.is_racing and self.random.random() < 0.3:  # what nobody has a copy of
            first = self.written
            await self.write()
            self.uncopied.update(range(first + 1, self.written + 1))
            if self.random.random() < 0.5:
                await self.ship()
        os.truncate(self.log, 0)

    async def kill(self) -> None:
        self.lab.start()

    async def kill_before_saving(self) -> None:
        self.lab.now += 1
        self.lab.shipper.follow_rotation()
        stop = patch.object(self.lab.shipper, "_advance", side_effect=KeyboardInterrupt)
        with stop, contextlib.suppress(KeyboardInterrupt):
            await self.lab.shipper.ship_once()
        self.lab.start()


async def run(directory: Path, seed: int, pattern: str, *, is_racing: bool) -> Rotation:
    """Return the rotation once 30 steps are taken and all is delivered."""
    rotation = Rotation(directory, seed, pattern, is_racing=is_racing)
    await rotation.run(30)
    rotation.lab.shipper.close()
    return rotation


@pytest.mark.parametrize("is_racing", [False, True], ids=["quiet", "writes between copy and cut"])
@pytest.mark.parametrize("pattern", ["app.log", ""], ids=["one file", "directory"])
async def test_each_line_comes_once_whenever_the_process_is_killed(
    tmp_path: Path, pattern: str, monkeypatch: pytest.MonkeyPatch, *, is_racing: bool
) -> None:
    monkeypatch.setattr(os, "fsync", lambda _: None)  # the process is killed, not the machine
    for seed in range(60):
        directory = tmp_path / str(seed)
        directory.mkdir()
        rotation = await run(directory, seed, pattern, is_racing=is_racing)
        found = sorted(int(text[5:]) for text in rotation.lab.messages())
        assert found == sorted(set(found)), f"seed {seed}: twice"
        missing = {*range(1, rotation.written + 1)} - {*found}
        assert missing <= rotation.uncopied, f"seed {seed}: missing"


async def test_what_was_seen_between_the_copy_and_the_cut_is_counted_and_the_rotation_is_named(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    lab = FilesLab(tmp_path)
    one = lab.add("a", "app.log")
    one.write("app.log", "line 1")
    await lab.ship(1)
    one.write("app.log", "line 2")
    shutil.copy(one.directory / "app.log", one.directory / "app.log.1")
    one.write("app.log", "line 3")
    lab.now += 1
    lab.shipper.follow_rotation()
    os.truncate(one.directory / "app.log", 0)
    one.write("app.log", "line 4")
    await lab.ship(1)
    await lab.ship(COPY_PATIENCE)
    counters = lab.counters.services["a/web"]
    assert (lab.messages(), counters.lost, counters.lost_bytes) == (["line 1", "line 4", "line 2"], 1, 7)
    assert {Code.LOG_COPY_ROTATION, Code.COLLECTED_LINES_LOST} <= codes(caplog)
    lab.shipper.close()


async def test_a_copy_that_has_less_than_was_read_is_not_read_again(tmp_path: Path) -> None:
    lab = FilesLab(tmp_path)
    one = lab.add("a")
    one.write("app.log", "line 1", "line 2")
    shutil.copy(one.directory / "app.log", tmp_path / "copy")
    one.write("app.log", "line 3")
    await lab.ship(1)
    (tmp_path / "copy").replace(one.directory / "app.log.1")
    os.truncate(one.directory / "app.log", 0)
    await lab.ship(1)
    lab.start()
    await lab.ship(COPY_PATIENCE)
    assert (lab.messages(), lab.counters.services["a/web"].lost) == (["line 1", "line 2", "line 3"], 0)
    lab.shipper.close()


async def test_a_file_that_was_cut_and_has_the_same_size_again_is_read_while_no_process_ran(tmp_path: Path) -> None:
    lab = FilesLab(tmp_path)
    one = lab.add("a", "app.log")
    one.write("app.log", "line 1")
    await lab.ship(1)
    shutil.copy(one.directory / "app.log", one.directory / "app.log.1")
    (one.directory / "app.log").write_text("line 2\n")
    os.utime(one.directory / "app.log", ns=(1, 1))  # however coarse the clock of the file system is
    lab.start()
    await lab.ship(1)
    assert lab.messages() == ["line 1", "line 2"]
    lab.shipper.close()
