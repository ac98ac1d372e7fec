"""Which bounds a schedule sets at a time. Pure."""

from datetime import UTC, datetime

from mesh.model.auto_scaling import AutoScaling, ScheduledBounds
from mesh.util.cron import CronError, last_firing, parse_zone


def scheduled_entry(policy: AutoScaling, wall: float) -> ScheduledBounds | None:
    """Return the entry that fired last; of several at the same time, the one written last. None if there is none.

    `wall` is in seconds since the epoch. A time zone that this host does not have any more counts as UTC.
    """
    if not policy.schedule.entries:
        return None
    now = datetime.fromtimestamp(min(max(wall, 0.0), _LATEST), UTC)
    try:
        zone = parse_zone(policy.schedule.timezone)
    except CronError:
        zone = UTC
    latest, found = None, None
    for entry in policy.schedule.entries:
        fired = last_firing(entry.expression, zone, now)
        if fired is not None and (latest is None or fired >= latest):
            latest, found = fired, entry
    return found


def bounds_at(policy: AutoScaling, wall: float) -> tuple[int, int]:
    """Return the fewest and the most instances at a time."""
    entry = scheduled_entry(policy, wall)
    low, high = policy.min_instances, policy.max_instances
    if entry is not None:
        low = low if entry.min_instances is None else entry.min_instances
        high = high if entry.max_instances is None else entry.max_instances
    return low, high


_LATEST = 250_000_000_000.0
"""The year 9892: after it a time zone could leave the range of `datetime`."""
