"""`vipmesh`: run the daemon, try it out, check files, ask a running daemon.

Exit status: 0 done; 1 the answer is no (`check` found an error, the daemon could not start or be asked);
2 wrong usage. What a verb needs is imported when it is asked for, so that `status` and `check` start fast.
"""

import argparse
import os
import sys
from collections.abc import Callable, Sequence
from importlib import import_module

from mesh.cli.parser import build_parser
from mesh.model.errors import SettingsError, leaf_exceptions


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one verb; returns the exit status."""
    options = build_parser().parse_args(arguments)
    status = 0
    try:
        verb: Callable[[argparse.Namespace], int] = getattr(import_module(f"mesh.cli.{options.of}"), options.verb)
        status = verb(options)
    except* SettingsError as group:
        from mesh.cli.output import report_failure

        status = report_failure(options, (line for error in leaf_exceptions(group) for line in error.lines))
    except* BrokenPipeError:
        # The reader left (`vipmesh status | head`): that is its right. Keep the interpreter's last flush quiet.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return status
