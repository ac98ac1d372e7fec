"""The view pipeline: from the registrations of the workers to the view that traffic follows. Pure.

`effective_view` is the only place that knows the order of the steps; the control loop plans from its result, and
`status`, `explain` and the metrics are computed from it too:

1. own endpoints are updated to what runs and is probed now (`mesh.control.local_overlay`);
2. endpoints that this worker cannot reach take no new connections (`mesh.cluster.failure_detector`);
3. this worker's verdicts replace those of departed workers (`mesh.health.takeover`);
4. the panic threshold keeps unhealthy endpoints in traffic while too many fail at once (`mesh.health.panic`);
5. flap damping: endpoints that are held back serve if their service has no other endpoint
   (`mesh.health.panic.panic_overrides`);
6. endpoints with slow start that begin to serve ramp (`mesh.control.slow_start`);
7. where releases have shares or endpoints ramp, the weights follow from that (`mesh.control.share_overlay`).
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

from mesh.cluster.failure_detector import withhold_unreachable
from mesh.control.local_overlay import LocalOverlay
from mesh.control.share_overlay import ShareOverlay
from mesh.control.slow_start import PassTime, SlowStarts
from mesh.health.panic import PanicInput, PanicState, panic_overrides, update_panic_state
from mesh.health.takeover import kept_in_force
from mesh.model.persistent_map import changed_keys
from mesh.model.service import EndpointKey, Health, Instance
from mesh.model.view import ClusterView


@dataclass(frozen=True, slots=True)
class ViewInputs:
    """All inputs of the effective view of one worker."""

    worker: str
    view: ClusterView
    """The view of what the workers registered, with the claims that are in force."""
    instances: Mapping[str, Instance] | None = None
    """The instances on this worker, by endpoint ID; None until every source has answered once."""
    probed: Mapping[EndpointKey, Health] = field(default_factory=dict)
    """Health by this worker's probes."""
    lost: frozenset[EndpointKey] = frozenset()
    """Endpoints that this worker cannot reach."""
    isolated: bool = False
    """Whether this worker is probably cut off itself."""
    takeover: Mapping[EndpointKey, Health] = field(default_factory=dict)
    """Health of other workers' endpoints by this worker's probes, as far as it counts."""
    kept: frozenset[EndpointKey] = frozenset()
    """Unhealthy endpoints that stay in traffic by the last panic decision. Unused when the panic state is updated."""
    held_back: frozenset[EndpointKey] = frozenset()
    """Endpoints that answer but flapped recently."""
    asked: frozenset[EndpointKey] = frozenset()
    """Endpoints that this worker probes. Used only when the panic state is updated."""
    slow_starts: SlowStarts = field(default_factory=SlowStarts)
    """The endpoints that ramp, by the last pass."""
    time: PassTime | None = None
    """When this pass is made; None keeps the ramps of the last one, as in a snapshot."""


@dataclass(frozen=True, slots=True)
class EffectiveView:
    """The result of the pipeline, and the intermediate results that the next run can reuse."""

    inputs: ViewInputs
    overlay: LocalOverlay
    overlaid: ClusterView
    """The view after step 1."""
    reachable: ClusterView
    """The view after step 2."""
    known: ClusterView
    """The view after step 3, with unmodified verdicts: operators are shown this one."""
    shared: ShareOverlay
    """The view after step 5, with the verdicts that traffic follows, and after step 7."""
    kept: frozenset[EndpointKey]
    """Unhealthy endpoints that stay in traffic."""
    panic: PanicState | None = None
    """The panic state after step 4; None if it was not updated."""
    slow_starts: SlowStarts = field(default_factory=SlowStarts)
    """The endpoints that ramp, after step 6."""

    @property
    def traffic(self) -> ClusterView:
        """The view after step 7, with the verdicts and the weights that traffic follows: it is planned from."""
        return self.shared.view


def effective_view(
    inputs: ViewInputs, before: EffectiveView | None = None, panic: PanicInput | None = None
) -> EffectiveView:
    """Compute the view that traffic follows.

    `before`, an earlier result for the same worker, only saves time: the result is equal without it, and parts that
    have not changed are the same objects. `panic`: update the panic state from this input; None keeps the last
    decision, as in a snapshot.
    """
    overlay = before.overlay if before is not None else LocalOverlay(inputs.worker)
    overlay = overlay.after(inputs.view, inputs.instances, inputs.probed)
    # Own endpoints come first: an isolated worker withholds nothing from a service that has no other endpoint, and one
    # that has just ended must not count as another endpoint.
    overlaid = before.overlaid if before is not None and _same_overlay(before.inputs, inputs) else overlay.overlaid()

    if before is not None and overlaid is before.overlaid and _same_reach(before.inputs, inputs):
        reachable = before.reachable
    else:
        reachable = withhold_unreachable(overlaid, inputs.lost, isolated=inputs.isolated)

    if before is not None and reachable is before.reachable and before.inputs.takeover == inputs.takeover:
        known = before.known
    else:
        known = reachable.judged(inputs.takeover)

    # Comes after the verdicts of departed workers are replaced: the panic threshold must see every failure.
    floor, kept = None, inputs.kept
    if panic is not None:
        floor = update_panic_state(panic.before, known, panic.asked, floor=panic.percent, now=panic.now)
        kept = kept_in_force(known, floor.kept, inputs.worker, inputs.asked)

    held_back = inputs.held_back
    if before is not None and known is before.known and (before.kept, before.inputs.held_back) == (kept, held_back):
        judged = before.shared.base
    else:
        judged = known.judged(panic_overrides(known, kept, held_back))
    slow_starts = inputs.slow_starts if inputs.time is None else inputs.slow_starts.after(judged, inputs.time)
    shared = (ShareOverlay() if before is None else before.shared).after(judged, slow_starts.ramps)
    return EffectiveView(inputs, overlay, overlaid, reachable, known, shared, kept, floor, slow_starts)


def view_effort(inputs: ViewInputs, before: EffectiveView | None, panic: PanicInput) -> int:
    """The approximate number of endpoints, those that are gone included, that `effective_view` will visit."""
    view = inputs.view
    if before is None:
        return len(view.endpoints)
    known = before.inputs.view
    if panic.before.groups or inputs.lost or view.services is not known.services:
        return len(view.endpoints) + len(known.endpoints)
    changed = changed_keys(known.groups, view.groups)
    looked_at = sum(
        len(groups[owner].endpoints) for groups in (known.groups, view.groups) for owner in changed if owner in groups
    )
    return looked_at + len(changed_keys(before.inputs.probed, inputs.probed))


def _same_overlay(before: ViewInputs, inputs: ViewInputs) -> bool:
    return (
        inputs.worker == before.worker
        and inputs.view is before.view
        and inputs.instances is before.instances
        and inputs.probed is before.probed
    )


def _same_reach(before: ViewInputs, inputs: ViewInputs) -> bool:
    return (inputs.lost, inputs.isolated) == (before.lost, before.isolated)
