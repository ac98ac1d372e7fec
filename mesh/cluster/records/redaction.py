"""Removes from a record what must not stay on this worker's disk: the values of probe headers. Pure.

This version writes none (`mesh.cluster.records.encode`). Version 0.1.0 does, and its records are in the store that it
left, in its saved view, and in the store of a cluster in which it still runs.
"""

from functools import lru_cache
from typing import Any

import msgspec

from mesh.cluster.records.decode import MAX_RECORD_BYTES

_WITHOUT_HEADERS = {"headers": [], "expect_status": [[100, 599]], "expect_body": "", "follow_redirects": False}
"""The fields of `Probe.without_headers` that differ, as in a record."""
MAX_CACHED_RECORDS = 4096
"""Records of services that are not read again: a saved view is written often, and its services seldom change."""


def redact_record(key: str, value: bytes) -> bytes | None:
    """Return what may be kept of a record on the disk: mostly `value` itself.

    Return None if nothing of it may be kept, since it cannot be read: it may contain anything, and nobody uses it.
    """
    if not key.startswith("workers/") or "/services/" not in key:
        return value
    return _redact_service(value)


@lru_cache(MAX_CACHED_RECORDS)
def _redact_service(value: bytes) -> bytes | None:
    if len(value) > MAX_RECORD_BYTES:
        return None
    try:
        record = msgspec.json.decode(value)
    except (msgspec.MsgspecError, ValueError, RecursionError):
        return None
    if not isinstance(record, dict):
        return None
    probes = [probe for each in ("probe", "own_probe") if (probe := _with_values(record.get(each))) is not None]
    if not probes:
        return value
    for probe in probes:
        headers = probe["headers"] if isinstance(probe["headers"], list) else []
        names = [header[0] for header in headers if isinstance(header, list) and header]
        record["own_probe"] = {**probe, "headers": [], "withheld_headers": names}
    if isinstance(record.get("probe"), dict):
        record["probe"] |= _WITHOUT_HEADERS
    return msgspec.json.encode(record)


def _with_values(probe: Any) -> dict[str, Any] | None:
    """Return the probe if it is one and has headers; None otherwise."""
    return probe if isinstance(probe, dict) and probe.get("headers") else None
