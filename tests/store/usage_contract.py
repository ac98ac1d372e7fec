"""What every store of usage records must do; each subclasses it with a fixture `store` (fresh and empty)."""

from mesh.store.usage import UsageStore


class UsageStoreContract:
    """One worker's view of the store of usage."""

    async def test_a_new_store_is_empty(self, store: UsageStore) -> None:
        assert await store.read() == {}

    async def test_a_value_is_read_until_another_one_takes_its_place(self, store: UsageStore) -> None:
        await store.write("usage/w1", b"1")
        assert await store.read() == {"usage/w1": b"1"}
        for turn in range(5):
            await store.write("usage/w1", str(turn).encode())
        assert await store.read() == {"usage/w1": b"4"}

    async def test_values_of_several_workers_are_read_together(self, store: UsageStore) -> None:
        written = {f"usage/w{number}": b"x" * 1000 for number in range(450)}
        for key, value in written.items():
            await store.write(key, value)
        assert await store.read() == written
