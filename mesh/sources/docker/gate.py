"""Turns parts of the engine's answers into typed values, piece by piece. Pure.

One event or container that cannot be read costs no other. It is reported, and read again when the engine tells of it
again: nothing is read twice only because the daemon has started.
"""

from collections.abc import Iterable
from typing import Any

import msgspec

from mesh.sources.docker.messages import ContainerSummary, DockerEvent

UNREADABLE_EVENT = DockerEvent(type="network")
"""Stands for an event that cannot be read: like one about a network, it is a reason to list, and nothing else."""

_FIELDS = ("Id", "Names", "State", "Status", "Labels", "Ports", "HostConfig", "NetworkSettings", "ImageID")
_OPTIONAL = frozenset(_FIELDS) - {"Id", "State"}
_UNREADABLE = (msgspec.ValidationError, UnicodeEncodeError)
"""What a field raises that is of another type, or has half of a surrogate pair, which JSON may have."""


MAX_EVENT_BYTES = 1 << 20
"""The most bytes of one event, which has all labels of its container."""


class EventLines:
    """Splits a stream of events into lines, and reads each by itself. Each byte is looked at once."""

    def __init__(self) -> None:
        self._begun = bytearray()
        """The beginning of a line whose end has not arrived."""
        self._too_long = False
        """Whether that line has more than `MAX_EVENT_BYTES`: then the rest of it is dropped."""

    def feed(self, data: bytes) -> list[DockerEvent]:
        """Return the events whose lines end in these bytes. Empty lines are none; unreadable ones are
        `UNREADABLE_EVENT`.
        """
        *ends, rest = data.split(b"\n")
        found = []
        for end in ends:
            if not (end or self._begun or self._too_long):
                continue  # an empty line, of which a stream may have a hundred thousand
            self._add(end)
            if self._too_long:
                found.append(UNREADABLE_EVENT)
            elif line := bytes(self._begun).strip():
                found.append(decode_event(line))
            self._begun.clear()
            self._too_long = False
        self._add(rest)
        return found

    def _add(self, part: bytes) -> None:
        if self._too_long or len(self._begun) + len(part) > MAX_EVENT_BYTES:
            self._begun.clear()
            self._too_long = True
        else:
            self._begun += part


def decode_event(line: bytes) -> DockerEvent:
    """Return the event in one line of JSON, or `UNREADABLE_EVENT`."""
    try:
        return msgspec.json.decode(line, type=DockerEvent)
    except (ValueError, RecursionError):  # `MsgspecError` is a `ValueError`
        return UNREADABLE_EVENT


def convert_containers(found: Iterable[Any]) -> list[ContainerSummary]:
    """Return the containers of a list, whose entries are mappings. One with an unreadable field has `unreadable` set,
    and that field is empty.

    Raises ValueError if an entry has no ID or state: then it is not a list of containers.
    """
    return [_container({name: one[name] for name in _FIELDS if name in one}) for one in found]


def _container(raw: dict[str, Any]) -> ContainerSummary:
    try:
        return msgspec.convert(raw, ContainerSummary)
    except _UNREADABLE as error:
        reason = str(error)
    required = {name: raw[name] for name in raw.keys() - _OPTIONAL}
    readable = dict(required)
    for name in raw.keys() & _OPTIONAL:
        try:
            msgspec.convert({**required, name: raw[name]}, ContainerSummary)
        except _UNREADABLE:
            continue
        readable[name] = raw[name]
    return msgspec.structs.replace(msgspec.convert(readable, ContainerSummary), unreadable=reason)
