"""Store records: what is written is read back, also by older and newer versions."""

import os
import random
import subprocess
import sys
import tracemalloc
from dataclasses import replace

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mesh.cluster.claim_transactions import claim_all
from mesh.cluster.claims import (
    ClaimName,
    ClaimPort,
    ClaimRequest,
    ClaimVip,
    MovePort,
    MoveVip,
    PutBackVip,
    RecordDeclaration,
    TakeOverName,
)
from mesh.cluster.records.decode import MAX_REASON_LENGTH
from mesh.cluster.records.encode import (
    build_view,
    encode_daemon,
    encode_declaration_claim,
    encode_name_claim,
    encode_port_claim,
    encode_registration,
    encode_service_claim,
    encode_shares,
    encode_verdict,
    encode_vip_claim,
)
from mesh.cluster.records.view_builder import ViewBuilder
from mesh.model.claims import Claims
from mesh.model.codes import Code
from mesh.model.eligibility import choose_probers
from mesh.model.probe import Probe, ProbeKind
from mesh.model.release_shares import MAX_SHARED_RELEASES, ReleaseShares
from mesh.model.service import Endpoint, Health, PortPublication, Route, Scheduler, Service, Transport
from mesh.model.view import ClusterView
from mesh.store.etcd.messages import KeyValue
from mesh.store.etcd.mirror import KeyMirror
from mesh.testing.store import MemoryCluster, MemoryStore

SERVICE = Service(
    "demo/web",
    "web.test",
    (Route("web.test", 80, Transport.TCP, 8080), Route("dns.test", 53, Transport.UDP, 53)),
    (PortPublication(8080, Transport.TCP, None),),
    "10.112.0.9",
    Scheduler.MH,
    300,
    Probe(ProbeKind.HTTPS, 443, "/health?a=b", 1.5, 0.5, 2.5, 1, 9, ((200, 204), (301, 301))),
)
ENDPOINT = Endpoint("demo/web/10.2.0.1", "demo/web", "w1", "10.2.0.1", 18080, 7, "v2")


def test_a_registration_is_read_back_as_it_was() -> None:
    seen, problems = build_view(encode_registration("w1", [SERVICE], [ENDPOINT]))
    assert not problems
    assert seen == ClusterView((SERVICE,), (ENDPOINT,), Claims())


def test_the_keys_are_readable_and_the_values_are_json_with_a_version() -> None:
    records = encode_registration("w1", [SERVICE], [ENDPOINT])
    assert sorted(records) == ["workers/w1/endpoints/demo%2Fweb%2F10.2.0.1", "workers/w1/services/demo%2Fweb"]
    assert all(msgspec.json.decode(value)["v"] == 1 for value in records.values())


def test_claims_are_read_back() -> None:
    records = {
        **encode_service_claim("web.test", "10.112.0.9"),
        **encode_vip_claim("10.112.0.9", "web.test"),
        **encode_name_claim("web.test", "demo/web"),
        **encode_port_claim(Transport.UDP, 30001, "web.test", 53),
    }
    seen, problems = build_view(records)
    assert not problems
    assert seen.claims == Claims(
        {"web.test": "10.112.0.9"},
        {"web.test": "demo/web"},
        {(Transport.UDP, 30001): ("web.test", 53)},
        {"10.112.0.9": "web.test"},
    )


def test_unknown_fields_of_a_newer_version_are_ignored() -> None:
    records = encode_registration("w1", [SERVICE], [ENDPOINT])
    newer = {key: msgspec.json.encode({**msgspec.json.decode(v), "v": 2, "new": [1]}) for key, v in records.items()}
    newer["something/else"] = b"whatever"
    assert build_view(newer) == build_view(records)


def test_a_broken_record_is_reported_and_affects_no_other() -> None:
    records = encode_registration("w1", [SERVICE], [ENDPOINT]) | {
        "claims/services/x": b"{",
        "claims/ports/quic/80": b'{"name": "x", "container_port": 80}',
        "workers/w1/endpoints/x": b'{"id": 5}',
    }
    seen, problems = build_view(records)
    assert seen.endpoints == (ENDPOINT,)
    assert [str(problem).split(": ")[1] for problem in problems] == [
        "record claims/ports/quic/80",
        "record claims/services/x",
        "record workers/w1/endpoints/x",
    ]


