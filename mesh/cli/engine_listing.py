"""`vipmesh ps` where the daemon of this host does not tell what runs: asks the engine of this host.

If that is no manager of the swarm, or there is none, it asks the daemon for what another worker's engine runs.
"""

import argparse
from collections.abc import Mapping, Sequence

from mesh.cli.ps import print_instances
from mesh.cli.stack_access import AdminReadiness, elsewhere, require_manager, run_stack_verb
from mesh.model.errors import CodedText, MeshError, SettingsError
from mesh.platform.fleet.protocol import Fleet
from mesh.platform.stacks.listing import release_rows
from mesh.platform.stacks.readiness import StackReadiness
from mesh.platform.stacks.rows import ReleaseRow
from mesh.platform.stacks.running import EndpointAnswer


def ask_engine(options: argparse.Namespace) -> int:
    """Print what the engine runs. Exit status 1 if no engine answers, or nothing is called so."""
    return run_stack_verb(options, lambda _, fleet: list_instances(options, fleet, AdminReadiness(options)))


async def list_instances(options: argparse.Namespace, fleet: Fleet, readiness: StackReadiness) -> int:
    """Print what runs. Raises `MeshError`; that no daemon answers is said below the rest."""
    worker: str | None = None
    silent: CodedText | None = None
    rows: Sequence[ReleaseRow]
    try:
        await require_manager(fleet)
    except SettingsError:
        raise
    except MeshError as error:
        found = await elsewhere(options, error, lambda remote: remote.listing())
        worker, rows = found.worker, found.services
    else:
        rows, silent = await _own_rows(fleet, readiness)
    return print_instances(options, rows, worker, silent)


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
