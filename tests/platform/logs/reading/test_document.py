"""Merging by time: order, bounds, and that no instance loses its own order."""

from hypothesis import given
from hypothesis import strategies as st

from mesh.platform.logs.reading.document import ServiceLogLine, merge_lines
from mesh.sources.docker.inspection import start_time


def line(text: str, container: str = "web-1", worker: str = "w1", time: str | None = None) -> ServiceLogLine:
    return ServiceLogLine(text, container, worker, "shop/web", "stdout", time)


TIMES = st.one_of(st.none(), st.integers(0, 59).map(lambda second: f"2026-11-30T12:00:{second:02d}.000000001Z"))
LINES = st.lists(
    st.builds(line, st.text("ab", max_size=5), st.sampled_from(["a", "b"]), st.sampled_from(["w1", "w2"]), TIMES),
    max_size=30,
)


def key(each: ServiceLogLine) -> tuple[str, str]:
    return each.worker, each.container


@given(LINES, st.integers(0, 40), st.integers(0, 60))
def test_the_newest_lines_stay_within_the_bounds_and_each_instance_keeps_its_order(
    lines: list[ServiceLogLine], most: int, characters: int
) -> None:
    merged, dropped = merge_lines(lines, most, characters)
    assert len(merged) + dropped == len(lines)
    assert len(merged) <= most
    assert sum(len(each.text) for each in merged) <= characters
    every, _ = merge_lines(lines, len(lines), 10**9)
    assert merged == every[dropped:]
    if dropped:
        rest = len(every[dropped - 1].text) + sum(len(each.text) for each in merged)
        assert len(merged) == most or rest > characters, "no more is left out than the bounds require"
    for instance in set(map(key, lines)):
        assert [each for each in every if key(each) == instance] == [each for each in lines if key(each) == instance]


@given(LINES)
def test_lines_of_instances_whose_clocks_go_on_are_in_the_order_of_time(lines: list[ServiceLogLine]) -> None:
    steady = sorted(lines, key=lambda each: start_time(each.time) or 0)
    merged, _ = merge_lines(steady, len(lines), 10**9)
    times = [start_time(each.time) or 0 for each in merged]
    assert times == sorted(times)


def test_a_clock_that_jumps_back_takes_no_line_before_the_one_that_was_written_earlier() -> None:
    ahead, behind = "2026-11-30T12:00:09Z", "2026-11-30T12:00:01Z"
    lines = [line("1", "a", time=ahead), line("2", "a", time=behind), line("other", "b", time="2026-11-30T12:00:05Z")]
    assert [each.text for each in merge_lines(lines, 10)[0]] == ["other", "1", "2"]
