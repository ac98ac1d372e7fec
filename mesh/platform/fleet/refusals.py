"""Says what an answer of the engine means to a change of the fleet. Pure.

The engine's statuses say little: a version that is old is 500, as is a swarm without a leader. So its words count
(`api/server/httpstatus` of moby; `manager/controlapi` of swarmkit).
"""

from mesh.platform.fleet.errors import (
    FleetConflictError,
    FleetError,
    FleetNoQuorumError,
    FleetRefusedError,
    FleetUnavailableError,
)

_MARK = " desc = "
"""What comes before the reason in `rpc error: code = Unknown desc = update out of sequence`."""
_NO_LEADER = ("does not have a leader", "too few managers", "lost leadership")
_AWAY = (
    "deadline exceeded",
    "deadlineexceeded",
    "code = unavailable",
    "not a swarm manager",
    "not part of a swarm",
    "swarm is encrypted",
)
_MAX_REASON = 300


def refusal(status: int, message: str) -> FleetError:
    """Return the error that a status and the engine's message mean. Status 900 is the client's own: no answer."""
    reason = _one_line(message.rpartition(_MARK)[2] or message)
    lower = message.lower()
    if "out of sequence" in lower or status in (404, 409):
        return FleetConflictError(reason)
    if has_no_leader(message):
        return FleetNoQuorumError(first_sentence(reason))
    if status in (503, 900) or any(each in lower for each in _AWAY):
        return FleetUnavailableError(reason)
    return FleetRefusedError(reason)


def has_no_leader(message: str) -> bool:
    """Return whether the engine says that its swarm has no leader, as without a quorum and during an election."""
    lower = message.lower()
    return any(each in lower for each in _NO_LEADER)


def first_sentence(message: str) -> str:
    """Return the engine's words without their envelope, up to the first full stop that ends a sentence."""
    return _one_line(message.rpartition(_MARK)[2] or message).partition(". ")[0].rstrip(".")


def _one_line(text: str) -> str:
    kept = " ".join(text.split())[:_MAX_REASON]
    return "".join(each if each.isprintable() else each.encode("unicode_escape", "replace").decode() for each in kept)
