"""`vipmesh scale`: changes how many instances of a deployed service run."""

import argparse
from dataclasses import replace

from mesh.cli.output import print_json
from mesh.cli.stack_access import StackRequestError, print_failures, require_manager, run_stack_verb, stack_applier
from mesh.cli.stack_documents import DeployDocument, ServiceFailureDocument
from mesh.model.codes import Code
from mesh.platform.fleet.protocol import Fleet
from mesh.platform.stacks.applier import StackApplier
from mesh.platform.stacks.model import DesiredService
from mesh.platform.stacks.running import RunningRelease, projects_of


def scale(options: argparse.Namespace) -> int:
    """Run `vipmesh scale`. Exit status 1 if it is refused, or an instance did not become ready."""
    return run_stack_verb(options, lambda _, fleet: scale_service(options, fleet))


async def scale_service(options: argparse.Namespace, fleet: Fleet) -> int:
    """Set the number of instances and wait until they are ready. Raises `MeshError`."""
    await require_manager(fleet)
    name, instances = options.scaling
    applier = stack_applier(fleet, options)
    project, release = await _find(name, fleet, applier)
    target = DesiredService(
        release.service,
        replace(release.engine.spec, instances=instances),
        release.release,
        release.actual_digest,
    )
    outcome = await applier.scale(project, target)
    failures = tuple(ServiceFailureDocument(e.service, e.ready, e.wanted, e.reasons) for e in outcome.failures)
    if options.json:
        print_json(DeployDocument(project, False, steps=outcome.steps, failures=failures))
    else:
        if not outcome.steps:
            print(f"{release.service}: has {instances} already")
        print_failures(outcome.failures)
    return 1 if failures else 0


async def _find(name: str, fleet: Fleet, applier: StackApplier) -> tuple[str, RunningRelease]:
    """Return the one release of a service that can be scaled. Raises `StackRequestError`."""
    found: list[tuple[str, RunningRelease]] = []
    for project in projects_of(await fleet.services()):
        running = await applier.read(project, asks_mesh=False)
        for service, releases in running.releases.items():
            if name in (service, f"{project}/{service}"):
                found.extend((project, each) for each in releases)
    if not found:
        raise StackRequestError(Code.STACK_UNKNOWN, f"no deployed service is called {name}; `vipmesh ps` lists all")
    owners = sorted({f"{project}/{each.service}" for project, each in found})
    if len(owners) > 1:
        raise StackRequestError(
            Code.STACK_NOT_SCALED, f"{name} is the name of {' and '.join(owners)}; write PROJECT/SERVICE"
        )
    if len(found) > 1:
        raise StackRequestError(
            Code.STACK_NOT_SCALED, f"{name} has {len(found)} releases: a deploy has not ended; deploy again first"
        )
    project, release = found[0]
    if release.engine.spec.instances is None:
        raise StackRequestError(
            Code.STACK_NOT_SCALED, f"{name} has one instance on each worker, by its label global; it has no number"
        )
    return project, release
