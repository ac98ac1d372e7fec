"""The log handler: every line while the output is read, and never blocking while it is not."""

import fcntl
import logging
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from mesh.util.logging.handler import QueuedLogHandler, log_surely


@pytest.fixture
def pipe() -> Iterator[tuple[int, int]]:
    ends = os.pipe()
    fcntl.fcntl(ends[1], fcntl.F_SETPIPE_SZ, 4096)
    yield ends
    os.close(ends[0])
    os.close(ends[1])


def logger(handler: logging.Handler) -> logging.Logger:
    log = logging.Logger("of this test", logging.DEBUG)  # noqa: LOG001 (no other test may share it)
    log.addHandler(handler)
    return log


def test_lines_are_in_order_and_flushed_at_the_end(pipe: tuple[int, int]) -> None:
    handler = QueuedLogHandler(pipe[1])
    log = logger(handler)
    for number in range(20):
        log.info("line %d", number)
    handler.close()
    assert [line.split(" INFO ")[1] for line in os.read(pipe[0], 4096).decode().splitlines()] == [
        f"line {number}" for number in range(20)
    ]


def test_a_stalled_reader_blocks_no_caller_and_gets_the_number_of_lost_lines(pipe: tuple[int, int]) -> None:
    handler = QueuedLogHandler(pipe[1], waiting=10)
    log = logger(handler)
    for number in range(500):  # more than the pipe and the queue hold: were it to wait, it would wait for ever
        log.info("line %d", number)
    read = b""
    while b"line 9999" not in read:  # ends by the time limit of the test if the last line never comes
        log.info("line 9999")
        read += os.read(pipe[0], 65536)
    lines = read.decode().splitlines()
    lost = [line for line in lines if line.endswith(" log lines were lost: nobody read them [VM701]")]
    assert lost, lines
    assert 0 < int(lost[0].split()[3]) < 500
    handler.close()


def test_a_closed_reader_causes_no_error() -> None:
    ours, theirs = os.pipe()
    os.close(ours)
    handler = QueuedLogHandler(theirs)
    logger(handler).error("to nobody")
    handler.close()
    os.close(theirs)


def test_a_line_that_must_not_be_lost_is_neither_limited_nor_dropped_and_says_that_it_was_written(
    tmp_path: Path,
) -> None:
    file = os.open(tmp_path / "log", os.O_WRONLY | os.O_CREAT)
    handler = QueuedLogHandler(file, waiting=1)
    root = logging.getLogger()
    root.addHandler(handler)
    try:
        log = logger(handler)
        for _ in range(200):
            log.info("line")
        written = [log_surely(log, logging.INFO, "kept") for _ in range(150)]
        assert all(each.result(10) for each in written)
    finally:
        root.removeHandler(handler)
        handler.close()
        os.close(file)
    assert (tmp_path / "log").read_text().count(" INFO kept\n") == 150


def test_a_line_that_cannot_be_written_says_so() -> None:
    full = os.open("/dev/full", os.O_WRONLY)
    handler = QueuedLogHandler(full)
    root = logging.getLogger()
    root.addHandler(handler)
    try:
        assert log_surely(logger(handler), logging.INFO, "kept").result(10) is False
    finally:
        root.removeHandler(handler)
        handler.close()
        os.close(full)
