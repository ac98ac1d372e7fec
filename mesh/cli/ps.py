"""`vipmesh ps` and `history`: what the engine runs of each stack, and who deployed what when."""

import argparse
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime

from mesh.cli.output import complain, print_json, printable
from mesh.cli.stack_access import AdminReadiness, StackRequestError, require_manager, run_stack_verb
from mesh.cli.stack_documents import (
    DeployHistoryDocument,
    DeployRecordDocument,
    InstancesDocument,
    ServiceInstancesDocument,
)
from mesh.model.codes import Code
from mesh.model.errors import CodedText, MeshError, SettingsError
from mesh.platform.fleet.protocol import Fleet
from mesh.platform.stacks.readiness import StackReadiness
from mesh.platform.stacks.records import DeployRecord, history_of
from mesh.platform.stacks.running import (
    EndpointAnswer,
    RunningRelease,
    is_routed,
    outside_changes,
    pending_reasons,
    projects_of,
    read_running,
    running_workers,
)

_DIGITS = 8
"""Digits of a digest that are shown to people."""


def ps(options: argparse.Namespace) -> int:
    """Run `vipmesh ps`. Exit status 1 if no engine answers, or nothing is called so."""
    return run_stack_verb(options, lambda _, fleet: list_instances(options, fleet, AdminReadiness(options)))


def history(options: argparse.Namespace) -> int:
    """Run `vipmesh history`. Exit status 1 if nothing runs of the project."""
    return run_stack_verb(options, lambda _, fleet: list_deploys(options, fleet))


async def list_instances(options: argparse.Namespace, fleet: Fleet, readiness: StackReadiness) -> int:
    """Print what runs. Raises `MeshError`; that no daemon answers is said below the rest."""
    await require_manager(fleet)
    services, tasks = await fleet.services(), await fleet.tasks()
    workers = {each.id: each.name for each in await fleet.workers()}
    silent: CodedText | None = None
    answers: Mapping[str, EndpointAnswer] | None = None
    try:
        answers = await readiness.answers()
    except SettingsError:
        raise
    except MeshError as error:
        silent = error.coded
    rows = [
        _row(project, release, answers, workers)
        for project in projects_of(services)
        for releases in read_running(project, services, tasks, answers or {}).releases.values()
        for release in releases
        if _is_called(options.service, project, release.service)
    ]
    if options.service is not None and not rows:
        raise StackRequestError(
            Code.STACK_UNKNOWN, f"no deployed service is called {options.service}; `vipmesh ps` lists all"
        )
    rows.sort(key=lambda row: (row.service, row.release))
    if options.json:
        unknown = (None, None) if silent is None else (silent.text, str(silent.code))
        print_json(InstancesDocument(tuple(rows), *unknown))
        return 0
    for line in _table(rows):
        print(printable(line))
    if silent is not None:
        complain(f"what serves is not known: {silent.text}", str(silent.code))
    return 0


async def list_deploys(options: argparse.Namespace, fleet: Fleet) -> int:
    """Print the deploys of a project that its services carry. Raises `MeshError`."""
    await require_manager(fleet)
    running = read_running(options.project, await fleet.services(), (), {})
    if not running.releases:
        raise StackRequestError(Code.STACK_UNKNOWN, f"nothing of project {options.project} was deployed")
    rows = tuple(_record_document(each) for each in history_of(running))
    if options.json:
        print_json(DeployHistoryDocument(options.project, rows))
        return 0
    for row in rows:
        release = row.release if row.digest.startswith(row.release) else f"{row.release} ({row.digest[:_DIGITS]})"
        print(printable(f"{row.at}  {row.by}  {row.service}  {release}  {row.image}"))
    return 0


def _is_called(asked: str | None, project: str, service: str) -> bool:
    return asked in (None, service, f"{project}/{service}", project)


def _row(
    project: str,
    release: RunningRelease,
    answers: Mapping[str, EndpointAnswer] | None,
    workers: Mapping[str, str],
) -> ServiceInstancesDocument:
    spec = release.engine.spec
    return ServiceInstancesDocument(
        f"{project}/{release.service}",
        release.release,
        spec.container.image,
        spec.instances,
        release.started,
        release.ready if answers is not None and is_routed(spec) else None,
        pending_reasons(release),
        dict(running_workers(release, workers)),
        outside_changes(release),
    )


def _table(rows: Sequence[ServiceInstancesDocument]) -> Sequence[str]:
    """Return the lines of the table: each release, and below it what is pending or was changed outside vipmesh."""
    if not rows:
        return ["nothing was deployed"]
    cells = [("SERVICE", "RELEASE", "DESIRED", "RUNNING", "SERVING", "WHERE")]
    for row in rows:
        where = ", ".join(f"{name} {number}" for name, number in row.workers.items()) or "-"
        desired = "each worker" if row.desired is None else str(row.desired)
        serving = "-" if row.serving is None else str(row.serving)
        cells.append((row.service, row.release, desired, str(row.running), serving, where))
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    lines = ["  ".join(text.ljust(width) for text, width in zip(line, widths, strict=True)).rstrip() for line in cells]
    found = [lines[0]]
    for line, row in zip(lines[1:], rows, strict=True):
        found.append(line)
        found.extend(f"    {reason}" for reason in row.pending)
        found.extend(f"    changed outside vipmesh: {each}; deploy again to undo it" for each in row.outside)
    return found


def _record_document(record: DeployRecord) -> DeployRecordDocument:
    try:
        at = datetime.fromtimestamp(record.at, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    except (ValueError, OverflowError, OSError):
        at = str(record.at)
    return DeployRecordDocument(record.service, record.release, record.digest, record.image, at, record.by)
