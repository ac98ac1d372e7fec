"""Which cluster of etcd the members in `[store] url` are of. Pure.

Every answer has the number of the cluster that it comes from. Two clusters in one URL would both give away the same
VIP, so a member is asked for its number before anything else, and all who have the URL must come to the same cluster:
the one that more than half of the members name. If no cluster has so many, none may be named but one, and it must be
the one that was used before, if one was: a single member with another number may be a mistake, and need not be a
cluster that was made anew.
"""

from collections import Counter
from collections.abc import Collection, Mapping

from mesh.model.codes import Code
from mesh.store import StoreError


def is_majority(said: Mapping[str, int], members: Collection[str]) -> bool:
    """Whether what the rest would say changes nothing any more."""
    return 2 * max(Counter(said.values()).values()) > len(members)


def choose_cluster(said: Mapping[str, int], members: Collection[str], before: int | None) -> int:
    """The cluster to go on with. `said` is the number by member, of those that answer, at least one; `before` the one
    that was used before, None for the first time. Raises `StoreError`.
    """
    (most, count), *others = Counter(said.values()).most_common()
    if 2 * count > len(members):
        return most
    each = ", ".join(f"{member}: {number:x}" for member, number in said.items())
    if others:
        raise StoreError(
            Code.ETCD_CLUSTERS_DIFFER,
            f"the members in [store] url are of different clusters of etcd ({each}); "
            "name those of one cluster alone, on all workers",
        )
    if before not in (None, most):
        raise StoreError(
            Code.ETCD_CLUSTERS_DIFFER,
            f"this is another cluster of etcd than before ({each}; before: {before:x}), and no more than half of the "
            "members in [store] url say so; take out of it what is not of the cluster, or, if etcd was made anew, "
            "start more of its members",
        )
    return most
