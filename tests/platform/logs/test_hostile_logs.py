"""What a container may do to its logs: each is read, refused or cut, told or counted, and delays no other container."""

import json
import os
import shutil
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import NamedTuple

import pytest

from mesh.config.labels.logs import LogLabels, LogPathLabel
from mesh.model.codes import Code
from mesh.platform.logs.documents import LogOrigin
from mesh.platform.logs.file_lines import MAX_EVENT
from mesh.platform.logs.file_set import COPY_PATIENCE
from mesh.platform.logs.locate import LogFileSource
from mesh.platform.logs.targets import LogTarget
from tests.platform.logs.test_files import FilesLab, codes
from tests.platform.logs.test_shipper import Lab

GOOD = b'{"log":"good\\n","stream":"stdout","time":"2026-11-30T11:59:16.358097495Z"}\n'


class DriverLine(NamedTuple):
    """A line of the driver's file, and what becomes of it."""

    data: bytes
    message: str
    """What is in the store."""
    unreadable: int = 0
    stream: str = "stdout"


def entry(**fields: object) -> bytes:
    return json.dumps({"log": "text\n", "stream": "stdout", "time": "2026-11-30T11:59:17Z", **fields}).encode()


DRIVER_LINES = {
    "broken JSON": DriverLine(b'{"log":"a', '{"log":"a', 1, "unknown"),
    "no JSON": DriverLine(b"plain words", "plain words", 1, "unknown"),
    "empty line": DriverLine(b"", "", 1, "unknown"),
    "not an object": DriverLine(b"[1, 2]", "[1, 2]", 1, "unknown"),
    "two objects": DriverLine(b'{"log":"a"}{"log":"b"}', '{"log":"a"}{"log":"b"}', 1, "unknown"),
    "nested without end": DriverLine(b"[" * 5000, "[" * 5000, 1, "unknown"),
    "duplicate keys": DriverLine(b'{"log":"first\\n","log":"second\\n","stream":"stdout"}', "second"),
    "further keys": DriverLine(entry(attrs={"a": [1, {}]}), "text"),
    "missing time": DriverLine(b'{"log":"text\\n","stream":"stdout"}', "text"),
    "zero time": DriverLine(entry(time="0001-01-01T00:00:00Z"), "text"),
    "negative time": DriverLine(entry(time="-0001-01-01T00:00:00Z"), "text"),
    "no time of a calendar": DriverLine(entry(time="2026-02-31T25:61:61Z"), "text"),
    "time before the one before": DriverLine(entry(time="1970-01-01T00:00:00Z"), "text"),
    "last time": DriverLine(entry(time="9999-12-31T23:59:59.999999999Z"), "text"),
    "time is a huge number": DriverLine(
        b'{"log":"text\\n","time":1' + b"0" * 400 + b"}", '{"log":"text\\n","time":1' + "0" * 400 + "}", 1, "unknown"
    ),
    "text is a huge number": DriverLine(b'{"log":1e999}', '{"log":1e999}', 1, "unknown"),
    "text is null": DriverLine(b'{"log":null}', '{"log":null}', 1, "unknown"),
    "unknown stream": DriverLine(entry(stream="stdin"), "text", 0, "unknown"),
    "hostile stream": DriverLine(entry(stream='"},{"x'), "text", 0, "unknown"),
    "zeros in the text": DriverLine(entry(log="a\0b\n"), "a\0b"),
    "zeros in the line": DriverLine(b"\0\0\0", "\0\0\0", 1, "unknown"),
    "no UTF-8": DriverLine(b"\xff\xfe\xe2\x82", "\N{REPLACEMENT CHARACTER}" * 3, 1, "unknown"),
    "half of a surrogate pair": DriverLine(b'{"log":"\\ud800\\n"}', '{"log":"\\ud800\\n"}', 1, "unknown"),
    "carriage returns": DriverLine(entry(log="a\r\n") + b"\r", "a\r"),
    "control characters": DriverLine(entry(log="\x1b[2J\x07\n"), "\x1b[2J\x07"),
}


@pytest.mark.parametrize("name", DRIVER_LINES)
async def test_a_line_of_the_driver_is_delivered_whatever_it_is_and_so_are_the_others(
    name: str, tmp_path: Path
) -> None:
    lab, case = Lab(tmp_path), DRIVER_LINES[name]
    lab.add("one")
    lab.add("two")
    (tmp_path / "one.log").write_bytes(GOOD + case.data + b"\n" + GOOD)
    (tmp_path / "two.log").write_bytes(GOOD)
    lab.shipper.follow_rotation()
    assert await lab.shipper.ship_once()  # one turn: nothing of it waits for anything
    found = [json.loads(each.body) for each in lab.sink.stored.values() if each.store == "one-app"]
    assert [each["message"] for each in found] == ["good", case.message, "good"]
    assert found[1]["stream"] == case.stream
    assert all(datetime.fromisoformat(each["@timestamp"]).tzinfo for each in found)
    assert lab.messages("two") == ["good"]
    assert lab.counters.services["one/web"].unreadable == case.unreadable
    lab.shipper.close()


class Attack(NamedTuple):
    """What a container does to `x.log`, of which `before` is delivered, and what is to be seen of it."""

    act: Callable[[Path], object]
    """Gets its directory. Beside it is `secret`, which is no file of the container."""
    messages: tuple[str, ...] = ()
    """What is delivered of it."""
    codes: frozenset[Code] = frozenset()
    lost: int = 0


def replace_by_directory(directory: Path) -> None:
    (directory / "x.log").unlink()
    (directory / "x.log").mkdir()
    (directory / "x.log" / "below.log").write_text("below\n")


