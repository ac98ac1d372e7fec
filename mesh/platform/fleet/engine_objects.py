"""Reads the engine's services, nodes, tasks and its own state. Pure.

Docker Engine API v1.41 (https://docs.docker.com/reference/api/engine/version/v1.41/). One object that cannot be read
costs no other: it is left out if it has no ID.
"""

from collections.abc import Mapping
from datetime import UTC, datetime

from mesh.platform.fleet.decode import decode_spec
from mesh.platform.fleet.encode import NO_IDS
from mesh.platform.fleet.json_fields import FieldNotes, JsonFields
from mesh.platform.fleet.protocol import (
    FleetAvailability,
    FleetResources,
    FleetService,
    FleetState,
    FleetTask,
    FleetWorker,
)

_AVAILABILITIES = {each.value: each for each in FleetAvailability}
_SHOWN = 300
"""The most characters of the engine's own words."""


def decode_service(raw: object, networks: Mapping[str, str] = NO_IDS) -> FleetService | None:
    """Return a service; None if it has no ID or no name. `networks`: as for `decode_spec`."""
    fields = JsonFields(raw, "", FieldNotes())
    id = fields.text("ID")
    spec, unknown = decode_spec(fields.raw.get("Spec"), networks)
    if not id or not spec.name:
        return None
    return FleetService(
        id=id,
        version=_version(fields),
        spec=spec,
        created=_seconds(fields.text("CreatedAt")),
        changed=_seconds(fields.text("UpdatedAt")),
        unknown=unknown,
    )


def decode_worker(raw: object) -> FleetWorker | None:
    """Return a worker; None if it has no ID."""
    fields = JsonFields(raw, "", FieldNotes())
    id, spec, status = fields.text("ID"), fields.fields("Spec"), fields.fields("Status")
    description, manager = fields.fields("Description"), fields.fields("ManagerStatus")
    capacity = description.fields("Resources")
    if not id:
        return None
    return FleetWorker(
        id=id,
        version=_version(fields),
        name=description.text("Hostname"),
        is_ready=status.text("State") == "ready",
        # A worker with an availability that is not known yet takes nothing.
        availability=_AVAILABILITIES.get(spec.text("Availability"), FleetAvailability.PAUSE),
        address=status.text("Addr"),
        labels=spec.labels("Labels"),
        engine_labels=description.fields("Engine").labels("Labels"),
        role=spec.text("Role"),
        is_leader=manager.flag("Leader") or False,
        capacity=FleetResources(capacity.number("NanoCPUs"), capacity.number("MemoryBytes")),
    )


def decode_task(raw: object) -> FleetTask | None:
    """Return a task; None if it has no ID or no service."""
    fields = JsonFields(raw, "", FieldNotes())
    id, service_id, status = fields.text("ID"), fields.text("ServiceID"), fields.fields("Status")
    container = status.fields("ContainerStatus")
    state = status.text("State")
    if not id or not service_id:
        return None
    return FleetTask(
        id=id,
        service_id=service_id,
        slot=fields.number("Slot"),
        worker_id=fields.text("NodeID"),
        desired=fields.text("DesiredState"),
        state=state,
        reason=status.text("Err")[:_SHOWN],
        container_id=container.text("ContainerID"),
        # A container that runs has an exit code of 0 as well.
        exit_code=container.number("ExitCode", low=-1) if state in ("complete", "failed") else None,
        since=_seconds(status.text("Timestamp")),
    )


def decode_state(raw: object) -> FleetState:
    """Return what an engine is to the fleet, from its `GET /info`."""
    fields = JsonFields(raw, "", FieldNotes())
    swarm, live_restore = fields.fields("Swarm"), fields.flag("LiveRestoreEnabled") or False
    state, error, can_act = swarm.text("LocalNodeState"), swarm.text("Error")[:_SHOWN], swarm.flag("ControlAvailable")
    is_active = state in ("active", "pending")
    reason = error
    if not reason and not is_active:
        reason = "the engine is not part of a swarm" if state in ("", "inactive") else f"its swarm is {state}"
    elif not reason and not can_act:
        reason = "the engine is a worker of the swarm, and no manager"
    return FleetState(is_active, is_active and not reason, swarm.text("NodeID"), reason, live_restore)


def _version(fields: JsonFields) -> int:
    return fields.fields("Version").number("Index")


def _seconds(moment: str) -> float:
    """Return the seconds since the epoch of `2026-11-30T23:18:29.358883838Z`; 0 if it is none."""
    try:
        found = datetime.fromisoformat(moment)
        return found.replace(tzinfo=found.tzinfo or UTC).timestamp()
    except (ValueError, OverflowError):
        return 0.0
