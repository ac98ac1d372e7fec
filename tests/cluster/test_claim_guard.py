"""Claims of running services that somebody rewrites in the store."""

import asyncio
from dataclasses import replace
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mesh.cluster.claim_actions import ClaimActions
from mesh.cluster.claim_guard import FIRST_PAUSE, LONGEST_PAUSE, REPORTED, ClaimGuard
from mesh.cluster.claims import claims_in_force
from mesh.cluster.records.encode import (
    build_view,
    encode_name_claim,
    encode_port_claim,
    encode_registration,
    encode_service_claim,
    encode_vip_claim,
)
from mesh.model.claims import Claims
from mesh.model.codes import Code
from mesh.model.service import PortPublication, Service, Transport
from mesh.testing.store import MemoryCluster, MemoryStore
from tests.builders import SMALL_POOL, service
from tests.cluster.test_claim_grace import LIMITS, WEB, ClaimingWorker

pytestmark = pytest.mark.looptime

VIP = "10.112.0.9"
SERVICE = service(WEB, owner="shop/web", publishes=(PortPublication(80, Transport.TCP, 8080),))
RECORDS = {
    **encode_name_claim(WEB, "shop/web"),
    **encode_service_claim(WEB, VIP),
    **encode_vip_claim(VIP, WEB),
    **encode_port_claim(Transport.TCP, 8080, WEB, 80),
}
NAME, BY_NAME, BY_VIP, PORT = RECORDS
FOREIGN: dict[str, bytes] = {
    **encode_name_claim(WEB, "thief/web"),
    **encode_service_claim(WEB, "10.112.0.66"),
    **encode_vip_claim(VIP, "thief.test"),
    **encode_port_claim(Transport.TCP, 8080, "thief.test", 80),
}
REWRITINGS = [(key, value) for key in RECORDS for value in (FOREIGN[key], None, b"", b"[]", b"{}", b"\xff" * 300_000)]


def learned() -> ClaimGuard:
    """A guard that has seen the records."""
    guard = ClaimGuard()
    guard.offer([SERVICE])
    guard.follow(RECORDS, None, 0)
    guard.learn([SERVICE], build_view(RECORDS)[0].claims, RECORDS)
    return guard


def changed(key: str, value: bytes | None) -> dict[str, bytes]:
    return {k: v for k, v in {**RECORDS, key: value}.items() if v is not None}


@pytest.mark.parametrize(("key", "value"), REWRITINGS)
def test_any_rewriting_of_any_record_is_recognised_and_put_back(key: str, value: bytes | None) -> None:
    guard = learned()
    guard.follow(changed(key, value), {key}, 1)
    assert guard.contested == {"shop/web"}
    [each] = guard.restorations(1)
    assert (each.key, each.there, each.value) == (key, value, RECORDS[key])
    guard.follow(RECORDS, {key}, 2)
    assert (guard.restorations(99), guard.contested) == ([], frozenset())
    [problem] = guard.problems()
    assert (problem.code, problem.owner) == (Code.CLAIM_REWRITTEN, "shop/web")
    assert guard.next_look(1 + REPORTED) is None
    assert guard.problems() == ()


def test_what_the_records_do_not_say_yet_is_learned_from_the_same_view_later() -> None:
    """Claims are looked at anew for each view until all are known; a view that differs in verdicts is the same one."""
    guard, services, claims = ClaimGuard(), (SERVICE,), build_view(RECORDS)[0].claims
    guard.offer(services)
    guard.learn(services, claims, {key: value for key, value in RECORDS.items() if key != PORT})
    for key in RECORDS:
        guard.follow(changed(key, None), {key}, 1)
        assert bool(guard.contested) is (key != PORT)
        guard.follow(RECORDS, {key}, 1)
    guard.learn(services, claims, RECORDS)
    guard.learn(services, claims, {})
    guard.follow(changed(PORT, None), {PORT}, 2)
    assert guard.contested == {"shop/web"}


