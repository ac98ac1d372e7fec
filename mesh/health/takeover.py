"""Chooses the workers that probe the endpoints of a worker that cannot publish their health. Pure.

A worker probes its own endpoints and publishes the results. When it is gone (its lease has ended, while its containers
may still run), or when nothing was received for so long that its last results are no longer valid (the store is
unreachable), the others probe in its place. While the store is reachable they share the work: each endpoint has
`PROBERS_PER_ENDPOINT` probers, chosen by rendezvous hashing, so that every worker gets an equal share and a worker that
joins or leaves moves nothing else. There are two, so that one that cannot reach the endpoint does not decide alone: the
better verdict counts. While the store is unreachable no worker can publish anything, and each probes for itself.

Endpoints that only their own worker can probe are left out: exec probes, and addresses that mean another host on each
worker.
"""

from collections.abc import Collection, Mapping
from collections.abc import Set as AbstractSet

from mesh.model.eligibility import PROBERS_PER_ENDPOINT, choose_probers, probe_targets, probeable_by_anyone
from mesh.model.probe import Probe
from mesh.model.service import EndpointKey, Health
from mesh.model.table import RealKey
from mesh.model.view import ClusterView

__all__ = [
    "PROBERS_PER_ENDPOINT",
    "choose_probers",
    "held_back_in_force",
    "kept_in_force",
    "probing_workers",
    "taken_over_probes",
    "takeover_verdicts",
]


def taken_over_probes(view: ClusterView, me: str) -> Mapping[EndpointKey, tuple[Probe, RealKey]]:
    """The endpoints that this worker, `me`, must probe for others: the probe of each, and its address."""
    if not view.silent:
        return {}
    live = (view.workers | {me}) - view.silent
    return {
        key: question
        for key, question in probe_targets(view).items()
        if key[0] in view.silent and probeable_by_anyone(*question) and me in choose_probers(key, live)
    }


def takeover_verdicts(
    view: ClusterView, others: Collection[EndpointKey], probed: Mapping[EndpointKey, Health]
) -> Mapping[EndpointKey, Health]:
    """The verdicts of this worker that count for endpoints of other workers, `others`; empty if it probes none.

    For an endpoint of a departed worker the better verdict counts, of this worker or of another one.
    """
    return {
        key: verdict
        for key in others
        if (verdict := probed.get(key, Health.STARTING)) is not Health.STARTING
        and not (key[0] not in view.workers and view.health.get(key) is Health.HEALTHY)
    }


def probing_workers(view: ClusterView, me: str, asked: AbstractSet[EndpointKey]) -> Mapping[EndpointKey, str]:
    """The worker that probes an endpoint, for each endpoint that its own worker does not probe; `me` probes `asked`."""
    if not view.silent:
        return {}
    live = (view.workers | {me}) - view.silent
    return {
        e.key: me if e.key in asked else choose_probers(e.key, live)[0]
        for e in view.endpoints
        if e.worker in view.silent
    }


def kept_in_force(
    view: ClusterView, kept: Collection[EndpointKey], me: str, asked: AbstractSet[EndpointKey]
) -> frozenset[EndpointKey]:
    """The unhealthy endpoints that stay in traffic on this worker. `kept`: those that it would keep; it probes `asked`.

    The worker that probes an endpoint decides, and the others follow; otherwise their tables would differ. While no
    worker can publish anything, each decides for itself.
    """
    decides = frozenset(key for key in kept if key[0] == me or key[0] in view.workers & view.silent)
    return decides.union(key for key in view.kept if key[0] != me or key not in asked)


def held_back_in_force(
    view: ClusterView, held_back: Collection[EndpointKey], asked: AbstractSet[EndpointKey]
) -> frozenset[EndpointKey]:
    """The endpoints that answer but are held back: `held_back` for the endpoints that this worker probes, which are
    `asked`, and the published ones for all others.
    """
    return frozenset(key for key in held_back if key in asked).union(key for key in view.held_back if key not in asked)
