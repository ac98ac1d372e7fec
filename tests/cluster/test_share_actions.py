"""What operators do with the shares of releases: giving them, and taking them back."""

from collections.abc import Mapping
from dataclasses import replace

import pytest
from typing_extensions import override

from mesh.cluster.records.encode import build_view, encode_name_claim, encode_registration, encode_shares
from mesh.cluster.share_actions import ShareActions, planned_shares
from mesh.model.codes import Code
from mesh.model.errors import ActionRefusedError
from mesh.model.release_shares import ReleaseShares
from mesh.model.service import Scheduler
from mesh.testing.store import MemoryCluster, MemoryStore
from tests.builders import endpoint, service

WEB = service("web.test", owner="shop/web")
OTHER = service("other.test", owner="blog/web")
RECORDS = {
    **encode_name_claim("web.test", WEB.owner),
    **encode_registration("w1", [WEB, OTHER], [endpoint("a", owner=WEB.owner, release="v1")]),
    **encode_registration("w2", [WEB], [endpoint("b", "w2", owner=WEB.owner, address="10.2.0.2", release="v2")]),
}


@pytest.fixture
def cluster() -> MemoryCluster:
    cluster = MemoryCluster()
    cluster.write(RECORDS)
    return cluster


def given(cluster: MemoryCluster) -> Mapping[str, ReleaseShares]:
    return build_view(cluster.records)[0].shares


@pytest.mark.parametrize("called", ["shop/web", "web.test", "Web.Test."])
async def test_shares_are_given_and_taken_back(cluster: MemoryCluster, called: str) -> None:
    actions = ShareActions(MemoryStore(cluster, "w1"))
    now = await actions.give(called, {"v2": 1000}, "anna")
    assert given(cluster) == {"shop/web": now}
    assert now == ReleaseShares("shop/web", {"v2": 1000}, ("v1", "v2"), "anna")
    assert (await actions.give(called, {"v1": 5000}, "bert")).given == {"v1": 5000}, "in place of those before"
    revision = cluster.revision
    await actions.give(called, {"v1": 5000}, "bert")
    assert given(cluster)["shop/web"].by == "bert"
    assert cluster.revision >= revision
    assert await actions.reset(called) == ReleaseShares("shop/web")
    assert not given(cluster)
    assert await actions.reset(called) == ReleaseShares("shop/web"), "once more is no harm"


async def test_the_shares_of_a_service_that_is_gone_can_be_taken_back(cluster: MemoryCluster) -> None:
    cluster.write(encode_shares(ReleaseShares("shop/gone", {"v2": 1000}, ("v1", "v2"))))
    await ShareActions(MemoryStore(cluster, "w1")).reset("shop/gone")
    assert not given(cluster)


@pytest.mark.parametrize(
    ("called", "shares", "message"),
    [
        ("web", {"v2": 1}, "several services are called 'web'; write one of blog/web, shop/web"),
        ("none", {"v2": 1}, "there is no service 'none'; write one that `vipmesh status` shows"),
        ("shop/web", {}, "no share is given; type `vipmesh rollout share shop/web RELEASE=PERCENT`"),
        ("shop/web", {"v3": 1}, "shop/web has no release 'v3'; write one of v1, v2, or start it first"),
        ("shop/web", {"v1": 9000, "v2": 2000}, "the shares are 110 % together; write 80 % for v1, or leave one out"),
        ("shop/web", {"v2": 10_001}, "less than 0 or more than 100 per cent; write v2=10"),
        ("shop/web", {"v1": 0, "v2": 0}, "every release of shop/web would have 0 %; leave one out"),
        ("blog/web", {"v2": 1}, "no endpoint of blog/web names a release; set the label routing.release"),
    ],
)
async def test_what_cannot_be_is_refused_and_changes_nothing(
    cluster: MemoryCluster, called: str, shares: Mapping[str, int], message: str
) -> None:
    with pytest.raises(ActionRefusedError) as refused:
        await ShareActions(MemoryStore(cluster, "w1")).give(called, shares, "anna")
    assert message in str(refused.value)
    assert refused.value.code is Code.SHARES_REFUSED
    assert cluster.records == RECORDS


def test_one_release_has_everything() -> None:
    with pytest.raises(ActionRefusedError, match="one release, v1, which gets everything; start the other"):
        planned_shares(WEB, frozenset({"v1"}), {"v1": 10}, "anna")
    assert planned_shares(WEB, frozenset({"v1", ""}), {"v1": 10}, "anna").among == ("", "v1")


@pytest.mark.parametrize(("scheduler", "better"), [(Scheduler.RR, "wrr"), (Scheduler.LC, "wlc")])
def test_a_scheduler_that_ignores_weights_has_no_shares(scheduler: Scheduler, better: str) -> None:
    with pytest.raises(ActionRefusedError, match=f"set the label routing.scheduler to {better}") as refused:
        planned_shares(replace(WEB, scheduler=scheduler), frozenset({"v1", "v2"}), {"v1": 10}, "anna")
    assert refused.value.code is Code.SHARES_WITHOUT_WEIGHTS


class RacingStore(MemoryStore):
    """A store in which another operator changes the shares each time they were read, so many times."""

    def __init__(self, cluster: MemoryCluster, races: int) -> None:
        super().__init__(cluster, "w1")
        self.races = races

    @override
    async def change(self, before: Mapping[str, bytes | None], after: Mapping[str, bytes | None]) -> bool:
        if self.races:
            self.races -= 1
            return False
        return await super().change(before, after)


async def test_an_action_is_repeated_if_somebody_was_faster(cluster: MemoryCluster) -> None:
    assert (await ShareActions(RacingStore(cluster, 2)).give("shop/web", {"v2": 1}, "anna")).given == {"v2": 1}
    with pytest.raises(ActionRefusedError, match="others keep changing the shares of 'shop/web'; try again"):
        await ShareActions(RacingStore(cluster, 99)).give("shop/web", {"v2": 1}, "anna")
    with pytest.raises(ActionRefusedError, match="try again"):
        await ShareActions(RacingStore(cluster, 99)).reset("shop/web")
