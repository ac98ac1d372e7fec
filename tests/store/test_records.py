"""records: what is written is read back, by an older and a newer version too."""

from dataclasses import replace

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mesh.claims import ClaimName, ClaimPort, ClaimVip, MoveVip, TakeOverName, Wish
from mesh.model import (
    Claims,
    ClusterView,
    Endpoint,
    Probe,
    ProbeKind,
    Publish,
    Route,
    Scheduler,
    Service,
    Transport,
)
from mesh.store.claiming import claim
from mesh.store.records import Reader, name_claim, port_claim, registration, service_claim, view, vip_claim
from mesh.testing.store import MemoryCluster, MemoryStore

SERVICE = Service(
    "demo/web",
    "web.test",
    (Route("web.test", 80, Transport.TCP, 8080), Route("dns.test", 53, Transport.UDP, 53)),
    (Publish(8080, Transport.TCP, None),),
    "10.112.0.9",
    Scheduler.MH,
    300,
    Probe(ProbeKind.HTTPS, 443, "/health?a=b", 1.5, 0.5, 2.5, 1, 9, ((200, 204), (301, 301))),
)
ENDPOINT = Endpoint("demo/web/10.2.0.1", "demo/web", "w1", "10.2.0.1", 18080, 7, "v2")


def test_a_registration_is_read_back_as_it_was() -> None:
    seen, problems = view(registration("w1", [SERVICE], [ENDPOINT]))
    assert not problems
    assert seen == ClusterView((SERVICE,), (ENDPOINT,), Claims())


def test_the_keys_are_readable_and_the_values_are_json_with_a_version() -> None:
    records = registration("w1", [SERVICE], [ENDPOINT])
    assert sorted(records) == ["workers/w1/endpoints/demo%2Fweb%2F10.2.0.1", "workers/w1/services/demo%2Fweb"]
    assert all(msgspec.json.decode(value)["v"] == 1 for value in records.values())


def test_claims_are_read_back() -> None:
    records = dict(
        [
            service_claim("web.test", "10.112.0.9"),
            vip_claim("10.112.0.9", "web.test"),
            name_claim("web.test", "demo/web"),
            port_claim(Transport.UDP, 30001, "web.test", 53),
        ]
    )
    seen, problems = view(records)
    assert not problems
    assert seen.claims == Claims(
        {"web.test": "10.112.0.9"},
        {"web.test": "demo/web"},
        {(Transport.UDP, 30001): ("web.test", 53)},
        {"10.112.0.9": "web.test"},
    )


def test_a_newer_version_may_say_more() -> None:
    records = registration("w1", [SERVICE], [ENDPOINT])
    newer = {key: msgspec.json.encode({**msgspec.json.decode(v), "v": 2, "new": [1]}) for key, v in records.items()}
    newer["something/else"] = b"whatever"
    assert view(newer) == view(records)


def test_a_broken_record_is_told_and_stops_no_other() -> None:
    records = registration("w1", [SERVICE], [ENDPOINT]) | {
        "claims/services/x": b"{",
        "claims/ports/quic/80": b'{"name": "x", "container_port": 80}',
        "workers/w1/endpoints/x": b'{"id": 5}',
    }
    seen, problems = view(records)
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
        pytest.param("claims/vips/10.1", {"name": "x"}, "'10.1'", id="a holder of no address"),
        pytest.param("claims/ports/tcp/0", {"name": "x", "container_port": 80}, "0 is not a port", id="port 0"),
        pytest.param("claims/ports/tcp/x", {"name": "x", "container_port": 80}, "'x'", id="a port in letters"),
        pytest.param(
            "claims/ports/tcp/80", {"name": "x", "container_port": 65536}, "65536 is not", id="a port too high"
        ),
    ],
)
def test_a_claim_that_no_kernel_could_take_is_told(key: str, value: object, reason: str) -> None:
    seen, (problem,) = view({key: msgspec.json.encode(value)})
    assert seen == ClusterView()
    assert problem.subject == f"record {key}"
    assert reason in problem.reason