@pytest.mark.parametrize(
    ("key", "value", "reason"),
    [
        pytest.param("claims/services/x", {"vip": "nonsense"}, "'nonsense'", id="a VIP that is no address"),
        pytest.param("claims/services/x", {"vip": "224.0.0.1"}, "of one host", id="a VIP that is a group"),
        pytest.param("claims/vips/0.0.0.0", {"name": "x"}, "of one host", id="a holder of all addresses"),
        pytest.param("claims/vips/10.1", {"name": "x"}, "'10.1'", id="a holder of no address"),
        pytest.param("claims/ports/tcp/0", {"name": "x", "container_port": 80}, "0 is not a port", id="port 0"),
        pytest.param("claims/ports/tcp/x", {"name": "x", "container_port": 80}, "'x'", id="a port in letters"),
        pytest.param(
            "claims/ports/tcp/80", {"name": "x", "container_port": 65536}, "65536 is not", id="a port too high"
        ),
    ],
)
def test_a_claim_that_the_kernel_cannot_accept_is_reported(key: str, value: object, reason: str) -> None:
    seen, (problem,) = build_view({key: msgspec.json.encode(value)})
    assert seen == ClusterView()
    assert problem.subject == f"record {key}"
    assert reason in problem.reason


@pytest.mark.parametrize(
    "change",
    [{"address": "web"}, {"port": 0}, {"port": 65536}, {"weight": -1}, {"weight": 2**32}],
    ids=str,
)
def test_an_endpoint_that_the_kernel_cannot_accept_is_reported_and_left_out(change: dict[str, object]) -> None:
    ((key, value),) = encode_registration("w1", [], [ENDPOINT]).items()
    seen, problems = build_view({key: msgspec.json.encode({**msgspec.json.decode(value), **change})})
    assert seen.endpoints == ()
    assert len(problems) == 1


@pytest.mark.parametrize(
    ("address", "reason"),
    [
        ("0.0.0.0", "not the address of one host"),
        ("::", "not the address of one host"),
        ("224.0.0.1", "not the address of one host"),
        ("ff02::1", "not the address of one host"),
        ("255.255.255.255", "not the address of one host"),
        ("::1%lo", "not the address of one host"),
        ("fe80::1%eth0", "not the address of one host"),
        ("FD00::A", "is written fd00::a"),
    ],
)
def test_an_endpoint_without_a_unicast_address_is_reported_and_left_out(address: str, reason: str) -> None:
    seen, (problem,) = build_view(encode_registration("w1", [], [replace(ENDPOINT, address=address)]))
    assert seen.endpoints == ()
    assert reason in problem.reason


@pytest.mark.parametrize("address", ["127.0.0.1", "127.8.9.10", "::1", "169.254.1.1", "240.0.0.1", "fd00::a"])
def test_an_endpoint_at_loopback_or_another_unusual_address_is_accepted(address: str) -> None:
    seen, problems = build_view(encode_registration("w1", [], [replace(ENDPOINT, address=address)]))
    assert [endpoint.address for endpoint in seen.endpoints] == [address]
    assert problems == ()


@pytest.mark.parametrize(
    "broken",
    [
        replace(SERVICE, fixed_vip="web"),
        replace(SERVICE, routes=(Route("web.test", 0, Transport.TCP, 80),)),
        replace(SERVICE, routes=(Route("web.test", 80, Transport.TCP, -80),)),
        replace(SERVICE, publishes=(PortPublication(80, Transport.TCP, 0),)),
        replace(SERVICE, publishes=(PortPublication(70000, Transport.TCP, None),)),
    ],
    ids=["VIP", "listen port", "container port", "published port", "published container port"],
)
def test_a_service_that_the_kernel_cannot_accept_is_reported_and_left_out(broken: Service) -> None:
    seen, problems = build_view(encode_registration("w1", [broken], []))
    assert seen.services == ()
    assert len(problems) == 1


def test_a_value_nested_too_deeply_is_reported() -> None:
    _, problems = build_view({"workers/w1/endpoints/x": b'{"new":' + b"[" * 100_000 + b"]" * 100_000 + b"}"})
    assert len(problems) == 1


def test_declarations_that_differ_are_reported_and_the_one_in_force_stays() -> None:
    other = Service("demo/web", "web.test", SERVICE.routes)
    records = encode_registration("w2", [other], []) | encode_registration("w1", [SERVICE], [])
    for in_force, differs in ((other, "w1"), (SERVICE, "w2")):
        seen, [problem] = build_view(records | encode_declaration_claim(in_force.shared))
        assert seen.services == (in_force,)
        assert problem.code is Code.LABELS_DIFFER_BETWEEN_INSTANCES
        assert f"worker {differs} declares" in str(problem)
        assert seen.claims.declarations == {"demo/web": in_force.shared}


