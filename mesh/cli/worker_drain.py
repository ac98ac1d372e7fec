"""`vipmesh drain --worker` and `undrain --worker`: empty a worker after as much serves elsewhere, and take it back."""

import argparse
from collections.abc import Iterator

from mesh.cli.manager_only import require_manager_here
from mesh.cli.output import printable
from mesh.cli.rebalance import carried_out, moves_document, report_moves, stack_mover
from mesh.cli.stack_access import StackRequestError, run_stack_verb
from mesh.cli.stack_documents import InstanceMovesDocument
from mesh.model.codes import Code
from mesh.model.errors import MeshError
from mesh.platform.fleet.protocol import Fleet, FleetWorker
from mesh.platform.stacks.worker_drain import DrainEffects, WorkerView, drain_effects


def drain(options: argparse.Namespace) -> int:
    """Run `vipmesh drain --worker`. Exit status 1 if it is refused, or instances did not become ready elsewhere."""
    return run_stack_verb(options, lambda _, fleet: drain_worker(options, fleet))


def undrain(options: argparse.Namespace) -> int:
    """Run `vipmesh undrain --worker`. Exit status 1 if it is refused."""
    return run_stack_verb(options, lambda _, fleet: return_worker(options, fleet))


async def drain_worker(options: argparse.Namespace, fleet: Fleet) -> int:
    """Name what cannot be kept whole, then move what runs on the worker. Raises `MeshError`."""
    await require_manager_here(options, fleet)
    workers = await fleet.workers()
    worker = find_worker(options.emptied, workers)
    effects = drain_effects(WorkerView(worker, await fleet.services(), await fleet.tasks()), workers)
    if not options.json:
        for line in _effect_lines(worker, effects):
            print(printable(line), flush=True)
    refusal = _refusal(worker, effects, force=options.force)
    if options.dry_run:
        moves = tuple(f"{name}: {number}" for name, number in effects.moved)
        error, code = (None, None) if refusal is None else (refusal.coded.text, str(refusal.code))
        result = InstanceMovesDocument(
            "drain",
            worker.name,
            True,
            moves,
            effects.everywhere,
            effects.bound,
            effects.outside,
            error=error,
            code=code,
        )
        return report_moves(options, result, ())
    if refusal is not None:
        raise refusal
    mover = stack_mover(fleet, options)
    outcome, failed = await carried_out(mover, mover.drain(worker.id, effects.bound))
    named = (effects.everywhere, effects.bound, effects.outside)
    result = moves_document("drain", worker.name, outcome, failed, named)
    return report_moves(options, result, (f"{worker.name} is empty; `vipmesh undrain --worker {worker.name}` ends it",))


async def return_worker(options: argparse.Namespace, fleet: Fleet) -> int:
    """Let a worker have instances again. Raises `MeshError`."""
    await require_manager_here(options, fleet)
    worker = find_worker(options.emptied, await fleet.workers())
    mover = stack_mover(fleet, options)
    outcome, error = await carried_out(mover, mover.undrain(worker.id))
    result = moves_document("undrain", worker.name, outcome, error, ((), (), ()))
    return report_moves(
        options, result, (f"{worker.name} takes instances; `vipmesh rebalance` moves some to it at once",)
    )


def find_worker(name: str, workers: tuple[FleetWorker, ...]) -> FleetWorker:
    """Return the worker of this host name or ID. Raises `StackRequestError`."""
    found = [each for each in workers if each.id == name] or [each for each in workers if each.name == name]
    if len(found) == 1:
        return found[0]
    known = ", ".join(each.name for each in workers)
    text = f"no engine of the swarm is called {name}; its engines are: {known}"
    if found:
        text = f"several engines are called {name}; write an ID: {', '.join(each.id for each in found)}"
    raise StackRequestError(Code.FLEET_WORKER_UNKNOWN, text)


def _refusal(worker: FleetWorker, effects: DrainEffects, *, force: bool) -> MeshError | None:
    if effects.moving:
        text = f"{', '.join(effects.moving)}: another drain moves instances; let it end first"
        return StackRequestError(Code.SERVICE_MOVING, text)
    if effects.bound and not force:
        text = (
            f"{', '.join(effects.bound)}: bound to {worker.name}; nothing was changed; --force ends them with the rest"
        )
        return StackRequestError(Code.WORKER_BOUND, text)
    return None


def _effect_lines(worker: FleetWorker, effects: DrainEffects) -> Iterator[str]:
    for name in effects.everywhere:
        yield f"{name}: has one instance on each worker; that of {worker.name} ends"
    for name in effects.bound:
        yield f"{name}: is bound to {worker.name}, by its data or its constraints"
    for name in effects.outside:
        yield f"{name}: was not deployed with vipmesh; the engine ends its instances before others start"
    for name, number in effects.moved:
        yield f"{name}: {number} more elsewhere, then {number} on {worker.name} end{'s' if number == 1 else ''}"
