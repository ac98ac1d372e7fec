"""For how long claims have not been declared, and what others may take then."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mesh.cluster.claim_usage import CLOCK_KEY, LONGEST_TICK, ClaimUsage, RecordChange
from mesh.cluster.records.encode import build_view
from mesh.model.claims import ClaimLimits, Claims, LapsedClaims
from mesh.model.service import PortPublication, Service, Transport
from tests.builders import service

LIMITS = ClaimLimits(grace=100, keep=1000)
WEB = replace(service("web.test"), publishes=(PortPublication(80, Transport.TCP, 8080),))
CLAIMS = Claims(
    {"web.test": "10.112.0.9"},
    {"web.test": "demo/web"},
    {(Transport.TCP, 8080): ("web.test", 80)},
    {"10.112.0.9": "web.test"},
)
NOTHING = LapsedClaims()
RELEASED = LapsedClaims(frozenset({"web.test"}), idle=("web.test",))
ALL = LapsedClaims(frozenset({"web.test"}), frozenset({"web.test"}), frozenset({(Transport.TCP, 8080)}), ("web.test",))


class SharedRecords:
    """The records that one or several workers of a test share."""

    def __init__(self) -> None:
        self.there: dict[str, bytes] = {}

    def apply(self, changes: list[RecordChange]) -> None:
        for before, after in changes:
            if {key: self.there.get(key) for key in before} == before:
                self.there = {k: v for k, v in {**self.there, **after}.items() if v is not None}


def passing(usage: ClaimUsage, records: SharedRecords, begin: int, end: int, turn: int = 0) -> int:
    """Let the seconds pass for one worker that writes what is due; the last second."""
    for now in range(begin, end + 1):
        records.apply(usage.changes(now, turn))
        usage.follow_records(records.there, None, now)
    return end


def test_a_declared_claim_never_lapses() -> None:
    usage, records = ClaimUsage(LIMITS), SharedRecords()
    usage.follow_view((WEB,), CLAIMS, 0)
    passing(usage, records, 0, 5000)
    assert (usage.lapsed(5000), records.there) == (NOTHING, {})


@pytest.mark.parametrize(
    ("seconds", "lapsed"), [(0, NOTHING), (99, NOTHING), (100, RELEASED), (999, RELEASED), (1000, ALL), (9999, ALL)]
)
def test_a_worker_counts_what_it_has_observed(seconds: int, lapsed: LapsedClaims) -> None:
    usage = ClaimUsage(LIMITS)
    usage.follow_view((WEB,), CLAIMS, 0)
    usage.follow_view((), CLAIMS, 50)
    assert usage.lapsed(50 + seconds) == lapsed


@pytest.mark.parametrize(("grace", "keep"), [(100, 60), (100, 100), (0, 60)])
def test_nothing_lapses_before_the_grace_is_over(grace: int, keep: int) -> None:
    usage = ClaimUsage(ClaimLimits(grace, keep))
    usage.follow_view((), CLAIMS, 0)
    assert usage.lapsed(max(grace - 1, 0)).names == frozenset()
    assert usage.lapsed(max(grace, keep)) == ALL


def test_a_return_within_the_grace_begins_again_and_writes_nothing() -> None:
    usage, records = ClaimUsage(LIMITS), SharedRecords()
    now = 0
    for _ in range(20):
        usage.follow_view((), CLAIMS, now)
        now = passing(usage, records, now, now + 50)
        usage.follow_view((WEB,), CLAIMS, now)
    assert (usage.lapsed(now), records.there) == (NOTHING, {})


def test_another_holder_begins_again() -> None:
    usage = ClaimUsage(LIMITS)
    usage.follow_view((), CLAIMS, 0)
    usage.follow_view((), replace(CLAIMS, owners={"web.test": "other/web"}), 90)
    assert usage.lapsed(150).released == frozenset()
    assert usage.lapsed(190).released == {"web.test"}


def test_the_time_in_the_store_outlives_daemons_and_stands_still_without_them() -> None:
    records, now, usage, lapsed = SharedRecords(), 0, ClaimUsage(LIMITS), NOTHING
    for life in range(1, 12):
        usage = ClaimUsage(LIMITS)  # its own clock begins at 0, whatever happened meanwhile
        usage.follow_records(records.there, None, 0)
        usage.follow_view((), CLAIMS, 0)
        now = passing(usage, records, 0, 200)
        lapsed = usage.lapsed(now)
        assert lapsed.released == {"web.test"}
        assert (lapsed == ALL) >= (life > 8)
        assert life > 5 or lapsed.names == frozenset(), "at most 200 seconds each"
    assert lapsed == ALL
    usage.follow_view((WEB,), CLAIMS, now)
    usage.follow_view((), CLAIMS, now)
    assert usage.lapsed(now) == NOTHING, "a record from before the last declaration does not count"
    usage.follow_view((WEB,), CLAIMS, now)
    passing(usage, records, now, now + 1)
    assert set(records.there) == {CLOCK_KEY}


@given(st.integers(1, 5), st.integers(1, 4000))
def test_several_workers_advance_the_clock_no_faster_than_time(workers: int, seconds: int) -> None:
    records = SharedRecords()
    usages = [ClaimUsage(LIMITS) for _ in range(workers)]
    for usage in usages:
        usage.follow_view((), CLAIMS, 0)
    for now in range(0, seconds, 7):
        for turn, usage in enumerate(usages):
            records.apply(usage.changes(now, turn))
        for usage in usages:
            usage.follow_records(records.there, None, now)
    late = ClaimUsage(LIMITS)
    late.follow_records(records.there, None, 0)
    late.follow_view((), CLAIMS, 0)
    assert (late.lapsed(0) == ALL) <= (seconds >= LIMITS.keep)
    assert (late.lapsed(0) == ALL) >= (seconds >= 2 * LIMITS.keep)


def test_workers_of_an_earlier_version_delay_but_do_not_stop_the_clock() -> None:
    usage, records = ClaimUsage(LIMITS), SharedRecords()
    usage.follow_view((), CLAIMS, 0)
    passing(usage, records, 0, 3000, turn=3)
    late = ClaimUsage(LIMITS)
    late.follow_records(records.there, None, 0)
    late.follow_view((), CLAIMS, 0)
    assert late.lapsed(0) == ALL


IDLE = "claims/idle/names/web.test"
HOSTILE = [
    b"",
    b"[]",
    b"{}",
    b"\xff",
    b'{"v":1,"since":"x","holder":"demo/web"}',
    b'{"v":1,"since":1e400,"holder":"demo/web"}',
    b'{"v":1,"since":99999999999999999999999,"holder":"demo/web"}',
    b'{"v":1,"since":0,"holder":"other/web"}',
    b'{"seconds":-5}',
    b'{"seconds":99999999999999999999}',
    b"[" * 100_000,
    b'"' + b"x" * 300_000 + b'"',
]


@pytest.mark.parametrize("value", HOSTILE, ids=range(len(HOSTILE)))
def test_records_that_cannot_be_read_are_replaced(value: bytes) -> None:
    usage, records = ClaimUsage(LIMITS), SharedRecords()
    records.there = {IDLE: value, CLOCK_KEY: value, "claims/idle/unknown": value, "claims/idle/names/gone.test": value}
    usage.follow_records(records.there, None, 0)
    usage.follow_view((), CLAIMS, 0)
    assert usage.lapsed(0) == NOTHING
    passing(usage, records, 0, int(3 * LONGEST_TICK))
    assert set(records.there) == {IDLE, "claims/idle/ports/tcp/8080", CLOCK_KEY}
    assert records.there[IDLE] != value


def test_the_views_of_this_and_of_earlier_versions_ignore_the_records() -> None:
    usage, records = ClaimUsage(LIMITS), SharedRecords()
    usage.follow_view((), CLAIMS, 0)
    passing(usage, records, 0, 500)
    assert len(records.there) == 3
    view, problems = build_view(records.there)
    assert (view.claims, problems) == (Claims(), ())


SERVICES = st.lists(
    st.builds(
        lambda n, owner, port: replace(
            service(f"{n}.test", owner=owner), publishes=(PortPublication(80, Transport.TCP, port),)
        ),
        st.sampled_from("abc"),
        st.sampled_from(["p/a", "p/b", "q/c"]),
        st.sampled_from([None, 1, 2]),
    ),
    max_size=3,
    unique_by=lambda s: s.owner,
)


@given(st.lists(st.tuples(st.integers(0, 300), SERVICES), min_size=1, max_size=8))
def test_only_what_was_not_declared_for_the_whole_time_lapses(steps: list[tuple[int, list[Service]]]) -> None:
    claims = Claims(
        owners={"a.test": "p/a", "b.test": "p/b", "c.test": "q/c"},
        ports={(Transport.TCP, 1): ("a.test", 80), (Transport.TCP, 2): ("b.test", 80)},
    )
    usage, records, now = ClaimUsage(LIMITS), SharedRecords(), 0
    last = dict.fromkeys(claims.owners, 0)
    for seconds, services in steps:
        usage.follow_view(services, claims, now)
        usage.follow_records(records.there, None, now)
        declared = {name for s in services for name in s.names if claims.owners.get(name) == s.owner}
        now = passing(usage, records, now, now + seconds)
        last |= dict.fromkeys(declared, now)
        lapsed = usage.lapsed(now)
        assert lapsed.released == {name for name in claims.owners if name not in declared and now - last[name] >= 100}
        assert lapsed.names == {name for name in lapsed.released if now - last[name] >= 1000}
