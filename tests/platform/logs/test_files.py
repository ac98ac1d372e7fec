"""Files inside of containers: rotation, cuts, copies, hostile names and contents, restarts, fairness."""

import gzip
import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from unittest.mock import patch

import pytest

from mesh.config.labels.logs import LogLabels, LogPathLabel
from mesh.model.codes import Code
from mesh.platform.logs.counters import LogCounters
from mesh.platform.logs.documents import LogOrigin
from mesh.platform.logs.file_lines import MAX_EVENT
from mesh.platform.logs.file_positions import LogFilePositions
from mesh.platform.logs.file_set import COPY_PATIENCE, LONGEST_SCAN, MAX_FILES, QUIET, REMOVED_QUIET
from mesh.platform.logs.followed_files import EVENT_PATIENCE
from mesh.platform.logs.locate import LogFileSource
from mesh.platform.logs.positions import PositionFile
from mesh.platform.logs.refused_documents import RefusedDocumentFile
from mesh.platform.logs.shipper import LogShipper, ShipperFiles
from mesh.platform.logs.targets import LogTarget
from mesh.testing.log_sink import MemoryLogSink

JAVA = r"^\d{4}-"


class Container:
    """One container's directory of logs, and how it is collected."""

    def __init__(self, base: Path, id: str, pattern: str, labels: LogLabels) -> None:
        self.directory = base / id
        self.directory.mkdir()
        self.id = id
        self.runs = True
        self._labels = labels
        self._pattern = pattern

    def target(self) -> LogTarget:
        origin = LogOrigin(self.id * 64, self.id, f"{self.id}/web", "w1")
        label = LogPathLabel("app", ("var", "log", self._pattern))
        source = LogFileSource(label, str(self.directory), (self._pattern or "*",))
        return LogTarget(origin, self._labels, "", self.runs, (source,))

    def write(self, name: str, *lines: str, end: str = "\n") -> None:
        with (self.directory / name).open("a") as file:
            file.write("".join(line + end for line in lines))


class FilesLab:
    """Containers with files, a store in memory, a clock, and a shipper that can be started again."""

    def __init__(self, directory: Path) -> None:
        self.now = 0.0
        self.started = False
        self.directory = directory
        self.sink = MemoryLogSink()
        self.counters = LogCounters()
        self.containers: dict[str, Container] = {}
        self.shipper = self.start()

    def start(self) -> LogShipper:
        """Start a process; the one before it is killed."""
        if self.started:
            self.shipper.close()
        self.started = True
        file = PositionFile(self.directory / "positions.json")
        positions = file.load()
        files = ShipperFiles(file, RefusedDocumentFile(self.directory / "refused.jsonl"), LogFilePositions(file.files))
        self.shipper = LogShipper(self.sink, files, positions, self.counters, clock=lambda: self.now)
        self.update()
        return self.shipper

    def add(self, id: str, pattern: str = "", labels: LogLabels = LogLabels("")) -> Container:  # noqa: B008 -- frozen
        container = self.containers[id] = Container(self.directory, id, pattern, labels)
        self.update()
        return container

    def update(self) -> None:
        self.shipper.update([each.target() for each in self.containers.values()])

    async def ship(self, seconds: float = LONGEST_SCAN) -> None:
        """Let time pass, look, and deliver all."""
        self.now += seconds
        self.shipper.follow_rotation()
        while await self.shipper.ship_once():
            pass
        self.shipper.follow_rotation()
        while await self.shipper.ship_once():
            pass

    def documents(self, id: str) -> list[dict[str, str]]:
        return [json.loads(each.body) for each in self.sink.stored.values() if each.store == f"{id}-app"]

    def messages(self, id: str = "a") -> list[str]:
        return [each["message"] for each in self.documents(id)]


@pytest.fixture
def lab(tmp_path: Path) -> Iterator[FilesLab]:
    lab = FilesLab(tmp_path)
    yield lab
    lab.shipper.close()


def numbers(first: int, last: int) -> list[str]:
    return [f"line {number}" for number in range(first, last + 1)]


def codes(caplog: pytest.LogCaptureFixture) -> set[object]:
    """The codes of all lines of the log."""
    return {record.__dict__.get("code") for record in caplog.records}


