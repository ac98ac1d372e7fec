"""How long a silent member is used, and that a member without a quorum ends its watches."""

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest

from mesh.store.etcd import EtcdClient
from mesh.store.etcd.errors import EtcdUnreachableError
from mesh.store.etcd.messages import RangeResponse
from mesh.store.etcd.watch import WatchStream
from tests.store.etcd.server import EtcdServer, SteeredEtcdClient, etcd


@pytest.fixture
def three(tmp_path: Path) -> Iterator[EtcdServer]:
    with etcd(tmp_path, 3) as server:
        yield server


async def test_a_member_without_its_quorum_ends_the_watch(three: EtcdServer) -> None:
    """Nobody asks it anything else: it says so by itself, since the watch wants a leader."""
    follower = next(member for member in three.members if member is not three.leader())
    gateway = EtcdClient((follower.url,))
    try:
        async with gateway.stream({"create_request": {"key": b"x"}}) as stream:
            (created,) = await anext(stream)
            assert created.created
            for member in three.members:
                if member is not follower:
                    member.kill()
            async with asyncio.timeout(15):
                with pytest.raises(EtcdUnreachableError, match=r"ended the watch|no leader"):
                    await exhausted(stream)
    finally:
        await gateway.close()


async def exhausted(stream: WatchStream) -> None:
    async for _ in stream:
        pass


async def asked_until_it_answers(gateway: SteeredEtcdClient, member: int, url: str) -> None:
    """A member that stood still has to find its leader again, and is left until then."""
    async with asyncio.timeout(20):
        while True:
            gateway.ask_first(member)
            await gateway.call("kv/range", {"key": b"x"}, RangeResponse)
            if gateway.member == url:
                return


async def test_a_frozen_member_is_abandoned_after_a_second_and_a_half(three: EtcdServer) -> None:
    """Longer than an election with etcd's own settings, and short: it is the pause when a leader's host dies."""
    gateway = SteeredEtcdClient(three.urls)
    follower = next(member for member in three.members if member is not three.leader())
    frozen = three.members.index(follower)
    try:
        for asked_before in (False, True):
            if asked_before:
                await asked_until_it_answers(gateway, frozen, follower.url)
            gateway.ask_first(frozen)
            follower.freeze()
            try:
                begun = asyncio.get_running_loop().time()
                await gateway.call("kv/range", {"key": b"x"}, RangeResponse)
                took = asyncio.get_running_loop().time() - begun
            finally:
                follower.thaw()
            assert 1.4 < took < 3, "one timeout, not two"
            assert gateway.member != follower.url
    finally:
        await gateway.close()
