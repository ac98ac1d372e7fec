"""The releases of a service in its status: who has which part of new connections, and how exactly. Pure."""

from dataclasses import dataclass

from mesh.control.planner import Plan
from mesh.control.share_overlay import ShareOverlay
from mesh.dataplane.nftables.balancer import MAX_SLOTS, weight_unit
from mesh.model.release_rollout import ReleaseRollout, RolloutPhase
from mesh.model.service import Scheduler, Service

_BY_CLIENT = frozenset({Scheduler.SH, Scheduler.MH, Scheduler.DH})
_BY_LOAD = frozenset({Scheduler.WLC, Scheduler.SED, Scheduler.NQ})


@dataclass(frozen=True, slots=True)
class ReleaseStatus:
    """One release of a service, and its part of the new connections."""

    release: str | None
    """Its name; None for the endpoints that name no release."""
    endpoints: int
    serving: int
    """The number of its endpoints to which new connections go."""
    given: float | None
    """The share that an operator gave it, in per cent; None if it was given none, or if no shares are in force."""
    share: float
    """Its part of new connections by weight and share, in per cent."""


@dataclass(frozen=True, slots=True)
class RolloutStatus:
    """How far the rollout of a service is."""

    phase: RolloutPhase
    new: str | None
    """The new release; None for the endpoints that name none."""
    old: str | None
    """The release before; None if there is none, or for the endpoints that name none."""
    state: str
    """Its state as a sentence: `step 2 of 3: 10 % for v2`."""
    reason: str
    """Why it is there: what the judge saw, or who asked for it."""
    step: int
    """The number of its step, from 1; 0 before the first one."""
    steps: int
    seconds: float
    """Since the step began, without pauses."""
    is_paused: bool


def rollout_row(rollout: ReleaseRollout | None) -> RolloutStatus | None:
    """Return how far a rollout is; None if the service has none."""
    if rollout is None:
        return None
    begun = rollout.phase not in (RolloutPhase.START, RolloutPhase.WARM) and rollout.steps > 0
    return RolloutStatus(
        rollout.phase,
        rollout.new or None,
        rollout.old or None,
        rollout.words,
        rollout.reason,
        min(rollout.step + 1, rollout.steps) if begun else 0,
        rollout.steps,
        round(rollout.elapsed, 1),
        rollout.is_paused,
    )


def release_rows(service: Service, shared: ShareOverlay) -> tuple[ReleaseStatus, ...]:
    """Return the releases of a service, sorted by name; empty if no endpoint names one."""
    rows = tuple(
        ReleaseStatus(
            row.release or None,
            row.endpoints,
            row.serving,
            None if row.given is None else row.given / 100,
            round(float(row.share) * 100, 2),
        )
        for row in shared.releases(service)
    )
    return rows if any(row.release is not None for row in rows) else ()


def shares_by(service: Service, shared: ShareOverlay) -> str | None:
    """Return who gave the shares that are in force; None if none are, or if that is not known."""
    return shared.given(service.owner).by or None if service.owner in shared.weighed else None


def shares_note(service: Service, shared: ShareOverlay, planned: Plan, data_plane: str) -> str | None:
    """Return in words how the shares in force are kept, if not exactly in each cycle of connections; else None."""
    part = planned.parts.get(service.owner)
    if service.owner not in shared.weighed or part is None:
        return None
    notes = []
    if service.scheduler in _BY_CLIENT:
        notes.append(f"scheduler {service.scheduler.value} divides clients, not connections")
    elif service.scheduler in _BY_LOAD:
        notes.append(f"scheduler {service.scheduler.value} divides open connections, not new ones")
    if service.persistence:
        notes.append("clients stay with their endpoint: only new clients are divided")
    slots = max(
        (
            sum(real.weight for real in server.real_servers.values()) // weight_unit(server)
            for server in part.virtual_servers.values()
        ),
        default=0,
    )
    if data_plane == "nftables" and slots > MAX_SLOTS:
        notes.append(f"nftables keeps them at random: {slots} slots are more than {MAX_SLOTS}")
    return "; ".join(notes) or None
