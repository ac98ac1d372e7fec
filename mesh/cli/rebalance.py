"""`vipmesh rebalance`: spreads the instances of services evenly over the workers, one instance after the other."""

import argparse
from collections.abc import AsyncIterator, Awaitable, Sequence

from mesh.cli import stack_access
from mesh.cli.manager_only import require_manager_here
from mesh.cli.output import complain, print_json, printable
from mesh.cli.stack_access import (
    DEFAULT_WAIT,
    StackRequestError,
    print_failures,
    run_stack_verb,
    told_lines,
)
from mesh.cli.stack_documents import InstanceMovesDocument, ServiceFailureDocument
from mesh.cli.stack_endpoints import AdminStackEndpoints
from mesh.model.codes import Code
from mesh.model.errors import MeshError, SettingsError
from mesh.platform.fleet.protocol import Fleet, FleetService
from mesh.platform.stacks.mover import MoveOutcome, StackMover
from mesh.platform.stacks.moves import has_data, is_deployed, service_name
from mesh.platform.stacks.placing import load_of, plan_rebalance


def rebalance(options: argparse.Namespace) -> int:
    """Run `vipmesh rebalance`. Exit status 1 if an instance did not become ready, or somebody else was faster."""
    return run_stack_verb(options, lambda _, fleet: rebalance_services(options, fleet))


def stack_mover(fleet: Fleet, options: argparse.Namespace) -> StackMover:
    """Return what moves instances, and prints each step unless JSON is asked for."""
    wait = DEFAULT_WAIT if options.wait is None else options.wait
    readiness = stack_access.AdminReadiness(options)
    return StackMover(fleet, readiness, AdminStackEndpoints(options), wait=wait, tell=told_lines(options))


async def rebalance_services(options: argparse.Namespace, fleet: Fleet) -> int:
    """Spread the services that the options name, or all. Raises `MeshError`."""
    await require_manager_here(options, fleet)
    asked = _asked(options.service, await fleet.services())
    movable = [each for each in asked if each.spec.instances is not None and not has_data(each)]
    bound = tuple(sorted({service_name(each) for each in asked if has_data(each)}))
    everywhere = tuple(sorted({service_name(each) for each in asked if each.spec.instances is None}))
    if options.dry_run:
        moves = tuple([line async for line in _planned(movable, fleet)])
        result = InstanceMovesDocument("rebalance", None, True, moves, everywhere, bound)
        return report_moves(options, result, moves or ("all is spread evenly",))
    mover = stack_mover(fleet, options)
    outcome, error = await carried_out(mover, mover.rebalance([each.id for each in movable]))
    result = moves_document("rebalance", None, outcome, error, (everywhere, bound, ()))
    return report_moves(options, result, () if outcome.steps else ("all is spread evenly",))


async def carried_out(mover: StackMover, work: Awaitable[MoveOutcome]) -> tuple[MoveOutcome, MeshError | None]:
    """Return what was done, and what ended it before its end. Raises `SettingsError`."""
    try:
        return await work, None
    except SettingsError:
        raise
    except MeshError as error:
        return MoveOutcome(mover.done), error


def moves_document(
    verb: str,
    worker: str | None,
    outcome: MoveOutcome,
    error: MeshError | None,
    named: tuple[tuple[str, ...], tuple[str, ...], tuple[str, ...]],
) -> InstanceMovesDocument:
    """Return the document of a run. `named`: the services on each worker, the bound ones, and those of others."""
    failures = tuple(ServiceFailureDocument(e.service, e.ready, e.wanted, e.reasons) for e in outcome.failures)
    told = (None, None) if error is None else (error.coded.text, str(error.code))
    return InstanceMovesDocument(
        verb,
        worker,
        False,
        (),
        *named,
        steps=outcome.steps,
        failures=failures,
        notes=outcome.notes,
        error=told[0],
        code=told[1],
    )


def report_moves(options: argparse.Namespace, result: InstanceMovesDocument, lines: Sequence[str]) -> int:
    """Print what was done and return the exit status. `lines`: what people read at the end, if nothing failed."""
    failed = result.error is not None or bool(result.failures)
    if options.json:
        print_json(result)
        return 1 if failed else 0
    for note in result.notes:
        print(printable(note))
    print_failures(result.failures)
    if result.error is not None:
        complain(result.error, result.code)
    if not failed:
        for line in lines:
            print(printable(line))
    return 1 if failed else 0


def _asked(name: str | None, services: Sequence[FleetService]) -> tuple[FleetService, ...]:
    """Return the deployed services that a name means; all without one. Raises `StackRequestError`."""
    found = tuple(
        each for each in services if is_deployed(each) and (name is None or name in _names(service_name(each)))
    )
    if name is not None and not found:
        raise StackRequestError(Code.STACK_UNKNOWN, f"no deployed service is called {name}; `vipmesh ps` lists all")
    return found


def _names(owner: str) -> tuple[str, ...]:
    project, _, service = owner.partition("/")
    return owner, project, service


async def _planned(services: Sequence[FleetService], fleet: Fleet) -> AsyncIterator[str]:
    workers, tasks = await fleet.workers(), await fleet.tasks()
    names = {each.id: each.name for each in workers}
    for service in services:
        for move in plan_rebalance(load_of(service, workers, tasks)):
            yield f"{service_name(service)}: an instance from {names[move.source]} to {names[move.target]}"
