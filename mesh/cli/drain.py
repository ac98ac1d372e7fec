"""`vipmesh drain`, `maintenance`, `undrain` and `stop`: actions of a running daemon."""

import argparse
import json
from functools import partial

from mesh.cli.client import AdminClient, DaemonUnreachableError
from mesh.cli.documents import ChangeDocument
from mesh.cli.output import complain, print_json, printable

_PATIENCE = 86400.0
"""Seconds that a response may take: it comes after the drain, up to the drain timeout, and after the stop of a
container.
"""
_DONE = {
    "drain": "drained",
    "maintenance": "drained and not probed",
    "undrain": "takes connections",
    "stop": "drained and stopped",
}


def _change(verb: str, options: argparse.Namespace) -> int:
    """Change the endpoints one after the other, so that two endpoints of a service are never gone at once.

    Exit status 1 after the first refusal, which ends it.
    """
    daemon = AdminClient(options)
    done: list[str] = []
    error: str | None = None
    code: str | None = None
    for name in options.names:
        try:
            reply = daemon.ask(f"/v1/{verb}", given={"name": name}, timeout=_PATIENCE)
            answer = json.loads(reply.body)
        except DaemonUnreachableError as silent:
            error, code = str(silent), str(silent.code)
            break
        error, code = answer.get("error"), reply.headers.get("Vipmesh-Code")
        if error is not None:
            break
        done.append(answer["endpoint"])
        if not options.json:
            print(f"{printable(answer['endpoint'])}: {_DONE[verb]}", flush=True)
    if options.json:
        print_json(ChangeDocument(verb, tuple(done), error, code))
    elif error is not None:
        complain(error, code)
    return 0 if error is None else 1


drain = partial(_change, "drain")
maintenance = partial(_change, "maintenance")
undrain = partial(_change, "undrain")
stop = partial(_change, "stop")
