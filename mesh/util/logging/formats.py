"""Formats log lines: as text for people, as logfmt or JSON for programs. Pure.

A line is one line whatever a label, a container or a probe has put into it: control characters are escaped. A warning
or an error ends with the code that its record has as `code`. Secrets that the settings have are never in it.
"""

import json
import logging
import traceback
from collections.abc import Collection, Mapping
from datetime import UTC, datetime
from typing import Any

from mesh.util.logging.log_format import LogFormat

MAX_FRAMES = 30
"""The most frames of a traceback, and of each exception that led to it."""
MAX_TRACE = 16_384
"""The most characters of a traceback; its end is kept."""
_LEAST = 4
"""Minimum characters of a secret that is masked; a shorter one would match parts of ordinary words."""
_PLAIN = frozenset("0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ-_.:/@+[](),*")
"""Characters that a logfmt value may have without quotes."""


class LineFormatter(logging.Formatter):
    """Formats log records. In logfmt and JSON, the items of a record's `fields` become fields of the line."""

    def __init__(self, shape: LogFormat = LogFormat.TEXT, secrets: Collection[str] = ()) -> None:
        super().__init__()
        self._shape = shape
        # Longest first: a secret that contains another one must be masked whole.
        self._secrets = sorted((secret for secret in secrets if len(secret) >= _LEAST), key=len, reverse=True)

    def format(self, record: logging.LogRecord) -> str:
        """Return the line without its line end. A traceback in text format follows on indented lines of its own."""
        message = self._without_secrets(record.getMessage())
        code = getattr(record, "code", None) if record.levelno >= logging.WARNING else None
        trace = self._without_secrets(self.formatException(record.exc_info)) if record.exc_info else None
        if self._shape is LogFormat.TEXT:
            time = datetime.fromtimestamp(record.created).astimezone()
            text = f"{time:%Y-%m-%d %H:%M:%S},{record.msecs:03.0f} {record.levelname} {_on_one_line(message)}"
            # An exception may have text from outside: indented and escaped, it cannot look like a line of the log.
            indented = "".join(f"\n    {_on_one_line(line)}" for line in trace.splitlines()) if trace else ""
            return text + (f" [{code}]" if code else "") + indented
        time = datetime.fromtimestamp(record.created, UTC)
        fields: dict[str, object] = {
            "time": f"{time:%Y-%m-%dT%H:%M:%S}.{record.msecs:03.0f}Z",
            "level": record.levelname.lower(),
        }
        fields |= {"code": str(code)} if code else {}
        fields["msg"] = message
        fields |= {k: self._without_secrets(str(v)) for k, v in getattr(record, "fields", {}).items() if v is not None}
        fields |= {"trace": trace} if trace else {}
        return json.dumps(fields) if self._shape is LogFormat.JSON else format_logfmt(fields)

    def formatException(self, ei: Any) -> str:  # noqa: N802 -- the name is that of the standard library
        """Return the traceback with its innermost frames, so that an endless recursion does not fill the log."""
        lines = "".join(traceback.format_exception(*ei, limit=-MAX_FRAMES)).rstrip("\n")
        return lines if len(lines) <= MAX_TRACE else f"... {lines[-MAX_TRACE:]}"

    def _without_secrets(self, text: str) -> str:
        for secret in self._secrets:
            text = text.replace(secret, "***")
        return text


def format_logfmt(fields: Mapping[str, object]) -> str:
    """Write fields as `key=value key="with spaces"`.

    A value with anything except plain characters is quoted as in JSON.
    """
    return " ".join(f"{key}={_value(str(value))}" for key, value in fields.items())


def _value(text: str) -> str:
    return text if text and _PLAIN.issuperset(text) else _on_one_line(json.dumps(text, ensure_ascii=False))


def _on_one_line(text: str) -> str:
    """Escape control characters, and characters that some readers take for a line end."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)
