"""Which real server is next."""

from collections import Counter
from collections.abc import Mapping

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mesh.dataplane.userspace.scheduler import RealServerScheduler
from mesh.model.service import Scheduler, SchedulerFlag
from mesh.model.table import RealKey, RealServer

A, B, C = (RealKey(f"10.2.0.{n}", 80) for n in (1, 2, 3))


def weighing(weights: Mapping[RealKey, int]) -> dict[RealKey, RealServer]:
    return {real: RealServer(weight) for real, weight in weights.items()}


def picks(balance: RealServerScheduler, count: int, client: str = "192.0.2.1") -> Counter[RealKey | None]:
    return Counter(balance.pick(client, 0.0) for _ in range(count))


@pytest.mark.parametrize(
    ("scheduler", "expected"),
    [
        pytest.param(Scheduler.RR, {A: 4, B: 4}, id="rr does not look at weights"),
        pytest.param(Scheduler.WRR, {A: 6, B: 2}, id="wrr does"),
    ],
)
def test_round_robin(scheduler: Scheduler, expected: dict[RealKey, int]) -> None:
    assert (
        picks(RealServerScheduler(scheduler, 0, {A: RealServer(3), B: RealServer(1), C: RealServer(0)}), 8) == expected
    )


def test_wrr_is_smooth() -> None:
    balance = RealServerScheduler(Scheduler.WRR, 0, {A: RealServer(2), B: RealServer(1)})
    assert [balance.pick("", 0.0) for _ in range(6)] == [A, B, A, A, B, A]


@pytest.mark.parametrize(("scheduler", "chosen"), [(Scheduler.LC, B), (Scheduler.WLC, A)])
def test_schedulers_that_choose_by_connections(scheduler: Scheduler, chosen: RealKey) -> None:
    balance = RealServerScheduler(scheduler, 0, {A: RealServer(10), B: RealServer(1)})
    balance.active.update({A: 3, B: 1})
    assert balance.pick("", 0.0) == chosen


def test_hashing_moves_only_the_clients_of_a_removed_server() -> None:
    balance = RealServerScheduler(Scheduler.SH, 0, {A: RealServer(1), B: RealServer(1), C: RealServer(1)})
    clients = [f"192.0.2.{n}" for n in range(200)]
    before = {client: balance.pick(client, 0.0) for client in clients}
    assert min(Counter(before.values()).values()) > 40
    balance.real_servers = weighing({A: 1, B: 1})
    for client, real in before.items():
        assert balance.pick(client, 0.0) == real or real == C


def test_persistence_lasts_for_its_time_while_the_real_server_exists() -> None:
    balance = RealServerScheduler(Scheduler.RR, 60, {A: RealServer(1), B: RealServer(1)})
    first = balance.pick("192.0.2.1", 0.0)
    assert {balance.pick("192.0.2.1", float(t)) for t in (1, 59, 118)} == {first}, "each visit prolongs it"
    assert balance.pick("192.0.2.2", 0.0) != first
    other = B if first == A else A
    balance.real_servers = weighing({other: 1})
    assert balance.pick("192.0.2.1", 119.0) == other


def test_with_the_port_flag_connections_of_a_client_are_spread() -> None:
    balance = RealServerScheduler(Scheduler.MH, 0, weighing({A: 1, B: 1}), frozenset({SchedulerFlag.PORT}))
    assert picks(balance, 4) == {A: 2, B: 2}


@pytest.mark.parametrize(("lower", "again"), [pytest.param(0, 2, id="three quarters"), pytest.param(2, 1, id="below")])
def test_a_full_real_server_gets_no_connection_until_the_lower_threshold(lower: int, again: int) -> None:
    full = RealServer(1, upper_threshold=4, lower_threshold=lower)
    balance = RealServerScheduler(Scheduler.RR, 0, {A: full})
    for active, chosen in ((3, A), (4, None), (again + 1, None), (again, A), (3, A)):
        balance.active[A] = active
        assert balance.pick("192.0.2.1", 0.0) == chosen, f"with {active} connections"


@given(
    st.sampled_from(Scheduler),
    st.dictionaries(st.sampled_from([A, B, C]), st.integers(0, 5)),
    st.sets(st.sampled_from([A, B, C])),
    st.integers(0, 60),
)
def test_real_servers_that_refused_or_have_no_weight_are_never_chosen(
    scheduler: Scheduler, weights: dict[RealKey, int], without: set[RealKey], persistence: int
) -> None:
    balance = RealServerScheduler(scheduler, persistence, weighing(weights))
    usable = {real for real, weight in weights.items() if weight} - without
    for now in range(5):
        chosen = balance.pick("192.0.2.1", float(now), without)
        assert chosen in usable if usable else chosen is None
