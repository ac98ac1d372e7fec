"""`vipmesh ps`: what the engine runs of each stack.

It asks the daemon of this host, which asks the engine of this host: one request and one answer. Where that does not
tell, `engine_listing` asks the engine itself, and other workers. What is imported here is waited for at each start.
"""

import argparse
import os
from collections.abc import Sequence

import msgspec

from mesh.cli.access import find_access
from mesh.cli.client import AdminClient, DaemonUnreachableError
from mesh.cli.output import complain, print_json, printable
from mesh.model.errors import CodedText
from mesh.platform.stacks.rows import ReleaseRow, StacksDocument

_PATIENCE = 3.0
"""Seconds that the daemon of this host has, before the engine itself is asked."""


def ps(options: argparse.Namespace) -> int:
    """Run `vipmesh ps`. Exit status 1 if no engine answers, or nothing is called so."""
    rows = ask_own_daemon(options)
    if rows is None:
        from mesh.cli.engine_listing import ask_engine

        return ask_engine(options)
    return print_instances(options, rows)


def ask_own_daemon(options: argparse.Namespace) -> Sequence[ReleaseRow] | None:
    """Return what the engine of this host runs, as the daemon of this host has asked it; None if that does not tell.

    A daemon that is asked over TCP may be of another host. Raises `SettingsError`.
    """
    access = find_access(options, os.environ)
    if access.address.socket_path is None:
        return None
    try:
        body = AdminClient(options, access).ask("/v1/stacks?here=true", timeout=_PATIENCE).body
        found = msgspec.json.decode(body, type=StacksDocument)
    except (DaemonUnreachableError, ValueError, RecursionError):
        return None
    return None if found.error is not None else found.services


def print_instances(
    options: argparse.Namespace,
    found: Sequence[ReleaseRow],
    worker: str | None = None,
    silent: CodedText | None = None,
) -> int:
    """Print the rows that the options name, and return the exit status.

    `worker`: the other one whose engine has answered. `silent`: why it is not known what serves.
    """
    rows = tuple(row for row in found if _is_called(options.service, row.service))
    if options.service is not None and not rows:
        from mesh.cli.output import report_failure
        from mesh.model.codes import Code

        reason = f"no deployed service is called {options.service}; `vipmesh ps` lists all"
        return report_failure(options, [CodedText(reason, Code.STACK_UNKNOWN)])
    if options.json:
        from mesh.cli.stack_documents import InstancesDocument

        error, code = (None, None) if silent is None else (silent.text, str(silent.code))
        print_json(InstancesDocument(rows, error, code, worker))
        return 0
    for line in _table(rows):
        print(printable(line))
    if worker is not None:
        print(printable(f"from the engine of {worker}"))
    if silent is not None:
        complain(f"what serves is not known: {silent.text}", str(silent.code))
    return 0


def _is_called(asked: str | None, owner: str) -> bool:
    project, _, service = owner.rpartition("/")
    return asked in (None, service, owner, project)


def _table(rows: Sequence[ReleaseRow]) -> Sequence[str]:
    """Return the lines of the table: each release, and below it what is pending or was changed outside vipmesh."""
    if not rows:
        return ["nothing was deployed"]
    cells = [("SERVICE", "RELEASE", "DESIRED", "RUNNING", "SERVING", "WHERE")]
    for row in rows:
        where = ", ".join(f"{name} {number}" for name, number in row.workers.items()) or "-"
        desired = "each worker" if row.desired is None else str(row.desired)
        serving = "-" if row.serving is None else str(row.serving)
        cells.append((row.service, row.release, desired, str(row.running), serving, where))
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    lines = ["  ".join(text.ljust(width) for text, width in zip(line, widths, strict=True)).rstrip() for line in cells]
    found = [lines[0]]
    for line, row in zip(lines[1:], rows, strict=True):
        found.append(line)
        found.extend(f"    {reason}" for reason in row.pending)
        found.extend(f"    changed outside vipmesh: {each}; deploy again to undo it" for each in row.outside)
    return found
