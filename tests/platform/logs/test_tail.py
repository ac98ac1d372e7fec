"""A log through its rotation: nothing is lost that can be had, nothing is read twice, and what is lost is counted."""

import gzip
import os
from pathlib import Path

import pytest

from mesh.platform.logs.generations import open_regular
from mesh.platform.logs.json_file import LogPosition
from mesh.platform.logs.tail import LONGEST_LINE, MAX_REMOVED, ContainerTail


class Log:
    """The files of a rotation, as the engine makes them."""

    def __init__(self, directory: Path, *, keep: int = 3, compress: bool = False) -> None:
        self.path = directory / "json.log"
        self._keep = keep
        self._packed = ".gz" if compress else ""
        self._number = 0

    def write(self, count: int = 1) -> None:
        with self.path.open("ab") as file:
            for _ in range(count):
                self._number += 1
                file.write(b"line %d\n" % self._number)

    def rotate(self) -> None:
        for number in range(self._keep - 1, 1, -1):
            older, newer = (self.path.with_name(f"json.log.{n}{self._packed}") for n in (number, number - 1))
            if newer.exists():
                newer.replace(older)
        first = self.path.replace(self.path.with_name("json.log.1"))
        if self._packed:
            first.with_name("json.log.1.gz").write_bytes(gzip.compress(first.read_bytes()))
            first.unlink()
        self.path.touch()


def read(tail: ContainerTail, limit: int = 1 << 20) -> list[bytes]:
    """All lines that there are, each turn delivered."""
    found: list[bytes] = []
    tail.follow()
    while lines := tail.read(limit)[0]:
        found += [line.data for line in lines]
        tail.advance(lines[-1].end)
    return found


def numbers(first: int, last: int) -> list[bytes]:
    return [b"line %d" % number for number in range(first, last + 1)]


@pytest.mark.parametrize("compress", [False, True], ids=["plain", "compressed"])
@pytest.mark.parametrize("limit", [8, 20, 1 << 20])
def test_every_line_is_read_once_through_rotation(tmp_path: Path, limit: int, *, compress: bool) -> None:
    log = Log(tmp_path, compress=compress)
    log.write(5)
    tail = ContainerTail(log.path, None)
    found = read(tail, limit)
    log.rotate()
    log.write(5)
    log.rotate()
    log.write(5)
    assert found + read(tail, limit) == numbers(1, 15)
    assert tail.lost.occasions == 0


@pytest.mark.parametrize("compress", [False, True], ids=["plain", "compressed"])
def test_a_process_goes_on_from_the_position_of_the_one_before(tmp_path: Path, *, compress: bool) -> None:
    log = Log(tmp_path, compress=compress)
    log.write(10)
    before = ContainerTail(log.path, None)
    before.follow()
    before.advance(before.read(1 << 20)[0][3].end)
    position = before.position
    before.close()
    log.rotate()
    log.write(3)
    after = ContainerTail(log.path, position)
    assert read(after) == numbers(5, 13)
    assert after.lost.occasions == 0


def test_a_file_that_is_held_is_read_to_its_end_although_rotation_removed_it(tmp_path: Path) -> None:
    log = Log(tmp_path, keep=2)
    log.write(5)
    tail = ContainerTail(log.path, None)
    tail.follow()
    for _ in range(4):
        log.rotate()
        log.write(5)
        tail.follow()
    assert read(tail) == numbers(1, 25)
    assert tail.lost.occasions == 0


def test_what_rotation_took_while_no_process_ran_is_lost_and_counted(tmp_path: Path) -> None:
    log = Log(tmp_path, keep=2)
    log.write(5)
    before = ContainerTail(log.path, None)
    assert len(read(before)) == 5
    before.close()
    for _ in range(3):
        log.rotate()
        log.write(5)
    after = ContainerTail(log.path, before.position)
    assert read(after) == numbers(11, 20)
    assert after.take_lost().occasions == 1
    assert after.take_lost().occasions == 0


def test_files_held_have_a_bound_and_what_is_given_up_is_counted_in_bytes(tmp_path: Path) -> None:
    log = Log(tmp_path, keep=2)
    tail = ContainerTail(log.path, None)
    for _ in range(MAX_REMOVED + 4):
        log.write(1)
        tail.follow()
        log.rotate()
    log.write(1)
    found = read(tail)
    lost = tail.take_lost()
    assert lost.occasions > 0
    assert found == numbers(lost.occasions + 1, MAX_REMOVED + 5)
    assert lost.known_bytes == sum(len(line) + 1 for line in numbers(1, lost.occasions))


