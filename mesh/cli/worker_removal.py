"""`vipmesh workers remove`: takes from a worker what lets it take part in the cluster."""

import argparse
import json
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from mesh.cli.client import AdminClient, DaemonUnreachableError
from mesh.cli.documents import WorkerRemovalDocument
from mesh.cli.output import complain, print_json, printable, report_failure
from mesh.model.codes import Code
from mesh.model.errors import CodedText, MeshError

_PATIENCE = 60.0
"""Seconds that a response may take."""
_DIRECTORY = Path("certs")
"""Where `vipmesh cluster certs` puts certificates by default."""


def remove(options: argparse.Namespace) -> int:
    """Remove the records of a worker, revoke its certificate, and print how to take its rights in etcd.

    Exit status 1 if the worker that is asked refuses it, if nothing is known of the worker, or if a certificate cannot
    be revoked.
    """
    worker, directory = options.worker, getattr(options, "directory", None)
    daemon = AdminClient(options)
    try:
        store = _store_of(daemon)
        reply = daemon.ask("/v1/workers/remove", given=_body(options), timeout=_PATIENCE)
    except DaemonUnreachableError as silent:
        return report_failure(options, [silent.coded])
    answer: dict[str, Any] = json.loads(reply.body)
    if "error" in answer:
        return report_failure(options, [_refusal(answer["error"], reply.headers.get("vipmesh-code"))])
    lines = _role_lines(store, worker)
    revoked, failure = _revoke(directory, worker)
    if failure is not None and directory is None and not _DIRECTORY.is_dir():
        # Where the command runs there are no certificates.
        failure = None if answer["records"] else _unknown(worker)
    if revoked is None and failure is None:
        lines = (f"vipmesh cluster revoke {worker} --directory DIR", *lines)
    if options.json:
        error, code = (None, None) if failure is None else (failure.text, str(failure.code))
        print_json(WorkerRemovalDocument(worker, answer["records"], revoked, lines, error, code))
        return 0 if failure is None else 1
    print(printable(f"{worker}: {answer['records']} records removed"))
    if revoked is not None:
        print(
            printable(
                f"{revoked}: its certificate is revoked; put this file in the place of the old one on each worker"
            )
        )
    if lines:
        print("what is left to type, with rights of your own:")
    for line in lines:
        print(printable(f"    {line}"))
    if failure is not None:
        complain(failure.text, str(failure.code))
    return 0 if failure is None else 1


def _unknown(worker: str) -> CodedText:
    return CodedText(
        f"nothing is known of {worker}: the store has no record of it, and there are no certificates here; "
        "look for its name in `vipmesh workers`, or name the directory of its certificate with --directory",
        Code.WORKER_NOT_REMOVED,
    )


def _body(options: argparse.Namespace) -> Mapping[str, Any]:
    return {"name": options.worker, **({"force": True} if getattr(options, "force", False) else {})}


def _refusal(error: str, code: str | None) -> CodedText:
    known = {str(each): each for each in Code}
    return CodedText(error, known.get(code or "", Code.REQUEST_REFUSED))


def _store_of(daemon: AdminClient) -> str:
    """Return the URL of the cluster's store, without secrets. Raises `DaemonUnreachableError`."""
    try:
        return str(json.loads(daemon.ask("/v1/status").body)["store"])
    except (ValueError, LookupError, TypeError) as error:
        reason = f"the status of {daemon.listen} is not that of vipmesh: {error}; look at its address"
        raise DaemonUnreachableError(Code.DAEMON_UNREACHABLE, reason) from error


def _role_lines(store: str, worker: str) -> tuple[str, ...]:
    """Return the lines that take the worker's rights in etcd; none if the store is not etcd."""
    if store.startswith("sqlite:"):
        return ()
    from mesh.config.etcd_url import parse_etcd_url
    from mesh.store.etcd.roles import removal_lines, role_name

    return removal_lines(role_name(parse_etcd_url(store).prefix, worker))


def _revoke(directory: Path | None, worker: str) -> tuple[str | None, CodedText | None]:
    """Return the file that lists the certificate as revoked, or why there is none."""
    from mesh.cli.certs import AUTHORITY, revoke_certificates

    place = directory or _DIRECTORY
    try:
        revoke_certificates(place, [worker], datetime.now(UTC))
    except MeshError as error:
        return None, error.coded
    return str(place / f"{AUTHORITY}.pem"), None