async def test_lines_of_all_files_of_a_directory_are_delivered_with_their_path(lab: FilesLab) -> None:
    one = lab.add("a")
    one.write("x.log", "first", "2026-12-01T04:05:06.123456789+02:00 second")
    one.write("y.log", "other")
    await lab.ship()
    one.write("z.log", "later")
    await lab.ship()
    assert sorted(lab.messages()) == ["2026-12-01T04:05:06.123456789+02:00 second", "first", "later", "other"]
    second = next(each for each in lab.documents("a") if each["message"].endswith("second"))
    assert second["@timestamp"] == "2026-12-01T02:05:06.123456789Z"
    assert (second["file"], second["stream"], second["service"]) == ("/var/log/x.log", "file", "a/web")


async def test_rotation_by_rename_loses_nothing_and_repeats_nothing(lab: FilesLab) -> None:
    one = lab.add("a", "app.log")
    for turn in range(5):
        one.write("app.log", *numbers(turn * 10 + 1, turn * 10 + 5))
        await lab.ship(0.5)
        one.write("app.log", *numbers(turn * 10 + 6, turn * 10 + 9))
        for number in range(3, 0, -1):
            if (older := one.directory / f"app.log.{number}").exists():
                older.replace(one.directory / f"app.log.{number + 1}")
        (one.directory / "app.log").replace(one.directory / "app.log.1")
        one.write("app.log.1", f"line {turn * 10 + 10}")  # the program has the old file open still
        await lab.ship(1)
    await lab.ship()
    assert sorted(lab.messages(), key=lambda text: int(text[5:])) == numbers(1, 50)
    assert lab.counters.services["a/web"].lost == 0


@pytest.mark.parametrize("pattern", ["app.log", ""], ids=["one file", "directory"])
@pytest.mark.parametrize("restart", [False, True], ids=["running", "killed meanwhile"])
async def test_copytruncate_loses_nothing_and_repeats_nothing(lab: FilesLab, pattern: str, *, restart: bool) -> None:
    one = lab.add("a", pattern)
    log = one.directory / "app.log"
    for turn in range(4):
        one.write("app.log", *numbers(turn * 10 + 1, turn * 10 + 5))
        await lab.ship(1)
        one.write("app.log", *numbers(turn * 10 + 6, turn * 10 + 10))
        if (copy := one.directory / "app.log.1").exists():
            copy.replace(one.directory / f"app.log.{turn + 1}")
        shutil.copy(log, copy)
        if turn == 1:
            await lab.ship(1)  # between the copy and the cut
        os.truncate(log, 0)
        if restart:
            lab.start()
        await lab.ship(1)
    await lab.ship(COPY_PATIENCE)
    assert sorted(lab.messages(), key=lambda text: int(text[5:])) == numbers(1, 40)
    assert lab.counters.services["a/web"].lost == 0


async def test_a_copy_of_what_a_killed_process_had_begun_to_deliver_is_recognised(lab: FilesLab) -> None:
    one = lab.add("a", "app.log")
    one.write("app.log", "line 1")
    lab.now += 1
    lab.shipper.follow_rotation()
    with patch.object(lab.shipper, "_advance", side_effect=KeyboardInterrupt), pytest.raises(KeyboardInterrupt):
        await lab.shipper.ship_once()
    one.write("app.log", "line 2")
    shutil.copy(one.directory / "app.log", one.directory / "app.log.1")
    (one.directory / "app.log").write_text("line 3\n")
    lab.start()
    await lab.ship(1)
    await lab.ship(COPY_PATIENCE)
    assert sorted(lab.messages()) == numbers(1, 3)


async def test_a_copy_that_is_empty_at_first_is_not_read_twice(lab: FilesLab) -> None:
    one = lab.add("a")
    for turn in range(3):
        one.write("app.log", *numbers(turn * 2 + 1, turn * 2 + 2))
        await lab.ship(1)
        copy = one.directory / f"app.log.{turn + 1}"
        copy.touch()
        await lab.ship()
        shutil.copy(one.directory / "app.log", copy)
        await lab.ship()
        os.truncate(one.directory / "app.log", 0)
        await lab.ship()
    assert lab.messages() == numbers(1, 6)


