"""`vipmesh workers`: lists the workers of the cluster, or removes one."""

import argparse
import json
from collections.abc import Mapping, Sequence
from typing import Any

from mesh.cli.client import AdminClient, DaemonUnreachableError
from mesh.cli.output import printable, report_failure

_HEAD = ("WORKER", "VERSION", "DATA PLANE", "LEASE", "LAST SEEN", "DIGEST", "ENDPOINTS")


def workers(options: argparse.Namespace) -> int:
    """Run `vipmesh workers`, or `vipmesh workers remove`. Exit status 1 if no daemon answers, or it refuses."""
    if options.action == "remove":
        from mesh.cli.worker_removal import remove

        return remove(options)
    try:
        reply = AdminClient(options).ask("/v1/workers")
    except DaemonUnreachableError as error:
        return report_failure(options, error.lines)
    document: dict[str, Any] = json.loads(reply.body)
    if options.json:
        print(json.dumps(document, indent=2))
        return 0
    for line in _table([_HEAD, *(_row(document["worker"], each) for each in document["workers"])]):
        print(line)
    # A daemon of an earlier version says nothing of it.
    for notice in document.get("cut_off", ()):
        line = f"{'error: frozen: ' if notice['kind'] == 'frozen' else ''}{notice['text']} [{notice['code']}]"
        print(printable(line).replace("\n", "\\n"))
    return 0


def _row(own: str, worker: Mapping[str, Any]) -> tuple[str, ...]:
    seen = "this worker" if worker["name"] == own else worker["last_seen"] or "-"
    known = (worker[field] or "unknown" for field in ("version", "data_plane", "lease"))
    cells = (worker["name"], *known, seen, worker["digest"] or "unknown", str(worker["endpoints"]))
    return tuple(printable(str(cell)).replace("\n", "\\n") for cell in cells)


def _table(rows: Sequence[Sequence[str]]) -> list[str]:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return ["  ".join(f"{cell:<{width}}" for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
