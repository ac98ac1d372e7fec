"""Writes Prometheus' text format, version 0.0.4, fast enough for many series.

A worker may know ten thousand services with half a dozen series each. The usual library takes most of a second of the
interpreter to write those, an f-string for each a tenth of that (`bench/metrics.py`), and a scrape comes every few
seconds. So the text is written here, and the tests read it with the library's parser.

Format: https://prometheus.io/docs/instrumenting/exposition_formats/
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from enum import StrEnum
from typing import TypeAlias

from mesh.util.histogram import Histogram

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
"""The media type of the text."""


class MetricKind(StrEnum):
    """The type of a family."""

    COUNTER = "counter"
    """A count that only rises, and begins at 0 with the process."""
    GAUGE = "gauge"
    """A value that may rise and fall."""
    HISTOGRAM = "histogram"
    """Counts of values by bucket, and their sum."""


@dataclass(frozen=True, slots=True)
class MetricFamily:
    """The name, type and labels of a group of series."""

    name: str
    kind: MetricKind
    meaning: str
    """One line for people, the HELP text."""
    labels: tuple[str, ...] = ()
    """The names of the labels; empty for a single series."""


MetricSample: TypeAlias = tuple[tuple[str, ...], float | Histogram]
"""The values of the labels, in the order of the family, and the measured value."""


def format_family(family: MetricFamily, samples: Iterable[MetricSample]) -> Iterator[str]:
    """Yield the text of a family, line by line with line ends; nothing if there are no samples.

    A label value may be any text. The caller must not pass two samples with the same labels: readers reject both.
    """
    shown = False
    for values, measured in samples:
        if not shown:
            yield f"# HELP {family.name} {_help(family.meaning)}\n# TYPE {family.name} {family.kind}\n"
            shown = True
        named = ",".join(f'{label}="{_value(value)}"' for label, value in zip(family.labels, values, strict=True))
        if isinstance(measured, Histogram):
            yield from _buckets(family.name, named, measured)
        else:
            yield (
                f"{family.name}{{{named}}} {format_number(measured)}\n"
                if named
                else f"{family.name} {format_number(measured)}\n"
            )


def _buckets(name: str, named: str, histogram: Histogram) -> Iterator[str]:
    """Yield the lines of a histogram; `named` is its labels as text."""
    before, so_far = f"{named}," if named else "", 0
    for bound, count in zip((*histogram.bounds, float("inf")), histogram.counts, strict=True):
        so_far += count
        yield f'{name}_bucket{{{before}le="{format_number(bound)}"}} {so_far}\n'
    labels = f"{{{named}}}" if named else ""
    yield f"{name}_sum{labels} {format_number(histogram.total)}\n{name}_count{labels} {so_far}\n"


def format_number(value: float) -> str:
    """Return a number as the format writes it."""
    if value == float("inf"):
        return "+Inf"
    if value == float("-inf"):
        return "-Inf"
    return repr(value) if value == value else "NaN"  # noqa: PLR0124  # that is what NaN is


def _help(text: str) -> str:
    return text.replace("\\", r"\\").replace("\n", r"\n")


def _value(text: str) -> str:
    if '"' in text or "\\" in text or "\n" in text:
        return text.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")
    return text
