"""Draining: which real servers stay at weight 0, and for how long."""

import pytest
from hypothesis import given

from mesh.dataplane.diff import diff_tables
from mesh.dataplane.drain import BackendKey, DrainResult, drain_removed
from mesh.dataplane.operations import apply_operations
from mesh.model.service import Transport
from mesh.model.table import RealKey, RealServer, Table, VirtualKey, VirtualServer
from tests.dataplane.test_diff import TABLES

KEY = VirtualKey("10.112.0.1", 80, Transport.TCP)
A, B = RealKey("10.2.0.1", 80), RealKey("10.2.0.2", 80)


def weighted_table(*reals: tuple[RealKey, int]) -> Table:
    servers = {real: RealServer(weight, upper_threshold=9) for real, weight in reals}
    return Table({KEY: VirtualServer(real_servers=servers)}, frozenset([KEY.address]))


def step(
    observed: Table,
    desired: Table,
    now: float = 0.0,
    connections: dict[BackendKey, int] | None = None,
    *,
    since: dict[BackendKey, float] | None = None,
    failed: tuple[RealKey, ...] = (),
    answering: tuple[RealKey, ...] = (),
) -> DrainResult:
    return drain_removed(
        observed,
        desired,
        failed=failed,
        answering=answering,
        connections=connections or {},
        since=since or {},
        now=now,
    )


def test_a_removed_real_server_gets_weight_0_first() -> None:
    drained = step(weighted_table((A, 3), (B, 1)), weighted_table((B, 1)))
    assert drained.table == weighted_table((B, 1), (A, 0))
    assert drained.since == {(KEY, A): 0.0}


@pytest.mark.parametrize(
    ("connections", "now", "stays"),
    [
        pytest.param(5, 29.9, True, id="connections and time left"),
        pytest.param(5, 30.0, False, id="the time is up"),
        pytest.param(0, 1.0, False, id="the last connection has ended"),
        pytest.param(None, 29.9, True, id="not known: it gets its time"),
    ],
)
def test_a_draining_server_is_removed_with_its_last_connection_or_after_its_time(
    connections: int | None, now: float, stays: bool
) -> None:
    known = {} if connections is None else {(KEY, A): connections}
    drained = step(weighted_table((A, 0), (B, 1)), weighted_table((B, 1)), now, known, since={(KEY, A): 0.0})
    assert (A in drained.table.virtual_servers[KEY].real_servers) is stays
    assert bool(drained.since) is stays


def test_a_server_that_answers_is_removed_only_after_a_count_at_weight_0() -> None:
    # A connection that began after the count would be cut with the removal.
    none = {(KEY, A): 0}
    before, after = weighted_table((A, 1), (B, 1)), weighted_table((B, 1))
    first = step(before, after, 5.0, none, answering=(A,))
    assert first == DrainResult(weighted_table((B, 1), (A, 0)), {(KEY, A): 5.0})
    late = step(first.table, after, 6.0, {(KEY, A): 1}, since=dict(first.since), answering=(A,))
    assert late == first, "a connection has begun in between"
    assert step(first.table, after, 7.0, none, since=dict(late.since), answering=(A,)) == DrainResult(after, {})
    assert step(before, after, 5.0, none).table == after, "one that is gone is removed at once"


def test_a_failed_real_server_is_removed_at_once() -> None:
    assert step(weighted_table((A, 1), (B, 1)), weighted_table((B, 1)), failed=(A,)).table == weighted_table((B, 1))


def test_a_whole_service_drains_behind_its_vip() -> None:
    drained = step(weighted_table((A, 1)), Table(), connections={(KEY, A): 2})
    assert drained.table == weighted_table((A, 0)), "the VIP stays bound: packets of its connections still arrive there"
    assert step(weighted_table((A, 0)), Table(), 5.0, {(KEY, A): 0}, since=dict(drained.since)).table == Table()


def test_a_server_that_returns_while_draining_serves_and_later_drains_again() -> None:
    back = step(weighted_table((A, 0), (B, 1)), weighted_table((A, 3), (B, 1)), 10.0, since={(KEY, A): 0.0})
    assert (back.table, back.since) == (weighted_table((A, 3), (B, 1)), {})
    assert step(weighted_table((A, 3), (B, 1)), weighted_table((B, 1)), 20.0, since=dict(back.since)).since == {
        (KEY, A): 20.0
    }


def test_a_restart_while_draining_restarts_the_time() -> None:
    assert step(weighted_table((A, 0), (B, 1)), weighted_table((B, 1)), 100.0).since == {(KEY, A): 100.0}


@given(TABLES, TABLES)
def test_draining_ends_in_the_desired_table_and_never_changes_desired_servers(before: Table, after: Table) -> None:
    drained = step(before, after, 0.0)
    for key, server in after.virtual_servers.items():
        held = drained.table.virtual_servers[key]
        assert (held.scheduler, held.persistence) == (server.scheduler, server.persistence)
        assert server.real_servers.items() <= held.real_servers.items()
    assert after.vips <= drained.table.vips
    reached = apply_operations(before, diff_tables(before, drained.table))
    assert step(reached, after, 1e9, since=dict(drained.since)).table == after


@given(TABLES, TABLES)
def test_with_no_connections_anywhere_nothing_drains(before: Table, after: Table) -> None:
    none = {(key, real): 0 for key, server in before.virtual_servers.items() for real in server.real_servers}
    assert step(before, after, connections=none) == DrainResult(after, {})
