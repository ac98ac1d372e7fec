"""A number of instances that a rebalancing or a drain has raised for a while, as a label of the engine service. Pure.

The label says who raised it, from which number, to which one. It counts only while the service has the raised number:
a deploy or `scale` that sets another one ends the move, and what they set stays.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace

from mesh.platform.fleet.protocol import FleetService, FleetSpec, FleetTask, FleetWorker
from mesh.platform.stacks.model import MOVES_LABEL, STACK_LABEL

MOVING_LABEL = "mesh.moving"
"""Label of an engine service: `REASON FROM TO`, while more instances run than are wanted."""
REBALANCE = "rebalance"
_VALUE = re.compile(r"([A-Za-z0-9:._-]{1,128}) ([0-9]{1,6}) ([0-9]{1,6})", re.ASCII)
_ACTIVE_STATES = frozenset({"new", "pending", "assigned", "accepted", "preparing", "ready", "starting", "running"})
"""States of a task that has not ended: swarmkit, api/types.proto."""


@dataclass(frozen=True, slots=True)
class InstanceMove:
    """More instances than are wanted, until others have ended."""

    reason: str
    """`rebalance`, or `drain:` and the ID of the worker that is drained."""
    wanted: int
    """The number to go back to."""
    raised: int
    """The number that was set."""


def drain_reason(worker: FleetWorker) -> str:
    """Return the reason of the moves that the drain of a worker makes."""
    return f"drain:{worker.id}"


def move_of(service: FleetService) -> InstanceMove | None:
    """Return the move of a service; None if there is none, or another number was set since."""
    found = _VALUE.fullmatch(service.spec.labels.get(MOVING_LABEL, ""))
    if found is None:
        return None
    reason, wanted, raised = found.groups()
    move = InstanceMove(reason, int(wanted), int(raised))
    return move if move.wanted < move.raised == service.spec.instances else None


def wanted_instances(service: FleetService) -> int | None:
    """Return the number of instances of a service without its move; None: one on each worker."""
    move = move_of(service)
    return service.spec.instances if move is None else move.wanted


def raised_spec(service: FleetService, move: InstanceMove) -> FleetSpec:
    """Return the specification with the raised number, and the label."""
    value = f"{move.reason} {move.wanted} {move.raised}"
    return replace(service.spec, instances=move.raised, labels={**service.spec.labels, MOVING_LABEL: value})


def settled_spec(spec: FleetSpec, instances: int | None) -> FleetSpec:
    """Return the specification with this number, and without a move."""
    return replace(spec, instances=instances, labels=_without_move(spec.labels))


def _without_move(labels: Mapping[str, str]) -> Mapping[str, str]:
    return {key: value for key, value in labels.items() if key != MOVING_LABEL}


def service_name(service: FleetService) -> str:
    """Return `PROJECT/SERVICE`, or the engine's name of what vipmesh has not deployed."""
    return service.spec.labels.get("mesh.service", service.spec.name)


def is_deployed(service: FleetService) -> bool:
    """Return whether vipmesh has deployed it."""
    return STACK_LABEL in service.spec.labels


def has_data(service: FleetService) -> bool:
    """Return whether its instances have data of their workers."""
    return service.spec.labels.get(MOVES_LABEL) == "false"


def runs_on(task: FleetTask, worker: FleetWorker) -> bool:
    """Return whether an instance has its place on a worker and is to stay."""
    return task.worker_id == worker.id and task.desired == "running" and task.state in _ACTIVE_STATES
