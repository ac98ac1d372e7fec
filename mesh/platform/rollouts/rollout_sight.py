"""What the view of the cluster says of the releases of a service in a rollout. Pure."""

from collections.abc import Mapping, Sequence

from mesh.control.share_overlay import share_members
from mesh.model.codes import Code
from mesh.model.eligibility import vip_of
from mesh.model.problem import Problem, Severity
from mesh.model.release_rollout import ReleaseRollout, RolloutPhase
from mesh.model.service import ReleaseRules
from mesh.model.view import ClusterView
from mesh.platform.rollouts.rollout_steps import SeenRelease

STUCK_SECONDS = 300.0
"""How long a rollout may be neither good nor bad before that is reported."""
TAKEOVER = 30.0
"""Seconds for which a record may stay as it is before the next worker in the order acts on it."""


def release_rules(view: ClusterView, owner: str) -> Mapping[str, ReleaseRules | None]:
    """Return the releases of a service, each with the rules of its first instance that has some."""
    group = view.groups.get(owner)
    found: dict[str, ReleaseRules | None] = {}
    for endpoint in () if group is None else group.endpoints:
        name = endpoint.release or ""
        found[name] = found.get(name) or endpoint.release_rules
    return found


def seen_releases(view: ClusterView, owner: str) -> Mapping[str, SeenRelease]:
    """Return what is seen of each release of a service; `view` has the verdicts that traffic follows."""
    service = next((each for each in view.services if each.owner == owner), None)
    group = view.groups.get(owner)
    vip = None if service is None else vip_of(service, view)
    if service is None or group is None or vip is None:
        return {}
    drained = {endpoint.key for endpoint in group.endpoints if endpoint.drain is not None}
    counts: dict[str, tuple[int, int]] = {}
    for member in share_members(service, vip, group):
        there, serving = counts.get(member.release, (0, 0))
        is_counted = member.key not in drained
        counts[member.release] = there + is_counted, serving + (is_counted and member.serves)
    rules = release_rules(view, owner)
    return {name: SeenRelease(there, serving, rules.get(name)) for name, (there, serving) in counts.items()}


def turn(worker: str, workers: Sequence[str], actor: str, unchanged: float) -> bool:
    """Return whether a worker acts on a rollout now: the one that acted last, else the first by name.

    The others take over one by one if its record stays as it is for `unchanged` seconds: the first may be of an older
    version, which knows no rollouts. Two that act for a moment do no harm: one write of them succeeds.
    """
    order = sorted(set(workers) | {worker}, key=lambda name: (name != actor, name))
    return unchanged >= order.index(worker) * TAKEOVER


def rollout_problem(rollout: ReleaseRollout) -> Problem | None:
    """Return what operators should know of a rollout; None if it goes on, or is done."""
    owner = rollout.owner
    subject = f"{owner}, release {rollout.new or '(none)'}"
    if rollout.phase is RolloutPhase.ABORTED:
        remedy = f"stop its instances, and start a mended release; `vipmesh rollout status {owner}` shows the releases"
        reason = f"the rollout was aborted: {rollout.reason}"
        return Problem(Code.ROLLOUT_ABORTED, Severity.WARNING, subject, reason, remedy, owner=owner)
    if rollout.is_running and not rollout.is_paused and rollout.undecided >= STUCK_SECONDS:
        # Without the counts of the verdict, which differ each time: they would be a new problem.
        reason = f"the rollout does not go on: {rollout.words}"
        remedy = f"`vipmesh rollout status {owner}` says why; type `vipmesh rollout promote {owner}`, or abort"
        return Problem(Code.ROLLOUT_STUCK, Severity.WARNING, subject, reason, remedy, owner=owner)
    return None