def test_the_next_file_with_the_same_inode_is_another_one(tmp_path: Path) -> None:
    path = tmp_path / "json.log"
    path.write_bytes(b"one\n")
    first = open_regular(path)
    assert first.identify()
    with path.open("r+b") as file:  # the inode stays, as if the file system had given it to a new file
        file.write(b"two\n")
    second = open_regular(path)
    assert second.identify()
    assert first.inode == second.inode
    assert first.fingerprint != second.fingerprint


def test_a_file_that_was_cut_is_read_from_its_beginning(tmp_path: Path) -> None:
    log = Log(tmp_path)
    log.write(5)
    tail = ContainerTail(log.path, None)
    assert len(read(tail)) == 5
    os.truncate(log.path, 0)
    tail.follow()
    log.write(2)
    assert read(tail) == numbers(6, 7)
    assert tail.take_lost().occasions == 1


def test_a_line_is_read_once_it_is_complete(tmp_path: Path) -> None:
    path = tmp_path / "json.log"
    path.write_bytes(b"whole\nbeg")
    tail = ContainerTail(path, None)
    assert read(tail) == [b"whole"]
    with path.open("ab") as file:
        file.write(b"un\n")
    assert read(tail) == [b"begun"]


def test_a_line_without_end_is_read_in_pieces(tmp_path: Path) -> None:
    path = tmp_path / "json.log"
    path.write_bytes(b"x" * (LONGEST_LINE + 7) + b"\nnext\n")
    tail = ContainerTail(path, None)
    assert read(tail, LONGEST_LINE) == [b"x" * LONGEST_LINE, b"x" * 7, b"next"]


@pytest.mark.parametrize("kind", ["link", "fifo", "directory"])
def test_what_is_no_regular_file_is_refused(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "json.log"
    (tmp_path / "secret").write_text("secret\n")
    if kind == "link":
        path.symlink_to("secret")
    elif kind == "fifo":
        os.mkfifo(path)
    else:
        path.mkdir()
    with pytest.raises(OSError, match=r"regular|symbolic"):
        ContainerTail(path, None).follow()


def test_damaged_compressed_data_is_an_error_and_can_be_skipped(tmp_path: Path) -> None:
    log = Log(tmp_path, compress=True)
    log.write(20_000)
    log.rotate()
    log.write(1)
    packed = tmp_path / "json.log.1.gz"
    data = bytearray(packed.read_bytes())
    data[len(data) // 2 :] = bytes(len(data) - len(data) // 2)
    packed.write_bytes(data)
    tail = ContainerTail(log.path, None)
    tail.follow()
    with pytest.raises(OSError, match=r"damaged|CRC|incorrect"):
        read(tail)
    tail.skip()
    assert read(tail) == numbers(20_001, 20_001)
    assert tail.take_lost().occasions == 1


def test_a_log_that_is_not_there_yet_is_awaited(tmp_path: Path) -> None:
    log = Log(tmp_path)
    tail = ContainerTail(log.path, None)
    assert tail.is_gone()
    assert read(tail) == []
    log.write(1)
    assert read(tail) == numbers(1, 1)
    assert tail.position == LogPosition(tail.position.generation, 7) if tail.position else False


@pytest.mark.parametrize("moment", ["before it is followed", "before it is read"])
def test_a_file_that_was_cut_and_has_more_than_before_is_read_from_its_beginning(tmp_path: Path, moment: str) -> None:
    path = tmp_path / "json.log"
    path.write_bytes(b"old line\n")
    tail = ContainerTail(path, None)
    assert read(tail) == [b"old line"]
    if moment == "before it is read":
        tail.follow()
    os.truncate(path, 0)
    with path.open("ab") as file:
        file.write(b"a first line that is longer\nand another one\n")
    if moment == "before it is read":
        assert tail.read(1 << 20) == ([], True)
    tail.follow()
    assert tail.take_lost().occasions == 1
    assert read(tail) == [b"a first line that is longer", b"and another one"]
