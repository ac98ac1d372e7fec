"""Where an answer has ended, as a text that a worker gets back with the next question. Pure.

Files are read on by their position, the engine's API by time. A cursor has both: `vipmesh ship` may begin or end while
somebody follows a service.
"""

import re
from collections.abc import Mapping
from typing import NamedTuple, TypeAlias

from mesh.platform.logs.json_file import LogPosition

MAX_INSTANCES = 64
"""The most instances of a service on one worker that are read; the request line of the next question has all."""
ID_LENGTH = 12
"""Digits of the container's ID in a cursor."""
_MAX_LENGTH = 5000
_ENTRY = re.compile(r"([0-9A-Za-z]{1,12})\.([0-9a-f]{0,16})\.([0-9]{1,15})\.([0-9]{1,20})", re.ASCII)


class InstanceCursor(NamedTuple):
    """Up to where one instance was read."""

    position: LogPosition | None
    """The place in its files; None if it was not read from files, or has none."""
    time: int = 0
    """When its last line was written, in nanoseconds since 1970; 0 if there is none."""


LogCursor: TypeAlias = Mapping[str, InstanceCursor]
"""By the first digits of the container's ID."""


def encode_cursor(cursor: LogCursor) -> str:
    """Return the text, in characters that a URL has as they are."""
    return "~".join(
        f"{id}.{each.position.generation if each.position else ''}.{each.position.offset if each.position else 0}"
        f".{each.time}"
        for id, each in cursor.items()
    )


def parse_cursor(text: str) -> LogCursor:
    """Parse what `encode_cursor` has made. Raises `ValueError`."""
    found: dict[str, InstanceCursor] = {}
    if len(text) > _MAX_LENGTH:
        raise ValueError("after is too long; send what the last answer had as its cursor")
    for entry in text.split("~") if text else ():
        match = _ENTRY.fullmatch(entry)
        if match is None:
            raise ValueError("after cannot be read; send what the last answer had as its cursor")
        id, generation, offset, time = match.groups()
        found[id] = InstanceCursor(LogPosition(generation, int(offset)) if generation else None, int(time))
    return found
