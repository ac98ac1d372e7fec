"""The labels that say which logs of a container are collected: `log_store_<name>`, `log_ttl_<name>`, `log.*`. Pure.

A store is where the lines go: an index of Elasticsearch, a file. Standard output goes to one store, since a line that
is collected twice is counted twice by everybody who searches.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial

from mesh.config.labels.reader import LOG_STORE, LOG_TTL, LabelReader
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
class LogLabels:
    """Where the standard output of a container is collected to."""

    store: str
    """The name of the store, lower case."""
    ttl_days: int | None = None
    """Days after which a line may be deleted, 1..3650; None: never."""
    timestamp: bool = False
    """Whether the time stands before the text of each line."""
    rate_limit: int | None = None
    """Lines per second that are collected; None: all."""


def parse_log_labels(labels: Mapping[str, str], subject: str) -> tuple[LogLabels | None, tuple[Problem, ...]]:
    """Return what is collected of a container with these labels, None for nothing, and what is wrong with the labels
    about logs. `subject` begins every message.
    """
    sheet = LabelReader({key: value for key, value in labels.items() if "log" in key}, subject)
    found = read_log_labels(sheet)
    return found, tuple(sheet.problems)


def read_log_labels(sheet: LabelReader) -> LogLabels | None:
    """Return what is collected; None for nothing. Problems are added to the sheet."""
    chosen: str | None = None
    for label in sheet.starting_with(LOG_STORE):
        name: str | None = sheet.take(label, partial(_store_of, label), None)
        if name is None:
            continue
        if chosen is not None:
            sheet.refuse(
                Code.LOG_LABEL, label, f"standard output is collected to the store {chosen} already", "remove one"
            )
            continue
        chosen = name
    ttl = _ttl_days(sheet, chosen)
    timestamp = sheet.take("log.timestamp", _parse_switch, False)
    rate = sheet.take("log.rate_limit", _parse_rate, None)
    if not sheet.starting_with(LOG_STORE):
        for label in ("log.timestamp", "log.rate_limit"):
            if sheet.has(label):
                sheet.warn(
                    Code.LABEL_WITHOUT_EFFECT,
                    label,
                    "it has no effect, because no log is collected",
                    f"add {LOG_STORE}<name>: stdout or remove it",
                )
    return None if chosen is None else LogLabels(chosen, ttl, timestamp, rate)


def _ttl_days(sheet: LabelReader, chosen: str | None) -> int | None:
    found = None
    for label in sheet.starting_with(LOG_TTL):
        days = sheet.take(label, _parse_days, None)
        name = label.removeprefix(LOG_TTL)
        if not sheet.has(LOG_STORE + name):
            sheet.warn(
                Code.LABEL_WITHOUT_EFFECT,
                label,
                f"there is no store {escape_unprintable(name)}",
                f"add {LOG_STORE}{escape_unprintable(name)}: stdout or remove it",
            )
        elif name == chosen:
            found = days
    return found


def _store_of(label: str, value: str) -> str:
    name = label.removeprefix(LOG_STORE)
    if not _STORE_NAME.fullmatch(name):
        raise LabelRefusedError(
            Code.LOG_LABEL,
            f"{quote_value(name)} is not a name of a store",
            "write up to 63 lower-case letters, digits, - and _",
        )
    if value.startswith("/"):
        raise LabelRefusedError(
            Code.LABEL_NOT_SUPPORTED,
            "files inside of containers are not collected yet",
            "write stdout, and let the program log to /dev/stdout",
        )
    if value != STANDARD_OUTPUT:
        raise LabelRefusedError(Code.LOG_LABEL, f"{quote_value(value)} is no source of lines", "write stdout")
    return name


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