async def test_a_file_that_was_cut_and_has_grown_past_the_position_begins_again(lab: FilesLab) -> None:
    one = lab.add("a", "app.log")
    one.write("app.log", "same", "old")
    await lab.ship()
    (one.directory / "app.log").write_text("same\nnew\nand more\n")
    await lab.ship()
    assert lab.messages() == ["same", "old", "same", "new", "and more"]


async def test_what_was_cut_unread_without_a_copy_is_lost_and_counted(
    lab: FilesLab, caplog: pytest.LogCaptureFixture
) -> None:
    one = lab.add("a", "app.log")
    one.write("app.log", "read")
    await lab.ship()
    one.write("app.log", "unread")
    lab.now += 1
    lab.shipper.follow_rotation()
    os.truncate(one.directory / "app.log", 0)
    await lab.ship(1)
    await lab.ship(COPY_PATIENCE)
    counters = lab.counters.services["a/web"]
    assert (lab.messages(), counters.lost, counters.lost_bytes) == (["read"], 1, len("unread\n"))
    assert "LOST: container a: rotation of its files" in caplog.text


async def test_a_compressed_generation_is_not_read_twice(lab: FilesLab) -> None:
    one = lab.add("a")
    one.write("app.log", *numbers(1, 5))
    await lab.ship()
    log, older = one.directory / "app.log", one.directory / "app.log.1"
    log.replace(older)
    older.with_name("app.log.1.gz").write_bytes(gzip.compress(older.read_bytes()))
    older.unlink()
    one.write("app.log", *numbers(6, 8))
    await lab.ship()
    lab.start()
    await lab.ship()
    await lab.ship(REMOVED_QUIET)
    assert lab.messages() == numbers(1, 8)
    assert lab.counters.services["a/web"].lost == 0


async def test_what_was_compressed_while_no_process_ran_is_read_from_the_position_on(lab: FilesLab) -> None:
    one = lab.add("a", "app.log")
    one.write("app.log", *numbers(1, 5))
    await lab.ship()
    one.write("app.log", *numbers(6, 9))
    (one.directory / "app.log.1.gz").write_bytes(gzip.compress((one.directory / "app.log").read_bytes()))
    (one.directory / "app.log").write_text("line 10\n")
    lab.start()
    await lab.ship()
    assert sorted(lab.messages(), key=lambda text: int(text[5:])) == numbers(1, 10)


async def test_what_rotation_took_while_no_process_ran_is_counted(lab: FilesLab) -> None:
    one = lab.add("a", "app.log")
    one.write("app.log", *numbers(1, 5))
    await lab.ship()
    (one.directory / "app.log").unlink()
    lab.start()
    await lab.ship()
    await lab.ship(COPY_PATIENCE)
    assert lab.counters.services["a/web"].lost == 1


async def test_a_removed_file_is_read_to_its_end_and_its_inode_may_be_used_again(lab: FilesLab) -> None:
    one = lab.add("a", "app.log")
    path = one.directory / "app.log"
    one.write("app.log", "same", "one")
    await lab.ship()
    with path.open("a") as file:
        path.unlink()
        file.write("last\nno feed")
    await lab.ship(QUIET)
    await lab.ship(REMOVED_QUIET)
    one.write("app.log", "same", "two")
    await lab.ship()
    assert lab.messages() == ["same", "one", "last", "no feed", "same", "two"]


async def test_a_process_that_was_killed_after_the_store_had_the_lines_repeats_none(lab: FilesLab) -> None:
    one = lab.add("a", "app.log", LogLabels("", multiline=JAVA))
    one.write("app.log", "2026-12-01 first", "  at x")
    lab.now += 1
    lab.shipper.follow_rotation()
    lab.now += EVENT_PATIENCE
    saved = (lab.directory / "positions.json").read_bytes() if (lab.directory / "positions.json").exists() else None
    before: list[bytes] = []
    deliver = lab.sink.deliver

    async def crash(documents: object) -> object:
        before.append((lab.directory / "positions.json").read_bytes())
        return await deliver(documents)  # type: ignore[arg-type]

    lab.sink.deliver = crash  # type: ignore[method-assign,assignment]
    await lab.shipper.ship_once()
    assert saved is None
    (lab.directory / "positions.json").write_bytes(before[-1])  # as if it had been killed before saving
    one.write("app.log", "  at y", "2026-12-02 second")
    lab.start()
    await lab.ship(1)
    await lab.ship(EVENT_PATIENCE)
    assert lab.messages() == ["2026-12-01 first\n  at x", "  at y", "2026-12-02 second"]


