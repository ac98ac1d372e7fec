"""Reads the time that a line begins with, if it says its zone. Pure.

Without a zone it is not known which one the program means, so such a time is a part of the text only.
"""

import re
from datetime import UTC, datetime, timedelta

_TIME = re.compile(
    r"\[?(\d{4}-\d{2}-\d{2})[T ](\d{2}:\d{2}:\d{2})(?:[.,](\d{1,9}))? ?(?:(Z|UTC)|([+-])(\d{2}):?(\d{2}))(?!\d)",
    re.ASCII,
)
_YEARS = range(1971, 2262)
"""Years in which nanoseconds since 1970 are a number of 64 bits, as `date_nanos` of Elasticsearch has it."""


def leading_time(text: str) -> str | None:
    """Return the time at the beginning of a line, `2026-11-30T11:59:16.358Z`; None if there is none with a zone."""
    match = _TIME.match(text)
    if match is None:
        return None
    day, time, fraction, utc, sign, hours, minutes = match.groups()
    try:
        moment = datetime.fromisoformat(f"{day}T{time}").replace(tzinfo=UTC)
        if not utc:
            ahead = timedelta(hours=int(hours), minutes=int(minutes))
            moment += -ahead if sign == "+" else ahead
    except (ValueError, OverflowError):
        return None
    if moment.year not in _YEARS:
        return None
    return f"{moment:%Y-%m-%dT%H:%M:%S}{'.' + fraction if fraction else ''}Z"
