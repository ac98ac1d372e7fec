"""What every store must do; each real store and the fake subclass it with a fixture `store` (fresh and empty)."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing

from mesh.store import ACTING_KEY, Store, StoreSnapshot


class StoreContract:
    """One worker's view of a store."""

    async def test_a_new_store_is_empty(self, store: Store) -> None:
        assert (await store.read()).records == {}

    async def test_a_claim_is_granted_once_and_again_to_the_same(self, store: Store) -> None:
        assert await store.claim({"claims/a": b"1"}) == {}
        revision = (await store.read()).revision
        assert await store.claim({"claims/a": b"1"}) == {}, "a repeated attempt succeeds"
        assert (await store.read()).revision == revision, "and changes nothing"
        assert await store.claim({"claims/a": b"2"}) == {"claims/a": b"1"}
        assert (await store.read()).records == {"claims/a": b"1"}

    async def test_a_claim_of_several_is_granted_as_a_whole_or_not_at_all(self, store: Store) -> None:
        await store.claim({"claims/a": b"1"})
        assert await store.claim({"claims/a": b"other", "claims/b": b"2"}) == {"claims/a": b"1"}
        assert (await store.read()).records == {"claims/a": b"1"}
        assert await store.claim({"claims/a": b"1", "claims/b": b"2"}) == {"claims/a": b"1"}, "half of it is not all"

    async def test_replacing_requires_the_current_value(self, store: Store) -> None:
        await store.claim({"claims/a": b"1"})
        assert not await store.replace("claims/a", b"0", b"2")
        assert not await store.replace("claims/none", b"0", b"2")
        assert await store.replace("claims/a", b"1", b"2")
        assert await store.replace("claims/a", b"1", b"2"), "it holds the new value already"
        assert (await store.read()).records == {"claims/a": b"2"}

    async def test_several_claims_are_changed_as_a_whole_or_not_at_all(self, store: Store) -> None:
        await store.claim({"claims/a": b"1", "claims/b": b"2"})
        assert not await store.change({"claims/a": b"1", "claims/b": b"x"}, {"claims/a": b"3", "claims/b": None})
        assert not await store.change({"claims/a": b"1", "claims/b": None}, {"claims/a": b"3", "claims/b": b"4"})
        assert (await store.read()).records == {"claims/a": b"1", "claims/b": b"2"}
        before = {"claims/a": b"1", "claims/b": b"2", "claims/c": None, "claims/d": None}
        after = {"claims/a": b"3", "claims/b": None, "claims/c": b"5", "claims/d": None}
        assert await store.change(before, after)
        revision = (await store.read()).revision
        assert await store.change(before, after), "a repeated attempt succeeds"
        assert (await store.read()).revision == revision, "and changes nothing"
        assert (await store.read()).records == {"claims/a": b"3", "claims/c": b"5"}

    async def test_the_last_deploys_of_a_stack_have_no_lease(self, store: Store) -> None:
        assert await store.change({"stacks/shop": None}, {"stacks/shop": b"1"})
        await store.register({"workers/w1/x": b"x"})
        await store.register({})
        assert not await store.change({"stacks/shop": None}, {"stacks/shop": b"2"})
        assert not await store.change({"stacks/shop": b"0"}, {"stacks/shop": b"2"})
        assert await store.change({"stacks/shop": b"1"}, {"stacks/shop": b"2"})
        assert (await store.read()).records == {"stacks/shop": b"2"}

    async def test_a_watch_shows_a_claim_that_is_deleted(self, store: Store) -> None:
        await store.claim({"claims/a": b"1", "claims/b": b"2"})
        async with aclosing(watching(store)) as snapshots, asyncio.timeout(10):
            await anext(snapshots)
            assert await store.change({"claims/a": b"1"}, {"claims/a": None})
            assert (await anext(snapshots)).records == {"claims/b": b"2"}

    async def test_who_holds_a_key_keeps_it_and_no_snapshot_has_it(self, store: Store) -> None:
        assert await store.hold(ACTING_KEY, None) is None
        before = (await store.read()).records
        assert await store.hold(ACTING_KEY, b"first") == b"first"
        assert await store.hold(ACTING_KEY, b"first") == b"first"
        assert (await store.read()).records == before
        await store.release(ACTING_KEY, b"first")
        assert await store.hold(ACTING_KEY, None) is None
        assert await store.hold(ACTING_KEY, b"again") == b"again"

    async def test_registering_replaces_all_records_of_a_worker_and_no_claims(self, store: Store) -> None:
        await store.claim({"claims/a": b"1"})
        await store.register({"workers/w1/x": b"x", "workers/w1/y": b"y"})
        await store.register({"workers/w1/y": b"Y", "workers/w1/z": b"z"})
        assert (await store.read()).records == {"claims/a": b"1", "workers/w1/y": b"Y", "workers/w1/z": b"z"}
        revision = (await store.read()).revision
        await store.register({"workers/w1/y": b"Y", "workers/w1/z": b"z"})
        assert (await store.read()).revision == revision
        await store.register({})
        assert (await store.read()).records == {"claims/a": b"1"}

    async def test_a_watch_starts_with_the_current_records_and_ends_with_the_last_change(self, store: Store) -> None:
        await store.claim({"claims/a": b"1"})
        async with aclosing(watching(store)) as snapshots, asyncio.timeout(10):
            assert (await anext(snapshots)).records == {"claims/a": b"1"}
            waiting = asyncio.ensure_future(anext(snapshots))
            await store.register({"workers/w1/x": b"x"})
            assert (await waiting).records == {"claims/a": b"1", "workers/w1/x": b"x"}
            for number in range(20):
                await store.register({"workers/w1/x": str(number).encode()})
            snapshot = await anext(snapshots)
            revisions = [snapshot.revision]
            while revisions[-1] < (await store.read()).revision:
                snapshot = await anext(snapshots)
                revisions.append(snapshot.revision)
            assert revisions == sorted(set(revisions))
            assert snapshot.records["workers/w1/x"] == b"19"

    async def test_a_watch_names_no_fewer_keys_than_have_changed(self, store: Store) -> None:
        await store.claim({"claims/a": b"1"})
        async with aclosing(watching(store)) as snapshots, asyncio.timeout(10):
            before = await anext(snapshots)
            assert before.changed is None, "there was none before"
            for number in range(20):
                await store.register({"workers/w1/x": str(number).encode(), f"workers/w1/{number % 3}": b""})
            while before.revision < (await store.read()).revision:
                snapshot = await anext(snapshots)
                differ = {k for k, _ in dict(before.records).items() ^ dict(snapshot.records).items()}
                assert snapshot.changed is None or differ <= snapshot.changed
                before = snapshot

    async def test_several_watches_at_a_time(self, store: Store) -> None:
        async with aclosing(watching(store)) as one, aclosing(watching(store)) as two, asyncio.timeout(10):
            await anext(one), await anext(two)
            both = asyncio.gather(anext(one), anext(two))
            await store.claim({"claims/a": b"1"})
            assert [dict(snapshot.records) for snapshot in await both] == [{"claims/a": b"1"}] * 2


async def watching(store: Store) -> AsyncGenerator[StoreSnapshot, None]:
    """`Store.watch` as a generator, which a test can close."""
    async for snapshot in store.watch():
        yield snapshot
