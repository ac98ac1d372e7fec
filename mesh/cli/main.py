"""`vipmesh`: runs the daemon, the demo, checks, and requests to a running daemon.

Exit status: 0 for success; 1 for failure (`check` found an error, the daemon could not start or be reached); 2 for
wrong usage. The modules of a verb are imported only when it runs, so that `status` and `check` start fast.
"""

import argparse
import os
import sys
from collections.abc import Callable, Sequence
from importlib import import_module

from mesh.cli.parser import build_parser
from mesh.model.errors import SettingsError, leaf_exceptions


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one verb and return its exit status. `arguments` is the command line, None for `sys.argv`."""
    arguments = sys.argv[1:] if arguments is None else arguments
    options = build_parser(arguments).parse_args(arguments)
    status = 0
    try:
        verb: Callable[[argparse.Namespace], int] = getattr(import_module(f"mesh.cli.{options.of}"), options.verb)
        status = verb(options)
    except* SettingsError as group:
        from mesh.cli.output import report_failure

        status = report_failure(options, (line for error in leaf_exceptions(group) for line in error.lines))
    except* BrokenPipeError:
        # The reader left, as in `vipmesh status | head`. Let the flush of standard output at exit succeed.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return status
