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
from hashlib import blake2b

from mesh.model.eligibility import probe_targets, probeable_by_anyone
from mesh.model.probe import Probe
from mesh.model.service import EndpointKey
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