def test_a_declaration_in_force_whose_key_is_of_another_service_is_reported() -> None:
    [value] = encode_declaration_claim(SERVICE.shared).values()
    seen, [problem] = build_view({"claims/declarations/demo%2Fother": value})
    assert seen.claims == Claims()
    assert problem.code is Code.RECORD_UNREADABLE


def test_an_endpoint_has_its_own_declaration_only_if_it_differs_from_the_service() -> None:
    own = replace(SERVICE, probe=None, persistence=5)
    other = replace(ENDPOINT, id="demo/web/10.2.0.2", worker="w2", declared=own)
    same = replace(ENDPOINT, id="demo/web/10.2.0.3", worker="w2", declared=SERVICE)
    records = encode_registration("w1", [SERVICE], [ENDPOINT]) | encode_registration("w2", [own], [other, same])
    records |= [encode_verdict(e.worker, e.key, Health.HEALTHY) for e in (ENDPOINT, same)]
    seen, _ = build_view(records | encode_declaration_claim(SERVICE.shared))
    assert seen.services == (SERVICE,)
    assert [endpoint.declared for endpoint in seen.endpoints] == [None, own, None]
    seen, _ = build_view(records | encode_declaration_claim(own) | encode_registration("w1", [own], [ENDPOINT]))
    assert seen.services == (own,)
    assert [endpoint.declared for endpoint in seen.endpoints] == [None, None, SERVICE]


def test_the_declaration_of_an_endpoint_passes_the_gate() -> None:
    for broken in (replace(SERVICE, persistence=-1), replace(SERVICE, owner="demo/other")):
        record = encode_registration("w1", [], [replace(ENDPOINT, declared=broken)])
        seen, [problem] = build_view(record)
        assert (seen.endpoints, problem.code) == ((), Code.RECORD_UNREADABLE)


def test_a_record_without_an_own_declaration_is_written_as_before() -> None:
    [value] = encode_registration("w1", [], [ENDPOINT]).values()
    assert "declared" not in msgspec.json.decode(value)


@given(st.dictionaries(st.text(max_size=30), st.binary(max_size=50), max_size=5))
def test_any_record_is_read_or_reported(records: dict[str, bytes]) -> None:
    build_view(records)


async def test_claim_requests_become_records_that_read_back_as_claims() -> None:
    store = MemoryStore(MemoryCluster(), "w1")
    asked: list[ClaimRequest] = [
        ClaimName("web.test", "demo/web"),
        ClaimVip("web.test", "10.112.0.9"),
        ClaimPort(Transport.TCP, 30001, "web.test", 80),
    ]
    assert await claim_all(store, asked)
    assert await claim_all(store, asked), "once more is no harm"
    assert not await claim_all(store, [ClaimVip("other.test", "10.112.0.9")]), "taken: read again"
    assert not await claim_all(store, [ClaimName("web.test", "demo/other")])
    assert await claim_all(
        store,
        [
            TakeOverName("web.test", "demo/web", "new/web"),
            MoveVip("web.test", "10.112.0.9", "10.112.0.10"),
            MovePort(Transport.TCP, 30001, "web.test", 80, 8080),
        ],
    )
    assert not await claim_all(store, [MovePort(Transport.TCP, 30001, "web.test", 80, 81)]), "it leads elsewhere by now"
    seen, _ = build_view((await store.read()).records)
    assert seen.claims == Claims(
        {"web.test": "10.112.0.10"},
        {"web.test": "new/web"},
        {(Transport.TCP, 30001): ("web.test", 8080)},
        {"10.112.0.9": "web.test", "10.112.0.10": "web.test"},
    )


