"""What is left of a worker that operators remove, and who is not removed."""

import pytest

from mesh.cluster.records.encode import (
    build_view,
    encode_daemon,
    encode_declaration_claim,
    encode_name_claim,
    encode_registration,
    encode_service_claim,
    encode_verdict,
    encode_vip_claim,
)
from mesh.cluster.worker_removal import RemovedWorker, WorkerRemoval
from mesh.model.codes import Code
from mesh.model.errors import ActionRefusedError
from mesh.model.service import Health
from mesh.testing.store import MemoryCluster, MemoryStore
from tests.builders import endpoint, service

BOTH, ALONE = service("web.test", owner="shop/web"), service("db.test", owner="shop/db")
CLAIMS = {
    **encode_name_claim("db.test", "shop/db"),
    **encode_service_claim("db.test", "10.112.0.9"),
    **encode_vip_claim("10.112.0.9", "db.test"),
    **encode_declaration_claim(BOTH),
}
LEFT = {
    **encode_registration("w1", [BOTH], [endpoint("a", "w1", "shop/web")]),
    **encode_daemon("w1", "1.0", "s1"),
    **CLAIMS,
}
GONE = {
    **encode_registration(
        "w2", [BOTH, ALONE], [endpoint(f"e{n}", "w2", "shop/db", f"10.2.0.{n}") for n in range(1, 200)]
    ),
    **dict([encode_verdict("w2", ("w2", "e1"), Health.HEALTHY)]),
    **encode_declaration_claim(ALONE),
}
DAEMON = encode_daemon("w2", "1.0", "s2")


def cluster(*, alive: bool = False) -> MemoryCluster:
    there = MemoryCluster()
    there.change({**LEFT, **GONE, **(DAEMON if alive else {})})
    return there


async def test_its_records_go_and_claims_and_those_of_others_stay() -> None:
    there = cluster()
    removed = await WorkerRemoval("w1", MemoryStore(there, "w1")).remove("w2")
    assert removed == RemovedWorker("w2", len(GONE))
    assert there.records == LEFT
    assert build_view(there.records)[0].claims.vips == {"db.test": "10.112.0.9"}
    assert await WorkerRemoval("w1", MemoryStore(there, "w1")).remove("w2") == RemovedWorker("w2", 0)


async def test_a_worker_that_runs_is_removed_with_force_alone_and_its_daemon_last() -> None:
    there = cluster(alive=True)
    removal = WorkerRemoval("w1", MemoryStore(there, "w1"))
    with pytest.raises(ActionRefusedError, match=r"the daemon of w2 is registered; stop it .* --force`") as refused:
        await removal.remove("w2")
    assert refused.value.code is Code.WORKER_NOT_REMOVED
    revision = there.revision
    assert (await removal.remove("w2", force=True)).records == len(GONE) + 1
    assert there.records == LEFT
    (daemon,) = DAEMON
    assert daemon in there.changed_since(there.revision - 1)
    assert daemon not in there.changed_since(revision) - there.changed_since(there.revision - 1)


@pytest.mark.parametrize(
    ("worker", "reason"),
    [("w1", "w1 is the worker that is asked; ask another one"), ("../w2", "is no worker"), ("", "is no worker")],
)
async def test_who_is_never_removed(worker: str, reason: str) -> None:
    there = cluster()
    with pytest.raises(ActionRefusedError, match=reason):
        await WorkerRemoval("w1", MemoryStore(there, "w1")).remove(worker, force=True)
    assert there.records == {**LEFT, **GONE}


async def test_a_store_that_does_not_answer_is_what_the_refusal_says() -> None:
    there = cluster()
    there.out_of_reach = True
    with pytest.raises(ActionRefusedError):
        await WorkerRemoval("w1", MemoryStore(there, "w1")).remove("w2")
