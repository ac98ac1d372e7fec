"""What connections of clients say about requests that do not arrive, and what must not raise an alarm."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from ipaddress import ip_network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mesh.control.passive_arrival import (
    STALE_AFTER,
    ClientNetworks,
    ObservedService,
    PassiveArrivalJudge,
    observed_services,
)
from mesh.control.planner import make_plan
from mesh.dataplane.client_flows import ClientFlow, FlowKey
from mesh.host.request_counts import ClientOfVip, RequestCounts
from mesh.model.claims import Claims
from mesh.model.service import Health, Transport
from mesh.model.table import VirtualKey
from mesh.model.view import ClusterView
from tests.builders import TCP_PROBE, WEB_KEY, WEB_VIP, endpoint, service

TCP, UDP = WEB_KEY, WEB_KEY._replace(transport=Transport.UDP)
SERVICES = {key: ObservedService("demo/web", is_healthy=True) for key in (TCP, UDP)}
NETWORKS = ClientNetworks(frozenset(["192.0.2.1", WEB_VIP]), (ip_network("172.18.0.0/16"), ip_network("172.18.5.0/24")))
CONTAINER, OTHER = "172.18.0.2", "172.18.0.3"


def flows(*clients: str, answered: bool = False, virtual: VirtualKey = TCP, first: int = 40000) -> list[ClientFlow]:
    """A connection of each of these clients, from different ports."""
    return [ClientFlow(FlowKey(virtual, client, first + n), answered) for n, client in enumerate(clients)]


@dataclass
class Watching:
    """Looks as the daemon does, once in ten seconds."""

    services: Mapping[VirtualKey, ObservedService] = field(default_factory=lambda: SERVICES)
    judge: PassiveArrivalJudge = field(default_factory=PassiveArrivalJudge)
    at: float = 0.0

    def look(self, seen: Sequence[ClientFlow] = (), counts: RequestCounts | None = None) -> list[tuple[str, bool]]:
        """The network of each pair that is observed, and whether its requests arrive."""
        self.at += 10
        self.judge.note(seen, self.at)
        suspects = self.judge.suspects(self.services, NETWORKS)
        there = seen if suspects else ()
        found = self.judge.observe(there, counts, suspects, self.services, NETWORKS)
        return [(each.pair.network, each.arrived) for each in found]

    def looks(self, *seen: Sequence[ClientFlow]) -> list[tuple[str, bool]]:
        """What the last of these looks observes."""
        found: list[tuple[str, bool]] = []
        for each in seen:
            found = self.look(each)
        return found


def test_connections_that_stay_unanswered_are_observed() -> None:
    seen = flows(CONTAINER, CONTAINER, OTHER)
    assert Watching().looks(seen, seen, seen) == [("172.18.0.0/16", False)]


@pytest.mark.parametrize(
    "clients",
    [
        pytest.param([CONTAINER], id="a lost SYN"),
        pytest.param([CONTAINER, CONTAINER], id="two of them"),
        pytest.param([f"203.0.113.{n}" for n in range(200)], id="a flood: one of each address"),
        pytest.param([CONTAINER, OTHER, "172.18.0.4"], id="a scan from many hosts"),
    ],
)
def test_a_loss_a_scan_or_a_flood_is_none(clients: list[str]) -> None:
    seen = flows(*clients)
    assert Watching().looks(seen, seen, seen) == []


def test_connections_that_begin_at_each_look_are_young() -> None:
    watching = Watching()
    assert [watching.look(flows(*[CONTAINER] * 5, first=n * 100)) for n in range(1, 9)] == [[]] * 8


def test_an_answer_to_the_same_network_speaks_against_it() -> None:
    lost = flows(*[CONTAINER] * 4)
    watching = Watching()
    watching.look(lost)
    watching.look(lost)
    assert watching.look([*lost, *flows(OTHER, answered=True, first=1)]) == [("172.18.0.0/16", True)]
    assert watching.look([*lost, *flows(OTHER, answered=True, first=1)]) == [("172.18.0.0/16", False)], "it is old"
    assert watching.look([*lost, *flows(OTHER, answered=True, first=2)]) == [("172.18.0.0/16", True)]


def test_each_network_is_observed_for_itself() -> None:
    lost = [
        *flows(*[CONTAINER] * 3),
        *flows(*["172.18.5.9"] * 3),
        *flows(*["192.0.2.1"] * 3),
        *flows(*["192.0.2.77"] * 3),
    ]
    watching = Watching()
    answered = flows("203.0.113.5", "172.18.0.9", answered=True)
    assert watching.looks(lost, lost, [*lost, *answered]) == [
        ("172.18.0.0/16", True),
        ("172.18.5.0/24", False),
        ("elsewhere", True),
        ("host", False),
    ]


def test_a_service_without_a_healthy_endpoint_is_not_observed() -> None:
    seen = flows(*[CONTAINER] * 5)
    watching = Watching({TCP: ObservedService("demo/web", is_healthy=False)})
    assert watching.looks(seen, seen, seen, seen) == []


def test_datagrams_without_answers_count_only_where_others_are_answered() -> None:
    silent = flows(*[CONTAINER] * 4, virtual=UDP)
    assert Watching().looks(silent, silent, silent) == []
    answered = flows("203.0.113.5", answered=True, virtual=UDP)
    told = [*silent, *answered]
    assert Watching().looks(told, told, told) == [("172.18.0.0/16", False)]


def counts(received: int, forwarded: int, client: str = CONTAINER, port: int = 80) -> RequestCounts:
    of = ClientOfVip(WEB_VIP, client)
    return RequestCounts({(of, port): received}, {of: forwarded} if forwarded else {})


def test_requests_that_no_filter_lets_pass_are_observed_until_one_passes() -> None:
    watching = Watching()
    assert watching.look(counts=counts(2, 0)) == [], "too few to tell"
    assert watching.look(counts=counts(5, 0)) == [("172.18.0.0/16", False)]
    assert watching.look(counts=counts(5, 0)) == [], "nobody has tried"
    assert watching.look(counts=counts(9, 0)) == [("172.18.0.0/16", False)]
    assert watching.look(counts=counts(10, 1)) == [("172.18.0.0/16", True)]
    assert watching.look(counts=counts(20, 11)) == []


@pytest.mark.parametrize(
    "seen",
    [
        pytest.param([counts(9, 9)], id="all pass"),
        pytest.param([counts(9, 1)], id="one passes"),
        pytest.param([counts(9, 0, port=81)], id="a port of no service"),
        pytest.param([counts(9, 9), counts(3, 3)], id="a client that was forgotten"),
    ],
)
def test_other_counts_raise_no_alarm(seen: list[RequestCounts]) -> None:
    watching = Watching()
    assert [watching.look(counts=each) for each in seen] == [[]] * len(seen)


def test_a_filter_that_drops_one_client_of_a_network_is_the_operators_own() -> None:
    both = RequestCounts(
        {(ClientOfVip(WEB_VIP, client), 80): 9 for client in (CONTAINER, OTHER)}, {ClientOfVip(WEB_VIP, OTHER): 9}
    )
    assert Watching().look(counts=both) == []


FLOWS = st.lists(
    st.builds(
        lambda client, port, answered, virtual: ClientFlow(FlowKey(virtual, client, port), answered),
        st.sampled_from([CONTAINER, OTHER, "203.0.113.5"]),
        st.integers(1, 6),
        st.booleans(),
        st.sampled_from([TCP, UDP]),
    ),
    max_size=20,
    unique_by=lambda flow: flow.key,
)


@given(st.lists(FLOWS, max_size=6))
def test_a_failure_has_enough_connections_that_stay_unanswered(looks: list[list[ClientFlow]]) -> None:
    watching, before = Watching(), set[FlowKey]()
    for seen in looks:
        now = {flow.key for flow in seen if not flow.is_answered}
        for network, arrived in watching.look(seen):
            stale = [key.client for key in now & before if NETWORKS.of(key.client) == network]
            assert arrived or (len(stale) >= 3 and max(map(stale.count, stale)) >= 2)
        before = now


def test_only_services_with_an_endpoint_that_takes_traffic_are_looked_at() -> None:
    web = service("web.test", probe=TCP_PROBE)
    one = endpoint(owner=web.owner)
    claims = Claims({"web.test": WEB_VIP}, {"web.test": web.owner})
    for health, expected in (
        (Health.HEALTHY, {TCP: ObservedService(web.owner, is_healthy=True)}),
        (Health.UNHEALTHY, {}),
    ):
        assert observed_services(make_plan(ClusterView((web,), (one,), claims), {one.key: health})) == expected
    unprobed = replace(web, probe=None)
    assert observed_services(make_plan(ClusterView((unprobed,), (one,), claims), {})) == {
        TCP: ObservedService(web.owner, is_healthy=False)
    }


def test_a_client_repeats_its_request_before_it_counts_as_unanswered() -> None:
    assert STALE_AFTER >= 3
