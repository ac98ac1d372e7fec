"""What a daemon does for the admin API: lists stacks, changes the number of instances, and tells the last deploys.

Each request asks the engine of this worker. The store is read for the history alone: nothing in it makes this worker
create or change an engine service.
"""

import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TypeVar

from mesh.model.codes import Code
from mesh.model.errors import MeshError
from mesh.platform.fleet.errors import FleetUnavailableError
from mesh.platform.fleet.protocol import Fleet
from mesh.platform.stacks.applier import DeployAuthor, StackApplier, StackOutcome
from mesh.platform.stacks.errors import StackRequestError
from mesh.platform.stacks.kept_deploys import KeptDeploy, decode_deploys, stack_key
from mesh.platform.stacks.listing import deploy_rows, release_rows
from mesh.platform.stacks.readiness import StackReadiness
from mesh.platform.stacks.records import DeployRecord, history_of
from mesh.platform.stacks.rows import DeployRow, ReleaseRow
from mesh.platform.stacks.running import read_running
from mesh.platform.stacks.scaling import find_scalable, scaled_service
from mesh.store import Store
from mesh.util.offload import compute

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class ScaleRequest:
    """A number of instances that an operator wants."""

    project: str
    service: str
    instances: int
    wait: float
    """Seconds without progress after which it gives up."""


class StackOperations:
    """Carries out requests about stacks."""

    def __init__(self, fleet: Fleet | None, readiness: StackReadiness, store: Store) -> None:
        """`fleet` is None for a worker without an engine."""
        self._fleet = fleet
        self._readiness = readiness
        self._store = store

    async def list(self) -> tuple[ReleaseRow, ...]:
        """Return what runs of all projects.

        Raises `FleetUnavailableError` if the engine cannot be asked, and other `MeshError`.
        """
        fleet = await self._manager()
        services, tasks = await fleet.services(), await fleet.tasks()
        workers = {each.id: each.name for each in await fleet.workers()}
        answers = await self._readiness.answers()
        return await compute(len(tasks), lambda: release_rows(services, tasks, workers, answers))

    async def scale(self, request: ScaleRequest, by: str) -> StackOutcome:
        """Change the number of instances, and wait until they are ready. Raises `MeshError`. `by`: who asks for it."""
        fleet = await self._manager()
        project, release = find_scalable(f"{request.project}/{request.service}", await fleet.services())
        applier = StackApplier(fleet, self._readiness, DeployAuthor(by, time.time), wait=request.wait)
        return await applier.scale(project, scaled_service(release, request.instances))

    async def history(self, project: str) -> tuple[DeployRow, ...]:
        """Return the last deploys of a project, newest first: those that the engine has, and those of the store.

        Raises `StackRequestError` if there are none, and another `MeshError` if neither the engine nor the store
        answers.
        """
        try:
            key = stack_key(project)
        except ValueError as error:
            raise _unknown(project) from error
        failures: list[MeshError] = []
        records = await _or_nothing(lambda: self._engine_records(project), failures)
        kept = await _or_nothing(lambda: self._kept(key), failures)
        rows = deploy_rows(records, kept)
        if rows:
            return rows
        # Without an answer of the store nobody knows that there were none.
        not_known = [each for each in failures if not isinstance(each, FleetUnavailableError)]
        raise not_known[0] if not_known else _unknown(project)

    async def _engine_records(self, project: str) -> tuple[DeployRecord, ...]:
        fleet = await self._manager()
        return history_of(read_running(project, await fleet.services(), (), {}))

    async def _kept(self, key: str) -> tuple[KeptDeploy, ...]:
        value = (await self._store.read()).records.get(key)
        try:
            return () if value is None else decode_deploys(value)
        except ValueError:
            return ()  # whoever wrote it: the next deploy writes it again

    async def _manager(self) -> Fleet:
        """Return the fleet. Raises `FleetUnavailableError` if this worker's engine is no manager of a swarm."""
        if self._fleet is None:
            raise FleetUnavailableError("this worker has no engine; set [source.docker] socket")
        state = await self._fleet.state()
        if not state.can_act:
            raise FleetUnavailableError(f"its engine cannot be asked for services: {state.reason}")
        return self._fleet


async def _or_nothing(ask: Callable[[], Awaitable[tuple[T, ...]]], failures: list[MeshError]) -> tuple[T, ...]:
    try:
        return await ask()
    except MeshError as error:
        failures.append(error)
        return ()


def _unknown(project: str) -> StackRequestError:
    return StackRequestError(Code.STACK_UNKNOWN, f"nothing of project {project[:200]} was deployed")
