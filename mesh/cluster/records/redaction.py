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
    kind, *rest = key.split("/")
    if kind != "workers" or rest[1:2] not in (["services"], ["endpoints"]):
        return value
    # Few endpoints declare something of their own: most records need not be read.
    return value if rest[1] == "endpoints" and b"headers" not in value else _redact(value)


@lru_cache(MAX_CACHED_RECORDS)
def _redact(value: bytes) -> bytes | None:
    if len(value) > MAX_RECORD_BYTES:
        return None
    try:
        record = msgspec.json.decode(value)
    except (msgspec.MsgspecError, ValueError, RecursionError):
        return None
    if not isinstance(record, dict):
        return None
    declarations = [each for each in (record, record.get("declared")) if isinstance(each, dict)]
    redacted = [_redact_declaration(each) for each in declarations]
    return msgspec.json.encode(record) if any(redacted) else value


def _redact_declaration(declared: dict[str, Any]) -> bool:
    """Remove the values of headers from a service, or from what an endpoint declares. Return whether there were any."""
    probes = [probe for each in ("probe", "own_probe") if (probe := _with_values(declared.get(each))) is not None]
    for probe in probes:
        headers = probe["headers"] if isinstance(probe["headers"], list) else []
        names = [header[0] for header in headers if isinstance(header, list) and header]
        declared["own_probe"] = {**probe, "headers": [], "withheld_headers": names}
    if probes and isinstance(declared.get("probe"), dict):
        declared["probe"] |= _WITHOUT_HEADERS
    return bool(probes)


def _with_values(probe: Any) -> dict[str, Any] | None:
    """Return the probe if it is one and has headers; None otherwise."""
    return probe if isinstance(probe, dict) and probe.get("headers") else None
