"""Where the daemons of the workers answer one another, and what stays of one that the store has lost. Pure.

A lease ends, and all records of a worker are gone in one revision. It may have lost its power; or etcd stood still for
too long, or only the way from there to etcd is cut. Who still answers is kept as it was, until it is back in the store
or answers no more.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from ipaddress import ip_address
from urllib.parse import unquote

import msgspec

from mesh.cluster.records.encode import worker_of
from mesh.model.table import RealKey
from mesh.store import StoreSnapshot


class _DaemonListens(msgspec.Struct, frozen=True):
    listens: str | None = None


def listen_addresses(records: Mapping[str, bytes]) -> Mapping[str, RealKey]:
    """Worker -> where it answers; without those that say nothing of it, as older versions do."""
    found = {}
    for key, value in records.items():
        if key.endswith("/daemon") and (place := _place(value)) is not None:
            match key.split("/"):
                case ["workers", worker, "daemon"]:
                    found[unquote(worker)] = place
    return found


def _place(value: bytes) -> RealKey | None:
    """None as well for what cannot be read: nobody is asked there, and nothing else follows from it."""
    try:
        listens = msgspec.json.decode(value, type=_DaemonListens).listens
    except (ValueError, RecursionError):
        return None
    match = re.fullmatch(r"\[([0-9a-f:]+)\]:([0-9]{1,5})|([0-9.]+):([0-9]{1,5})", listens or "")
    if match is None:
        return None
    try:
        address = str(ip_address(match[1] or match[3]))
    except ValueError:
        return None
    port = int(match[2] or match[4])
    return RealKey(address, port) if 1 <= port <= 65535 else None


@dataclass(frozen=True, slots=True)
class Membership:
    """The workers that are in a picture of the store, and those that were until their lease ended."""

    workers: Mapping[str, RealKey] = field(default_factory=dict)
    """Where each of them answers."""
    records: Mapping[str, Mapping[str, bytes]] = field(default_factory=dict)
    """The last records of those that the store has lost, by worker."""

    def after(self, snapshot: StoreSnapshot, before: StoreSnapshot | None, own: str) -> "Membership":
        """With the next picture of the store. One of another life of it says nothing about leases."""
        there = {worker: real for worker, real in listen_addresses(snapshot.records).items() if worker != own}
        gone = self.workers.keys() - there.keys()
        if before is None or before.origin != snapshot.origin:
            gone -= gone - self.records.keys()
        records = {worker: self.records.get(worker) or _records(worker, before) for worker in gone}
        return Membership(there | {worker: self.workers[worker] for worker in gone}, records)

    def only(self, answers: Callable[[str], bool]) -> "Membership":
        """Without those that the store has lost and that do not answer."""
        silent = {worker for worker in self.records if not answers(worker)}
        if not silent:
            return self
        workers = {worker: real for worker, real in self.workers.items() if worker not in silent}
        return Membership(workers, {worker: kept for worker, kept in self.records.items() if worker not in silent})

    def all_records(self) -> dict[str, bytes]:
        """Of all that are kept, but for the daemons' own: their word counts only until others ask in their place."""
        return {k: v for kept in self.records.values() for k, v in kept.items() if not k.endswith("/daemon")}


def _records(worker: str, snapshot: StoreSnapshot | None) -> Mapping[str, bytes]:
    records = {} if snapshot is None else snapshot.records
    return {k: v for k, v in records.items() if (of := worker_of(k)) is not None and unquote(of) == worker}
