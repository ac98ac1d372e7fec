"""Finds services whose labels collect their logs, and whose log driver or rotation stands in the way."""

from collections.abc import Iterator

from mesh.config.labels.reader import LOG_STORE, label_name
from mesh.config.labels.values import escape_unprintable, quote_value
from mesh.model.codes import Code
from mesh.model.problem import Problem, Severity
from mesh.sources.compose.interpolate import InterpolationError
from mesh.sources.compose.model import ComposeService
from mesh.sources.compose.tree import ComposeEntry, ComposeMapping, ComposeScalar

READABLE = "json-file"
_COLLECTED = "stdout"
_WHAT_INSTEAD = {
    "none": "the engine keeps nothing of what it writes",
    "local": "its files have a format of the engine's own",
    "journald": "its lines are in the journal of the host",
    "syslog": "its lines go to syslog, and no file is kept",
}


def log_driver_problems(service: ComposeService) -> Iterator[Problem]:
    """Yield a warning if standard output is to be collected, and the driver or the rotation loses it."""
    stores = [
        key
        for key, value in service.labels.items()
        if (label_name(key) or "").startswith(LOG_STORE) and value.strip() == _COLLECTED
    ]
    logging = service.keys.get("logging")
    if not stores or logging is None or not isinstance(logging.value, ComposeMapping):
        return
    subject = f"service {escape_unprintable(service.name)}, logging"
    driver = _text(logging.value.entries.get("driver"))
    if driver not in (None, "", READABLE):
        name = driver or ""
        reason = _WHAT_INSTEAD.get(name, "its files are not read")
        yield Problem(
            Code.LOG_DRIVER,
            Severity.WARNING,
            subject,
            f"{escape_unprintable(stores[0])} collects its output, but the driver is {quote_value(name)}: {reason}",
            "write driver: json-file, or remove the label",
            label=stores[0],
            where=logging.where,
        )
        return
    options = logging.value.entries.get("options")
    if options is None or not isinstance(options.value, ComposeMapping):
        return
    if _text(options.value.entries.get("max-size")) and _text(options.value.entries.get("max-file")) in (None, "1"):
        yield Problem(
            Code.LOG_ROTATION,
            Severity.WARNING,
            subject,
            "with one file, the engine empties it at max-size, and what was not read until then is lost",
            'write max-file: "5" beside max-size',
            label=stores[0],
            where=options.where,
        )


def _text(entry: ComposeEntry | None) -> str | None:
    """Return the text of a value; None if there is none, or if it is no scalar."""
    value = None if entry is None else entry.value
    if not isinstance(value, ComposeScalar):
        return None
    try:
        return value.fill()[0].strip()
    except InterpolationError:
        return None  # it is reported where all values are read
