"""Decides which etcd cluster the members in `[store] url` belong to. Pure.

Every response contains the ID of its cluster. Two clusters in one URL would both assign the same VIP, so a member is
asked for its ID before anything else, and all workers with the URL must choose the same cluster: the one that more than
half of the members report. Without such a majority all reports must agree, and on the cluster that was used before, if
there was one: a single member with another ID may be a mistake, and need not mean that the cluster was created again.
"""

from collections import Counter
from collections.abc import Collection, Mapping

from mesh.model.codes import Code
from mesh.store import StoreError


def is_majority(said: Mapping[str, int], members: Collection[str]) -> bool:
    """Return whether the reports of the other members can no longer change the choice."""
    return 2 * max(Counter(said.values()).values()) > len(members)


def choose_cluster(said: Mapping[str, int], members: Collection[str], before: int | None) -> int:
    """Return the ID of the cluster to use.

    `said` is the ID by member, for the members that answer, at least one; `before` is the ID used before, None for the
    first time. Raises `StoreError`.
    """
    (most, count), *others = Counter(said.values()).most_common()
    if 2 * count > len(members):
        return most
    each = ", ".join(f"{member}: {number:x}" for member, number in said.items())
    if others:
        raise StoreError(
            Code.ETCD_CLUSTERS_DIFFER,
            f"the members in [store] url belong to different etcd clusters ({each}); "
            "list the members of one cluster only, on all workers",
        )
    if before not in (None, most):
        raise StoreError(
            Code.ETCD_CLUSTERS_DIFFER,
            f"the members in [store] url belong to another etcd cluster than before ({each}; before: {before:x}), and "
            "no more than half of all members confirm it; remove members of other clusters from the URL, or, if etcd "
            "was newly created, start more of its members",
        )
    return most