def replace_by_link(directory: Path) -> None:
    (directory / "x.log").unlink()
    (directory / "x.log").symlink_to("../secret")


def replace_by_fifo(directory: Path) -> None:
    (directory / "x.log").unlink()
    os.mkfifo(directory / "x.log")


def write_behind_a_hole(directory: Path) -> None:
    with (directory / "x.log").open("r+b") as file:
        file.seek(1 << 40)
        file.write(b"behind\n")


def write_under_hostile_name(directory: Path) -> None:
    Path(os.fsdecode(os.fsencode(directory) + b"/\xff\x1b[2J\n.log")).write_text("named\n")


def write(data: bytes) -> Callable[[Path], object]:
    def act(directory: Path) -> None:
        with (directory / "x.log").open("ab") as file:
            file.write(data)

    return act


REFUSED = frozenset({Code.LOG_FILE_REFUSED})
ATTACKS = {
    "replaced by a directory": Attack(replace_by_directory, ("below",)),
    "replaced by a link that leads out": Attack(replace_by_link, codes=REFUSED),
    "replaced by a FIFO": Attack(replace_by_fifo, codes=REFUSED),
    "a hard link to itself": Attack(lambda at: os.link(at / "x.log", at / "y.log")),
    "shrinks": Attack(lambda at: os.truncate(at / "x.log", 3)),
    "shrinks and is written": Attack(lambda at: (at / "x.log").write_text("new\n"), ("new",)),
    "a hole of a tebibyte": Attack(write_behind_a_hole, ("behind",)),
    "reserved space": Attack(lambda at: os.truncate(at / "x.log", 1 << 40)),
    "zeros": Attack(write(b"\0\0\0a\0b\n"), ("a\0b",)),
    "no UTF-8": Attack(write(b"\xff\xfe\n"), ("\N{REPLACEMENT CHARACTER}" * 2,)),
    "carriage returns": Attack(write(b"a\r\nb\rc\r\n"), ("a", "b\rc")),
    "times that go backward": Attack(
        write(b"2026-01-02T00:00:00Z a\n1970-01-01T00:00:00Z b\n0000-00-00T00:00:00Z c\n-1-01-01T00:00:00Z d\n"),
        (
            "2026-01-02T00:00:00Z a",
            "1970-01-01T00:00:00Z b",
            "0000-00-00T00:00:00Z c",
            "-1-01-01T00:00:00Z d",
        ),
    ),
    "empty lines": Attack(write(b"\n\n"), ("", "")),
    "a hard link to a file of the host": Attack(lambda at: os.link(at / "../secret", at / "y.log"), ("secret",)),
    "a hostile name": Attack(write_under_hostile_name, ("named",)),
}


@pytest.mark.parametrize("name", ATTACKS)
async def test_a_file_is_read_or_refused_and_told_and_another_container_is_not_delayed(
    name: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    lab, case = FilesLab(tmp_path), ATTACKS[name]
    (tmp_path / "secret").write_text("secret\n")
    one, two = lab.add("a", "x.log" if "directory" in name else ""), lab.add("b")
    one.write("x.log", "before")
    two.write("y.log", "before")
    await lab.ship()
    case.act(one.directory)
    two.write("y.log", "meanwhile")
    lab.now += 1
    lab.shipper.follow_rotation()
    await lab.shipper.ship_once()
    assert lab.messages("b") == ["before", "meanwhile"]
    for _ in range(3):
        await lab.ship(COPY_PATIENCE)
    assert lab.messages() == ["before", *case.messages]
    assert codes(caplog) == case.codes
    assert lab.counters.services["a/web"].lost == case.lost
    lab.shipper.close()


async def test_a_line_of_100_megabytes_is_cut_and_delays_no_line_of_another_container(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    lab = FilesLab(tmp_path)
    one, two = lab.add("a"), lab.add("b")
    with (one.directory / "x.log").open("wb") as file:
        for _ in range(100):
            file.write(b"x" * (1 << 20))
    for turn in range(5):
        two.write("y.log", f"line {turn}")
        lab.now += 1
        lab.shipper.follow_rotation()
        assert await lab.shipper.ship_once()
        assert len(lab.messages("b")) == turn + 1
    assert {len(each) for each in lab.messages()} == {MAX_EVENT}
    assert lab.counters.services["a/web"].split == len(lab.messages())
    assert Code.LOG_LINES_CUT in codes(caplog)
    lab.shipper.close()


async def test_a_directory_that_is_swapped_for_a_link_while_it_is_read_leads_nowhere(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    lab = FilesLab(tmp_path)
    base, outside = tmp_path / "base", tmp_path / "outside"
    for directory, text in ((base / "logs", "inside\n"), (outside, "secret\n")):
        directory.mkdir(parents=True)
        (directory / "x.log").write_text(text)
    label = LogPathLabel("app", ("var", "logs", "x.log"))
    source = LogFileSource(label, str(base), ("logs", "x.log"))
    target = LogTarget(LogOrigin("a" * 64, "a", "a/web", "w1"), LogLabels(""), "", runs=True, sources=(source,))
    lab.shipper.update([target])
    await lab.ship()
    with (base / "logs" / "x.log").open("a") as file:
        shutil.move(base / "logs", tmp_path / "moved")
        (base / "logs").symlink_to(outside)
        file.write("still inside\n")
    for _ in range(3):
        await lab.ship()
    assert lab.messages() == ["inside", "still inside"]
    assert Code.LOG_FILE_REFUSED in codes(caplog)
    lab.shipper.close()
