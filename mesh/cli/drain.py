"""`vipmesh drain`, `maintenance`, `undrain`, `stop` and `weight`: actions on endpoints of any worker.

The worker that is asked knows who runs an endpoint. Another worker's are requested of that worker itself, with the
certificate or token of whoever types the verb: no worker acts because another one says so.
"""

import argparse
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from mesh.cli.access import find_access_to
from mesh.cli.client import AdminClient, DaemonUnreachableError
from mesh.cli.documents import ChangeDocument, LeftOutDocument
from mesh.cli.drain_progress import DrainProgress
from mesh.cli.endpoint_targets import ClusterDirectory, EndpointTarget, EndpointTargetError, read_directory
from mesh.cli.output import complain, print_json, printable
from mesh.model.codes import Code

PATIENCE = 86400.0
"""Seconds that a response may take: it comes after the drain, up to the drain timeout, and after the stop of a
container.
"""
_MAX_NAMES = 5
"""The most endpoints that are named in one line."""
_INTERRUPTED = 130
"""The exit status after Ctrl-C, as a shell has it."""
_DONE = {
    "drain": "drained",
    "maintenance": "drained and not probed",
    "undrain": "takes connections",
    "stop": "drained and stopped",
}
_BEGUN = {
    "drain": "it stays drained until `vipmesh undrain {}`",
    "maintenance": "it stays in maintenance until `vipmesh undrain {}`",
    "undrain": "see `vipmesh status`",
    "stop": "it is not stopped unless its drain had ended",
    "weight": "see `vipmesh status`",
}


@dataclass(slots=True)
class ActionRun:
    """The result of one verb."""

    done: list[str] = field(default_factory=list)
    error: str | None = None
    code: str | None = None
    left_out: list[LeftOutDocument] = field(default_factory=list)


def _change(verb: str, options: argparse.Namespace) -> int:
    """Change the endpoints one after the other, so that two endpoints of a service are never gone at once.

    With `--worker` all that runs on a worker is moved (`mesh.cli.worker_drain`).

    Exit status 1 after the first refusal, which ends it, and if an endpoint was left out; 130 after Ctrl-C.
    """
    if getattr(options, "emptied", None) is not None:
        from mesh.cli import worker_drain

        return worker_drain.drain(options) if verb == "drain" else worker_drain.undrain(options)
    if not options.names:
        complain(f"{verb} takes ENDPOINT..., or --worker WORKER for all that runs on a worker", None)
        return 2
    run = ActionRun()
    interrupted = False
    try:
        interrupted = _act(verb, options, run)
    except (DaemonUnreachableError, EndpointTargetError) as error:
        run.error, run.code = str(error), str(error.code)
    if options.json:
        print_json(ChangeDocument(verb, tuple(run.done), run.error, run.code, tuple(run.left_out)))
    else:
        if run.error is not None:
            complain(run.error, run.code)
        for text, code in _left_out_lines(run.left_out):
            complain(text, code)
    if interrupted:
        return _INTERRUPTED
    return 0 if run.error is None and not run.left_out else 1


drain = partial(_change, "drain")
maintenance = partial(_change, "maintenance")
undrain = partial(_change, "undrain")
stop = partial(_change, "stop")
weight = partial(_change, "weight")


