"""`vipmesh scale`: changes how many instances of a deployed service run.

It asks the engine of this host. If that is no manager of the swarm, or there is none, it asks the worker whose engine
is one, with the certificate or token of whoever types the verb.
"""

import argparse
from collections.abc import Mapping
from typing import Any

from mesh.cli.output import print_json, printable
from mesh.cli.stack_access import (
    DEFAULT_WAIT,
    elsewhere,
    print_failures,
    require_manager,
    run_stack_verb,
    stack_applier,
)
from mesh.cli.stack_documents import DeployDocument, ServiceFailureDocument
from mesh.model.errors import MeshError, SettingsError
from mesh.platform.fleet.protocol import Fleet
from mesh.platform.stacks.applier import ServiceFailure
from mesh.platform.stacks.scaling import find_scalable, owner_of, scaled_service


def scale(options: argparse.Namespace) -> int:
    """Run `vipmesh scale`. Exit status 1 if it is refused, or an instance did not become ready."""
    return run_stack_verb(options, lambda _, fleet: scale_service(options, fleet))


async def scale_service(options: argparse.Namespace, fleet: Fleet) -> int:
    """Set the number of instances and wait until they are ready. Raises `MeshError`."""
    name, instances = options.scaling
    try:
        await require_manager(fleet)
    except SettingsError:
        raise
    except MeshError as error:
        return await _scale_elsewhere(options, error)
    applier = stack_applier(fleet, options)
    project, release = find_scalable(name, await fleet.services())
    outcome = await applier.scale(project, scaled_service(release, instances))
    return _report(options, f"{project}/{release.service}", outcome.steps, outcome.failures)


async def _scale_elsewhere(options: argparse.Namespace, refused: MeshError) -> int:
    """Have another worker do it. Raises `MeshError`, `refused` if no daemon answers."""
    name, instances = options.scaling
    wait = DEFAULT_WAIT if options.wait is None else options.wait
    found = await elsewhere(options, refused, lambda remote: remote.listing())
    owner = owner_of(name, found.services)
    project, _, service = owner.rpartition("/")
    worker, answer = await elsewhere(
        options, refused, lambda remote: remote.scale(found.worker or "", project, service, instances, wait)
    )
    steps = tuple(map(str, answer.get("steps", ())))
    if not options.json:
        for step in steps:
            print(printable(f"{step}, by {worker}"))
    return _report(options, owner, steps, tuple(map(_failure, answer.get("failures", ()))), worker=worker)


def _report(
    options: argparse.Namespace,
    owner: str,
    steps: tuple[str, ...],
    failures: tuple[ServiceFailure, ...],
    *,
    worker: str | None = None,
) -> int:
    project, _, service = owner.rpartition("/")
    documents = tuple(ServiceFailureDocument(e.service, e.ready, e.wanted, e.reasons) for e in failures)
    if options.json:
        print_json(DeployDocument(project, False, steps=steps, failures=documents, worker=worker))
    else:
        if not steps:
            print(printable(f"{service}: has {options.scaling[1]} already"))
        print_failures(failures)
    return 1 if failures else 0


def _failure(row: Mapping[str, Any]) -> ServiceFailure:
    reasons = tuple(map(str, row.get("reasons", ())))
    return ServiceFailure(str(row.get("service")), row.get("ready", 0), row.get("wanted", 0), reasons)
