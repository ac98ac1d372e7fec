"""`vipmesh history`: who deployed what of a project when.

It asks the engine of this host. If that is no manager of the swarm, there is none, or none of its services is left, it
asks the daemon, which has the last deploys.
"""

import argparse
from collections.abc import Sequence

from mesh.cli.output import print_json, printable
from mesh.cli.stack_access import elsewhere, require_manager, run_stack_verb
from mesh.model.codes import Code
from mesh.model.errors import MeshError, SettingsError
from mesh.platform.fleet.protocol import Fleet
from mesh.platform.stacks.errors import StackRequestError
from mesh.platform.stacks.listing import deploy_rows
from mesh.platform.stacks.records import history_of
from mesh.platform.stacks.rows import DeployRow, StackHistoryDocument
from mesh.platform.stacks.running import read_running

_DIGITS = 8
"""Digits of a digest that are shown to people."""


def history(options: argparse.Namespace) -> int:
    """Run `vipmesh history`. Exit status 1 if nothing was deployed of the project."""
    return run_stack_verb(options, lambda _, fleet: list_deploys(options, fleet))


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


def _release(row: DeployRow) -> str:
    if row.release is None or row.digest.startswith(row.release):
        return row.digest[:_DIGITS]
    return f"{row.release} ({row.digest[:_DIGITS]})"
