"""Tracks where the workers' peer listeners are, and keeps records of workers that disappeared from the store. Pure.

When a lease ends, all records of a worker disappear in one revision. The worker may have lost its power; or etcd was
unavailable for too long, or only the path from the worker to etcd is cut. The records of a worker that still answers
are kept until it returns to the store or no longer answers.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from ipaddress import ip_address
from urllib.parse import unquote

import msgspec

from mesh.cluster.records.encode import worker_of
from mesh.model.table import RealKey
from mesh.model.validation import validate_address
from mesh.store import StoreSnapshot

MAX_PLACE_LENGTH = 64
"""The most characters of an address with its port."""


class _DaemonListens(msgspec.Struct, frozen=True):
    listens: str | None = None


class _DaemonAdmin(msgspec.Struct, frozen=True):
    admin: str | None = None


def listen_addresses(records: Mapping[str, bytes]) -> Mapping[str, RealKey]:
    """The peer listener of each worker; without workers that publish none, as older versions do."""
    return _addresses(records, _listen_address)


def admin_addresses(records: Mapping[str, bytes]) -> Mapping[str, RealKey]:
    """The admin API of each worker; without workers that publish none, as older versions do."""
    return _addresses(records, _admin_address)


def _addresses(records: Mapping[str, bytes], read: Callable[[bytes], RealKey | None]) -> Mapping[str, RealKey]:
    found = {}
    for key, value in records.items():
        if key.endswith("/daemon") and (place := read(value)) is not None:
            match key.split("/"):
                case ["workers", worker, "daemon"]:
                    found[unquote(worker)] = place
    return found


def _listen_address(value: bytes) -> RealKey | None:
    """The address in a daemon record; None if there is none or it cannot be read. Then the worker is not pinged."""
    try:
        return _place(msgspec.json.decode(value, type=_DaemonListens).listens)
    except (ValueError, RecursionError):
        return None


def _admin_address(value: bytes) -> RealKey | None:
    """The address of the admin API in a daemon record; None if there is none, or none that one host could have.

    Then the worker is not asked.
    """
    try:
        found = _place(msgspec.json.decode(value, type=_DaemonAdmin).admin)
        return None if found is None else RealKey(validate_address(found.address), found.port)
    except (ValueError, RecursionError):
        return None


def _place(written: str | None) -> RealKey | None:
    """The address and port in a text. Raises ValueError if it has no address."""
    if written is None or len(written) > MAX_PLACE_LENGTH:
        return None
    match = re.fullmatch(r"\[([0-9a-f:]+)\]:([0-9]{1,5})|([0-9.]+):([0-9]{1,5})", written, re.ASCII)
    if match is None:
        return None
    address, port = str(ip_address(match[1] or match[3])), int(match[2] or match[4])
    return RealKey(address, port) if 1 <= port <= 65535 else None


@dataclass(frozen=True, slots=True)
class Membership:
    """The workers in a snapshot of the store, and workers whose lease has ended since."""

    workers: Mapping[str, RealKey] = field(default_factory=dict)
    """The peer listener of each worker."""
    records: Mapping[str, Mapping[str, bytes]] = field(default_factory=dict)
    """The last records of workers that disappeared from the store, by worker."""
    admins: Mapping[str, RealKey] = field(default_factory=dict)
    """The admin API of each other worker that publishes it; of those that disappeared, the last one."""

    def after(self, snapshot: StoreSnapshot, before: StoreSnapshot | None, own: str) -> "Membership":
        """The membership after the next snapshot. A snapshot of another incarnation of the store says nothing about
        leases.
        """
        there = {worker: real for worker, real in listen_addresses(snapshot.records).items() if worker != own}
        gone = self.workers.keys() - there.keys()
        if before is None or before.origin != snapshot.origin:
            # Absence from another incarnation says nothing about leases: only workers that were kept already stay kept.
            gone &= self.records.keys()
        records = {worker: self.records.get(worker) or _records(worker, before) for worker in gone}
        admins = {worker: real for worker, real in admin_addresses(snapshot.records).items() if worker != own}
        kept = {worker: self.admins[worker] for worker in gone & self.admins.keys()}
        return Membership(there | {worker: self.workers[worker] for worker in gone}, records, kept | admins)

    def only(self, answers: Callable[[str], bool]) -> "Membership":
        """The membership without workers that disappeared from the store and do not answer."""
        silent = {worker for worker in self.records if not answers(worker)}
        if not silent:
            return self
        workers = {worker: real for worker, real in self.workers.items() if worker not in silent}
        admins = {worker: real for worker, real in self.admins.items() if worker not in silent}
        records = {worker: kept for worker, kept in self.records.items() if worker not in silent}
        return Membership(workers, records, admins)

    def all_records(self) -> dict[str, bytes]:
        """All kept records, except those of the daemons: a worker's verdicts count only until other workers probe in
        its place.
        """
        return {k: v for kept in self.records.values() for k, v in kept.items() if not k.endswith("/daemon")}


def _records(worker: str, snapshot: StoreSnapshot | None) -> Mapping[str, bytes]:
    records = {} if snapshot is None else snapshot.records
    return {k: v for k, v in records.items() if (of := worker_of(k)) is not None and unquote(of) == worker}
