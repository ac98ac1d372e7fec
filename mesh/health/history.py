"""The last verdicts on one endpoint, so that nobody has to guess why it has no traffic.

Ten of each of ten thousand endpoints: as objects they would take 20 MB, so they are kept packed. The words of the
reasons are few, and shared.
"""

import struct
import sys

from mesh.health.state_machine import Verdict

HISTORY_LENGTH = 10
"""How many verdicts are kept."""

_ROW = struct.Struct("<dd?")
"""When, how long, whether it was a success."""


class CheckHistory:
    """Of one endpoint. It may be read in any thread: rows and reasons are replaced in one step."""

    __slots__ = ("_kept",)

    def __init__(self) -> None:
        self._kept: tuple[bytes, tuple[str, ...]] = (b"", ())

    def add(self, verdict: Verdict, at: float) -> None:
        """One more; the oldest goes."""
        rows, reasons = self._kept
        rows = (rows + _ROW.pack(at, verdict.duration, verdict.ok))[-HISTORY_LENGTH * _ROW.size :]
        self._kept = rows, (*reasons, sys.intern(verdict.reason))[-HISTORY_LENGTH:]

    def last(self) -> str | None:
        """What the last one has found; None: there was none yet."""
        _, reasons = self._kept
        return reasons[-1] if reasons else None

    def verdicts(self) -> tuple[Verdict, ...]:
        """The last `HISTORY_LENGTH`, oldest first."""
        packed, reasons = self._kept
        rows = _ROW.iter_unpack(packed)
        return tuple(Verdict(ok, why, lasted, at) for (at, lasted, ok), why in zip(rows, reasons, strict=True))
