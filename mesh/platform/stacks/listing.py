"""Lists what the engine runs of each stack, and who deployed what when, for people and for programs. Pure."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime

import msgspec

from mesh.model.past_event import bounded_text
from mesh.platform.fleet.protocol import FleetService, FleetTask
from mesh.platform.stacks.differ import outside_changes
from mesh.platform.stacks.kept_deploys import KeptDeploy
from mesh.platform.stacks.records import DeployRecord
from mesh.platform.stacks.rows import DeployRow, ReleaseRow, StacksDocument
from mesh.platform.stacks.running import (
    EndpointAnswer,
    RunningRelease,
    is_routed,
    pending_reasons,
    projects_of,
    read_running,
    running_workers,
)

MOST_ROWS = 10_000
"""The most releases that another worker may tell of."""
_MOST_CHARACTERS = 600
"""Of each text of another worker."""
_MOST_REASONS, _MOST_WORKERS = 20, 1000
"""Of one release that another worker tells of."""
_MOST_INSTANCES = 1_000_000


def release_rows(
    services: Sequence[FleetService],
    tasks: Sequence[FleetTask],
    workers: Mapping[str, str],
    answers: Mapping[str, EndpointAnswer] | None,
) -> tuple[ReleaseRow, ...]:
    """Return what runs of all projects, sorted by service and release.

    `workers` has the names of workers by id, `answers` what the mesh knows by the ids of tasks; None if no daemon
    answers.
    """
    rows = [
        _release_row(project, release, answers, workers)
        for project in projects_of(services)
        for releases in read_running(project, services, tasks, answers or {}).releases.values()
        for release in releases
    ]
    return tuple(sorted(rows, key=lambda row: (row.service, row.release)))


def bounded_document(body: bytes, worker: str) -> StacksDocument:
    """Return what another worker says of stacks, within bounds and without control characters.

    `worker` is the one that was asked, whoever the answer claims to be from. Raises ValueError if it is not valid.
    """
    try:
        found = msgspec.json.decode(body, type=StacksDocument)
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error
    rows = tuple(map(_bounded_row, found.services[:MOST_ROWS]))
    reason = None if found.error is None else _short(found.error)
    return StacksDocument(worker, rows, reason, None if found.code is None else _short(found.code))


def deploy_rows(records: Iterable[DeployRecord], kept: Iterable[KeptDeploy]) -> tuple[DeployRow, ...]:
    """Return the deploys of a project, newest first.

    `records` are those that its engine services carry, `kept` those that the store has; the first know more.
    """
    rows: dict[tuple[int, str, str, str], DeployRow] = {}
    for record in records:
        row = DeployRow(record.service, record.release, record.digest, record.image, utc_text(record.at), record.by)
        rows.setdefault((record.at, record.service, record.digest, record.by), row)
    for key, row in _kept_rows(kept):
        rows.setdefault(key, row)
    ordered = sorted(rows.items(), key=lambda item: (-item[0][0], item[1].service, item[1].digest))
    return tuple(row for _, row in ordered)


def utc_text(at: int) -> str:
    """Return a time in seconds since the epoch as `2026-11-30T14:02:11Z`; the number itself if no calendar has it."""
    try:
        return datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    except (ValueError, OverflowError, OSError):
        return str(at)


def _short(text: str) -> str:
    """Return a text on one line that can be written as UTF-8."""
    return bounded_text(text.encode(errors="replace").decode(), _MOST_CHARACTERS)


def _bounded_row(row: ReleaseRow) -> ReleaseRow:
    def number(value: int) -> int:
        return max(0, min(value, _MOST_INSTANCES))

    return ReleaseRow(
        _short(row.service),
        _short(row.release),
        _short(row.image),
        None if row.desired is None else number(row.desired),
        number(row.running),
        None if row.serving is None else number(row.serving),
        tuple(map(_short, row.pending[:_MOST_REASONS])),
        {_short(name): number(count) for name, count in [*row.workers.items()][:_MOST_WORKERS]},
        tuple(map(_short, row.outside[:_MOST_REASONS])),
        _short(row.project),
        None if row.ready is None else number(row.ready),
    )


def _kept_rows(kept: Iterable[KeptDeploy]) -> Iterator[tuple[tuple[int, str, str, str], DeployRow]]:
    for deploy in kept:
        for service, digest in deploy.digests.items():
            row = DeployRow(service, None, digest, None, utc_text(deploy.at), deploy.by)
            yield (deploy.at, service, digest, deploy.by), row


def _release_row(
    project: str,
    release: RunningRelease,
    answers: Mapping[str, EndpointAnswer] | None,
    workers: Mapping[str, str],
) -> ReleaseRow:
    spec = release.engine.spec
    return ReleaseRow(
        f"{project}/{release.service}",
        release.release,
        spec.container.image,
        spec.instances,
        release.started,
        release.ready if answers is not None and is_routed(spec) else None,
        pending_reasons(release),
        dict(running_workers(release, workers)),
        outside_changes(release),
        project,
        None if answers is None and is_routed(spec) else release.ready,
    )
