"""Decides where instances may run: labels of workers for affinities, checks of zones, steps of a rebalancing. Pure."""

from collections.abc import Mapping, Sequence

from mesh.model.problem import Problem
from mesh.platform.fleet.protocol import FleetService, FleetTask, FleetWorker
from mesh.platform.stacks.model import Desired


def worker_labels(
    workers: Sequence[FleetWorker], services: Sequence[FleetService], tasks: Sequence[FleetTask]
) -> Mapping[str, Mapping[str, str]]:
    """Return the labels, by worker ID, of each worker whose labels `mesh.runs.*` must change. All its labels."""
    raise NotImplementedError


def zone_problems(desired: Desired, workers: Sequence[FleetWorker]) -> tuple[Problem, ...]:
    """Return an error for each service whose hard zones the workers cannot give it. Checked before creation."""
    raise NotImplementedError


def rebalance_step(
    service: FleetService, workers: Sequence[FleetWorker], tasks: Sequence[FleetTask], wanted: int
) -> int | None:
    """Return the number of instances to set next, `wanted` or one more; None if the service is left alone."""
    raise NotImplementedError
