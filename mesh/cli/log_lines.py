"""The lines of `vipmesh logs`. Pure."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from itertools import cycle
from typing import Any

from mesh.cli.output import printable

_TAB = 8
_MAX_COLUMN = 40
_FRACTION = 4
"""Characters of a fraction of a second that are shown, with the point."""


class LogLineLayout:
    """Makes lines with the time, the instance and the text."""

    def __init__(self, colours: Sequence[tuple[str, str]] = ()) -> None:
        """`colours`: what begins and what ends each colour; empty for none."""
        self._colours = cycle(colours) if colours else None
        self._instances: dict[str, tuple[str, str]] = {}
        """What begins and ends the name of each instance that was seen."""
        self._width = 0

    def prepare(self, lines: Sequence[Mapping[str, Any]]) -> None:
        """Make room for the names of the instances of these lines."""
        self._width = max([self._width, *(min(_MAX_COLUMN, len(_instance(each))) for each in lines)])

    def line(self, line: Mapping[str, Any]) -> str:
        """Return one line for a terminal: whatever it would obey is escaped."""
        name = _instance(line)
        self._width = max(self._width, min(_MAX_COLUMN, len(name)))
        if name not in self._instances:
            self._instances[name] = next(self._colours) if self._colours is not None else ("", "")
        begin, end = self._instances[name]
        text = printable(str(line["text"]).expandtabs(_TAB)).replace("\n", "\\n")
        return f"{_moment(line.get('time'))}  {begin}{name.ljust(self._width)}{end}  {text}"


def worker_notes(asked: Mapping[str, Any], service: str) -> list[tuple[str, str | None]]:
    """Return what is to be said of a worker, each with its code."""
    if asked.get("error") is not None:
        return [(f"without the lines of {service} on {asked['worker']}: {asked['error']}", asked.get("code"))]
    return [(f"worker {asked['worker']}: {each['text']}", each["code"]) for each in asked.get("notes", ())]


def _instance(line: Mapping[str, Any]) -> str:
    return printable(f"{line['worker']}/{line['container']}").replace("\n", "\\n")


def _moment(time: str | None) -> str:
    """Return the local time to the millisecond."""
    try:
        at = datetime.fromisoformat(time or "").astimezone()
    except (ValueError, OverflowError, OSError):
        return "-".ljust(len("2026-11-30 11:59:16.358"))
    return at.isoformat(sep=" ", timespec="milliseconds")[: len("2026-11-30 11:59:16.358")]