@pytest.mark.parametrize(
    ("held", "wish", "then"),
    [
        pytest.param(
            encode_name_claim("web.test", "demo/web"),
            TakeOverName("web.test", "demo/web", "new/web"),
            Claims(owners={"web.test": "new/web"}),
            id="a name",
        ),
        pytest.param(
            encode_service_claim("web.test", "10.112.0.9") | encode_vip_claim("10.112.0.9", "web.test"),
            MoveVip("web.test", "10.112.0.9", "10.112.0.10"),
            Claims({"web.test": "10.112.0.10"}, holders={"10.112.0.9": "web.test", "10.112.0.10": "web.test"}),
            id="a VIP",
        ),
        pytest.param(
            encode_service_claim("web.test", "10.112.0.9") | encode_vip_claim("10.112.0.10", "web.test"),
            MoveVip("web.test", "10.112.0.9", "10.112.0.10"),
            Claims({"web.test": "10.112.0.10"}, holders={"10.112.0.10": "web.test"}),
            id="a VIP that was its own before",
        ),
        pytest.param(
            encode_service_claim("web.test", "10.112.0.9") | encode_vip_claim("10.112.0.9", "other.test"),
            PutBackVip("web.test", "10.112.0.9", "other.test"),
            Claims({"web.test": "10.112.0.9"}, holders={"10.112.0.9": "web.test"}),
            id="a VIP whose record has another name",
        ),
    ],
)
async def test_claims_written_by_a_newer_version_can_be_taken_over(
    held: dict[str, bytes], wish: ClaimRequest, then: Claims
) -> None:
    cluster = MemoryCluster()
    store = MemoryStore(cluster, "w1")
    newer = {"v": 2, "since": "today"}
    cluster.write({key: msgspec.json.encode(msgspec.json.decode(value) | newer) for key, value in held.items()})
    assert await claim_all(store, [wish])
    assert build_view(cluster.records)[0].claims == then
    assert await claim_all(store, [wish]), "once more is no harm"


@pytest.mark.parametrize(
    "there",
    [
        pytest.param(encode_vip_claim("10.112.0.9", "other.test"), id="the service has no VIP"),
        pytest.param(
            encode_vip_claim("10.112.0.9", "other.test") | encode_service_claim("web.test", "10.112.0.8"),
            id="the service has another VIP",
        ),
        pytest.param(
            encode_vip_claim("10.112.0.9", "other.test")
            | encode_service_claim("web.test", "10.112.0.9")
            | encode_service_claim("other.test", "10.112.0.9"),
            id="the other one has it",
        ),
        pytest.param(
            encode_vip_claim("10.112.0.9", "third.test") | encode_service_claim("web.test", "10.112.0.9"),
            id="a third one has it",
        ),
    ],
)
async def test_a_vip_is_not_put_back_if_the_records_changed(there: dict[str, bytes]) -> None:
    cluster = MemoryCluster()
    cluster.write(there)
    assert not await claim_all(MemoryStore(cluster, "w1"), [PutBackVip("web.test", "10.112.0.9", "other.test")])
    assert cluster.records == there


async def test_a_declaration_in_force_is_recorded_only_in_the_place_of_the_one_that_was_known() -> None:
    store, old, new = MemoryStore(MemoryCluster(), "w1"), SERVICE.shared, replace(SERVICE.shared, persistence=7)
    assert await claim_all(store, [RecordDeclaration(old, None)])
    assert await claim_all(store, [RecordDeclaration(old, None)]), "once more is no harm"
    assert not await claim_all(store, [RecordDeclaration(new, None)]), "another one is in force: read again"
    assert await claim_all(store, [RecordDeclaration(new, old)])
    assert not await claim_all(store, [RecordDeclaration(replace(old, persistence=9), old)])
    seen, _ = build_view((await store.read()).records)
    assert seen.claims.declarations == {"demo/web": new}


async def test_a_declaration_record_that_cannot_be_read_is_written_again() -> None:
    store = MemoryStore(MemoryCluster(), "w1")
    [where] = encode_declaration_claim(SERVICE.shared)
    await store.claim({where: b"{"})
    assert await claim_all(store, [RecordDeclaration(SERVICE.shared, None)])
    seen, _ = build_view((await store.read()).records)
    assert seen.claims.declarations == {"demo/web": SERVICE.shared}


async def test_a_claim_held_by_a_third_service_is_not_taken_over() -> None:
    cluster = MemoryCluster()
    cluster.write(encode_name_claim("web.test", "third/web"))
    assert not await claim_all(MemoryStore(cluster, "w1"), [TakeOverName("web.test", "demo/web", "new/web")])
    assert build_view(cluster.records)[0].claims.owners == {"web.test": "third/web"}


