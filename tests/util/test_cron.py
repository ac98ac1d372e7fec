"""When a cron expression fired last."""

from datetime import UTC, datetime

import pytest

from mesh.util.cron import CronError, check_expression, last_firing, parse_zone

BERLIN = parse_zone("Europe/Berlin")


def at(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


@pytest.mark.parametrize(
    ("expression", "now", "fired"),
    [
        ("0 8 * * 1-5", "2026-12-01T07:00:00", "2026-12-01T07:00:00"),  # Tuesday, 8:00 in Berlin
        ("0 8 * * 1-5", "2026-12-01T07:00:59.9", "2026-12-01T07:00:00"),
        ("0 8 * * 1-5", "2026-12-01T06:59:59", "2026-11-30T07:00:00"),
        ("0 8 * * 1-5", "2026-11-29T12:00:00", "2026-11-27T07:00:00"),  # Sunday: Friday's
        ("0 8 * * *", "2026-07-01T12:00:00", "2026-07-01T06:00:00"),  # summer time
        ("0 0 29 2 *", "2026-12-01T00:00:00", "2024-02-28T23:00:00"),
        ("*/15 * * * *", "2026-12-01T00:14:00", "2026-12-01T00:00:00"),
    ],
)
def test_the_last_time_is_found_in_the_time_zone(expression: str, now: str, fired: str) -> None:
    assert last_firing(expression, BERLIN, at(now)) == at(fired)


@pytest.mark.parametrize(
    "text",
    ["", "0 8 * *", "0 8 * * * *", "@daily", "60 * * * *", "0 0 31 11 *", "a b c d e", "1 " * 200, "1#1/2 * * * *"],
)
def test_what_is_no_expression_or_never_fires_is_refused(text: str) -> None:
    with pytest.raises(CronError):
        check_expression(text)


def test_the_hour_that_summer_time_repeats_counts_once() -> None:
    """On 25 October 2026 the hour from 2:00 to 3:00 comes twice in Berlin."""
    for now in ("00:30", "00:59", "01:10", "01:29", "02:00"):
        assert last_firing("30 2 * * *", BERLIN, at(f"2026-10-25T{now}:00")) == at("2026-10-25T00:30:00"), now
    assert last_firing("30 2 * * *", BERLIN, at("2026-10-25T00:29:00")) == at("2026-10-24T00:30:00")


def test_a_time_that_summer_time_leaves_out_fires_at_the_change() -> None:
    """On 29 March 2026 it is 3:00 after 1:59 in Berlin."""
    assert last_firing("30 2 * * *", BERLIN, at("2026-03-29T01:30:00")) == at("2026-03-29T01:00:00")


@pytest.mark.parametrize("name", ["", "Europe", "../etc/passwd", "/etc/localtime", "Mars/Base", "\0", "é", "x" * 100])
def test_what_is_no_time_zone_is_refused(name: str) -> None:
    with pytest.raises(CronError):
        parse_zone(name)
