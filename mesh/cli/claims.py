"""`vipmesh claims`: lists who has which name, port and VIP, frees what nobody uses, and moves names."""

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from typing import Any

from mesh.cli.client import AdminClient, DaemonUnreachableError
from mesh.cli.documents import ClaimChangeDocument, FailureDocument
from mesh.cli.output import complain, print_json, printable, report_failure

_PATIENCE = 60.0
"""Seconds that a response may take."""
_USAGE = {
    "list": "vipmesh claims list",
    "free": "vipmesh claims free CLAIM...",
    "move": "vipmesh claims move NAME PROJECT/SERVICE",
}


def claims(options: argparse.Namespace) -> int:
    """Run `vipmesh claims`. Exit status 1 if it was refused or no daemon answers, 2 for wrong usage."""
    given: Sequence[str] = options.names
    fits = {"list": not given, "free": bool(given), "move": len(given) == 2}
    if not fits[options.action]:
        print(f"usage: {_USAGE[options.action]}", file=sys.stderr)
        return 2
    daemon = AdminClient(options)
    if options.action == "list":
        return _list(daemon, options)
    if options.action == "move":
        return _change(daemon, options, [{"name": given[0], "owner": given[1]}])
    return _change(daemon, options, [{"name": name} for name in given])


def _list(daemon: AdminClient, options: argparse.Namespace) -> int:
    try:
        reply = daemon.ask("/v1/claims", timeout=_PATIENCE)
    except DaemonUnreachableError as silent:
        return report_failure(options, [silent.coded])
    answer: dict[str, Any] = json.loads(reply.body)
    if (error := answer.get("error")) is not None:
        code = reply.headers.get("vipmesh-code")
        if options.json:
            print_json(FailureDocument(error, () if code is None else (code,)))
        else:
            complain(error, code)
        return 1
    if options.json:
        print_json(answer)
        return 0
    for row in answer["claims"]:
        print(printable(f"{row['kind']:<4}  {row['claim']}  {row['holder']}  {_state(row)}"))
    return 0


def _state(row: Mapping[str, Any]) -> str:
    if row["used"]:
        return "in use"
    seconds = row["unused_seconds"]
    if seconds is None:
        return "unused"
    return f"unused for {seconds // 86400} d {seconds % 86400 // 3600} h {seconds % 3600 // 60} min"


def _change(daemon: AdminClient, options: argparse.Namespace, requests: Sequence[Mapping[str, str]]) -> int:
    done: list[str] = []
    error: str | None = None
    code: str | None = None
    for given in requests:
        try:
            reply = daemon.ask(f"/v1/claims/{options.action}", given=given, timeout=_PATIENCE)
        except DaemonUnreachableError as silent:
            error, code = str(silent), str(silent.code)
            break
        answer = json.loads(reply.body)
        error, code = answer.get("error"), reply.headers.get("vipmesh-code")
        if error is not None:
            break
        done.append(answer["claim"])
        if not options.json:
            became = f"belongs to {given['owner']}" if "owner" in given else "free"
            print(printable(f"{answer['claim']}: {became}"), flush=True)
    if options.json:
        print_json(ClaimChangeDocument(options.action, tuple(done), error, code))
    elif error is not None:
        complain(error, code)
    return 0 if error is None else 1