def _variants() -> dict[str, list[bytes]]:  # noqa: C901, PLR0912 (a table)
    """Keys of every kind, each with some of the values that it may have: sound ones, and such as nobody can read."""
    found: dict[str, list[bytes]] = {}
    for worker in ("w1", "w2", "w3"):
        services = [SERVICE, replace(SERVICE, persistence=0), replace(SERVICE, owner="demo/other", name="other.test")]
        for service in services:
            for where, value in encode_registration(worker, [service], []).items():
                found.setdefault(where, []).append(value)
        for id in ("a", "b", "c/d"):
            for weight, owner, declared in (
                (1, "demo/web", None),
                (2, "demo/web", None),
                (1, "demo/other", None),
                (1, "demo/web", replace(SERVICE, persistence=7)),
                (1, "demo/web", replace(SERVICE, probe=None)),
            ):
                endpoint = replace(ENDPOINT, id=id, worker=worker, weight=weight, owner=owner, declared=declared)
                for where, value in encode_registration(worker, [], [endpoint]).items():
                    found.setdefault(where, []).append(value)
            for health in (Health.HEALTHY, Health.UNHEALTHY):
                for of in (worker, "w2"):
                    for kept in (False, True):
                        where, value = encode_verdict(worker, (of, id), health, kept=kept, held_back=not kept)
                        found.setdefault(where, []).append(value)
                where, value = encode_verdict(worker, (worker, id), health, reason="status 503")
                found.setdefault(where, []).append(value)
        for where, value in encode_daemon(worker, "1", "a session").items():
            found.setdefault(where, []).append(value)
    for name, vip in (("web.test", "10.112.0.9"), ("other.test", "10.112.0.9"), ("web.test", "10.112.0.8")):
        claims = {
            **encode_service_claim(name, vip),
            **encode_vip_claim(vip, name),
            **encode_name_claim(name, f"demo/{vip}"),
            **encode_port_claim(Transport.TCP, 30001, name, 80),
        }
        for where, value in claims.items():
            found.setdefault(where, []).append(value)
    for seconds in (7, 0):
        for where, value in encode_declaration_claim(replace(SERVICE, persistence=seconds, probe=None)).items():
            found.setdefault(where, []).append(value)
    for points in (0, 100):
        for where, value in encode_shares(ReleaseShares("demo/web", {"v2": points}, ("v1", "v2"), "anna")).items():
            found.setdefault(where, []).append(value)
    found["claims/ports/tcp/030001"] = [*encode_port_claim(Transport.TCP, 1, "odd.test", 80).values()]
    found["health/w1/%61"] = [encode_verdict("w1", ("w1", "a"), Health.HEALTHY)[1]]
    found["something/else"] = [b"whatever"]
    return {where: [*values, b"{", b"{}"] for where, values in found.items()}


RECORDS = st.fixed_dictionaries({}, optional={where: st.sampled_from(v) for where, v in _variants().items()})


@given(st.lists(RECORDS, max_size=4))
def test_a_reused_view_builder_gives_the_same_view_as_a_fresh_one(pictures: list[dict[str, bytes]]) -> None:
    reader = ViewBuilder()
    for records in pictures:
        seen, problems = reader.view(records)
        fresh, told = build_view(records)
        assert (seen, problems) == (fresh, told)
        assert seen.groups == fresh.groups == replace(seen).groups, "replace: found out from the endpoints"


@given(st.lists(RECORDS, min_size=1, max_size=4), st.randoms(use_true_random=False))
def test_a_view_builder_fed_with_changes_gives_the_same_view(
    pictures: list[dict[str, bytes]], order: random.Random
) -> None:
    reader, records = ViewBuilder(), dict[str, bytes]()
    for wanted in pictures:
        changes = [*wanted.items(), *((where, None) for where in records.keys() - wanted.keys())]
        order.shuffle(changes)
        cut = order.randint(0, len(changes))
        reader.follow(dict(changes[:cut]))
        assert reader.follow(dict(changes[cut:])) == build_view(wanted)
        records = wanted


GONE = ("w2", "a")


