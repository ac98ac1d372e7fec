"""The records of deploys that labels of engine services hold: who deployed what when. Pure.

A release carries the records of the releases before it, the last ten. There is no other store of them, so they go with
the last release of their service.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from mesh.platform.fleet.protocol import FleetSpec
from mesh.platform.stacks.model import DIGEST_LABEL, RELEASE_LABEL
from mesh.platform.stacks.running import RunningRelease, RunningStack

HISTORY_LABEL = "mesh.history"
"""Label of an engine service: the deploys of its service, newest first, as JSON."""
MOST_RECORDS = 10
_MOST_CHARACTERS = 200
"""Of each text of a record: the label was written by somebody."""
_MOST_LABEL = 10_000


@dataclass(frozen=True, slots=True)
class DeployRecord:
    """One deploy of one service."""

    service: str
    release: str
    digest: str
    image: str
    at: int
    """In seconds since the epoch."""
    by: str
    """The user, with the host: `anna@w1`."""


def stamp(spec: FleetSpec, before: Sequence[RunningRelease], at: int, by: str) -> FleetSpec:
    """Return the specification of a new release with its record, and the last ones of the releases before it."""
    own = (
        spec.labels.get(RELEASE_LABEL, ""),
        spec.labels.get(DIGEST_LABEL, ""),
        spec.container.image,
        at,
        by,
    )
    found = dict.fromkeys([own, *(_row(record) for each in before for record in records_of(each))])
    newest = sorted(found, key=lambda row: row[3], reverse=True)[:MOST_RECORDS]
    return replace(spec, labels={**spec.labels, HISTORY_LABEL: json.dumps(newest, separators=(",", ":"))})


def records_of(release: RunningRelease) -> tuple[DeployRecord, ...]:
    """Return the records that an engine service carries; none if its label is not valid."""
    text = release.engine.spec.labels.get(HISTORY_LABEL, "[]")
    try:
        rows = json.loads(text) if len(text) <= _MOST_LABEL else []
        return tuple(_record(release.service, row) for row in rows[:MOST_RECORDS])
    except (ValueError, TypeError, RecursionError):
        return ()


def history_of(running: RunningStack) -> tuple[DeployRecord, ...]:
    """Return the records of a project, newest first."""
    return tuple(sorted(set(_all_records(running.releases)), key=lambda each: (-each.at, each.service, each.release)))


def _all_records(releases: Mapping[str, Sequence[RunningRelease]]) -> Iterator[DeployRecord]:
    for each in releases.values():
        for release in each:
            yield from records_of(release)


def _record(service: str, row: Sequence[object]) -> DeployRecord:
    release, digest, image, at, by = row
    if not isinstance(at, int):
        raise TypeError("a time is a whole number")
    named, made_of, made_from, author = (str(each)[:_MOST_CHARACTERS] for each in (release, digest, image, by))
    return DeployRecord(service, named, made_of, made_from, at, author)


def _row(record: DeployRecord) -> tuple[str, str, str, int, str]:
    return record.release, record.digest, record.image, record.at, record.by
