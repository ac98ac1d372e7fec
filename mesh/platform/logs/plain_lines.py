"""Reads a block of the driver's file at once if all of its lines are plain: whole, of a stream, with a time. Pure.

Almost all blocks are. `assemble_lines` reads any block line by line, and gives the same lines for a plain one: it says
what is right, and this module is the same faster. A block with a single line that is not plain is left to it.
"""

import re
from collections.abc import Sequence
from itertools import accumulate
from typing import Literal, NamedTuple

import msgspec

from mesh.sources.docker.inspection import start_time

_SECOND = len("2026-11-30T11:59:16")
_TIMES = re.compile(r"(?:[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}(?:\.[0-9]{1,9})?Z\n)*+", re.ASCII)


class PlainEntry(msgspec.Struct, frozen=True, gc=False):
    """One line of the file: what a `DriverEntry` is, with all of its fields."""

    log: str
    stream: Literal["stdout", "stderr"]
    time: str


_DECODER = msgspec.json.Decoder(PlainEntry)


class LogBlock(NamedTuple):
    """Bytes of one file of a rotation that follow each other."""

    generation: str
    """Which file it is, as in `LogPosition`."""
    offset: int
    """Where they begin."""
    data: bytes


class PlainLines(NamedTuple):
    """The lines of a block, column by column: an object for each would cost more than all that is done with it."""

    generation: str
    starts: Sequence[int]
    """The offsets of the lines, which identify them."""
    texts: Sequence[str]
    """Without the line feed."""
    streams: Sequence[str]
    """`stdout` or `stderr`."""
    times: Sequence[str]
    """As the engine wrote them."""
    end: int
    """The offset behind the last line."""

    def first(self, count: int) -> "PlainLines":
        """Return the first lines alone."""
        if count >= len(self.starts):
            return self
        return self._replace(
            starts=self.starts[:count],
            texts=self.texts[:count],
            streams=self.streams[:count],
            times=self.times[:count],
        )


def read_plain_lines(block: LogBlock) -> PlainLines | None:
    """Return the lines of a block; None if one of them is not plain."""
    entries = _entries(block.data)
    if entries is None:
        return None
    texts = [each.log for each in entries]
    streams: list[str] = [each.stream for each in entries]
    times = [each.time for each in entries]
    if [each for each in texts if each[-1:] != "\n"] or not _are_times(times):
        return None
    lengths = map(len, block.data.splitlines(keepends=True))
    *starts, end = accumulate(lengths, initial=block.offset)
    return PlainLines(block.generation, starts, [each[:-1] for each in texts], streams, times, end)


def _entries(data: bytes) -> list[PlainEntry] | None:
    """Return the entries of the lines; None if not each line is one by itself."""
    # The decoder takes any white space between two entries, and within one. A line feed between `}` and `{` is never
    # within one, so with as many entries as lines each line is one entry.
    count = data.count(b"\n")
    if not data.startswith(b"{") or not data.endswith(b"}\n") or b"\r" in data or data.count(b"}\n{") != count - 1:
        return None
    try:
        entries = _DECODER.decode_lines(data)
    except (ValueError, RecursionError):
        return None
    return entries if len(entries) == count else None


def _are_times(times: Sequence[str]) -> bool:
    if _TIMES.fullmatch("\n".join([*times, ""])) is None:
        return False
    return all(start_time(f"{second}Z") is not None for second in {each[:_SECOND] for each in times})