@pytest.mark.parametrize(
    ("said", "daemons", "health", "kept"),
    [
        pytest.param({"w2": "down"}, ["w2"], "unhealthy", False, id="its own worker has the word"),
        pytest.param({"w2": "down", "w1": "up"}, ["w1", "w2"], "unhealthy", False, id="while it is there"),
        pytest.param({"w2": "up"}, ["w1"], "healthy", False, id="when it is gone, its last word counts"),
        pytest.param({"w2": "up", "w1": "kept"}, ["w1"], "unhealthy", True, id="until another has asked"),
        pytest.param({"w2": "up", "w1": "down", "w3": "up"}, [], "healthy", False, id="one that had an answer will do"),
        pytest.param({"w1": "down", "w3": "kept"}, [], "unhealthy", False, id="of two without one, the first"),
        pytest.param({}, ["w1"], None, False, id="nobody has asked"),
    ],
)
def test_whose_verdict_counts(said: dict[str, str], daemons: list[str], health: str | None, kept: bool) -> None:
    records = {k: v for worker in daemons for k, v in encode_daemon(worker, "1", "a session").items()}
    for worker, word in said.items():
        now = Health.HEALTHY if word == "up" else Health.UNHEALTHY
        records |= dict([encode_verdict(worker, GONE, now, kept=word == "kept")])
    seen, problems = build_view(records)
    assert not problems
    assert seen.health == ({} if health is None else {GONE: Health(health)})
    assert (seen.kept == {GONE}) is kept
    assert seen.workers == set(daemons)


@given(
    st.sets(st.sampled_from([f"w{n}" for n in range(3, 12)]), min_size=1),
    st.sets(st.sampled_from([f"w{n}" for n in range(1, 15)]), min_size=1),
    st.booleans(),
)
def test_verdicts_for_a_departed_worker_count_only_from_those_whose_turn_it_is(
    daemons: set[str], publishers: set[str], own: bool
) -> None:
    records = {k: v for worker in daemons for k, v in encode_daemon(worker, "1", "a session").items()}
    publishers -= {"w2"}
    records |= dict(encode_verdict(worker, GONE, Health.HEALTHY) for worker in publishers)
    if own:
        records |= dict([encode_verdict("w2", GONE, Health.UNHEALTHY)])
    turn = set(choose_probers(GONE, daemons | publishers)) & publishers
    expected = Health.HEALTHY if turn else Health.UNHEALTHY if own else None
    reader = ViewBuilder()
    assert reader.view(records)[0].health == ({} if expected is None else {GONE: expected})
    back = encode_daemon("w2", "1", "a session")
    seen = reader.follow(back)[0]
    assert seen.health == ({GONE: Health.UNHEALTHY} if own else {}), "they count only while it is gone"
    assert reader.follow(dict.fromkeys(back))[0].health == ({} if expected is None else {GONE: expected})


def test_a_worker_that_registers_takes_the_turn_of_another_one() -> None:
    workers = [f"w{n}" for n in range(3, 12)]
    first, second = choose_probers(GONE, workers)
    rest = [each for each in workers if each not in (first, second)]
    records = dict([encode_verdict("w2", GONE, Health.UNHEALTHY), encode_verdict(rest[0], GONE, Health.HEALTHY)])
    reader = ViewBuilder()
    assert reader.view(records)[0].health == {GONE: Health.HEALTHY}
    for one, health in ((first, Health.HEALTHY), (second, Health.UNHEALTHY)):
        records |= encode_daemon(one, "1", "a session")
        assert reader.view(records)[0].health == {GONE: health}
    assert reader.view(records)[0] == build_view(records)[0]


def test_a_departing_or_returning_worker_changes_whose_verdict_counts() -> None:
    presence = encode_daemon("w2", "1", "a session")
    records = presence | dict(
        [encode_verdict("w2", GONE, Health.HEALTHY), encode_verdict("w1", GONE, Health.UNHEALTHY)]
    )
    records |= encode_registration("w2", [SERVICE], [replace(ENDPOINT, id="a", worker="w2")])
    reader = ViewBuilder()
    assert reader.view(records)[0].groups["demo/web"].verdicts == (Health.HEALTHY,)
    assert reader.follow(dict.fromkeys(presence))[0].groups["demo/web"].verdicts == (Health.UNHEALTHY,)
    assert reader.follow(presence)[0].groups["demo/web"].verdicts == (Health.HEALTHY,)


def test_many_endpoints_added_and_removed_at_once_stay_in_order() -> None:
    endpoints = [replace(ENDPOINT, id=f"e{number * 7 % 200:03}", worker="w1") for number in range(200)]
    reader, records = ViewBuilder(), encode_registration("w1", [], endpoints)
    reader.view(encode_registration("w1", [], endpoints[:3]))
    seen, _ = reader.view(records)
    assert [endpoint.id for endpoint in seen.endpoints] == [f"e{number:03}" for number in range(200)]
    seen, _ = reader.view(encode_registration("w1", [], endpoints[:120]))
    assert seen.endpoints == tuple(sorted(endpoints[:120], key=lambda endpoint: endpoint.id))


