"""Refuses a verb that only a worker whose engine is a manager of the swarm carries out, with what to type where.

No worker acts because another one says so, and compose files stay where they are: the verb is typed there.
"""

import argparse
import shlex

from mesh.cli.stack_access import elsewhere, require_manager
from mesh.model.codes import Code
from mesh.model.errors import MeshError, SettingsError
from mesh.platform.fleet.protocol import Fleet
from mesh.platform.stacks.errors import StackRequestError

_FLAGS = ("dry_run", "prune", "force", "json")


async def require_manager_here(options: argparse.Namespace, fleet: Fleet) -> None:
    """Return if the engine of this host can be asked to change services.

    Raises `StackRequestError` with a worker that can and the line to type there, if the daemon knows one, and another
    `MeshError` if not.
    """
    try:
        await require_manager(fleet)
    except SettingsError:
        raise
    except MeshError as error:
        raise await refusal_here(options, error) from error


async def refusal_here(options: argparse.Namespace, refused: MeshError) -> MeshError:
    """Return how a verb is refused that the engine of this host cannot carry out; `refused` if no other one is known.

    Raises `SettingsError`.
    """
    try:
        found = await elsewhere(options, refused, lambda remote: remote.listing())
    except SettingsError:
        raise
    except MeshError as error:
        return error
    worker = found.worker or "another worker"
    files = " with the same files" if getattr(options, "files", None) else ""
    return StackRequestError(
        Code.STACK_ON_MANAGER,
        f"the engine of this host is no manager of the swarm, that of {worker} is; "
        f"type on {worker}{files}: {typed_line(options)}",
    )


def typed_line(options: argparse.Namespace) -> str:
    """Return the command line that these options are of, quoted for a shell, without those of access. Pure."""
    given = vars(options)
    words = ["vipmesh", options.verb]
    words += [f"--{name.replace('_', '-')}" for name in _FLAGS if given.get(name)]
    if given.get("wait") is not None:
        words += ["--wait", f"{given['wait']:g}"]
    if given.get("emptied") is not None:
        words += ["--worker", given["emptied"]]
    if given.get("project") is not None:
        words += [given["project"]] if options.verb == "undeploy" else ["--project", given["project"]]
    if given.get("service") is not None:
        words.append(given["service"])
    return shlex.join([*words, *map(str, given.get("files") or ())])
