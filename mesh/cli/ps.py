"""`vipmesh ps` and `history`: what the engine runs of each stack, and who deployed what when.

Both ask the engine of this host. If it is no manager of the swarm, or there is none, they ask the daemon, which knows
what another worker's engine runs, and the last deploys.
"""

import argparse
from collections.abc import Mapping, Sequence

from mesh.cli.output import complain, print_json, printable
from mesh.cli.stack_access import AdminReadiness, elsewhere, require_manager, run_stack_verb
from mesh.cli.stack_documents import InstancesDocument
from mesh.model.codes import Code
from mesh.model.errors import CodedText, MeshError, SettingsError
from mesh.platform.fleet.protocol import Fleet
from mesh.platform.stacks.errors import StackRequestError
from mesh.platform.stacks.listing import DeployRow, ReleaseRow, StackHistoryDocument, deploy_rows, release_rows
from mesh.platform.stacks.readiness import StackReadiness
from mesh.platform.stacks.records import history_of
from mesh.platform.stacks.running import EndpointAnswer, read_running

_DIGITS = 8
"""Digits of a digest that are shown to people."""


def ps(options: argparse.Namespace) -> int:
    """Run `vipmesh ps`. Exit status 1 if no engine answers, or nothing is called so."""
    return run_stack_verb(options, lambda _, fleet: list_instances(options, fleet, AdminReadiness(options)))


def history(options: argparse.Namespace) -> int:
    """Run `vipmesh history`. Exit status 1 if nothing was deployed of the project."""
    return run_stack_verb(options, lambda _, fleet: list_deploys(options, fleet))


async def list_instances(options: argparse.Namespace, fleet: Fleet, readiness: StackReadiness) -> int:
    """Print what runs. Raises `MeshError`; that no daemon answers is said below the rest."""
    worker: str | None = None
    silent: CodedText | None = None
    found_rows: Sequence[ReleaseRow]
    try:
        await require_manager(fleet)
    except SettingsError:
        raise
    except MeshError as error:
        found = await elsewhere(options, error, lambda remote: remote.listing())
        worker, found_rows = found.worker, found.services
    else:
        found_rows, silent = await _own_rows(fleet, readiness)
    rows = tuple(row for row in found_rows if _is_called(options.service, row.service))
    if options.service is not None and not rows:
        raise StackRequestError(
            Code.STACK_UNKNOWN, f"no deployed service is called {options.service}; `vipmesh ps` lists all"
        )
    if options.json:
        text, code = (None, None) if silent is None else (silent.text, str(silent.code))
        print_json(InstancesDocument(rows, text, code, worker))
        return 0
    for line in _table(rows):
        print(printable(line))
    if worker is not None:
        print(printable(f"from the engine of {worker}"))
    if silent is not None:
        complain(f"what serves is not known: {silent.text}", str(silent.code))
    return 0


async def list_deploys(options: argparse.Namespace, fleet: Fleet) -> int:
    """Print the last deploys of a project. Raises `MeshError`.

    If the engine of this host carries none, those in the store count, which the daemon has.
    """
    rows: Sequence[DeployRow] = ()
    refused: MeshError = StackRequestError(Code.STACK_UNKNOWN, f"nothing of project {options.project} was deployed")
    try:
        await require_manager(fleet)
        rows = deploy_rows(history_of(read_running(options.project, await fleet.services(), (), {})), ())
    except SettingsError:
        raise
    except MeshError as error:
        refused = error
    if not rows:
        rows = (await elsewhere(options, refused, lambda remote: remote.history(options.project))).deploys
    if options.json:
        print_json(StackHistoryDocument(options.project, tuple(rows)))
        return 0
    for row in rows:
        print(printable(f"{row.at}  {row.by}  {row.service}  {_release(row)}  {row.image or ''}".rstrip()))
    return 0


async def _own_rows(fleet: Fleet, readiness: StackReadiness) -> tuple[Sequence[ReleaseRow], CodedText | None]:
    """Return what the engine of this host runs, and why it is not known what serves; None if it is."""
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
    return release_rows(services, tasks, workers, answers), silent


def _is_called(asked: str | None, owner: str) -> bool:
    project, _, service = owner.rpartition("/")
    return asked in (None, service, owner, project)


def _release(row: DeployRow) -> str:
    if row.release is None or row.digest.startswith(row.release):
        return row.digest[:_DIGITS]
    return f"{row.release} ({row.digest[:_DIGITS]})"


def _table(rows: Sequence[ReleaseRow]) -> Sequence[str]:
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
