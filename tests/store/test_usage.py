"""The usage of a single worker, in its process."""

import pytest

from mesh.store.usage import USAGE_LIFETIME, LocalUsageStore
from tests.store.usage_contract import UsageStoreContract


class TestLocalUsageStore(UsageStoreContract):
    @pytest.fixture
    def store(self) -> LocalUsageStore:
        return LocalUsageStore(lambda: 0.0)


async def test_a_value_that_is_not_written_again_is_gone() -> None:
    now = [0.0]
    store = LocalUsageStore(lambda: now[0])
    await store.write("usage/w1", b"1")
    now[0] = USAGE_LIFETIME - 1.0
    await store.write("usage/w2", b"2")
    assert (await store.read()).keys() == {"usage/w1", "usage/w2"}
    now[0] = USAGE_LIFETIME
    assert await store.read() == {"usage/w2": b"2"}
    await store.close()
    assert await store.read() == {}