async def test_lines_are_joined_to_events(lab: FilesLab) -> None:
    one = lab.add("a", "app.log", LogLabels("", multiline=JAVA))
    one.write("app.log", "2026-12-01 failed", "java.lang.Exception", "\tat x", "2026-12-01 fine", "2026-12-01 open")
    await lab.ship(1)
    assert lab.messages() == ["2026-12-01 failed\njava.lang.Exception\n\tat x", "2026-12-01 fine"]
    one.write("app.log", "more of it")
    await lab.ship(1)
    await lab.ship(EVENT_PATIENCE)
    assert lab.messages()[2:] == ["2026-12-01 open\nmore of it"]


async def test_events_have_bounds(lab: FilesLab) -> None:
    one = lab.add("a", "app.log", LogLabels("", multiline=JAVA))
    one.write("app.log", "2026-", *("x" * 1000 for _ in range(3000)))
    await lab.ship()
    await lab.ship(EVENT_PATIENCE)
    found = lab.messages()
    assert max(map(len, found)) <= MAX_EVENT
    assert sum(text.count("x") for text in found) == 3_000_000
    assert lab.counters.services["a/web"].split == len(found) - 1


@pytest.mark.parametrize("kind", ["link", "link that leads out", "fifo", "socket", "directory below"])
async def test_what_is_no_regular_file_is_refused_and_the_others_go_on(
    lab: FilesLab, kind: str, caplog: pytest.LogCaptureFixture
) -> None:
    one = lab.add("a")
    (lab.directory / "secret").write_text("secret\n")
    one.write("good.log", "good")
    bad = one.directory / "bad.log"
    if kind == "link":
        bad.symlink_to("good.log")
    elif kind == "link that leads out":
        bad.symlink_to("../secret")
    elif kind == "fifo":
        os.mkfifo(bad)
    elif kind == "socket":
        os.mknod(bad, 0o140600)
    else:
        bad.mkdir()
        (bad / "x.log").write_text("below\n")
    await lab.ship()
    assert lab.messages() == ["good"]
    assert ("/var/log/bad.log" in caplog.text) == (kind != "directory below")
    assert codes(caplog) == (set() if kind == "directory below" else {Code.LOG_FILE_REFUSED})


async def test_a_directory_that_is_replaced_by_a_link_is_not_followed(lab: FilesLab, tmp_path: Path) -> None:
    container = Container(tmp_path, "b", "", LogLabels(""))
    label = LogPathLabel("app", ("var", "log", "*", "x.log"))
    target = LogTarget(
        LogOrigin("b" * 64, "b", "b/web", "w1"),
        LogLabels(""),
        "",
        runs=True,
        sources=(LogFileSource(label, str(container.directory), ("*", "x.log")),),
    )
    for name in ("inside", "outside"):
        directory = (container.directory if name == "inside" else tmp_path) / name
        directory.mkdir()
        (directory / "x.log").write_text(f"{name}\n")
    (container.directory / "led").symlink_to(tmp_path / "outside")
    lab.shipper.update([target])
    await lab.ship()
    assert lab.messages("b") == ["inside"]


async def test_more_files_than_can_be_open_are_told_and_read_one_after_the_other(
    lab: FilesLab, caplog: pytest.LogCaptureFixture
) -> None:
    one = lab.add("a")
    for number in range(MAX_FILES + 20):
        one.write(f"{number}.log", f"of {number}")
    await lab.ship()
    assert len(lab.messages()) == MAX_FILES
    assert codes(caplog) == {Code.LOG_TOO_MANY_FILES}
    await lab.ship(QUIET)
    await lab.ship(QUIET)
    assert sorted(lab.messages()) == sorted(f"of {number}" for number in range(MAX_FILES + 20))


