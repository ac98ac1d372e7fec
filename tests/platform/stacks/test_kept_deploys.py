"""The last deploys in the store: what is written, what passes the gate, and that nothing is done because of them."""

import asyncio
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mesh.cluster.records.encode import build_view
from mesh.model.codes import Code
from mesh.model.errors import MeshError
from mesh.platform.fleet.protocol import FleetService, FleetSpec
from mesh.platform.stacks.history_keeper import DeployHistoryKeeper
from mesh.platform.stacks.kept_deploys import (
    MOST_BYTES,
    MOST_DEPLOYS,
    MOST_PROJECTS,
    MOST_SERVICES,
    KeptDeploy,
    decode_deploys,
    encode_deploys,
    kept_deploys,
    merge_deploys,
    stack_key,
    surplus_keys,
)
from mesh.platform.stacks.operations import ScaleRequest, StackOperations
from mesh.platform.stacks.records import DeployRecord, stamp
from mesh.store import Store
from mesh.store.sqlite import SqliteStore
from mesh.testing.fleet import FakeFleet, fake_worker
from mesh.testing.readiness import FakeReadiness
from mesh.testing.store import MemoryCluster, MemoryStore
from tests.platform.stacks.builders import desired_service

SECRET = "hunter2-not-in-the-store"


async def deployed(fleet: FakeFleet, image: str = "web:1", at: int = 1_800_000_000, by: str = "kim@w1") -> str:
    """Create a release as a deploy does."""
    spec = desired_service("web", image).spec
    spec = replace(spec, container=replace(spec.container, environment=(("PASSWORD", SECRET),)))
    return await fleet.create(stamp(spec, (), at, by))


def operations(fleet: FakeFleet | None, store: Store) -> StackOperations:
    readiness = FakeReadiness(fleet if fleet is not None else FakeFleet(), lambda: 1_800_000_000.0)
    return StackOperations(fleet, readiness, store)


def record(at: int = 5, service: str = "web", by: str = "kim@w1", digest: str = "aa") -> DeployRecord:
    return DeployRecord(service, "r1", digest, "web:1", at, by)


def test_what_one_user_deploys_at_one_time_is_one_deploy() -> None:
    found = kept_deploys([record(5, "web"), record(5, "db", digest="bb"), record(7, "web"), record(5, by="lee@w2")])
    assert [(each.at, each.by, dict(each.digests)) for each in found] == [
        (7, "kim@w1", {"web": "aa"}),
        (5, "kim@w1", {"web": "aa", "db": "bb"}),
        (5, "lee@w2", {"web": "aa"}),
    ]


def test_a_record_has_time_author_and_digest_and_nothing_else() -> None:
    value = json.loads(encode_deploys(kept_deploys([record()])))
    assert value == {"v": 1, "deploys": [{"at": 5, "by": "kim@w1", "digests": {"web": "aa"}}]}


def test_the_newest_ten_stay_and_a_record_has_a_bound() -> None:
    many = [record(at) for at in range(50)]
    assert [each.at for each in decode_deploys(encode_deploys(kept_deploys(many)))] == [*range(49, 39, -1)]
    large = [KeptDeploy(at, "kim@w1", {f"{'s' * 100}{n}": "d" * 64 for n in range(200)}) for at in range(10)]
    value = encode_deploys(large)
    assert len(value) <= MOST_BYTES
    assert [each.at for each in decode_deploys(value)] == [9]


def test_records_of_both_are_merged_and_the_engine_counts() -> None:
    kept = (KeptDeploy(5, "kim@w1", {"web": "old", "db": "bb"}), KeptDeploy(3, "lee@w2", {"web": "cc"}))
    merged = merge_deploys(kept, (KeptDeploy(5, "kim@w1", {"web": "aa"}),))
    assert merged == (KeptDeploy(5, "kim@w1", {"web": "aa", "db": "bb"}), kept[1])


BAD: list[Any] = [
    b"",
    b"nonsense",
    b"[" * 100_000,
    b"{}",
    {"v": 1, "deploys": 7},
    {"v": 1, "deploys": [{"at": -1, "by": "kim", "digests": {}}]},
    {"v": 1, "deploys": [{"at": 1 << 50, "by": "kim", "digests": {}}]},
    {"v": 1, "deploys": [{"at": 1e300, "by": "kim", "digests": {}}]},
    {"v": 1, "deploys": [{"at": 1, "by": "", "digests": {}}]},
    {"v": 1, "deploys": [{"at": 1, "by": "kim\x1b]0;x\x07", "digests": {}}]},
    {"v": 1, "deploys": [{"at": 1, "by": "kim", "digests": {"web": 7}}]},
    {"v": 1, "deploys": [{"at": 1, "by": "kim", "digests": {"web\n": "aa"}}]},
    {"v": 1, "deploys": [{"at": 1, "by": "kim", "digests": {"x" * 600: "aa"}}]},
    {"v": 1, "deploys": [{"at": 1, "by": "kim", "digests": {f"s{n}": "a" for n in range(MOST_SERVICES + 1)}}]},
    b'{"v": 1, "deploys": [{"at": 1, "by": "\\ud800", "digests": {}}]}',
    b" " * (1 << 20),
]


