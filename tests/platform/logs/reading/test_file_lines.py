"""Lines of one log from its files: the newest ones, and what follows, over rotations and within bounds."""

import gzip
import json
from datetime import UTC, datetime
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mesh.platform.logs.reading.file_lines import FIRST_SPAN, LEAST_BYTES, LinesWanted, read_following, read_newest


class WrittenLog:
    """A log as the engine writes it; the number of a line is also its second."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.count = 0

    def write(self, count: int, padding: str = "") -> None:
        with self.path.open("a") as file:
            for _ in range(count):
                time = (
                    f"2026-11-30T{self.count // 3600:02d}:{self.count // 60 % 60:02d}:{self.count % 60:02d}.000000001Z"
                )
                entry = {"log": f"line {self.count}{padding}\n", "stream": ("stdout", "stderr")[self.count % 2]}
                file.write(json.dumps({**entry, "time": time}) + "\n")
                self.count += 1

    def rotate(self, *, packed: bool = False) -> None:
        for number in range(30, 0, -1):
            for end in ("", ".gz"):
                older = self.path.with_name(f"{self.path.name}.{number}{end}")
                if older.exists():
                    older.rename(self.path.with_name(f"{self.path.name}.{number + 1}{end}"))
        if packed:
            self.path.with_name(f"{self.path.name}.1.gz").write_bytes(gzip.compress(self.path.read_bytes()))
            self.path.unlink()
        else:
            self.path.rename(self.path.with_name(f"{self.path.name}.1"))
        self.path.touch()


@pytest.fixture
def written(tmp_path: Path) -> WrittenLog:
    return WrittenLog(tmp_path / "a.log")


def numbers(found: object) -> list[int]:
    return [int(line.text.split()[1]) for line in found.lines]  # type: ignore[attr-defined]


SECOND = 1_000_000_000
MIDNIGHT = int(datetime(2026, 11, 30, tzinfo=UTC).timestamp())


def test_the_newest_lines_over_rotations(written: WrittenLog) -> None:
    for packed in (True, False, True):
        written.write(10)
        written.rotate(packed=packed)
    written.write(5)
    for most in (0, 1, 5, 12, 34, 35, 100):
        found = read_newest(written.path, LinesWanted(most))
        assert numbers(found) == list(range(max(0, 35 - most), 35))
        assert not found.is_cut


def test_only_lines_from_a_time_on_and_with_a_text(written: WrittenLog) -> None:
    written.write(20)
    written.rotate()
    written.write(20)
    assert numbers(read_newest(written.path, LinesWanted(100, (MIDNIGHT + 15) * SECOND))) == list(range(15, 40))
    assert numbers(read_newest(written.path, LinesWanted(100, 0, "line 3"))) == [3, *range(30, 40)]
    assert numbers(read_newest(written.path, LinesWanted(2, 0, "line 1"))) == [18, 19]
    assert numbers(read_newest(written.path, LinesWanted(2, 0, "["))) == [], "no regular expression"


def test_a_large_file_is_read_from_its_end_and_what_the_bounds_leave_out_is_told(written: WrittenLog) -> None:
    written.write(3000, " " + "x" * 1000)
    assert written.path.stat().st_size > 2 * LEAST_BYTES
    found = read_newest(written.path, LinesWanted(10, most_bytes=FIRST_SPAN))
    assert numbers(found) == list(range(2990, 3000))
    assert not found.is_cut
    found = read_newest(written.path, LinesWanted(5000, most_bytes=LEAST_BYTES))
    assert found.is_cut
    assert numbers(found) == list(range(3000 - len(found.lines), 3000))
    assert numbers(read_newest(written.path, LinesWanted(5000, most_bytes=64 * LEAST_BYTES))) == list(range(3000))
    late = read_newest(written.path, LinesWanted(5000, most_bytes=64 * LEAST_BYTES, is_late=lambda: True))
    assert late.is_cut
    assert numbers(late) == list(range(3000 - len(late.lines), 3000))


@settings(max_examples=30, deadline=None)
@given(steps=st.lists(st.sampled_from(["write", "rotate", "pack", "read"]), max_size=25), most=st.integers(200, 4000))
def test_who_follows_gets_each_line_once_and_in_order(
    tmp_path_factory: pytest.TempPathFactory, steps: list[str], most: int
) -> None:
    written = WrittenLog(tmp_path_factory.mktemp("log") / "a.log")
    position, got = None, []
    wanted = LinesWanted(0, most_bytes=most)

    def read() -> None:
        nonlocal position
        more = True
        while more:
            found = read_following(written.path, position, wanted)
            got.extend(numbers(found))
            position, more = found.end, found.more
            assert not found.is_gap

    for step in steps:
        if step == "write":
            written.write(3)
        elif step == "read":
            read()
        elif written.path.exists() and written.path.stat().st_size:
            written.rotate(packed=step == "pack")
    read()
    assert got == list(range(written.count))


def test_a_file_that_is_gone_is_a_gap_and_one_that_was_cut_begins_again(written: WrittenLog) -> None:
    written.write(5)
    position = read_newest(written.path, LinesWanted(0)).end
    assert position is not None
    written.path.write_text("")
    written.write(2)
    assert numbers(read_following(written.path, position, LinesWanted(0))) == [5, 6]
    found = read_following(written.path, position._replace(generation="0" * 16), LinesWanted(0))
    assert found.is_gap
    assert numbers(found) == [5, 6]


def test_a_line_that_is_not_complete_waits(written: WrittenLog) -> None:
    written.write(2)
    with written.path.open("a") as file:
        file.write('{"log":"line 2 has ","stream":"stdout","time":""}\n{"log":"no e')
    found = read_newest(written.path, LinesWanted(10))
    assert numbers(found) == [0, 1]
    with written.path.open("a") as file:
        file.write('nd\\n","stream":"stderr","time":""}\n{"log":"an end\\n","stream":"stdout","time":""}\n')
    more = read_following(written.path, found.end, LinesWanted(0))
    assert [line.text for line in more.lines] == ["line 2 has an end", "no end"]


def test_links_and_directories_are_not_read(tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("root\n")
    (tmp_path / "link.log").symlink_to(tmp_path / "secret")
    (tmp_path / "dir.log").mkdir()
    for name in ("link.log", "dir.log"):
        with pytest.raises(OSError, match=r"symbolic link|regular|directory"):
            read_newest(tmp_path / name, LinesWanted(10))
    assert read_newest(tmp_path / "absent.log", LinesWanted(10)).end is None
