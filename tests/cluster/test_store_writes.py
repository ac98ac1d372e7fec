"""Several writers share one condition: the store is reachable when every writer's last write succeeded."""

import pytest

from mesh.cluster.store_writes import StoreWrites
from mesh.control.conditions import LoopConditions
from mesh.model.codes import Code
from mesh.store import StoreError


@pytest.mark.parametrize("first", ["registration", "claims"])
def test_the_store_is_reachable_again_once_both_writers_have_succeeded(first: str) -> None:
    journal = LoopConditions()
    writes = StoreWrites(journal)
    writes.failed("registration", StoreError(Code.STORE_UNREACHABLE, "no leader"))
    writes.failed("claims", StoreError(Code.STORE_UNREACHABLE, "no leader"))
    writes.failed("claims", StoreError(Code.STORE_UNREACHABLE, "no quorum"))
    assert str(journal.frozen["store"]) == "no quorum"
    (second,) = {"registration", "claims"} - {first}
    writes.succeeded(first)
    assert journal.frozen
    writes.succeeded(second)
    assert not journal.frozen
