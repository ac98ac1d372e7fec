"""The text format of metrics, read by the parser of Prometheus."""

import math

from hypothesis import given
from hypothesis import strategies as st
from prometheus_client.parser import text_string_to_metric_families

from mesh.api.metrics.text_format import MetricFamily, MetricKind, format_family
from mesh.util.histogram import Histogram

GAUGE = MetricFamily("some_gauge", MetricKind.GAUGE, "What it is: a \\ and\na line.", ("one", "other"))
TEXT = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\r"), max_size=20)
"""The format ends a line with a newline alone; the parser of the tests ends it with a carriage return too."""


@given(st.dictionaries(st.tuples(TEXT, TEXT), st.floats() | st.integers(-(2**53), 2**53), min_size=1))
def test_any_label_and_any_number_survive_a_round_trip(samples: dict[tuple[str, str], float]) -> None:
    (family,) = text_string_to_metric_families("".join(format_family(GAUGE, samples.items())))
    assert (family.name, family.type) == ("some_gauge", "gauge")
    found = {(s.labels["one"], s.labels["other"]): s.value for s in family.samples}
    assert found.keys() == samples.keys()
    for labels, value in samples.items():
        assert found[labels] == float(value) or (math.isnan(value) and math.isnan(found[labels]))


def test_a_counter_keeps_its_name_and_an_empty_family_is_left_out() -> None:
    text = "".join(format_family(MetricFamily("some_total", MetricKind.COUNTER, "Some."), [((), 3)]))
    assert text == "# HELP some_total Some.\n# TYPE some_total counter\nsome_total 3\n"
    assert not list(format_family(GAUGE, []))


def test_histogram_buckets_are_cumulative() -> None:
    seen = Histogram((0.1, 1.0))
    for seconds in (0.05, 0.1, 0.5, 1.0, 7.0):
        seen.observe(seconds)
    before = seen.copy()
    seen.observe(1000.0)
    family = MetricFamily("some_seconds", MetricKind.HISTOGRAM, "How long.", ("kind",))
    (read,) = text_string_to_metric_families("".join(format_family(family, [(("tcp",), before)])))
    assert [(s.name, s.labels.get("le"), s.value) for s in read.samples] == [
        ("some_seconds_bucket", "0.1", 2.0),
        ("some_seconds_bucket", "1.0", 4.0),
        ("some_seconds_bucket", "+Inf", 5.0),
        ("some_seconds_sum", None, 8.65),
        ("some_seconds_count", None, 5.0),
    ]
    assert all(sample.labels["kind"] == "tcp" for sample in read.samples)
