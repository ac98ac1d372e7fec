"""Weights from the shares of releases: exact, pro rata, monotone, and the same on every worker."""

import random
from collections.abc import Mapping, Sequence
from dataclasses import replace
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mesh.control.planner import make_plan
from mesh.control.shares import ShareMember, weigh
from mesh.control.view import ViewInputs, effective_view
from mesh.model.claims import Claims
from mesh.model.release_shares import WHOLE, ReleaseShares, share_text
from mesh.model.service import Endpoint, Health
from mesh.model.table import RealKey
from mesh.model.validation import MAX_WEIGHT
from mesh.model.view import ClusterView
from tests.builders import HTTP_PROBE, WEB_KEY, WEB_VIP, endpoint, service, view


def members(**of: Sequence[int]) -> list[ShareMember]:
    """Endpoints by release, each with its own weight; a negative one does not serve. `none` names no release."""
    return [
        ShareMember(("w1", f"{release}-{number}"), "" if release == "none" else release, abs(weight), weight >= 0)
        for release, weights in of.items()
        for number, weight in enumerate(weights)
    ]


def shares(*among: str, **given: int) -> ReleaseShares:
    return ReleaseShares("demo/web", given, among or ("v1", "v2"))


TABLE: list[tuple[str, ReleaseShares, list[ShareMember], Mapping[str, list[int]]]] = [
    ("a tenth, one endpoint each", shares(v2=1000), members(v1=[1], v2=[1]), {"v1": [9], "v2": [1]}),
    ("1 % for 1 beside 20", shares(v2=100), members(v1=[1] * 20, v2=[1]), {"v1": [99] * 20, "v2": [20]}),
    ("own weights divide a share", shares(v2=5000), members(v1=[3, 1], v2=[1]), {"v1": [3, 1], "v2": [4]}),
    ("an endpoint of weight 0", shares(v2=5000), members(v1=[1, 0], v2=[1]), {"v1": [1, 0], "v2": [1]}),
    (
        "the others pro rata",
        shares("v1", "v2", "v3", v3=4000),
        members(v1=[2], v2=[1], v3=[1]),
        {"v1": [2], "v2": [1], "v3": [2]},
    ),
    ("shares of less than 100 in all", shares(v1=1000, v2=3000), members(v1=[1], v2=[1]), {"v1": [1], "v2": [3]}),
    ("all to one", shares(v2=WHOLE), members(v1=[1], v2=[1]), {"v1": [0], "v2": [1]}),
    ("all to one that does not serve", shares(v2=WHOLE), members(v1=[2, 4], v2=[-1]), {"v1": [1, 2], "v2": [0]}),
    ("the old one fails", shares(v2=1000), members(v1=[-1], v2=[1]), {"v1": [0], "v2": [1]}),
    ("a share of 0 is never given more", shares(v2=0), members(v1=[-1], v2=[1]), {"v1": [0], "v2": [0]}),
    ("without a release", shares("", "v2", v2=2500), members(none=[1], v2=[1]), {"none": [3], "v2": [1]}),
    (
        "a release that came later is one of the others",
        shares(v2=5000),
        members(v1=[1], v2=[1], v3=[1]),
        {"v1": [1], "v2": [2], "v3": [1]},
    ),
    (
        "one that does not serve has its weight ready",
        shares(v2=5000),
        members(v1=[1], v2=[1, -1]),
        {"v1": [1], "v2": [1, 1]},
    ),
]


@pytest.mark.parametrize(("given_shares", "of", "expected"), [row[1:] for row in TABLE], ids=[row[0] for row in TABLE])
def test_weights(given_shares: ReleaseShares, of: list[ShareMember], expected: Mapping[str, list[int]]) -> None:
    found = weigh(given_shares, of).weights
    assert found == {("w1", f"{name}-{n}"): weight for name, own in expected.items() for n, weight in enumerate(own)}


