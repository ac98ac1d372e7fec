"""What one worker has seen of the releases of services in a rollout, as a record of the store, and back. Pure.

The key is `evidence/<worker>`. It is below a prefix of its own, so that no watch of the cluster carries it: a worker
writes it every second while a rollout runs, and the acting daemon alone reads it. The value is JSON; fields that this
version does not know are ignored, and new ones have defaults. Counts only grow during one run of a daemon.
"""

from collections.abc import Mapping
from typing import Annotated, TypeAlias
from urllib.parse import quote, unquote

import msgspec

from mesh.platform.rollouts.judge import TIME_BUCKETS

EVIDENCE_PREFIX = "evidence/"
MAX_EVIDENCE_RECORD = 256 << 10
"""Bytes of a record."""
MAX_JUDGED_SERVICES = 100
MAX_JUDGED_RELEASES = 16
"""Releases of one service."""
MAX_JUDGED_ENDPOINTS = 1000
"""Endpoints of one release."""
CHECK_LABELS = ("release.check.cmd", "release.check.url")
"""The labels of checks, without prefix."""
MAX_CHECK_REASON = 120
"""Characters of why a check failed."""
_MAX_OWNER = 256
_MAX_ID = 256
_MAX_RELEASE = 64
_MAX_WORKER = 64

_Count: TypeAlias = Annotated[int, msgspec.Meta(ge=0, le=1 << 53)]
_Bucket: TypeAlias = Annotated[int, msgspec.Meta(ge=0, lt=TIME_BUCKETS)]
_Owner: TypeAlias = Annotated[str, msgspec.Meta(min_length=1, max_length=_MAX_OWNER)]
_Release: TypeAlias = Annotated[str, msgspec.Meta(max_length=_MAX_RELEASE)]
_Id: TypeAlias = Annotated[str, msgspec.Meta(min_length=1, max_length=_MAX_ID)]


class ConnectionCounts(msgspec.Struct, frozen=True, array_like=True):
    """The connections that one worker has led to one endpoint, wherever that runs. None: its data plane counts none."""

    attempts: _Count = 0
    """Failed ones included."""
    open: _Count = 0
    """Now."""
    refused: _Count | None = None
    unanswered: _Count | None = None
    reset: _Count | None = None


class CheckCounts(msgspec.Struct, frozen=True, array_like=True):
    """What a check of the user said on one worker."""

    runs: _Count = 0
    failed: _Count = 0
    reason: Annotated[str, msgspec.Meta(max_length=MAX_CHECK_REASON)] = ""
    """Of the last failure."""


class ReleaseCounts(msgspec.Struct, frozen=True, omit_defaults=True):
    """What one worker has seen of one release since it began to look."""

    instances: _Count = 0
    """Own ones, now."""
    exits: _Count = 0
    ended: _Count = 0
    """Instances that ended by themselves and are not among `instances`."""
    looping: _Count = 0
    out_of_memory: _Count = 0
    probes: _Count = 0
    failed_probes: _Count = 0
    probe_times: dict[_Bucket, _Count] = {}
    """Successful probes by the bucket of their duration."""
    endpoints: Annotated[dict[_Id, ConnectionCounts], msgspec.Meta(max_length=MAX_JUDGED_ENDPOINTS)] = {}
    """By `worker/id`."""
    checks: Annotated[dict[Annotated[str, msgspec.Meta(max_length=32)], CheckCounts], msgspec.Meta(max_length=4)] = {}
    """By label, without prefix."""


class WorkerEvidence(msgspec.Struct, frozen=True, omit_defaults=True):
    """The value of `evidence/<worker>`."""

    round: _Count
    """Another one in each record of a run of the daemon, so that an old record is not taken for a new one."""
    run: Annotated[str, msgspec.Meta(max_length=128)] = ""
    """In which all counts began at 0."""
    services: Annotated[
        dict[_Owner, Annotated[dict[_Release, ReleaseCounts], msgspec.Meta(max_length=MAX_JUDGED_RELEASES)]],
        msgspec.Meta(max_length=MAX_JUDGED_SERVICES),
    ] = {}
    """By owner, `project/service`, and release; empty for endpoints without a release."""


def evidence_key(worker: str) -> str:
    """Return the key of a worker's record, below the prefix of rollouts."""
    return EVIDENCE_PREFIX + quote(worker, safe="")


def worker_of_evidence(key: str) -> str | None:
    """Return the worker of a key; None if it is none of these keys."""
    name = unquote(key.removeprefix(EVIDENCE_PREFIX))
    return name if key.startswith(EVIDENCE_PREFIX) and 0 < len(name) <= _MAX_WORKER else None


def encode_evidence(evidence: WorkerEvidence) -> bytes:
    """Return the value of a record of at most `MAX_EVIDENCE_RECORD` bytes.

    What does not fit is left out, service by service: of these nothing is heard, so none of their releases is good.
    """
    named = [(owner, found) for owner, found in evidence.services.items() if 0 < len(owner) <= _MAX_OWNER]
    cut = {owner: _bounded(found) for owner, found in named[:MAX_JUDGED_SERVICES]}
    value = msgspec.json.encode(msgspec.structs.replace(evidence, services=cut))
    while len(value) > MAX_EVIDENCE_RECORD and cut:
        for owner in list(cut)[len(cut) // 2 :]:
            del cut[owner]
        value = msgspec.json.encode(msgspec.structs.replace(evidence, services=cut))
    return value


def _bounded(releases: Mapping[str, ReleaseCounts]) -> dict[str, ReleaseCounts]:
    known = [(name, counts) for name, counts in releases.items() if len(name) <= _MAX_RELEASE]
    found = {}
    for name, counts in known[:MAX_JUDGED_RELEASES]:
        led = [(id, each) for id, each in counts.endpoints.items() if 0 < len(id) <= _MAX_ID]
        found[name] = msgspec.structs.replace(counts, endpoints=dict(led[:MAX_JUDGED_ENDPOINTS]))
    return found


def decode_evidence(value: bytes) -> WorkerEvidence | None:
    """Return what a worker has seen; None if the value is not such a record or beyond its bounds."""
    if len(value) > MAX_EVIDENCE_RECORD:
        return None
    try:
        return _DECODER.decode(value)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None


def decode_all_evidence(records: Mapping[str, bytes]) -> dict[str, WorkerEvidence]:
    """Return the records that can be read, by worker."""
    found = {}
    for key, value in records.items():
        worker, evidence = worker_of_evidence(key), decode_evidence(value)
        if worker is not None and evidence is not None:
            found[worker] = evidence
    return found


_DECODER = msgspec.json.Decoder(WorkerEvidence)
