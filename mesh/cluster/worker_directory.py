"""Lists the workers that are registered in the store, with what their daemons say of themselves. Pure.

The digest is in a record of its own, which changes with the table: no view depends on it.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import unquote

import msgspec

from mesh.model.validation import validate_text
from mesh.store import StoreSnapshot


@dataclass(frozen=True, slots=True)
class RegisteredWorker:
    """What the daemon of a worker says of itself. A daemon of an earlier version says less."""

    version: str | None = None
    data_plane: str | None = None
    """`ipvs`, `nftables` or `userspace`."""
    digest: str | None = None
    """The digest of its table, at most `mesh.control.digest_publisher.INTERVAL` old."""


class _DaemonDescription(msgspec.Struct, frozen=True):
    version: str | None = None
    data_plane: str | None = None
    digest: str | None = None


def registered_workers(
    snapshot: StoreSnapshot, before: Mapping[str, RegisteredWorker] | None = None
) -> Mapping[str, RegisteredWorker]:
    """Return the registered workers by name. `before`, the result for the last snapshot, saves time."""
    changed = snapshot.changed
    if before is not None and changed is not None and not any(_describes(key) for key in changed):
        return before
    found: dict[str, RegisteredWorker] = {}
    for key, value in snapshot.records.items():
        if _describes(key) and key.endswith("/daemon"):
            worker = key.split("/")[1]
            of_daemon = _read(value)
            digest = snapshot.records.get(f"workers/{worker}/digest")
            found[unquote(worker)] = RegisteredWorker(
                of_daemon.version, of_daemon.data_plane, None if digest is None else _read(digest).digest
            )
    return found


def _describes(key: str) -> bool:
    match key.split("/"):
        case ["workers", _, "daemon" | "digest"]:
            return True
    return False


def _read(value: bytes) -> _DaemonDescription:
    """Return what a record says; nothing if it cannot be used, which the view reports."""
    try:
        said = msgspec.json.decode(value, type=_DaemonDescription)
        for text in (said.version, said.data_plane, said.digest):
            if text is not None:
                validate_text(text, "a description of a worker")
    except (ValueError, RecursionError):
        return _DaemonDescription()
    return said
