"""The addresses of the worker, in a network namespace of its own."""

import asyncio
from collections.abc import Iterator
from contextlib import aclosing

import pytest

from mesh.host.addresses import watch_network_changes, worker_addresses
from mesh.host.vip_interface import MeshInterface
from tests.netns import private_network, run_ip


@pytest.fixture(autouse=True)
def _network() -> Iterator[None]:
    with private_network():
        yield


async def test_loopback_link_local_and_vip_addresses_are_left_out() -> None:
    run_ip("link add v0 type veth peer name v1", "link set v0 up", "link set v1 up")
    run_ip("address add 192.0.2.1/24 dev v0", "address add 169.254.3.4/16 dev v0", "address add 2001:db8::1/64 dev v0")
    interface = MeshInterface()
    await interface.bind("10.112.0.7")
    try:
        assert await worker_addresses() == {"192.0.2.1", "2001:db8::1"}
        assert await worker_addresses(own_interface="v0") == {"10.112.0.7"}
    finally:
        await interface.close()


async def test_changes_are_reported_and_a_burst_is_coalesced() -> None:
    run_ip("link add v0 type veth peer name v1", "link set v0 up", "link set v1 up")
    async with aclosing(watch_network_changes()) as told, asyncio.timeout(20):
        await anext(told)
        for number in (1, 2, 3):
            waiting = asyncio.ensure_future(anext(told))
            run_ip(f"address add 192.0.2.{number}/24 dev v0")
            await waiting
            assert f"192.0.2.{number}" in await worker_addresses()
        times = 0
        run_ip(*(f"address add 198.51.100.{number}/32 dev v0" for number in range(1, 201)))
        waiting = asyncio.ensure_future(anext(told))
        while True:
            done, _ = await asyncio.wait([waiting], timeout=0.5 if times else None)
            if not done:
                break
            times += 1
            waiting = asyncio.ensure_future(anext(told))
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        assert 1 <= times < 20
        assert len(await worker_addresses()) == 203