@pytest.mark.parametrize(
    "change",
    [{"address": "web"}, {"port": 0}, {"port": 65536}, {"weight": -1}, {"weight": 2**32}],
    ids=str,
)
def test_an_endpoint_that_no_kernel_could_take_is_told_and_left_out(change: dict[str, object]) -> None:
    ((key, value),) = registration("w1", [], [ENDPOINT]).items()
    seen, problems = view({key: msgspec.json.encode({**msgspec.json.decode(value), **change})})
    assert seen.endpoints == ()
    assert len(problems) == 1


@pytest.mark.parametrize(
    "broken",
    [
        replace(SERVICE, fixed_vip="web"),
        replace(SERVICE, routes=(Route("web.test", 0, Transport.TCP, 80),)),
        replace(SERVICE, routes=(Route("web.test", 80, Transport.TCP, -80),)),
        replace(SERVICE, publishes=(Publish(80, Transport.TCP, 0),)),
        replace(SERVICE, publishes=(Publish(70000, Transport.TCP, None),)),
    ],
    ids=["VIP", "listen port", "container port", "published port", "published container port"],
)
def test_a_service_that_no_kernel_could_take_is_told_and_left_out(broken: Service) -> None:
    seen, problems = view(registration("w1", [broken], []))
    assert seen.services == ()
    assert len(problems) == 1


def test_a_value_nested_too_deep_to_read_is_told() -> None:
    _, problems = view({"workers/w1/endpoints/x": b'{"new":' + b"[" * 100_000 + b"]" * 100_000 + b"}"})
    assert len(problems) == 1


def test_workers_that_declare_a_service_differently_are_told_and_the_first_counts() -> None:
    other = Service("demo/web", "web.test", ())
    seen, problems = view(registration("w2", [other], []) | registration("w1", [SERVICE], []))
    assert seen.services == (SERVICE,)
    assert "worker w2 declares it otherwise than worker w1" in str(problems[0])


@given(st.dictionaries(st.text(max_size=30), st.binary(max_size=50), max_size=5))
def test_any_record_is_read_or_told(records: dict[str, bytes]) -> None:
    view(records)


async def test_wishes_become_records_that_are_read_back_as_granted() -> None:
    store = MemoryStore(MemoryCluster(), "w1")
    asked: list[Wish] = [
        ClaimName("web.test", "demo/web"),
        ClaimVip("web.test", "10.112.0.9"),
        ClaimPort(Transport.TCP, 30001, "web.test", 80),
    ]
    assert not await claim(store, asked)
    assert not await claim(store, asked), "once more is no harm"
    assert await claim(store, [ClaimVip("other.test", "10.112.0.9")]), "taken: read again"
    assert await claim(store, [ClaimName("web.test", "demo/other")])
    assert not await claim(
        store, [TakeOverName("web.test", "demo/web", "new/web"), MoveVip("web.test", "10.112.0.9", "10.112.0.10")]
    )
    seen, _ = view((await store.read()).records)
    assert seen.claims == Claims(
        {"web.test": "10.112.0.10"},
        {"web.test": "new/web"},
        {(Transport.TCP, 30001): ("web.test", 80)},
        {"10.112.0.9": "web.test", "10.112.0.10": "web.test"},
    )


RECORDS = st.dictionaries(
    st.sampled_from([f"workers/w{n}/{kind}/x" for n in range(3) for kind in ("services", "endpoints")]),
    st.sampled_from(
        [*registration("w1", [SERVICE, replace(SERVICE, persistence=0)], [ENDPOINT]).values(), b"{", b"{}"]
    ),
)


@given(st.lists(RECORDS, max_size=4))
def test_a_reader_gives_the_same_picture_as_a_fresh_one(pictures: list[dict[str, bytes]]) -> None:
    reader = Reader()
    for records in pictures:
        assert reader.view(records) == view(records)


def test_a_record_that_has_not_changed_stays_the_same_object() -> None:
    reader = Reader()
    records = registration("w1", [SERVICE], [ENDPOINT])
    (before, _), (after, _) = reader.view(records), reader.view(dict(records))
    assert after.endpoints[0] is before.endpoints[0]
