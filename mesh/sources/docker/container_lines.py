"""Parses what the engine sends of the log of a container, with `timestamps=1`. Pure.

Without a terminal it is in frames: a byte for the stream, three zeros, the length of the payload in four bytes, big
endian (Docker Engine API, ContainerAttach). With a terminal it is the lines as they are. Each line, or each part of a
long one, begins with its time. https://docs.docker.com/reference/api/engine/version/v1.47/#tag/Container
"""

import struct
from collections.abc import Iterator, Sequence
from typing import NamedTuple

_HEADER = struct.Struct(">BxxxI")
_STREAMS = {0: "stdout", 1: "stdout", 2: "stderr"}
MAX_LINE = 64 * 1024
"""The most characters of a line; longer ones become several."""


class ContainerLine(NamedTuple):
    """A line that a container has written."""

    time: str
    """`2026-11-30T11:59:16.358097495Z`."""
    text: str
    """Without the line feed."""
    stream: str
    """`stdout` or `stderr`; a terminal has only the former."""


def parse_container_lines(data: bytes) -> Sequence[ContainerLine]:
    """Return the lines that are complete in an answer, which may have been cut anywhere."""
    # A line of a terminal begins with a digit of its time, a frame with the number of a stream.
    is_framed = len(data) >= _HEADER.size and data[0] in _STREAMS and data[1:4] == b"\0\0\0"
    begun: dict[str, ContainerLine] = {}
    lines = []
    for stream, message in _frames(data) if is_framed else (("stdout", each) for each in _at_feeds(data)):
        time, _, text = message.decode(errors="replace").partition(" ")
        before = begun.pop(stream, None)
        if before is not None and len(before.text) + len(text) > MAX_LINE:
            lines.append(before)
            before = None
        line = ContainerLine(time, text, stream) if before is None else before._replace(text=before.text + text)
        if line.text.endswith("\n"):
            lines.append(line._replace(text=line.text.removesuffix("\n").removesuffix("\r" if not is_framed else "")))
        else:
            begun[stream] = line
    return lines


def _frames(data: bytes) -> Iterator[tuple[str, bytes]]:
    offset = 0
    while len(data) - offset >= _HEADER.size:
        number, length = _HEADER.unpack_from(data, offset)
        offset += _HEADER.size
        if len(data) - offset < length:
            return
        yield _STREAMS.get(number, "unknown"), data[offset : offset + length]
        offset += length


def _at_feeds(data: bytes) -> Iterator[bytes]:
    *lines, _ = data.split(b"\n")
    return (line + b"\n" for line in lines)