def _act(verb: str, options: argparse.Namespace, run: ActionRun) -> bool:
    """Carry out the verb; return whether the user has interrupted it.

    Raises `DaemonUnreachableError` and `EndpointTargetError`.
    """
    asked = AdminClient(options)
    directory = read_status(asked)
    targets = dict.fromkeys(target for name in options.names for target in directory.find(name))
    clients: dict[str, AdminClient] = {directory.worker: asked}
    here: list[EndpointTarget] = []
    for target in targets:
        reason = client_of(target, directory, options, clients)
        if reason is None:
            here.append(target)
        else:
            run.left_out.append(reason)
    for number, target in enumerate(here):
        progress = DrainProgress(_shown(target, directory))
        told = (lambda _: None) if options.json else progress.tell
        try:
            answer, run.code = clients[target.worker].act(
                f"/v1/{verb}", _request(verb, options, target, here, directory), PATIENCE, told
            )
        except KeyboardInterrupt:
            rest = here[number + 1 :]
            state = f"{_shown(target, directory)}: interrupted; {_BEGUN[verb].format(_shown(target, directory))}"
            if rest:
                state += f"; nothing was done to {', '.join(_shown(each, directory) for each in rest)}"
            run.error, run.code = state, str(Code.ACTION_INTERRUPTED)
            return True
        finally:
            progress.clear()
        run.error = answer.get("error")
        if run.error is not None:
            return False
        run.done.append(answer["endpoint"])
        if not options.json:
            where = "" if target.worker == directory.worker else f" on {target.worker}"
            print(printable(f"{answer['endpoint']}{where}: {_outcome(verb, options)}"), flush=True)
    return False


def read_status(asked: AdminClient) -> ClusterDirectory:
    """Return who runs what, as the daemon that is asked knows it. Raises `DaemonUnreachableError`."""
    try:
        return read_directory(json.loads(asked.ask("/v1/status").body))
    except (ValueError, LookupError, TypeError) as error:
        reason = f"the status of {asked.listen} is not that of vipmesh: {error}; look at its address"
        raise DaemonUnreachableError(Code.DAEMON_UNREACHABLE, reason) from error


def client_of(
    target: EndpointTarget,
    directory: ClusterDirectory,
    options: argparse.Namespace,
    clients: dict[str, AdminClient],
) -> LeftOutDocument | None:
    """Have a client for the worker of the endpoint in `clients`; else return why the endpoint is left out."""
    worker = target.worker
    if worker in clients:
        return None
    published = directory.admin.get(worker)
    if published is None:
        reason = f"{worker} publishes no admin API; set [admin] tcp, cert and client_ca there, or type it there"
        return LeftOutDocument(target.name, worker, reason, str(Code.WORKER_ADDRESS_UNKNOWN))
    access = find_access_to(worker, published, options, os.environ)
    if access is None:
        reason = f"{worker} is asked with your own credentials alone; name them with --cert and --ca, or type it there"
        return LeftOutDocument(target.name, worker, reason, str(Code.ACTION_LEFT_OUT))
    clients[worker] = AdminClient(options, access)
    return None


def _left_out_lines(left_out: Sequence[LeftOutDocument]) -> Iterator[tuple[str, str]]:
    """Yield a line with its code for each worker whose endpoints were left out."""
    for worker in dict.fromkeys(each.worker for each in left_out):
        there = [each for each in left_out if each.worker == worker]
        names = ", ".join(each.endpoint for each in there[:_MAX_NAMES])
        if len(there) > _MAX_NAMES:
            names += f" and {len(there) - _MAX_NAMES} more"
        state = "runs on {} and is left out" if len(there) == 1 else "run on {} and are left out"
        yield f"{names} {state.format(worker)}: {there[0].reason}", there[0].code


def _request(
    verb: str,
    options: argparse.Namespace,
    target: EndpointTarget,
    together: Sequence[EndpointTarget],
    directory: ClusterDirectory,
) -> Mapping[str, Any]:
    """Return the body of a request. What version 0.1.0 does not know is left out where it says nothing."""
    body: dict[str, Any] = {"name": target.name}
    if verb == "undrain":
        return body
    if options.force and directory.counts_together:
        body["force"] = True
    if len(together) > 1 and directory.counts_together:
        body["together"] = [{"worker": each.worker, "endpoint": each.name} for each in together]
    if verb == "weight":
        body["weight"] = options.weight
    return body


def _outcome(verb: str, options: argparse.Namespace) -> str:
    if verb != "weight":
        return _DONE[verb]
    return "has the weight of its label" if options.weight is None else f"has weight {options.weight}"


def _shown(target: EndpointTarget, directory: ClusterDirectory) -> str:
    return target.name if target.worker == directory.worker else target.shown