MANY = [
    service(f"s{number}.test", owner=f"shop/s{number}", publishes=(PortPublication(80, Transport.TCP, 8000 + number),))
    for number in range(4)
]
MANY_RECORDS = {
    key: value
    for number, each in enumerate(MANY)
    for claim in (
        encode_name_claim(each.name, each.owner),
        encode_service_claim(each.name, f"10.112.0.{9 + number}"),
        encode_vip_claim(f"10.112.0.{9 + number}", each.name),
        encode_port_claim(Transport.TCP, 8000 + number, each.name, 80),
    )
    for key, value in claim.items()
}
OFFERED = [
    None,
    replace(MANY[0], publishes=()),
    replace(MANY[0], persistence=60),
    *MANY,
]


@given(st.lists(st.lists(st.sampled_from(OFFERED), max_size=4, unique_by=lambda s: s and s.owner), max_size=5))
def test_services_that_come_and_go_leave_what_a_guard_knows_that_saw_the_last_ones_only(
    story: list[list[Service | None]],
) -> None:
    view, claims = tuple(MANY), build_view(MANY_RECORDS)[0].claims
    guard, fresh = ClaimGuard(), ClaimGuard()
    offers = [[each for each in offered if each is not None] for offered in story]
    for offered in offers:
        guard.offer(offered)
        guard.learn(view, claims, MANY_RECORDS)
    fresh.offer(offers[-1] if offers else [])
    fresh.learn(view, claims, MANY_RECORDS)
    for each in (guard, fresh):
        each.follow({}, None, 1)
    assert {each.key: each.value for each in guard.restorations(1)} == {
        each.key: each.value for each in fresh.restorations(1)
    }


def test_the_pauses_double_up_to_the_longest_one() -> None:
    guard, now = learned(), 0.0
    times: list[float] = []
    while len(times) < 12:
        guard.follow(changed(NAME, FOREIGN[NAME]), {NAME}, now)
        pause = guard.next_look(now)
        assert pause is not None
        now += pause
        assert len(guard.restorations(now)) == 1
        times.append(now)
        guard.follow(RECORDS, {NAME}, now)
    pauses = [later - earlier for earlier, later in pairwise(times)]
    assert pauses[:4] == [FIRST_PAUSE, 2 * FIRST_PAUSE, 4 * FIRST_PAUSE, 8 * FIRST_PAUSE]
    assert pauses[-1] == LONGEST_PAUSE


def test_fields_that_only_newer_versions_know_are_put_back_too() -> None:
    newer = b'{"v":2,"owner":"shop/web","shape":[1]}'
    guard = ClaimGuard()
    guard.offer([SERVICE])
    guard.learn([SERVICE], build_view({NAME: newer})[0].claims, {NAME: newer})
    guard.follow({NAME: FOREIGN[NAME]}, {NAME}, 0)
    assert guard.restorations(0)[0].value == newer


MOVED = b'{"v":1,"owner":"shop2/web","moved_from":"shop/web"}'
SAME = b'{"owner":"shop/web","x":1}'
INTENDED = {
    "an operator moves the name": (SERVICE, changed(NAME, MOVED)),
    "a label asks for the VIP, on any worker": (
        SERVICE,
        changed(BY_NAME, FOREIGN[BY_NAME]) | encode_registration("w0", [replace(SERVICE, fixed_vip="10.112.0.66")], []),
    ),
    "the service is gone": (None, FOREIGN),
    "the labels have another name": (service("new.test", owner="shop/web"), FOREIGN),
    "the port is published no more": (replace(SERVICE, publishes=()), changed(PORT, FOREIGN[PORT])),
    "the same with another field": (SERVICE, changed(NAME, SAME)),
}


@pytest.mark.parametrize(("offered", "records"), INTENDED.values(), ids=INTENDED)
def test_what_is_intended_is_not_put_back(offered: Service | None, records: dict[str, bytes]) -> None:
    guard = learned()
    guard.offer([] if offered is None else [offered])
    guard.follow(records, None, 1)
    assert (guard.restorations(99), guard.problems(), guard.contested) == ([], (), frozenset())


@pytest.mark.parametrize("counts", [replace(SERVICE, publishes=()), service("new.test", owner="shop/web")])
def test_what_the_declaration_that_counts_does_not_have_is_not_put_back(counts: Service) -> None:
    guard = learned()
    guard.learn([counts], build_view(RECORDS)[0].claims, RECORDS)
    guard.follow(changed(PORT, FOREIGN[PORT]), {PORT}, 1)
    assert guard.restorations(99) == []


