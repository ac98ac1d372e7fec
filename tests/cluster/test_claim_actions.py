"""What operators do with claims: listing, freeing, moving."""

from collections.abc import Mapping

import pytest
from typing_extensions import override

from mesh.cluster.claim_actions import ClaimActions
from mesh.cluster.claim_rows import ClaimRow
from mesh.cluster.records.decode import moved_from
from mesh.cluster.records.encode import (
    build_view,
    encode_name_claim,
    encode_port_claim,
    encode_registration,
    encode_service_claim,
    encode_vip_claim,
)
from mesh.model.claims import Claims
from mesh.model.errors import ActionRefusedError
from mesh.model.service import PortPublication, Transport
from mesh.testing.store import MemoryCluster, MemoryStore
from tests.builders import service

WEB = service("web.test", owner="shop/web", publishes=(PortPublication(80, Transport.TCP, 8080),))
RECORDS = {
    **encode_name_claim("web.test", "shop/web"),
    **encode_service_claim("web.test", "10.112.0.9"),
    **encode_vip_claim("10.112.0.9", "web.test"),
    **encode_port_claim(Transport.TCP, 8080, "web.test", 80),
    **encode_name_claim("old.test", "shop/old"),
    **encode_service_claim("old.test", "10.112.0.7"),
    **encode_vip_claim("10.112.0.7", "old.test"),
    **encode_vip_claim("10.112.0.8", "web.test"),
    **encode_port_claim(Transport.UDP, 53, "old.test", 53),
    **encode_registration("w1", [WEB], []),
    "claims/clock": b'{"seconds":5000}',
    "claims/idle/names/old.test": b'{"since":1400,"holder":"shop/old"}',
    "claims/idle/ports/udp/53": b'{"since":0,"holder":"another:53"}',
}


class RacingStore(MemoryStore):
    """A store in which another worker changes the claim each time it was read, so many times."""

    def __init__(self, cluster: MemoryCluster, races: int) -> None:
        super().__init__(cluster, "w1")
        self.races = races

    @override
    async def change(self, before: Mapping[str, bytes | None], after: Mapping[str, bytes | None]) -> bool:
        if self.races:
            self.races -= 1
            return await super().change({**before, "claims/names/web.test": b"other"}, after)
        return await super().change(before, after)


@pytest.fixture
def cluster() -> MemoryCluster:
    cluster = MemoryCluster()
    cluster.write(RECORDS)
    return cluster


def claims(cluster: MemoryCluster) -> Claims:
    return build_view(cluster.records)[0].claims


async def test_all_claims_are_listed_with_holders_and_whether_they_are_used(cluster: MemoryCluster) -> None:
    assert await ClaimActions(MemoryStore(cluster, "w1")).list() == (
        ClaimRow("name", "old.test", "shop/old", used=False, unused_seconds=3600),
        ClaimRow("name", "web.test", "shop/web", used=True, unused_seconds=None),
        ClaimRow("port", "tcp/8080", "web.test", used=True, unused_seconds=None),
        ClaimRow("port", "udp/53", "old.test", used=False, unused_seconds=None),
        ClaimRow("vip", "10.112.0.7", "old.test", used=False, unused_seconds=3600),
        ClaimRow("vip", "10.112.0.8", "web.test", used=False, unused_seconds=None),
        ClaimRow("vip", "10.112.0.9", "web.test", used=True, unused_seconds=None),
    )


@pytest.mark.parametrize(
    ("claim", "listed", "gone"),
    [
        ("old.test", "old.test", {"claims/names/old.test", "claims/idle/names/old.test"}),
        ("OLD.test.", "old.test", {"claims/names/old.test", "claims/idle/names/old.test"}),
        ("udp/53", "udp/53", {"claims/ports/udp/53", "claims/idle/ports/udp/53"}),
        ("10.112.0.7", "10.112.0.7", {"claims/vips/10.112.0.7", "claims/services/old.test"}),
        ("10.112.0.8", "10.112.0.8", {"claims/vips/10.112.0.8"}),
    ],
)
async def test_what_nobody_declares_is_freed(cluster: MemoryCluster, claim: str, listed: str, gone: set[str]) -> None:
    assert await ClaimActions(MemoryStore(cluster, "w1")).free(claim) == listed
    assert cluster.records == {key: value for key, value in RECORDS.items() if key not in gone}


@pytest.mark.parametrize(
    "claim", ["web.test", "tcp/8080", "10.112.0.9", "none.test", "tcp/1", "10.0.0.1", "", "\0", "/"]
)
async def test_what_is_declared_or_not_there_is_refused(cluster: MemoryCluster, claim: str) -> None:
    with pytest.raises(ActionRefusedError, match=r"which declares it|there is no claim"):
        await ClaimActions(MemoryStore(cluster, "w1")).free(claim)
    assert cluster.records == RECORDS


@pytest.mark.parametrize(("name", "holder"), [("web.test", "shop/web"), ("old.test", "shop/old")])
async def test_a_name_moves_and_its_record_says_from_whom(cluster: MemoryCluster, name: str, holder: str) -> None:
    actions = ClaimActions(MemoryStore(cluster, "w1"))
    assert await actions.move(name, "shop2/web") == name
    assert claims(cluster).owners[name] == "shop2/web"
    assert moved_from(cluster.records[f"claims/names/{name}"]) == holder
    before = cluster.records
    assert await actions.move(name, "shop2/web") == name
    assert cluster.records == before, "a repeated request changes nothing"


@pytest.mark.parametrize(
    ("name", "owner"),
    [("none.test", "shop/web"), ("web.test", ""), ("web.test", "web"), ("web.test", "/web"), ("web.test", "shop/"),
     ("web.test", "shop/\n"), ("web.test", "x/" * 600), ("", "shop/web")],
)  # fmt: skip
async def test_an_unknown_name_or_an_owner_that_cannot_be_is_refused(
    cluster: MemoryCluster, name: str, owner: str
) -> None:
    with pytest.raises(ActionRefusedError, match=r"; (write|list)"):
        await ClaimActions(MemoryStore(cluster, "w1")).move(name, owner)
    assert cluster.records == RECORDS


async def test_a_race_is_run_again_and_given_up_at_last(cluster: MemoryCluster) -> None:
    assert await ClaimActions(RacingStore(cluster, 2)).move("web.test", "shop2/web") == "web.test"
    with pytest.raises(ActionRefusedError, match="try again"):
        await ClaimActions(RacingStore(cluster, 99)).move("web.test", "shop3/web")


async def test_a_store_that_is_away_refuses(cluster: MemoryCluster) -> None:
    cluster.out_of_reach = True
    for action in (
        ClaimActions(MemoryStore(cluster, "w1")).list(),
        ClaimActions(MemoryStore(cluster, "w1")).free("old.test"),
        ClaimActions(MemoryStore(cluster, "w1")).move("old.test", "a/b"),
    ):
        with pytest.raises(ActionRefusedError, match="out of reach"):
            await action
