"""The interface of the VIPs, in a network namespace of its own, checked by `ip`."""

import errno
import json
from collections.abc import AsyncIterator, Iterator

import pytest
import uvloop

from mesh.host.vip_interface import LoopbackAddresses, MeshInterface
from tests.netns import private_network, run_command, run_ip


@pytest.fixture
def network() -> Iterator[None]:
    with private_network():
        yield


@pytest.fixture
async def interface(network: None) -> AsyncIterator[MeshInterface]:
    interface = MeshInterface("mesh0")
    yield interface
    await interface.close()


def seen(name: str = "mesh0") -> set[str]:
    """Global addresses as `ip` shows them."""
    (link,) = json.loads(run_command("ip", "-json", "address", "show", "dev", name))
    return {f"{found['local']}/{found['prefixlen']}" for found in link["addr_info"] if found["scope"] == "global"}


async def test_before_the_first_bind_there_is_no_interface(interface: MeshInterface) -> None:
    assert await interface.addresses() == frozenset()
    await interface.unbind("10.112.0.1")

    assert "mesh0" not in run_command("ip", "link")


async def test_vips_are_added_and_removed_as_host_addresses(interface: MeshInterface) -> None:
    await interface.bind("10.112.0.1")
    await interface.bind("fd00::7")

    assert await interface.addresses() == {"10.112.0.1", "fd00::7"}
    assert seen() == {"10.112.0.1/32", "fd00::7/128"}
    assert "UP" in run_command("ip", "link", "show", "mesh0")

    await interface.unbind("10.112.0.1")

    assert await interface.addresses() == {"fd00::7"}
    assert seen() == {"fd00::7/128"}


async def test_repeated_operations_change_nothing(interface: MeshInterface) -> None:
    for _ in range(2):
        await interface.bind("10.112.0.1")
    assert seen() == {"10.112.0.1/32"}

    for _ in range(2):
        await interface.unbind("10.112.0.1")
    assert seen() == set()


async def test_a_second_process_finds_the_vips_of_the_first(interface: MeshInterface) -> None:
    await interface.bind("10.112.0.1")
    other = MeshInterface("mesh0")

    assert await other.addresses() == {"10.112.0.1"}
    await other.unbind("10.112.0.1")

    assert await interface.addresses() == frozenset()
    await other.close()


async def test_an_interface_set_down_is_set_up_again(interface: MeshInterface) -> None:
    await interface.bind("10.112.0.1")
    run_ip("link set mesh0 down")
    assert await interface.addresses() == frozenset()

    await interface.bind("10.112.0.1")

    assert await interface.addresses() == {"10.112.0.1"}
    assert "10.112.0.1" in run_command("ip", "route", "show", "table", "local")


async def test_an_address_with_another_prefix_length_is_removed_too(interface: MeshInterface) -> None:
    await interface.bind("10.112.0.1")
    run_ip("address add 10.112.0.5/24 dev mesh0")

    await interface.unbind("10.112.0.5")

    assert seen() == {"10.112.0.1/32"}


async def test_a_deleted_interface_is_created_again(interface: MeshInterface) -> None:
    await interface.bind("10.112.0.1")
    run_ip("link delete mesh0")
    assert await interface.addresses() == frozenset()

    await interface.bind("10.112.0.2")

    assert seen() == {"10.112.0.2/32"}


async def test_removing_the_interface_removes_its_addresses(interface: MeshInterface) -> None:
    await interface.bind("10.112.0.1")

    for _ in range(2):
        await interface.remove()

    assert "mesh0" not in run_command("ip", "link")


async def test_a_refusal_of_the_kernel_is_an_os_error(network: None) -> None:
    interface = MeshInterface("no/name")

    with pytest.raises(OSError, match="Invalid argument"):
        await interface.bind("10.112.0.1")
    await interface.close()


def test_it_works_under_uvloop(network: None) -> None:
    async def main() -> frozenset[str]:
        interface = MeshInterface("mesh0")
        await interface.bind("10.112.0.1")
        bound = await interface.addresses()
        await interface.close()
        return bound

    assert uvloop.run(main()) == {"10.112.0.1"}


async def test_loopback_addresses_are_remembered() -> None:
    interface = LoopbackAddresses()
    for _ in range(2):
        await interface.bind("127.112.0.1")
    assert await interface.addresses() == {"127.112.0.1"}

    for _ in range(2):
        await interface.unbind("127.112.0.1")
    assert await interface.addresses() == frozenset()


@pytest.mark.parametrize("address", ["10.112.0.1", "::1", "fd00::7"])
async def test_loopback_refuses_other_addresses(address: str) -> None:
    interface = LoopbackAddresses()

    with pytest.raises(OSError, match=r"outside 127\.0\.0\.0/8: choose a VIP in it") as raised:
        await interface.bind(address)

    assert raised.value.errno == errno.EADDRNOTAVAIL
    assert await interface.addresses() == frozenset()
