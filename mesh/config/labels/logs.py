"""The labels that say which logs of a container are collected: `log_store_<name>`, `log_ttl_<name>`, `log.*`. Pure.

A store is where the lines go: an index of Elasticsearch, a file. Standard output and each path go to one store, since a
line that is collected twice is counted twice by everybody who searches.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial

from mesh.config.labels.log_files import MAX_PATHS, compile_start_pattern, parse_log_path
from mesh.config.labels.reader import LOG_LABELS, LOG_STORE, LOG_TTL, LabelReader
from mesh.config.labels.values import LabelRefusedError, escape_unprintable, quote_value
from mesh.model.codes import Code
from mesh.model.problem import Problem

STANDARD_OUTPUT = "stdout"
"""The value of `log_store_<name>` for what a container writes to standard output and standard error."""
MAX_TTL_DAYS = 3650
MAX_LINES_PER_SECOND = 1_000_000

_STORE_NAME = re.compile(r"[a-z0-9][a-z0-9_-]{0,62}", re.ASCII)  # lower case: a part of the name of an index
_NUMBER = re.compile(r"[1-9][0-9]{0,6}", re.ASCII)


@dataclass(frozen=True, slots=True)
class LogPathLabel:
    """One path whose files are collected."""

    store: str
    """The name of the store, lower case."""
    parts: tuple[str, ...]
    """The names between the slashes of the path inside of the container, as `parse_log_path` returns them."""
    ttl_days: int | None = None
    """As in `LogLabels`."""

    @property
    def path(self) -> str:
        """The path inside of the container."""
        return "/" + "/".join(self.parts)


@dataclass(frozen=True, slots=True)
class LogLabels:
    """Where the lines of a container are collected to."""

    store: str
    """The name of the store of standard output, lower case; empty if only files are collected."""
    ttl_days: int | None = None
    """Days after which a line of standard output may be deleted, 1..3650; None: never."""
    timestamp: bool = False
    """Whether the time stands before the text of each line."""
    rate_limit: int | None = None
    """Lines per second of the container that are collected; None: all."""
    multiline: str | None = None
    """The pattern of the lines of a file that begin an event, as `compile_start_pattern` takes it; None: each line."""
    paths: tuple[LogPathLabel, ...] = ()
    """In the order of the names of the stores."""


def parse_log_labels(labels: Mapping[str, str], subject: str) -> tuple[LogLabels | None, tuple[Problem, ...]]:
    """Return what is collected of a container with these labels, None for nothing, and what is wrong with the labels
    about logs. `subject` begins every message.
    """
    sheet = LabelReader({key: value for key, value in labels.items() if "log" in key}, subject)
    found = read_log_labels(sheet)
    return found, tuple(sheet.problems)


def read_log_labels(sheet: LabelReader) -> LogLabels | None:
    """Return what is collected; None for nothing. Problems are added to the sheet."""
    chosen = ""
    stores: dict[tuple[str, ...], str] = {}
    for label in sheet.starting_with(LOG_STORE):
        name = label.removeprefix(LOG_STORE)
        sources: tuple[str | tuple[str, ...], ...] = sheet.take(label, partial(_sources_of, name), ())
        for source in sources:
            other = chosen if isinstance(source, str) else stores.get(source, "")
            if other:
                what = "standard output" if isinstance(source, str) else quote_value("/" + "/".join(source))
                sheet.refuse(Code.LOG_LABEL, label, f"{what} is collected to the store {other} already", "remove one")
            elif isinstance(source, str):
                chosen = name
            else:
                stores[source] = name
    ttl = _ttl_days(sheet)
    timestamp = sheet.take("log.timestamp", _parse_switch, False)
    rate = sheet.take("log.rate_limit", _parse_rate, None)
    multiline: str | None = sheet.take("log.multiline", _parse_multiline, None)
    if not sheet.starting_with(LOG_STORE):
        for label in LOG_LABELS:
            if sheet.has(label):
                sheet.warn(
                    Code.LABEL_WITHOUT_EFFECT,
                    label,
                    "it has no effect, because no log is collected",
                    f"add {LOG_STORE}<name>: stdout or remove it",
                )
    elif multiline is not None and not stores:
        sheet.warn(
            Code.LABEL_WITHOUT_EFFECT,
            "log.multiline",
            "it joins lines of files, and no file is collected",
            f"add a path to {LOG_STORE}<name>, or remove it",
        )
    if not chosen and not stores:
        return None
    paths = tuple(LogPathLabel(store, parts, ttl.get(store)) for parts, store in stores.items())
    return LogLabels(chosen, ttl.get(chosen), timestamp, rate, multiline, paths)


def _ttl_days(sheet: LabelReader) -> dict[str, int]:
    """Return the days by the name of the store."""
    found = {}
    for label in sheet.starting_with(LOG_TTL):
        days: int | None = sheet.take(label, _parse_days, None)
        name = label.removeprefix(LOG_TTL)
        if not sheet.has(LOG_STORE + name):
            sheet.warn(
                Code.LABEL_WITHOUT_EFFECT,
                label,
                f"there is no store {escape_unprintable(name)}",
                f"add {LOG_STORE}{escape_unprintable(name)}: stdout or remove it",
            )
        elif days is not None:
            found[name] = days
    return found


def _sources_of(name: str, value: str) -> tuple[str | tuple[str, ...], ...]:
    """Return what a store collects: `stdout`, and the parts of paths."""
    if not _STORE_NAME.fullmatch(name):
        raise LabelRefusedError(
            Code.LOG_LABEL,
            f"{quote_value(name)} is not a name of a store",
            "write up to 63 lower-case letters, digits, - and _",
        )
    sources = [each.strip() for each in value.split(",")]
    if len(sources) > MAX_PATHS:
        reason, remedy = f"it has more than {MAX_PATHS} paths", "write fewer, with * in them, or a further store"
        raise LabelRefusedError(Code.LOG_LABEL, reason, remedy)
    found = [each if each == STANDARD_OUTPUT else parse_log_path(each) for each in sources]
    return tuple(dict.fromkeys(found))


def _parse_multiline(value: str) -> str:
    compile_start_pattern(value)
    return value


def _parse_days(value: str) -> int:
    if not _NUMBER.fullmatch(value) or int(value) > MAX_TTL_DAYS:
        raise LabelRefusedError(
            Code.LOG_LABEL, f"{quote_value(value)} is not a number of days", f"write 1 to {MAX_TTL_DAYS}"
        )
    return int(value)


def _parse_rate(value: str) -> int:
    if not _NUMBER.fullmatch(value) or int(value) > MAX_LINES_PER_SECOND:
        raise LabelRefusedError(
            Code.LOG_LABEL,
            f"{quote_value(value)} is not a number of lines per second",
            f"write 1 to {MAX_LINES_PER_SECOND}",
        )
    return int(value)


def _parse_switch(value: str) -> bool:
    if value not in ("true", "false"):
        reason = f"{quote_value(value)} is neither true nor false"
        raise LabelRefusedError(Code.LOG_LABEL, reason, "write true or false")
    return value == "true"
