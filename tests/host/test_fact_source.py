"""What the control loop may rely on of the facts of the host: the same of the kernel and of the fake."""

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import aclosing
from dataclasses import replace
from ipaddress import ip_interface, ip_network

import pytest
from typing_extensions import override

from mesh.control.ports import HostFactSource
from mesh.host.fact_reader import HostFactReader
from mesh.host.facts import HostFacts
from mesh.host.overlap import HostAddress, HostRoute
from mesh.testing.host import FakeHostFacts
from tests.netns import private_network, run_ip

POOL = ip_network("10.112.0.0/16")


class FactSourceContract(ABC):
    """A source of facts, and a host to which a network is added."""

    @abstractmethod
    def source(self) -> HostFactSource:
        """The source, of a host without networks."""

    @abstractmethod
    def add_network(self, source: HostFactSource) -> None:
        """Give the host 10.112.3.1/24 on br-1."""

    async def test_a_change_is_announced_and_then_read(self) -> None:
        source = self.source()
        async with aclosing(source.changes()) as changes, asyncio.timeout(30):
            await anext(changes)
            assert (await source.read()).overlaps(POOL, "mesh0") == []
            self.add_network(source)
            found: list[str] = []
            while len(found) < 2:  # a change may be announced in several steps
                await anext(changes)
                found = [str(overlap) for overlap in (await source.read()).overlaps(POOL, "mesh0")]
        assert found == ["address 10.112.3.1/24 dev br-1", "route 10.112.3.0/24 dev br-1"]

    async def test_the_engine_is_left_to_others(self) -> None:
        assert (await self.source().read()).engine is None


class TestKernel(FactSourceContract):
    """A network namespace; without a change it would be read once in ten minutes."""

    @pytest.fixture(autouse=True)
    def network(self) -> Iterator[None]:
        with private_network():
            yield

    @override
    def source(self) -> HostFactSource:
        return HostFactReader(POOL, interval=600)

    @override
    def add_network(self, source: HostFactSource) -> None:
        run_ip("link add br-1 type bridge", "link set br-1 up", "address add 10.112.3.1/24 dev br-1")


class TestFake(FactSourceContract):
    """The fake of the tests."""

    @override
    def source(self) -> HostFactSource:
        return FakeHostFacts()

    @override
    def add_network(self, source: HostFactSource) -> None:
        assert isinstance(source, FakeHostFacts)
        facts = replace(HostFacts(), routes=(HostRoute(ip_network("10.112.3.0/24"), "br-1"),))
        source.are(replace(facts, addresses=(HostAddress(ip_interface("10.112.3.1/24"), "br-1"),)))
