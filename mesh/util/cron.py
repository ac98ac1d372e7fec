"""Five-field cron expressions: what they are, and when one fired last. Pure.

The fields are those of crontab(5): minute, hour, day of the month, month, day of the week. Hours that a change to
summer time leaves out, or repeats, are treated as by Debian's cron.
"""

from datetime import UTC, datetime, timedelta, tzinfo
from functools import lru_cache
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from cronsim import CronSim, CronSimError

MAX_EXPRESSION = 100
"""Characters of an expression."""
_FIELDS = 5
_MAX_ZONE = 64
_RARELY = 366 * 4
"""Days within which an expression must fire, in either direction: 29 February is the rarest day."""


class CronError(ValueError):
    """The text is no expression, no zone, or names a day that does not exist."""


def parse_zone(name: str) -> tzinfo:
    """Return the time zone of the host's database with this name, `Europe/Berlin`. Raises `CronError`."""
    try:
        if not 0 < len(name) <= _MAX_ZONE or not name.isascii() or not name.isprintable():
            raise CronError("it is not the name of a time zone")
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError) as error:
        raise CronError("there is no such time zone on this host") from error


def check_expression(text: str) -> None:
    """Raise `CronError` with the reason if the text is not an expression that fires at least every four years."""
    if len(text) > MAX_EXPRESSION:
        raise CronError(f"it has more than {MAX_EXPRESSION} characters")
    if len(text.split()) != _FIELDS:
        raise CronError("it does not have the five fields minute, hour, day of month, month, day of week")
    if last_firing(text, UTC, _SOME_TIME) is None:
        raise CronError("it names a day that hardly ever comes")


def last_firing(text: str, zone: tzinfo, now: datetime) -> datetime | None:
    """Return when an expression fired last, at `now` or before; None if that was over four years ago.

    Raises `CronError` if the text is not an expression.
    """
    return _last_in_minute(text, zone, now.replace(second=0, microsecond=0))


@lru_cache(maxsize=512)
def _last_in_minute(text: str, zone: tzinfo, minute: datetime) -> datetime | None:
    # The search begins before the time that it is given, so one second later finds the minute itself.
    begin = (minute + timedelta(seconds=1)).astimezone(zone)
    try:
        # Two times of one zone compare by what their clocks show, which the end of summer time repeats. UTC does not.
        fired = next(CronSim(text, begin, reverse=True)).astimezone(UTC)
    except (CronSimError, AssertionError, TypeError, ValueError) as error:
        raise CronError(str(error).lower() or "it is no cron expression") from error
    except StopIteration:
        return None
    if begin.fold:
        # The search goes by what the clock shows: here it leaves out what fired later in the hour that is repeated.
        before = _last_in_minute(text, zone, minute - timedelta(minutes=1))
        fired = fired if before is None else max(fired, before)
    return None if minute - fired > timedelta(days=_RARELY) else fired


_SOME_TIME = datetime(2026, 3, 1, tzinfo=UTC)
