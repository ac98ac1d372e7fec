"""The few requests that the daemon sends by itself, and what they show."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mesh.api.connectivity.plan import ConnectivityTarget, TargetKind
from mesh.api.connectivity.report import ConnectivityRow, RowState
from mesh.api.connectivity.sampling import SampleTurn, choose_targets, read_observations
from mesh.control.arrival import ArrivalCheck, ArrivalObservation, ArrivalPair
from mesh.model.request import RequestOutcome
from mesh.model.service import Transport

SUBNETS = ("172.18.0.0/16",)
INSIDE, OUTSIDE = "172.18.0.2", "172.19.0.2"


def target(number: int, *endpoints: str) -> ConnectivityTarget:
    name, address = f"s{number}.test", f"10.112.0.{number}"
    owner = f"demo/s{number:02}"
    return ConnectivityTarget(
        name, owner, TargetKind.VIP, Transport.TCP, address, 80, endpoints=endpoints or (OUTSIDE,)
    )


def chosen(targets: list[ConnectivityTarget], number: int = 0, *failing: str) -> list[str]:
    turn = SampleTurn(number, 4, frozenset(failing))
    return [target.owner for target in choose_targets(targets, SUBNETS, turn)]


def test_services_with_an_endpoint_outside_of_the_network_are_chosen() -> None:
    assert chosen([target(1, INSIDE), target(2, OUTSIDE), target(3, INSIDE, OUTSIDE)]) == ["demo/s02", "demo/s03"]
    assert chosen([replace(target(1), endpoints=())]) == []


def test_one_vip_by_address_and_over_tcp_is_asked_of_each_service() -> None:
    one = target(1)
    others = [
        replace(one, name="s1.test"),
        replace(one, kind=TargetKind.PUBLISHED),
        replace(one, transport=Transport.UDP),
        replace(one, port=81),
    ]
    found = choose_targets([*others[:3], one, others[3]], SUBNETS, SampleTurn(0, 4))
    assert found == (one,)


def test_half_of_the_requests_are_for_what_failed_last() -> None:
    targets = [target(number) for number in range(1, 10)]
    failing = ["demo/s07", "demo/s08", "demo/s09"]
    assert chosen(targets, 0, *failing) == ["demo/s07", "demo/s08", "demo/s01", "demo/s02"]
    assert chosen(targets, 1, *failing) == ["demo/s09", "demo/s07", "demo/s03", "demo/s04"]


@given(st.integers(0, 30), st.integers(2, 6), st.sets(st.integers(0, 29), max_size=8))
def test_every_service_has_its_turn(services: int, most: int, failing: set[int]) -> None:
    targets = [target(number) for number in range(services)]
    owners = {t.owner for t in targets}
    again = frozenset(f"demo/s{number:02}" for number in failing)
    seen: set[str] = set()
    for number in range(services + 1):
        found = choose_targets(targets, SUBNETS, SampleTurn(number, most, again))
        assert len(found) <= most
        assert len({t.owner for t in found}) == len(found)
        seen |= {t.owner for t in found}
    assert owners <= seen, "those that fail have their turn, too"


def row(outcome: RequestOutcome, lost_at: str | None = None) -> ConnectivityRow:
    return ConnectivityRow(
        client="x",
        service="s1.test",
        kind="vip",
        destination="tcp://10.112.0.1:80",
        by="address",
        state=RowState.OK,
        outcome=outcome,
        seconds=0.1,
        detail="no answer within 2 s",
        lost_at=lost_at,
        remedy="iptables ...",
    )


LOST_REASON = "tcp://10.112.0.1:80: no answer within 2 s, lost at ip filter FORWARD: drop"


@pytest.mark.parametrize(
    ("outcome", "own", "arrived"),
    [
        (RequestOutcome.ANSWERED, RequestOutcome.ANSWERED, True),
        (RequestOutcome.REFUSED, RequestOutcome.REFUSED, True),
        (RequestOutcome.CLOSED, RequestOutcome.CLOSED, True),
        (RequestOutcome.NO_ANSWER, RequestOutcome.ANSWERED, False),
        (RequestOutcome.REJECTED, RequestOutcome.ANSWERED, False),
        (RequestOutcome.NO_ANSWER, RequestOutcome.NO_ANSWER, None),
        (RequestOutcome.NOT_SENT, RequestOutcome.ANSWERED, None),
    ],
)
def test_a_request_that_fails_from_the_host_as_well_shows_nothing(
    outcome: RequestOutcome, own: RequestOutcome, arrived: bool | None
) -> None:
    found = list(read_observations(SUBNETS[0], [target(1)], [row(outcome, "ip filter FORWARD: drop")], [row(own)]))
    pair = ArrivalPair("demo/s01", SUBNETS[0])
    expected = {
        True: [ArrivalObservation(pair, ArrivalCheck.CONNECTION, True)],
        False: [ArrivalObservation(pair, ArrivalCheck.CONNECTION, False, LOST_REASON, "iptables ...")],
        None: [],
    }
    assert found == expected[arrived]
