"""What is asked about the lines of a service, from the query of a URL. Pure."""

from collections.abc import Mapping
from typing import NamedTuple

from mesh.platform.logs.reading.cursors import LogCursor, encode_cursor, parse_cursor

MAX_SERVICE = 300
"""The most characters of the name of a service."""
MAX_PATTERN = 200
"""The most characters of what lines must contain."""
MAX_LINES = 10_000
"""The most lines of an answer."""
DEFAULT_LINES = 100
_LATEST = 1e11


class LogQuery(NamedTuple):
    """Which lines are wanted."""

    service: str
    """`project/service`, a service of any project, or the name of a container that is of no service."""
    lines: int = DEFAULT_LINES
    """How many of the newest ones."""
    since: float = 0.0
    """Only lines from this time on, in seconds since 1970."""
    pattern: str = ""
    """Only lines that contain this text as it is. No regular expression: a search of it takes linear time."""
    after: LogCursor | None = None
    """Only what follows an earlier answer; None for the newest lines."""

    def parameters(self) -> Mapping[str, str]:
        """Return the query of a URL that means the same."""
        after = None if self.after is None else encode_cursor(self.after)
        given = {"lines": str(self.lines), "since": f"{self.since:.3f}", "grep": self.pattern, "after": after}
        return {key: text for key, text in given.items() if text is not None and (text or key == "after")}


def parse_log_query(service: str, query: Mapping[str, str], now: float) -> LogQuery:
    """Parse the query of a URL. `now` is in seconds since 1970. Raises `ValueError` with the reason in words."""
    if not 0 < len(service) <= MAX_SERVICE or not service.isprintable():
        raise ValueError(f"the service is empty, too long or not printable; send {MAX_SERVICE} characters at most")
    pattern = query.get("grep", "")
    if len(pattern) > MAX_PATTERN or "\0" in pattern:
        raise ValueError(f"grep is too long; send {MAX_PATTERN} characters at most")
    try:
        since, lines = float(query.get("since", "0")), int(query.get("lines", str(DEFAULT_LINES)))
    except ValueError as error:
        raise ValueError("since must be seconds, and lines a whole number") from error
    if not (-_LATEST < since < _LATEST and 0 <= lines <= MAX_LINES):  # also refuses NaN
        raise ValueError(
            f"since must be seconds since 1970, or negative: seconds before now; lines from 0 to {MAX_LINES}"
        )
    after = query.get("after")
    cursor = None if after is None else parse_cursor(after)
    return LogQuery(service, lines, since if since >= 0 else max(0.0, now + since), pattern, cursor)


def is_meant(asked: str, service: str) -> bool:
    """Return whether a name means a service: `shop/web`, or `web` of any project."""
    return (
        asked == service or service.partition("/")[2] == asked != ""
    )  # a slash in `asked` is in no second part of a name