SHARES = {"v": 1, "shares": {"v2": 100}, "among": ["v1", "v2"]}


def test_shares_are_read_back() -> None:
    shares = ReleaseShares("demo/web", {"v1": 2550, "v2": 100}, ("", "v1", "v2"), "anna")
    assert build_view(encode_shares(shares)) == (ClusterView(shares={"demo/web": shares}), ())
    newer = msgspec.json.encode(SHARES | {"steps": [1, 2]})
    assert build_view({"claims/shares/demo%2Fweb": newer})[0].shares["demo/web"].given == {"v2": 100}


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"shares": {"v1": 9000, "v2": 1001}}, "more than 100 per cent"),
        ({"shares": {"v2": -1}}, "hundredths of a per cent"),
        ({"shares": {"v2": 10001}}, "hundredths of a per cent"),
        ({"shares": {"v2": 0.5}}, "Expected `int`"),
        ({"shares": {"": 1}}, "a release"),
        ({"shares": {"v\n2": 1}}, "a release"),
        ({"shares": {f"v{n}": 1 for n in range(MAX_SHARED_RELEASES + 1)}}, "more than 16 releases"),
        ({"among": [f"v{n}" for n in range(MAX_SHARED_RELEASES + 1)]}, "more than 16 releases"),
        ({"by": "x" * 513}, "who gave it"),
    ],
)
def test_shares_that_cannot_be_are_reported_and_do_not_count(change: dict[str, object], reason: str) -> None:
    seen, [problem] = build_view({"claims/shares/demo%2Fweb": msgspec.json.encode(SHARES | change)})
    assert not seen.shares
    assert problem.code is Code.RECORD_UNREADABLE
    assert reason in problem.reason


def test_objects_not_affected_by_a_changed_record_stay_the_same() -> None:
    other = replace(ENDPOINT, id="x", owner="demo/other")
    records = encode_registration("w1", [SERVICE], [ENDPOINT, other]) | encode_service_claim("web.test", "10.112.0.9")
    reader = ViewBuilder()
    before, _ = reader.view(records)
    after, _ = reader.view(records | dict([encode_verdict("w1", ("w1", ENDPOINT.id), Health.HEALTHY)]))
    assert after.groups["demo/web"].verdicts == (Health.HEALTHY,)
    assert after.groups["demo/other"] is before.groups["demo/other"]
    assert after.endpoints is before.endpoints
    assert after.services is before.services
    assert after.claims is before.claims


RUN = replace(ENDPOINT, run="2026-11-30T11:59:16.358097495Z")


@pytest.mark.parametrize(
    ("registered", "probed", "counts"),
    [("1", "1", True), ("1", "2", False), (None, "1", True), ("1", None, True), (None, None, True)],
)
def test_a_verdict_on_another_run_does_not_count(registered: str | None, probed: str | None, counts: bool) -> None:
    """Records that an older version wrote have no run."""
    registration = encode_registration("w1", [SERVICE], [replace(ENDPOINT, run=registered)])
    verdict = dict([encode_verdict("w1", ENDPOINT.key, Health.UNHEALTHY, kept=True, run=probed)])
    both, _ = build_view(registration | verdict)
    assert both.health == ({ENDPOINT.key: Health.UNHEALTHY} if counts else {})
    assert both.kept == (frozenset({ENDPOINT.key}) if counts else frozenset())
    assert both.groups["demo/web"].verdicts == ((Health.UNHEALTHY,) if counts else (None,))
    reader = ViewBuilder()
    reader.follow(verdict)
    seen, _ = reader.follow(registration)  # the run of the endpoint comes last
    assert (seen.health, seen.kept, seen.groups) == (both.health, both.kept, both.groups)
    assert reader.follow(dict.fromkeys(registration))[0].health == {ENDPOINT.key: Health.UNHEALTHY}


class VerdictOfVersion010(msgspec.Struct, frozen=True, omit_defaults=True):
    """The value of `health` as version 0.1.0 reads it."""

    health: Health
    kept: bool = False
    held_back: bool = False
    run: str | None = None


