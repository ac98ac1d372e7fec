"""Claims that are restored to a store that was lost."""

from mesh.cluster.claim_transactions import claim_all, restore_claims
from mesh.cluster.claims import RecordOlderNames
from mesh.cluster.records.encode import build_view
from mesh.model.claims import Claims
from mesh.testing.store import MemoryCluster, MemoryStore


async def test_older_names_are_recorded_once() -> None:
    store = MemoryStore(MemoryCluster(), "w1")
    assert await claim_all(store, [RecordOlderNames(("github.com",))])
    assert not await claim_all(store, [RecordOlderNames(("other.example",))]), "somebody was faster: decide again"
    assert build_view((await store.read()).records)[0].claims.older_names == frozenset({"github.com"})


async def test_older_names_are_added_to_what_a_worker_that_started_meanwhile_recorded() -> None:
    store = MemoryStore(MemoryCluster(), "w1")
    assert await claim_all(store, [RecordOlderNames(("early.example",))])
    lost = Claims(older_names=frozenset({"github.com"}))
    assert await restore_claims(store, lost) == 0
    assert build_view((await store.read()).records)[0].claims.older_names == frozenset({"early.example", "github.com"})
    assert await restore_claims(store, lost) == 0, "once more changes nothing"
