"""The usage of the containers of one worker as a record of the store, and back. Pure.

The key is `usage/<worker>`. It is below a prefix of its own, so that no watch of the cluster carries it: every worker
writes it every ten seconds, and the acting daemon alone reads it. The value is JSON; fields that this version does not
know are ignored, and new ones have defaults.
"""

from collections.abc import Mapping
from typing import Annotated, TypeAlias
from urllib.parse import quote, unquote

import msgspec

USAGE_PREFIX = "usage/"
MAX_USAGE_RECORD = 256 << 10
"""Bytes of a record."""
MAX_MEASURED_SERVICES = 1000
MAX_MEASURED_INSTANCES = 1000
"""Instances of one service on one worker."""
_MAX_OWNER = 256
_MAX_ID = 128
_MAX_WORKER = 64

_Count: TypeAlias = Annotated[int, msgspec.Meta(ge=0, le=1 << 53)]
_Share: TypeAlias = Annotated[int, msgspec.Meta(ge=0, le=1000)]
_Id: TypeAlias = Annotated[str, msgspec.Meta(min_length=1, max_length=_MAX_ID)]
_Owner: TypeAlias = Annotated[str, msgspec.Meta(min_length=1, max_length=_MAX_OWNER)]


class InstanceUsage(msgspec.Struct, frozen=True, array_like=True):
    """What one container used since the sample before."""

    id: _Id
    cpu: _Count | None = None
    """Thousandths of a core; None: there is no sample before, or the kernel does not tell."""
    memory: _Count | None = None
    """Bytes that the kernel cannot take back; None: it does not tell."""
    throttled: _Share = 0
    """Thousandths of the periods in which it had to wait since its limit was used up."""
    is_starting: bool = False
    cpu_limit: _Count = 0
    """Thousandths of a core; 0: none."""
    memory_limit: _Count = 0
    """Bytes; 0: none."""
    connections: _Count | None = None
    """Open connections that this worker leads to it, wherever it runs; None: they are not counted."""
    new_connections: _Count | None = None
    """Thousandths of new ones in a second."""


class WorkerUsage(msgspec.Struct, frozen=True, omit_defaults=True):
    """The value of `usage/<worker>`."""

    round: _Count
    """Another one in each record of a run of the daemon, so that an old record is not taken for a new one."""
    run: Annotated[str, msgspec.Meta(max_length=_MAX_ID)] = ""
    """Which run of the daemon wrote it."""
    memory: _Count = 0
    """Bytes that the worker has; 0: not known."""
    services: Annotated[
        dict[_Owner, Annotated[tuple[InstanceUsage, ...], msgspec.Meta(max_length=MAX_MEASURED_INSTANCES)]],
        msgspec.Meta(max_length=MAX_MEASURED_SERVICES),
    ] = {}
    """By owner, `project/service`."""


def usage_key(worker: str) -> str:
    """Return the key of a worker's record, below the prefix of usage."""
    return USAGE_PREFIX + quote(worker, safe="")


def worker_of_usage(key: str) -> str | None:
    """Return the worker of a key; None if it is none of these keys."""
    name = unquote(key.removeprefix(USAGE_PREFIX))
    return name if key.startswith(USAGE_PREFIX) and 0 < len(name) <= _MAX_WORKER else None


def encode_usage(usage: WorkerUsage) -> bytes:
    """Return the value of a record of at most `MAX_USAGE_RECORD` bytes.

    What does not fit is left out, service by service: of these nothing is heard, so no instance of them is removed.
    """
    services = dict(list(usage.services.items())[:MAX_MEASURED_SERVICES])
    cut = {owner: found[:MAX_MEASURED_INSTANCES] for owner, found in services.items() if len(owner) <= _MAX_OWNER}
    value = msgspec.json.encode(msgspec.structs.replace(usage, services=cut))
    while len(value) > MAX_USAGE_RECORD and cut:
        for owner in list(cut)[len(cut) // 2 :]:
            del cut[owner]
        value = msgspec.json.encode(msgspec.structs.replace(usage, services=cut))
    return value


def decode_usage(value: bytes) -> WorkerUsage | None:
    """Return the usage of a worker; None if the value is not such a record or beyond its bounds."""
    if len(value) > MAX_USAGE_RECORD:
        return None
    try:
        return _DECODER.decode(value)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None


def decode_usages(records: Mapping[str, bytes]) -> dict[str, WorkerUsage]:
    """Return the records that can be read, by worker."""
    found = {}
    for key, value in records.items():
        worker, usage = worker_of_usage(key), decode_usage(value)
        if worker is not None and usage is not None:
            found[worker] = usage
    return found


_DECODER = msgspec.json.Decoder(WorkerUsage)