def test_the_answer_of_the_probe_travels_with_the_verdict() -> None:
    registration = encode_registration("w1", [SERVICE], [ENDPOINT])
    key, value = encode_verdict("w1", ENDPOINT.key, Health.UNHEALTHY, reason="status 503")
    seen, problems = build_view({**registration, key: value})
    assert (seen.reasons, problems) == ({ENDPOINT.key: "status 503"}, ())
    assert msgspec.json.decode(value, type=VerdictOfVersion010) == VerdictOfVersion010(Health.UNHEALTHY)
    _, earlier = encode_verdict("w1", ENDPOINT.key, Health.UNHEALTHY)
    assert earlier == b'{"v":1,"health":"unhealthy"}', "as version 0.1.0 writes it"
    assert build_view({**registration, key: earlier})[0].reasons == {}
    _, healthy = encode_verdict("w1", ENDPOINT.key, Health.HEALTHY, reason="status 200")
    assert build_view({**registration, key: healthy})[0].reasons == {}


@pytest.mark.parametrize("reason", ["x" * 100_000, "\n\x1b[2J" * 1000, "\x00" * 300, "\u2028" * 300])
def test_an_answer_is_escaped_and_bounded_whoever_writes_it(reason: str) -> None:
    registration = encode_registration("w1", [SERVICE], [ENDPOINT])
    key, value = encode_verdict("w1", ENDPOINT.key, Health.UNHEALTHY, reason=reason)
    assert len(value) < 400
    hostile = msgspec.json.encode({**msgspec.json.decode(value), "reason": reason})
    for each in (value, hostile):
        (answer,) = build_view({**registration, key: each})[0].reasons.values()
        assert answer.isprintable()
        assert len(answer) <= MAX_REASON_LENGTH


def test_a_record_without_a_run_is_written_as_before() -> None:
    key, value = encode_verdict("w1", ("w1", "a"), Health.HEALTHY)
    assert (key, msgspec.json.decode(value)) == ("health/w1/a", {"v": 1, "health": "healthy"})
    seen, problems = build_view(encode_registration("w1", [SERVICE], [RUN]))
    assert seen.endpoints == (RUN,)
    assert not problems


@pytest.mark.parametrize("run", ["x" * 65, "a\nb", "\x1b[31m", 5, ["1"], {}], ids=repr)
def test_a_run_that_cannot_be_one_is_a_problem(run: object) -> None:
    ((key, value),) = encode_registration("w1", [], [ENDPOINT]).items()
    broken = msgspec.json.encode({**msgspec.json.decode(value), "run": run})
    seen, (problem,) = build_view({key: broken})
    assert seen.endpoints == ()
    assert problem.subject == f"record {key}"


def test_two_spellings_of_a_key_are_not_two_records() -> None:
    key, value = encode_verdict("w1", ("w1", "a"), Health.HEALTHY)
    seen, (problem,) = build_view({key: value, "health/w1/%61": value})
    assert seen.health == {("w1", "a"): Health.HEALTHY}
    assert problem.subject == "record health/w1/%61"
    assert "this one is written health/w1/a" in problem.reason


def test_an_unchanged_record_stays_the_same_object() -> None:
    reader = ViewBuilder()
    records = encode_registration("w1", [SERVICE], [ENDPOINT])
    (before, _), (after, _) = reader.view(records), reader.view(dict(records))
    assert after.endpoints[0] is before.endpoints[0]


PROGRAM = """
from mesh.cluster.records.encode import encode_registration
from mesh.model.service import SchedulerFlag, Service
flags = frozenset({SchedulerFlag.FALLBACK, SchedulerFlag.PORT})
print(encode_registration("w1", [Service("demo/web", "web.test", (), flags=flags)], []))
"""


def test_a_record_is_the_same_in_every_process() -> None:
    """A set has another order in each process: a restart must not change the records of a worker."""
    written = {
        subprocess.run(
            [sys.executable, "-c", PROGRAM],
            env={**os.environ, "PYTHONHASHSEED": str(seed)},
            capture_output=True,
            check=True,
        ).stdout
        for seed in range(6)
    }
    assert len(written) == 1


def test_declarations_that_are_ever_others_do_not_fill_the_memory() -> None:
    (key, value), *_ = encode_registration("w1", [SERVICE], []).items()
    mirror = KeyMirror(b"vipmesh/", 1, lambda _: False)
    tracemalloc.start()
    try:
        for number in range(600):
            long = b'{"more": "%d%s", ' % (number, b"x" * 100_000) + value[1:]
            assert build_view({key: long})[0].services == (SERVICE,)
            mirror.put(KeyValue(b"vipmesh/" + key.encode(), long, number))
        grown, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert grown < 24 << 20
