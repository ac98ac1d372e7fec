"""Counts what is collected, and renders it in the text format of Prometheus. Pure.

https://prometheus.io/docs/instrumenting/exposition_formats/#text-based-format
"""

from collections.abc import Iterator
from dataclasses import dataclass, field


@dataclass(slots=True)
class ServiceLogCounters:
    """What became of the lines of one service on this worker, since the start of the process."""

    lines: int = 0
    """Documents that the store has."""
    bytes: int = 0
    """Bytes of them."""
    refused: int = 0
    """Documents that the store refused for good."""
    limited: int = 0
    """Lines that `log.rate_limit` dropped."""
    split: int = 0
    """Documents that are a part of a line."""
    unreadable: int = 0
    """Lines that are not of the log driver's form; they are delivered as they are."""
    lost: int = 0
    """How often rotation removed files, or may have, before they were read."""
    lost_bytes: int = 0
    """Bytes of them whose number is known."""


@dataclass(slots=True)
class LogCounters:
    """The counters of a process."""

    services: dict[str, ServiceLogCounters] = field(default_factory=dict)
    """By `project/service`."""
    unread_bytes: int = 0
    lag_seconds: float = 0.0
    """The age of the last line that was delivered of the container furthest behind; 0 if none is behind."""
    refused_files: int = 0
    """Names of log files that are not read now: links, FIFOs, devices, too many."""
    store_failures: int = 0
    """Deliveries that the store did not take."""
    rejected: int = 0
    """Documents that the store rejected without saying which."""

    def of(self, service: str) -> ServiceLogCounters:
        """Return the counters of a service."""
        return self.services.setdefault(service, ServiceLogCounters())


_OF_SERVICES = (
    ("lines", "vipmesh_ship_lines_total", "Log lines that the store of logs has."),
    ("bytes", "vipmesh_ship_bytes_total", "Bytes of the documents that the store of logs has."),
    ("refused", "vipmesh_ship_refused_total", "Documents that the store of logs refused for good."),
    ("limited", "vipmesh_ship_rate_limited_total", "Lines that log.rate_limit dropped."),
    ("split", "vipmesh_ship_split_total", "Documents that are a part of a longer line."),
    ("unreadable", "vipmesh_ship_unreadable_total", "Lines that are not of the log driver's form."),
    ("lost", "vipmesh_ship_lost_total", "Occasions on which rotation removed files before they were read."),
    ("lost_bytes", "vipmesh_ship_lost_bytes_total", "Bytes of them, as far as their number is known."),
)


def render_counters(counters: LogCounters) -> str:
    """Return the text."""
    return "".join(f"{line}\n" for line in _lines(counters))


def _lines(counters: LogCounters) -> Iterator[str]:
    for attribute, name, meaning in _OF_SERVICES:
        yield f"# HELP {name} {meaning}"
        yield f"# TYPE {name} counter"
        for service, each in sorted(counters.services.items()):
            yield f'{name}{{service="{_escaped(service)}"}} {getattr(each, attribute)}'
    lag = round(counters.lag_seconds, 3)
    for name, kind, meaning, value in (
        ("vipmesh_ship_unread_bytes", "gauge", "Bytes of files that are not delivered.", counters.unread_bytes),
        ("vipmesh_ship_lag_seconds", "gauge", "How far the last delivered line is behind.", lag),
        ("vipmesh_ship_refused_files", "gauge", "Log files that are not read now.", counters.refused_files),
        ("vipmesh_ship_store_failures_total", "counter", "Deliveries that were refused.", counters.store_failures),
        ("vipmesh_ship_rejected_total", "counter", "Lines that the store rejected unnamed.", counters.rejected),
    ):
        yield f"# HELP {name} {meaning}"
        yield f"# TYPE {name} {kind}"
        yield f"{name} {value}"


def _escaped(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
