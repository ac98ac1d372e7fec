"""Finds the one release of a service whose number of instances can be changed. Pure."""

from collections.abc import Iterable, Sequence
from dataclasses import replace

from mesh.model.codes import Code
from mesh.platform.fleet.protocol import FleetService
from mesh.platform.stacks.errors import StackRequestError
from mesh.platform.stacks.model import DesiredService
from mesh.platform.stacks.rows import ReleaseRow
from mesh.platform.stacks.running import RunningRelease, projects_of, read_running

MOST_INSTANCES = 9999
"""The most instances that a request may want of one service."""


def find_scalable(name: str, services: Sequence[FleetService]) -> tuple[str, RunningRelease]:
    """Return the project and the one release of the service `SERVICE` or `PROJECT/SERVICE`.

    Raises `StackRequestError` if there is none, or more than one, or if it has one instance on each worker.
    """
    found = [
        (project, each)
        for project in projects_of(services)
        for service, releases in read_running(project, services, (), {}).releases.items()
        if name in (service, f"{project}/{service}")
        for each in releases
    ]
    if not found:
        raise _unknown(name)
    owners = sorted({f"{project}/{each.service}" for project, each in found})
    if len(owners) > 1:
        raise _ambiguous(name, owners)
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


def owner_of(name: str, rows: Iterable[ReleaseRow]) -> str:
    """Return `PROJECT/SERVICE` of a service that is called so. Raises `StackRequestError` as `find_scalable`."""
    owners = sorted({row.service for row in rows if name in (row.service, row.service.rpartition("/")[2])})
    if not owners:
        raise _unknown(name)
    if len(owners) > 1:
        raise _ambiguous(name, owners)
    return owners[0]


def scaled_service(release: RunningRelease, instances: int) -> DesiredService:
    """Return what the fleet must have for the same release with so many instances."""
    return DesiredService(
        release.service, replace(release.engine.spec, instances=instances), release.release, release.actual_digest
    )


def _unknown(name: str) -> StackRequestError:
    return StackRequestError(Code.STACK_UNKNOWN, f"no deployed service is called {name}; `vipmesh ps` lists all")


def _ambiguous(name: str, owners: Sequence[str]) -> StackRequestError:
    return StackRequestError(
        Code.STACK_NOT_SCALED, f"{name} is the name of {' and '.join(owners)}; write PROJECT/SERVICE"
    )