@pytest.mark.parametrize(
    ("given_shares", "of"),
    [
        (None, members(v1=[1], v2=[3])),
        (shares(v2=1000), members(v2=[1, 2])),
        (shares(v2=1000), members(v2=[1], v3=[1])),
        (shares(v2=1000), []),
    ],
    ids=["none are given", "one release is left", "one of those that they were given among is left", "nothing is left"],
)
def test_own_weights_count_without_shares_in_force(given_shares: ReleaseShares | None, of: list[ShareMember]) -> None:
    found = weigh(given_shares, of)
    assert not found.weights
    assert all(row.given is None for row in found.releases)
    whole = sum(member.weight for member in of)
    assert [row.share for row in found.releases] == [
        Fraction(sum(m.weight for m in of if m.release == row.release), whole) for row in found.releases
    ]


RELEASES = ("v1", "v2", "v3")
MEMBERS = st.lists(
    st.tuples(st.sampled_from(["", *RELEASES]), st.sampled_from([0, 1, 1, 2, 3, 7, 100, 65_535]), st.booleans()),
    max_size=25,
).map(lambda rows: [ShareMember(("w1", str(n)), *row) for n, row in enumerate(rows)])
GIVEN = st.dictionaries(st.sampled_from(RELEASES), st.integers(0, WHOLE // 3), max_size=3)


def parts(of: Sequence[ShareMember], weights: Mapping[tuple[str, str], int]) -> dict[str, Fraction]:
    whole = sum(weights[member.key] for member in of if member.serves)
    found = dict.fromkeys({member.release for member in of}, Fraction(0))
    for member in of:
        if member.serves and whole:
            found[member.release] += Fraction(weights[member.key], whole)
    return found


@given(GIVEN, MEMBERS)
def test_each_release_that_serves_has_its_share(given_points: dict[str, int], of: list[ShareMember]) -> None:
    asked = ReleaseShares("demo/web", given_points, ("", *RELEASES))
    weights = weigh(asked, of).weights
    if not weights:
        return
    assert all(0 <= weight <= MAX_WEIGHT for weight in weights.values())
    serving = {m.release for m in of if m.serves and m.weight}
    others = sum(m.weight for m in of if m.serves and m.release not in given_points)
    ideal = {
        release: Fraction(given_points[release], WHOLE)
        if release in given_points
        else (1 - Fraction(sum(given_points.values()), WHOLE))
        * Fraction(sum(m.weight for m in of if m.serves and m.release == release), others)
        for release in serving
    }
    taken = sum(ideal.values())
    found = parts(of, weights)
    # One weight for each endpoint, of the sum of all weights, is what rounding can move.
    bound = Fraction(len(of), sum(weights[m.key] for m in of if m.serves) or 1)
    for release, part in found.items():
        expected = ideal[release] / taken if taken and release in serving else Fraction(0)
        assert abs(part - expected) <= bound, release
        if max(weights.values()) < MAX_WEIGHT:
            assert part == expected, "exact"


@given(GIVEN, MEMBERS)
def test_endpoints_of_a_release_share_by_their_own_weights(given_points: dict[str, int], of: list[ShareMember]) -> None:
    weights = weigh(ReleaseShares("demo/web", given_points, ("", *RELEASES)), of).weights
    if not weights or max(weights.values()) == MAX_WEIGHT:
        return
    serving = [member for member in of if member.serves]
    for one in serving:
        for other in serving:
            if one.release == other.release:
                assert weights[one.key] * other.weight == weights[other.key] * one.weight


@given(MEMBERS, st.integers(0, WHOLE), st.integers(0, WHOLE))
def test_a_larger_share_is_never_a_smaller_part(of: list[ShareMember], one: int, other: int) -> None:
    less, more = sorted((one, other))
    among = ("", *RELEASES)
    before = {r.release: r.share for r in weigh(ReleaseShares("demo/web", {"v2": less}, among), of).releases}
    after = {r.release: r.share for r in weigh(ReleaseShares("demo/web", {"v2": more}, among), of).releases}
    if "v2" in before and len(before) > 1:
        tolerance = Fraction(len(of), MAX_WEIGHT)
        assert before["v2"] <= after["v2"] + tolerance


@given(GIVEN, MEMBERS, st.randoms(use_true_random=False))
def test_the_order_of_endpoints_does_not_matter(
    given_points: dict[str, int], of: list[ShareMember], chance: random.Random
) -> None:
    asked = ReleaseShares("demo/web", given_points, ("", *RELEASES))
    shuffled = list(of)
    chance.shuffle(shuffled)
    assert weigh(asked, shuffled).weights == weigh(asked, of).weights


WEB = service("web.test", probe=HTTP_PROBE)
CLAIMS = Claims({"web.test": WEB_VIP}, {"web.test": WEB.owner}, {}, {WEB_VIP: "web.test"})


def released(id: str, release: str, number: int, weight: int = 1) -> Endpoint:
    return endpoint(id, address=f"10.2.0.{number}", release=release, weight=weight)


OLD, NEW = released("old", "v1", 1), released("new", "v2", 2)


def seen(*endpoints: Endpoint, unhealthy: Sequence[Endpoint] = (), given_points: int = 1000) -> ClusterView:
    health = {each.key: Health.UNHEALTHY if each in unhealthy else Health.HEALTHY for each in endpoints}
    return replace(view(WEB, *endpoints, claims=CLAIMS, health=health), shares={WEB.owner: shares(v2=given_points)})


def planned(of: ClusterView) -> Mapping[RealKey, int]:
    traffic = effective_view(ViewInputs("w9", of)).traffic
    servers = make_plan(traffic, traffic.health).table.virtual_servers[WEB_KEY].real_servers
    return {real: server.weight for real, server in servers.items()}


def test_the_plan_has_the_weights_and_the_view_for_operators_the_own_ones() -> None:
    there = seen(OLD, NEW)
    assert planned(there) == {RealKey("10.2.0.1", 80): 9, RealKey("10.2.0.2", 80): 1}
    effective = effective_view(ViewInputs("w9", there))
    assert [each.weight for each in effective.known.endpoints] == [1, 1]
    assert effective.traffic.by_key == {each.key: each for each in effective.traffic.endpoints}


def test_a_weight_that_an_operator_set_counts_within_its_release() -> None:
    heavy = released("old-2", "v1", 3).with_weight(8, 8)
    assert list(planned(seen(OLD, NEW, heavy)).values()) == [1, 1, 8]


def test_a_release_that_fails_gives_its_share_to_the_other_one() -> None:
    assert planned(seen(OLD, NEW, unhealthy=[NEW])) == {RealKey("10.2.0.1", 80): 1}
    assert planned(seen(OLD, NEW, unhealthy=[OLD])) == {RealKey("10.2.0.2", 80): 1}


def test_a_release_with_share_0_keeps_its_connections_and_gets_no_new_one() -> None:
    assert planned(seen(OLD, NEW, given_points=0)) == {RealKey("10.2.0.1", 80): 1, RealKey("10.2.0.2", 80): 0}


def test_a_changed_share_changes_one_service_and_the_same_one_changes_nothing() -> None:
    db = service("db.test")
    claims = Claims(
        {**CLAIMS.vips, "db.test": "10.112.0.8"},
        {**CLAIMS.owners, "db.test": db.owner},
        {},
        {**CLAIMS.holders, "10.112.0.8": "db.test"},
    )
    before = replace(seen(OLD, NEW, endpoint("db", owner=db.owner)), services=(db, WEB), claims=claims)
    first = effective_view(ViewInputs("w9", before))
    second = effective_view(ViewInputs("w9", replace(before, shares={WEB.owner: shares(v2=1000)})), first)
    assert second.traffic.groups[WEB.owner] is first.traffic.groups[WEB.owner]
    assert second.traffic.endpoints is first.traffic.endpoints
    third = effective_view(ViewInputs("w9", replace(before, shares={WEB.owner: shares(v2=5000)})), second)
    assert third.traffic.groups[WEB.owner] != first.traffic.groups[WEB.owner]
    assert third.traffic.groups[db.owner] == first.traffic.groups[db.owner]
    none = effective_view(ViewInputs("w9", replace(before, shares={})), third)
    assert none.traffic is none.known


def test_shares_in_words() -> None:
    assert [share_text(points) for points in (0, 10, 250, 1000, WHOLE)] == ["0 %", "0.1 %", "2.5 %", "10 %", "100 %"]