async def test_a_line_without_end_is_cut_and_told(lab: FilesLab, caplog: pytest.LogCaptureFixture) -> None:
    one = lab.add("a")
    one.write("x.log", "\N{EURO SIGN}" * 100_000, "next")
    await lab.ship()
    found = lab.messages()
    assert "".join(found[:-1]) == "\N{EURO SIGN}" * 100_000
    assert found[-1] == "next"
    assert codes(caplog) == {Code.LOG_LINES_CUT}


async def test_zeros_before_lines_are_no_lines_and_reserved_space_is_awaited(lab: FilesLab) -> None:
    one = lab.add("a", "x.log")
    path = one.directory / "x.log"
    one.write("x.log", "first")
    os.truncate(path, 1 << 30)  # reserved, as far as nothing is written
    await lab.ship()
    with path.open("r+b") as file:
        file.seek(6)
        file.write(b"second\n")
        file.seek(1 << 29)
        file.write(b"behind a hole\n")
    await lab.ship()
    await lab.ship()
    assert lab.messages() == ["first", "second", "behind a hole"]


async def test_no_byte_breaks_a_line(lab: FilesLab) -> None:
    one = lab.add("a", "x.log")
    (one.directory / "x.log").write_bytes(b"\xff\xfe\x00\x01\r\n\x1b[31mred\x85\x0b\x0c\xe2\x82\nnext\n")
    await lab.ship()
    assert len(lab.messages()) == 3
    assert lab.messages()[2] == "next"


async def test_a_container_that_writes_without_end_does_not_delay_another(lab: FilesLab) -> None:
    loud = lab.add("a", "", LogLabels("", multiline=r"(x{0,9}y?){0,20}z$"))
    quiet = lab.add("b", "app.log")
    for number in range(30):
        loud.write(f"{number}.log", *("x" * 1000 for _ in range(500)))
    quiet.write("app.log", "line 0")
    lab.now += LONGEST_SCAN
    lab.shipper.follow_rotation()
    for turn in range(10):
        loud.write("0.log", *("x" * 1000 for _ in range(1000)))
        quiet.write("app.log", f"line {turn + 1}")
        lab.now += 0.2
        lab.shipper.follow_rotation()
        assert await lab.shipper.ship_once()
        assert lab.messages("b") == numbers(0, turn + 1)
    assert len(lab.messages("a")) > 0


async def test_the_next_container_on_a_volume_goes_on_where_the_one_before_ended(lab: FilesLab) -> None:
    one = lab.add("a", "app.log")
    one.write("app.log", *numbers(1, 5))
    await lab.ship()
    other = lab.containers["b"] = Container(lab.directory, "b", "app.log", LogLabels(""))
    other.directory.rmdir()
    other.directory.symlink_to(one.directory)
    lab.update()
    await lab.ship()
    del lab.containers["a"]
    lab.update()
    one.write("app.log", *numbers(6, 7))
    await lab.ship()
    one.write("app.log", *numbers(8, 9))
    await lab.ship()
    assert lab.messages("a") + lab.messages("b") == numbers(1, 9)


async def test_lines_above_the_rate_are_dropped_over_all_files_of_a_container(lab: FilesLab) -> None:
    one = lab.add("a", "", LogLabels("", rate_limit=3))
    one.write("x.log", *numbers(1, 3))
    one.write("y.log", *numbers(4, 6))
    await lab.ship()
    assert len(lab.messages()) == 3
    assert lab.counters.services["a/web"].limited == 3


async def test_the_time_is_put_before_lines_that_have_none(lab: FilesLab) -> None:
    one = lab.add("a", "x.log", LogLabels("", timestamp=True))
    one.write("x.log", "2026-12-01T00:00:00Z has one", "has none")
    await lab.ship()
    first, second = lab.documents("a")
    assert first["message"] == "2026-12-01T00:00:00Z has one"
    assert second["message"] == f"{second['@timestamp']} has none"


async def test_positions_of_the_version_before_are_read(tmp_path: Path) -> None:
    path = tmp_path / "positions.json"
    path.write_text('{"version":1,"positions":{"one":{"generation":"g","offset":7}}}')
    file = PositionFile(path)
    positions = file.load()
    assert (positions["one"].offset, file.files) == (7, ())
