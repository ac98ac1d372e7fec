"""Which daemon acts for the swarm: the one that has the key `acting` of the store under a lease. Pure.

Any worker can write the key, so its value decides nothing but who acts. What the acting daemon does comes from the
engine alone (`mesh.platform.stacks.placing.worker_labels`), and two that act for a moment do no harm: each change names
the version that it was planned on, and both plan the same.
"""

import json
from dataclasses import dataclass

from mesh.config.values import parse_host_name
from mesh.platform.fleet.protocol import FleetState

_MAX_VALUE = 1000
"""The most bytes of a value that is looked into."""
MARGIN = 0.8
"""The part of a lease for which its holder counts on it: clocks and the way to the store take time."""


def acting_value(worker: str, run: str) -> bytes:
    """Return the value of the key. `run` differs for each run of a daemon."""
    return json.dumps({"v": 1, "worker": worker, "run": run}, separators=(",", ":")).encode()


def acting_worker(value: bytes | None) -> str | None:
    """Return the worker that a value names; None if there is none, or it is not valid."""
    if value is None or len(value) > _MAX_VALUE:
        return None
    try:
        found = json.loads(value)
        return parse_host_name(found["worker"])
    except (ValueError, TypeError, LookupError, RecursionError):
        return None


@dataclass(frozen=True, slots=True)
class ActingMoment:
    """What a daemon knows when it decides whether it acts."""

    fleet: FleetState | None
    """What its engine is to the fleet; None if it does not answer."""
    own: bytes
    """The value that it writes."""
    holder: bytes | None = None
    """The value of the key; None if nobody has it, or the store does not answer."""
    held_until: float = 0.0
    """Until when the lease lasts at least, on the clock of `now`."""


def may_act(fleet: FleetState | None) -> bool:
    """Return whether a daemon with this engine may have the key: the engine is a manager, and has a quorum."""
    return fleet is not None and fleet.is_active and fleet.can_act


def acts(moment: ActingMoment, now: float) -> bool:
    """Return whether the daemon acts now."""
    return may_act(moment.fleet) and moment.holder == moment.own and now < moment.held_until
