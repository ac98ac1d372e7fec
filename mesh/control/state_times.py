"""Since when each endpoint is in its state: its health and whether it drains. Pure.

It is this worker's own observation, so it begins when its daemon starts.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from mesh.model.persistent_map import PersistentMap, changed_keys
from mesh.model.service import DrainReason, EndpointKey, Health
from mesh.model.view import ClusterView, EndpointGroup


@dataclass(frozen=True, slots=True)
class EndpointStateTimes:
    """When each endpoint was first seen in its present state. Begins empty."""

    since: PersistentMap[EndpointKey, float] = field(default_factory=PersistentMap)
    """In seconds since 1970."""
    groups: Mapping[str, EndpointGroup] = field(default_factory=dict)
    """The endpoints that it is about, by service, as they were seen last."""

    def after(self, view: ClusterView, now: float) -> "EndpointStateTimes":
        """Return the times after the next view. The cost follows the number of services that have changed."""
        owners = changed_keys(self.groups, view.groups)
        if not owners:
            return self
        gone: dict[EndpointKey, float | None] = {}
        changed: dict[EndpointKey, float | None] = {}
        for owner in owners:
            before, after = (dict(_states(groups.get(owner))) for groups in (self.groups, view.groups))
            gone |= dict.fromkeys(before.keys() - after.keys())
            changed |= {key: now for key, state in after.items() if before.get(key) != state}
        # An endpoint that has gone to another service is in both.
        return EndpointStateTimes(self.since.changed(gone | changed), view.groups)


def _states(group: EndpointGroup | None) -> Iterator[tuple[EndpointKey, tuple[object, ...]]]:
    """Yield the state of each endpoint of a service; a new process is a new state."""
    if group is None:
        return
    for endpoint, verdict in zip(group.endpoints, group.verdicts, strict=True):
        state: tuple[Health | None, Health | None, DrainReason | None, str | None]
        state = (verdict, endpoint.health, endpoint.drain, endpoint.run)
        yield endpoint.key, state
