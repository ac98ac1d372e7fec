"""`vipmesh autoscaling`: how many instances each scaled service gets, and why."""

import argparse
import json
from collections.abc import Mapping, Sequence
from typing import Any

from mesh.cli.client import AdminClient, DaemonUnreachableError
from mesh.cli.output import complain, print_json, printable, report_failure
from mesh.model.codes import Code

_HEAD = ("SERVICE", "INSTANCES", "WANTED", "BOUNDS", "MEASURED", "WHY")


def autoscaling(options: argparse.Namespace) -> int:
    """Run `vipmesh autoscaling`. Exit status 1 if no daemon answers, the asked one does not act, or nothing is so
    called.
    """
    try:
        reply = AdminClient(options).ask("/v1/status")
    except DaemonUnreachableError as error:
        return report_failure(options, error.lines)
    status: dict[str, Any] = json.loads(reply.body)
    rows = status.get("autoscaling", [])  # a daemon of an earlier version says nothing of it
    acting = status.get("acting")
    if not rows and acting != status["worker"]:
        who = f"{acting} does: vipmesh autoscaling --context {acting}" if acting else "nobody does, see vipmesh status"
        complain(f"{status['worker']} does not act for the swarm; {who}", str(Code.AUTOSCALING_ELSEWHERE))
        return 1
    asked = options.service
    found = [row for row in rows if asked in (None, row["service"], row["service"].rpartition("/")[2])]
    if asked is not None and not found:
        complain(f"no scaled service is called {asked}; `vipmesh autoscaling` lists all", str(Code.STACK_UNKNOWN))
        return 1
    if options.json:
        print_json({"worker": status["worker"], "services": found})
        return 0
    if not found:
        print("no service is scaled; the labels auto_scaling.* of a deployed service switch it on")
    else:
        for line in _table([_HEAD, *map(_row, found)]):
            print(line)
    return 0


def _row(row: Mapping[str, Any]) -> tuple[str, ...]:
    measured = ", ".join(f"{name} {value:g}" for name, value in sorted(row["values"].items())) or "-"
    bounds = f"{row['min_instances']}..{row['max_instances']}"
    return (
        row["service"],
        str(row["instances"]),
        str(row["wanted"]),
        bounds,
        measured,
        f"{row['reason']}: {row['text']}",
    )


def _table(rows: Sequence[Sequence[str]]) -> list[str]:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    padded = (zip(row, widths, strict=True) for row in rows)
    return [printable("  ".join(f"{cell:<{width}}" for cell, width in row).rstrip()) for row in padded]
