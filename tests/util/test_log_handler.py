"""The log: every line while somebody reads, and no waiting while nobody does."""

import fcntl
import logging
import os
from collections.abc import Iterator

import pytest

from mesh.util.logging.handler import QueuedLogHandler


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


def test_lines_come_in_order_and_the_last_ones_before_the_end(pipe: tuple[int, int]) -> None:
    handler = QueuedLogHandler(pipe[1])
    log = logger(handler)
    for number in range(20):
        log.info("line %d", number)
    handler.close()
    assert [line.split(" INFO ")[1] for line in os.read(pipe[0], 4096).decode().splitlines()] == [
        f"line {number}" for number in range(20)
    ]


def test_a_reader_that_stops_holds_nobody_up_and_learns_what_was_lost(pipe: tuple[int, int]) -> None:
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


def test_a_reader_that_has_gone_is_no_trouble() -> None:
    ours, theirs = os.pipe()
    os.close(ours)
    handler = QueuedLogHandler(theirs)
    logger(handler).error("to nobody")
    handler.close()
    os.close(theirs)