def test_what_was_forgotten_is_not_put_back() -> None:
    guard = learned()
    guard.forget()
    guard.follow(FOREIGN, None, 1)
    assert guard.restorations(99) == []


def test_a_moved_name_takes_the_vip_and_the_ports_with_it() -> None:
    guard = learned()
    moved = changed(NAME, b'{"v":1,"owner":"shop2/web","moved_from":"shop/web"}')
    guard.follow(moved, {NAME}, 1)
    guard.learn([SERVICE], build_view(RECORDS)[0].claims, moved)  # an older view than the records
    again = {**FOREIGN, NAME: b'{"v":1,"owner":"shop3/web","moved_from":"shop2/web"}'}
    guard.follow(again, None, 2)
    assert guard.restorations(99) == []


def test_a_move_from_another_owner_is_no_excuse() -> None:
    guard = learned()
    guard.follow(changed(NAME, b'{"v":1,"owner":"thief/web","moved_from":"other/web"}'), {NAME}, 1)
    assert len(guard.restorations(1)) == 1


def test_a_vip_whose_own_record_names_another_service_is_not_in_force() -> None:
    stolen = Claims({WEB: VIP, "thief.test": VIP}, {}, {}, {VIP: WEB})
    assert claims_in_force(stolen, SMALL_POOL).vips == {WEB: VIP}


@pytest.fixture
def cluster() -> MemoryCluster:
    return MemoryCluster()


@pytest.mark.parametrize("value", [None, b'{"v":1,"owner":"thief/web","name":"thief.test","vip":"10.112.0.66"}', b"["])
async def test_a_worker_puts_back_all_that_is_rewritten_and_reports_it(
    cluster: MemoryCluster, value: bytes | None
) -> None:
    async with ClaimingWorker(cluster, "w1", "shop/web").running() as shop:
        shop.starts()
        await asyncio.sleep(2)
        keys = [key for key in cluster.records if key.startswith("claims/") and "idle" not in key]
        assert len(keys) == 4
        before = {key: cluster.records[key] for key in keys}
        cluster.change(dict.fromkeys(keys, value))
        await asyncio.sleep(3)
        assert {key: cluster.records.get(key) for key in keys} == before
        assert {key for key in cluster.records if key.startswith("claims/")} == set(keys), "and nothing is claimed anew"
        codes = [problem.code for problem in shop.conditions.problems["claims"]]
        assert set(codes) == {Code.CLAIM_REWRITTEN}
        await asyncio.sleep(REPORTED + 5)
        assert shop.conditions.problems.get("claims", ()) == ()


async def test_a_moved_name_stays_with_its_new_owner(cluster: MemoryCluster) -> None:
    async with (
        ClaimingWorker(cluster, "w1", "shop/web").running() as shop,
        ClaimingWorker(cluster, "w2", "shop2/web").running() as other,
    ):
        shop.starts()
        await asyncio.sleep(2)
        vip = shop.view.claims.vips
        other.starts()
        await asyncio.sleep(2)
        assert shop.holder == "shop/web"
        await ClaimActions(MemoryStore(cluster, "w3")).move(WEB, "shop2/web")
        await asyncio.sleep(LIMITS.grace + 100)
        assert shop.holder == other.holder == "shop2/web"
        assert other.view.claims.vips == vip
        assert [p.code for p in shop.conditions.problems["claims"]] == [Code.NAME_TAKEN]
        await ClaimActions(MemoryStore(cluster, "w3")).move(WEB, "shop/web")
        await asyncio.sleep(5)
        assert shop.holder == "shop/web"


async def test_what_changed_while_the_store_was_away_for_long_is_not_put_back(cluster: MemoryCluster) -> None:
    async with ClaimingWorker(cluster, "w1", "shop/web").running() as shop:
        shop.starts()
        await asyncio.sleep(2)
        for seconds, holder in ((LIMITS.grace - 10, "shop/web"), (LIMITS.grace + 10, "thief/web")):
            cluster.out_of_reach = True
            await asyncio.sleep(seconds)
            cluster.change(encode_name_claim(WEB, "thief/web"))
            cluster.change(encode_registration("w9", [service(WEB, owner="thief/web")], []))
            cluster.out_of_reach = False
            await asyncio.sleep(70)
            assert shop.holder == holder