def as_bytes(value: Any) -> bytes:
    return value if isinstance(value, bytes) else json.dumps(value).encode()


@pytest.mark.parametrize("value", [*map(as_bytes, BAD)], ids=range(len(BAD)))
async def test_a_record_that_is_not_valid_is_refused_whole_and_written_again(value: bytes) -> None:
    with pytest.raises(ValueError, match=r"."):
        decode_deploys(value)
    cluster, fleet = MemoryCluster(), FakeFleet([fake_worker("w1")])
    cluster.write({"stacks/shop": value})
    store = MemoryStore(cluster, "w1")
    with pytest.raises(MeshError, match="nothing of project shop was deployed"):
        await operations(None, store).history("shop")
    await deployed(fleet)
    await DeployHistoryKeeper(fleet, store).copy()
    (deploy,) = decode_deploys(cluster.records["stacks/shop"])
    assert deploy.by == "kim@w1"


def test_a_deploy_that_a_record_has_twice_is_one() -> None:
    twice = {"at": 5, "by": "kim@w1", "digests": {"web": "aa"}}, {"at": 5, "by": "kim@w1", "digests": {"db": "bb"}}
    (deploy,) = decode_deploys(json.dumps({"v": 1, "deploys": twice}).encode())
    assert deploy == KeptDeploy(5, "kim@w1", {"web": "aa", "db": "bb"})


def test_what_is_merged_is_a_record_that_can_be_read_again() -> None:
    """Two halves of one deploy, each with as many services as a deploy may have."""
    halves = [KeptDeploy(5, "k", {f"{half}{n}": "a" for n in range(MOST_SERVICES)}) for half in "ab"]
    (merged,) = decode_deploys(encode_deploys(merge_deploys(halves[:1], halves[1:])))
    assert merged == halves[1], "what the engine has goes first"


@given(st.binary(max_size=300))
def test_any_bytes_are_deploys_or_a_value_error(value: bytes) -> None:
    try:
        found = decode_deploys(value)
    except ValueError:
        return
    assert len(found) <= MOST_DEPLOYS


def test_fields_of_later_versions_are_ignored_and_a_later_record_is_none_of_ours() -> None:
    later = {"v": 1, "new": {}, "deploys": [{"at": 1, "by": "kim", "digests": {"web": "aa"}, "why": "a fix"}]}
    assert decode_deploys(as_bytes(later)) == (KeptDeploy(1, "kim", {"web": "aa"}),)
    assert decode_deploys(as_bytes({**later, "v": 2})) == ()


def test_the_record_is_no_problem_for_those_who_do_not_read_it() -> None:
    view, problems = build_view({"stacks/shop": encode_deploys([KeptDeploy(1, "kim", {"web": "aa"})])})
    assert (len(view.services), len(problems)) == (0, 0)


def test_what_a_label_of_the_engine_says_passes_the_gate() -> None:
    hostile = DeployRecord("we\x1bb", "r", "\ud800", "i", 5, "")
    (deploy,) = decode_deploys(encode_deploys(kept_deploys([hostile])))
    assert (deploy.by, deploy.digests) == ("-", {"we\\x1bb": "?"})
    assert kept_deploys([record(-5), record(1 << 60)]) == ()
    for project in ("", "x" * 300, "a\nb"):
        with pytest.raises(ValueError, match="project"):
            stack_key(project)


def test_the_projects_without_a_deploy_for_longest_go_first() -> None:
    records = {
        stack_key(f"p{n}"): encode_deploys([KeptDeploy(n, "kim", {"web": "aa"})]) for n in range(MOST_PROJECTS + 2)
    }
    assert surplus_keys({**records, "claims/x": b""}) == ("stacks/p0", "stacks/p1")
    assert surplus_keys({**records, "stacks/bad": b"x"})[0] == "stacks/bad"


# ----------------------------------------------------------------------------------------- in stores, by the keeper


