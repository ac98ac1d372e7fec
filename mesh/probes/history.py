"""The last verdicts on one endpoint, so that nobody has to guess why it has no traffic.

Ten of each of ten thousand endpoints: as objects they would take 20 MB, so they are kept packed. The words of the
reasons are few, and shared.
"""

import struct
import sys

from mesh.probes.health import Verdict

KEPT = 10
"""How many verdicts are kept."""

_ROW = struct.Struct("<dd?")
"""When, how long, whether it was a success."""


class History:
    """Of one endpoint."""

    __slots__ = ("_reasons", "_rows")

    def __init__(self) -> None:
        self._rows = b""
        self._reasons: tuple[str, ...] = ()

    def add(self, verdict: Verdict, at: float) -> None:
        """One more; the oldest goes."""
        self._rows = (self._rows + _ROW.pack(at, verdict.duration, verdict.ok))[-KEPT * _ROW.size :]
        self._reasons = (*self._reasons, sys.intern(verdict.reason))[-KEPT:]

    def verdicts(self) -> tuple[Verdict, ...]:
        """The last `KEPT`, oldest first."""
        rows = _ROW.iter_unpack(self._rows)
        return tuple(Verdict(ok, why, lasted, at) for (at, lasted, ok), why in zip(rows, self._reasons, strict=True))
