"""Claims that are restored to a store that was lost, and claims that change hands."""

from dataclasses import replace

import pytest

from mesh.cluster.claim_transactions import claim_all, restore_claims
from mesh.cluster.claims import ClaimPort, ClaimVip, RecordDeclaration, RecordOlderNames, TakeBackVip, TakeOverPort
from mesh.cluster.records.encode import build_view, encode_declaration_claim
from mesh.model.claims import Claims
from mesh.model.service import Service, Transport
from mesh.store import MAX_CHANGES
from mesh.testing.store import MemoryCluster, MemoryStore
from tests.builders import service


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


def declared(number: int) -> Service:
    return service(owner=f"demo/s{number}", name=f"s{number}.test")


async def test_a_thousand_new_declarations_take_few_transactions() -> None:
    """Each transaction is read by every worker."""
    cluster = MemoryCluster()
    store = MemoryStore(cluster, "w1")
    wishes = [RecordDeclaration(declared(number), None) for number in range(1000)]
    assert await claim_all(store, wishes)
    assert cluster.revision == 1000 / MAX_CHANGES
    assert await claim_all(store, wishes), "once more changes nothing"
    assert cluster.revision == 1000 / MAX_CHANGES
    assert len(build_view((await store.read()).records)[0].claims.declarations) == 1000


async def test_declarations_that_others_have_recorded_keep_no_other_one_out() -> None:
    store = MemoryStore(MemoryCluster(), "w1")
    other, unreadable = replace(declared(1), persistence=60), encode_declaration_claim(declared(2))
    assert await claim_all(store, [RecordDeclaration(declared(0), None), RecordDeclaration(other, None)])
    assert not await store.claim(dict.fromkeys(unreadable, b"["))
    assert not await claim_all(store, [RecordDeclaration(declared(number), None) for number in range(4)])
    recorded = build_view((await store.read()).records)[0].claims.declarations
    assert recorded == {each.owner: each for each in (declared(0), other, declared(2), declared(3))}


class TestTakingBack:
    """Claims that change hands, as transactions of the store."""

    @pytest.fixture
    async def cluster(self) -> MemoryCluster:
        cluster = MemoryCluster()
        store = MemoryStore(cluster, "w1")
        assert await claim_all(store, [ClaimVip("old.test", "10.112.0.9"), ClaimPort(Transport.TCP, 80, "old.test", 1)])
        return cluster

    def claims(self, cluster: MemoryCluster) -> Claims:
        return build_view(cluster.records)[0].claims

    async def test_a_vip_goes_to_another_name_with_both_of_its_records(self, cluster: MemoryCluster) -> None:
        wish = TakeBackVip("new.test", "10.112.0.9", "old.test")
        assert await claim_all(MemoryStore(cluster, "w1"), [wish])
        assert self.claims(cluster).vips == {"new.test": "10.112.0.9"}
        assert self.claims(cluster).holders == {"10.112.0.9": "new.test"}
        assert not await claim_all(MemoryStore(cluster, "w2"), [TakeBackVip("late.test", "10.112.0.9", "old.test")])
        assert self.claims(cluster).vips == {"new.test": "10.112.0.9"}

    async def test_a_lost_record_of_the_own_vip_is_written_again(self, cluster: MemoryCluster) -> None:
        cluster.change({"claims/services/old.test": None})
        assert await claim_all(MemoryStore(cluster, "w1"), [TakeBackVip("old.test", "10.112.0.9", "old.test")])
        assert self.claims(cluster).vips == {"old.test": "10.112.0.9"}

    async def test_a_port_goes_to_another_service_once(self, cluster: MemoryCluster) -> None:
        old = ("old.test", 1)
        assert await claim_all(MemoryStore(cluster, "w1"), [TakeOverPort(Transport.TCP, 80, old, "new.test", 2)])
        assert not await claim_all(MemoryStore(cluster, "w2"), [TakeOverPort(Transport.TCP, 80, old, "late.test", 3)])
        assert self.claims(cluster).ports == {(Transport.TCP, 80): ("new.test", 2)}