@pytest.fixture(params=["memory", "sqlite"])
async def store(request: pytest.FixtureRequest, tmp_path: Path) -> Any:
    if request.param == "memory":
        yield MemoryStore(MemoryCluster(), "w1")
        return
    store = await SqliteStore.open(tmp_path / "store.db", "w1")
    yield store
    await store.close()


async def test_every_worker_reads_the_last_deploys_also_of_what_is_gone(store: Store) -> None:
    fleet = FakeFleet([fake_worker("w1")])
    service = await deployed(fleet)
    keeper = DeployHistoryKeeper(fleet, store)
    await keeper.copy()
    value = (await store.read()).records["stacks/shop"]
    assert SECRET.encode() not in value
    assert b"PASSWORD" not in value
    assert b"web:1" not in value
    revision = (await store.read()).revision
    await keeper.copy()
    await DeployHistoryKeeper(fleet, store).copy()
    assert (await store.read()).revision == revision, "the same again is no write"
    (own,) = await operations(fleet, store).history("shop")
    (other,) = await operations(FakeFleet([fake_worker("w2", role="worker")]), store).history("shop")
    assert (own.image, own.release, own.at, own.by) == ("web:1", own.digest[:8], "2027-01-15T08:00:00Z", "kim@w1")
    assert (other.image, other.release) == (None, None)
    assert (other.digest, other.at, other.by) == (own.digest, own.at, own.by)
    await fleet.remove(service)
    await deployed(fleet, "web:2", at=1_800_000_100)
    await keeper.copy()
    rows = await operations(fleet, store).history("shop")
    assert [row.image for row in rows] == ["web:2", None]


async def test_a_change_of_the_engine_is_copied_and_a_store_that_fails_is_tried_again(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    from mesh.platform.stacks import history_keeper

    monkeypatch.setattr(history_keeper, "PAUSE", 0.0)
    monkeypatch.setattr(history_keeper, "RETRY", 0.01)
    cluster, fleet = MemoryCluster(), FakeFleet([fake_worker("w1")])
    cluster.out_of_reach = True
    await deployed(fleet)
    running = asyncio.ensure_future(DeployHistoryKeeper(fleet, MemoryStore(cluster, "w1")).run())
    try:
        await until(lambda: Code.DEPLOYS_NOT_KEPT in [getattr(each, "code", "") for each in caplog.records])
        cluster.out_of_reach = False
        await until(lambda: "stacks/shop" in cluster.records)
        fleet.faults.no_quorum = True
        fleet.heal()
        await fleet.create(stamp(desired_service("db", "db:1").spec, (), 1_800_000_200, "lee@w2"))
        await until(lambda: len(decode_deploys(cluster.records["stacks/shop"])) == 2)
    finally:
        running.cancel()
    assert [getattr(each, "code", "") for each in caplog.records].count(Code.DEPLOYS_NOT_KEPT) == 1


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(30):
        while not condition():
            await asyncio.sleep(0.01)


async def test_nothing_in_the_store_makes_a_worker_create_or_change_an_engine_service() -> None:
    """Whatever is written below `stacks/`, and everything that a daemon does with it."""
    cluster, fleet = MemoryCluster(), FakeFleet([fake_worker("w1")])
    await deployed(fleet)
    before: list[FleetSpec] = [each.spec for each in await fleet.services()]
    done = [*fleet.log]
    evil = {"at": 1_900_000_000, "by": "mallory", "digests": {"web": "ff", "miner": "ee"}, "instances": 500}
    spec = {"name": "shop_miner", "image": "miner", "labels": {"mesh.stack": "shop"}}
    cluster.write(
        {
            "stacks/shop": as_bytes({"v": 1, "deploys": [evil], "spec": spec, "scale": {"web": 500}}),
            "stacks/shop/web": as_bytes({"instances": 500}),
            "stacks/other": as_bytes({"v": 1, "deploys": [evil]}),
        }
    )
    store = MemoryStore(cluster, "w1")
    stacks, keeper = operations(fleet, store), DeployHistoryKeeper(fleet, store)
    await keeper.copy()
    await stacks.list()
    assert {row.by for row in await stacks.history("shop")} == {"kim@w1", "mallory"}
    assert {row.service for row in await stacks.history("other")} == {"web", "miner"}
    with pytest.raises(MeshError, match="no deployed service is called shop/miner"):
        await stacks.scale(ScaleRequest("shop", "miner", 3, 0), "kim")
    services: tuple[FleetService, ...] = await fleet.services()
    assert [each.spec for each in services] == before
    assert fleet.log == done
    await stacks.scale(ScaleRequest("shop", "web", 1, 0), "kim")
    assert [each.spec.instances for each in await fleet.services()] == [1], "what an operator asks for is done"
