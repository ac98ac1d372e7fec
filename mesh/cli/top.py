"""`vipmesh top`: shows the traffic of each service of this worker, updated continuously."""

import argparse
import contextlib
import json
import os
import sys
from collections.abc import Iterator
from dataclasses import asdict

from mesh.cli.client import AdminClient, DaemonUnreachableError
from mesh.cli.output import printable, report_failure
from mesh.cli.top_view import TopBoard, TopSnapshot, render_top

_SCREEN, _BACK = "\x1b[?1049h\x1b[?25l", "\x1b[?25h\x1b[?1049l"
"""xterm's alternate screen without a cursor, and back: leaving it restores the terminal."""
_HOME, _REST_OF_LINE, _REST_OF_SCREEN = "\x1b[H", "\x1b[K", "\x1b[J"

_WIDE = 1000
"""Characters of a line without a terminal, so that nothing is left out."""


def top(options: argparse.Namespace) -> int:
    """Run `vipmesh top` until interrupted or after `--count` updates. Exit status 1 if the daemon is gone."""
    daemon = AdminClient(options)
    on_screen = sys.stdout.isatty() and not options.json and options.count is None
    try:
        with _screen() if on_screen else contextlib.nullcontext():
            for shown, now in enumerate(_moments(daemon), 1):
                _show(now, options, on_screen=on_screen)
                if shown == options.count:
                    break
    except DaemonUnreachableError as error:
        return report_failure(options, error.lines)
    except KeyboardInterrupt:
        pass
    return 0


def _moments(daemon: AdminClient) -> Iterator[TopSnapshot]:
    """Yield a snapshot for each `flow` event, without the first if it has no rates yet."""
    board, first = TopBoard(), True
    for name, event in daemon.follow("/v1/events"):
        now = board.take(name, event)
        if now is not None and not (first and event["counted"] and event["opened"] is None):
            yield now
        first = first and now is None


def _show(now: TopSnapshot, options: argparse.Namespace, *, on_screen: bool) -> None:
    if options.json:
        print(json.dumps(asdict(now)), flush=True)
        return
    if not on_screen:
        print(*map(printable, render_top(now, _WIDE, _WIDE**2)), "", sep="\n", flush=True)
        return
    columns, lines = os.get_terminal_size(sys.stdout.fileno())  # each time, since the terminal may be resized
    table = f"{_REST_OF_LINE}\n".join(map(printable, render_top(now, columns, lines)))
    print(_HOME, table, _REST_OF_LINE, _REST_OF_SCREEN, sep="", end="", flush=True)


@contextlib.contextmanager
def _screen() -> Iterator[None]:
    print(_SCREEN, end="", flush=True)
    try:
        yield
    finally:
        print(_BACK, end="", flush=True)
