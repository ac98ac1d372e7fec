"""Who asks the endpoints of a worker that cannot say itself how they are. Pure.

A worker asks its own endpoints and tells the others. When it is gone (its lease has ended, while its containers may
well run on) or nothing has been heard for so long that its last words are no longer valid (the store is away), the
others ask in its place. While the store is there they share the work: each endpoint has `PROBERS_PER_ENDPOINT` of them,
chosen by rendezvous hashing, so that every worker gets its even share and one that joins or leaves moves nothing else.
Two, so that one that cannot reach the endpoint does not decide alone: the better verdict counts. While the store is
away nobody can tell the others anything, and each asks for itself.

What only its own worker can ask is left alone: commands, and addresses that mean another host on each worker.
"""

from collections.abc import Collection, Mapping
from collections.abc import Set as AbstractSet
from hashlib import blake2b

from mesh.model.eligibility import probe_targets, probeable_by_anyone
from mesh.model.probe import Probe
from mesh.model.service import EndpointKey, Health
from mesh.model.table import RealKey
from mesh.model.view import ClusterView

PROBERS_PER_ENDPOINT = 2
"""Workers that ask an endpoint of one that is gone."""


def choose_probers(endpoint: EndpointKey, workers: Collection[str]) -> tuple[str, ...]:
    """Which of the workers ask this endpoint, the first one first; the same on each worker that knows the same ones."""
    worker, id = endpoint

    def rank(candidate: str) -> bytes:
        return blake2b(f"{candidate}\0{worker}\0{id}".encode(), digest_size=8).digest()

    return tuple(sorted(workers, key=lambda candidate: (rank(candidate), candidate))[:PROBERS_PER_ENDPOINT])


def taken_over_probes(view: ClusterView, me: str) -> Mapping[EndpointKey, tuple[Probe, RealKey]]:
    """What this worker has to ask in the place of others: the check, and where to send it."""
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

    For an endpoint of a worker that is gone the better verdict counts, of this worker or of another one.
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

    Whoever probes an endpoint decides, and the others follow, or their tables would differ. While nobody can tell the
    others anything, each worker decides for itself.
    """
    decides = frozenset(key for key in kept if key[0] == me or key[0] in view.workers & view.silent)
    return decides.union(key for key in view.kept if key[0] != me or key not in asked)


def held_back_in_force(
    view: ClusterView, held_back: Collection[EndpointKey], asked: AbstractSet[EndpointKey]
) -> frozenset[EndpointKey]:
    """The endpoints that answer and are not believed yet: `held_back` of those that this worker probes, which are
    `asked`, and of the others those that their workers hold back."""
    return frozenset(key for key in held_back if key in asked).union(key for key in view.held_back if key not in asked)
