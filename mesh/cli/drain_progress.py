"""Shows how many connections an endpoint that drains has left: in place on a terminal, else a line now and then."""

import sys
import time
from collections.abc import Callable
from typing import TextIO

from mesh.cli.output import printable

LINE_INTERVAL = 5.0
"""Seconds between two lines where there is no terminal."""


class DrainProgress:
    """Shows the progress of one drain on standard error, so that standard output has the results alone."""

    def __init__(self, endpoint: str, out: TextIO | None = None, clock: Callable[[], float] = time.monotonic) -> None:
        """`out`: None for standard error."""
        self._endpoint = printable(endpoint)
        self._out = sys.stderr if out is None else out
        self._clock = clock
        self._due = clock() + LINE_INTERVAL
        self._shown = False

    def tell(self, connections: int | None) -> None:
        """Show the number of connections left; None if they are not counted."""
        left = "connections finish" if connections is None else f"connections left: {connections}"
        text = f"{self._endpoint}: drains, {left}"
        if self._out.isatty():
            self._out.write(f"\r{text}\x1b[K")
            self._shown = True
        elif self._clock() >= self._due:
            self._due = self._clock() + LINE_INTERVAL
            self._out.write(f"{text}\n")
        self._out.flush()

    def clear(self) -> None:
        """Remove the line that is shown in place."""
        if self._shown:
            self._out.write("\r\x1b[K")
            self._out.flush()
            self._shown = False
