"""The last verdicts on an endpoint, which show why it gets no traffic.

Ten verdicts on each of ten thousand endpoints take 20 MB as objects, so they are stored packed. Most endpoints give the
same few reasons again and again, so equal sequences of reasons are one object.
"""

import struct
from functools import lru_cache

from mesh.health.state_machine import Verdict

HISTORY_LENGTH = 10
"""Verdicts that are kept."""

_ROW = struct.Struct("<dd?")
"""Time, duration, and whether the check succeeded."""


class CheckHistory:
    """The last verdicts on one endpoint. It can be read in any thread: rows and reasons are replaced in one step."""

    __slots__ = ("_kept",)

    def __init__(self) -> None:
        self._kept: tuple[bytes, tuple[str, ...]] = (b"", ())

    def add(self, verdict: Verdict, at: float) -> None:
        """Add a verdict; the oldest one is dropped."""
        rows, reasons = self._kept
        rows = (rows + _ROW.pack(at, verdict.duration, verdict.ok))[-HISTORY_LENGTH * _ROW.size :]
        self._kept = rows, _shared((*reasons, verdict.reason)[-HISTORY_LENGTH:])

    def last(self) -> str | None:
        """Return the reason of the last verdict, or None if there is none yet."""
        _, reasons = self._kept
        return reasons[-1] if reasons else None

    def last_at(self) -> float | None:
        """Return when the last verdict was given, or None if there is none yet."""
        rows, _ = self._kept
        return _ROW.unpack_from(rows, len(rows) - _ROW.size)[0] if rows else None

    def verdicts(self) -> tuple[Verdict, ...]:
        """Return the last `HISTORY_LENGTH` verdicts, oldest first."""
        packed, reasons = self._kept
        rows = _ROW.iter_unpack(packed)
        return tuple(Verdict(ok, why, lasted, at) for (at, lasted, ok), why in zip(rows, reasons, strict=True))


@lru_cache(4096)
def _shared(reasons: tuple[str, ...]) -> tuple[str, ...]:
    """The same sequence of reasons, as the one object that all histories share while it is in use."""
    return reasons
