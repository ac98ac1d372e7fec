"""`vipmesh logs`: prints the lines of all instances of a service, on all workers, merged by time.

The worker that is asked asks the others; what it could not ask is said on standard error.
"""

import argparse
import json
from typing import Any
from urllib.parse import quote, urlencode

from mesh.cli.client import AdminClient, DaemonUnreachableError
from mesh.cli.log_lines import LogLineLayout, worker_notes
from mesh.cli.output import complain, report_failure
from mesh.cli.terminal import instance_colours

ANSWER_TIMEOUT = 15.0
"""Seconds that the lines of all workers may take."""
DEFAULT_LINES = 100
MAX_LINES = 10_000
"""As many as an answer has: with `--since` and without `-n`."""


def logs(options: argparse.Namespace) -> int:
    """Run `vipmesh logs`. Exit status 1 if no daemon answers, or if no service has the name."""
    daemon = AdminClient(options)
    try:
        if options.follow:
            _follow(daemon, options)
        else:
            _print(daemon, options)
    except DaemonUnreachableError as error:
        return report_failure(options, error.lines)
    except KeyboardInterrupt:
        pass
    return 0


def _print(daemon: AdminClient, options: argparse.Namespace) -> None:
    document = json.loads(daemon.ask(_path(options), timeout=ANSWER_TIMEOUT).body)
    lines = document["lines"]
    if options.json:
        print(json.dumps(document, indent=2))
    else:
        layout = LogLineLayout(instance_colours())
        layout.prepare(lines)
        for line in lines:
            print(layout.line(line))
    for asked in document["workers"]:
        _tell(asked, options)
    if document["dropped"] and options.lines is None:
        from mesh.model.codes import Code

        text = f"{document['dropped']} older lines are not shown; ask for them with -n or a later --since"
        complain(text, str(Code.LOG_LINES_LEFT_OUT))
    if not lines and not options.json:
        print(f"no lines of {options.service!r}{' that match' if options.grep or options.since else ''}")


def _follow(daemon: AdminClient, options: argparse.Namespace) -> None:
    layout = LogLineLayout(instance_colours())
    for name, data in daemon.follow(_path(options, follow="true")):
        if name == "line":
            print(json.dumps(data) if options.json else layout.line(data), flush=True)
        elif name == "worker":
            _tell(data, options)


def _tell(asked: Any, options: argparse.Namespace) -> None:
    for text, code in worker_notes(asked, options.service):
        complain(text, code)


def _path(options: argparse.Namespace, **more: str) -> str:
    lines = options.lines
    if lines is None:
        lines = DEFAULT_LINES if options.since is None else MAX_LINES
    asked = {
        "workers": options.worker or "all",
        "lines": lines,
        "since": options.since,
        "grep": options.grep,
        **more,
    }
    query = urlencode({key: value for key, value in asked.items() if value is not None})
    return f"/v1/logs/{quote(options.service, safe='')}?{query}"
