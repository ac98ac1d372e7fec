"""Prometheus' text format, version 0.0.4, of many series at little cost.

A worker may know ten thousand services with half a dozen series each. The usual library takes most of a second of the
interpreter to write those, an f-string for each a tenth of that (`bench/metrics.py`), and a scrape comes every few
seconds for as long as the daemon lives. So the text is written here, and the library's parser reads it in the tests.

Format: https://prometheus.io/docs/instrumenting/exposition_formats/
"""

from bisect import bisect_left
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TypeAlias

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
"""What to call the text in an HTTP answer."""


class Kind(StrEnum):
    """What the values of a family are."""

    COUNTER = "counter"
    """It only rises, and begins at 0 with the process."""
    GAUGE = "gauge"
    HISTOGRAM = "histogram"


@dataclass(frozen=True, slots=True)
class Family:
    """Series of one name."""

    name: str
    kind: Kind
    meaning: str
    """One line, for people."""
    labels: tuple[str, ...] = ()


DURATIONS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
"""Upper bounds, in seconds, of what a worker waits for."""


@dataclass(slots=True)
class Histogram:
    """How often which duration was seen. It grows in place: it belongs to whoever counts."""

    bounds: Sequence[float] = DURATIONS
    counts: list[int] = field(default_factory=list)
    """In each bucket alone; the last one has what is above all bounds."""
    total: float = 0.0
    """Of all that was seen."""

    def __post_init__(self) -> None:
        self.counts = self.counts or [0] * (len(self.bounds) + 1)

    def observe(self, seconds: float) -> None:
        """One more."""
        self.counts[bisect_left(self.bounds, seconds)] += 1
        self.total += seconds

    def copy(self) -> "Histogram":
        """As it is now, for whoever reads it in another thread."""
        return Histogram(self.bounds, list(self.counts), self.total)


Sample: TypeAlias = tuple[tuple[str, ...], float | Histogram]
"""The values of the labels, in the order of the family, and what was measured."""


def lines(family: Family, samples: Iterable[Sample]) -> Iterator[str]:
    """The text of a family, a line each with its newline; nothing if there are no samples.

    A label's value may be any text. Of two samples with the same labels a reader would take neither: the caller sees
    to it that there is one.
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
            yield f"{family.name}{{{named}}} {number(measured)}\n" if named else f"{family.name} {number(measured)}\n"


def _buckets(name: str, named: str, histogram: Histogram) -> Iterator[str]:
    before, so_far = f"{named}," if named else "", 0
    for bound, count in zip((*histogram.bounds, float("inf")), histogram.counts, strict=True):
        so_far += count
        yield f'{name}_bucket{{{before}le="{number(bound)}"}} {so_far}\n'
    labels = f"{{{named}}}" if named else ""
    yield f"{name}_sum{labels} {number(histogram.total)}\n{name}_count{labels} {so_far}\n"


def number(value: float) -> str:
    """As the format writes it."""
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
