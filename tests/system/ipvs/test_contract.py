"""The data plane contract on real IPVS."""

from collections.abc import AsyncIterator
from ipaddress import ip_network

import pytest
from typing_extensions import override

from mesh.dataplane import DataPlane
from mesh.dataplane.ipvs.plane import IpvsDataPlane
from mesh.host.vip_interface import MeshInterface
from mesh.model.service import Address
from mesh.model.table import RealKey, VirtualKey
from tests.dataplane.contract import Connection, TrafficContract
from tests.system.ipvs.lab import Client, Lab, Servers, ask_tcp, ask_udp


@pytest.mark.ipvs
@pytest.mark.timeout(180)
class TestIpvs(TrafficContract):
    """Across namespaces: the client, the worker, the real servers."""

    lab: Lab
    servers: Servers

    @pytest.fixture
    async def plane(self, lab: Lab) -> AsyncIterator[DataPlane]:
        interface = MeshInterface()
        plane = IpvsDataPlane(ip_network("10.112.0.0/16"), interface)
        async with Servers(lab) as servers:
            self.lab, self.servers = lab, servers
            yield plane
        await plane.close()
        await interface.close()

    @override
    def vip(self, number: int) -> Address:
        return f"10.112.0.{number}"

    @override
    async def real_server(self, name: str) -> RealKey:
        return await self.servers.start(name)

    @override
    async def ask_tcp(self, key: VirtualKey) -> str | None:
        try:
            return await ask_tcp(self.lab, key)
        except ConnectionRefusedError:
            return None

    @override
    async def open_tcp(self, key: VirtualKey) -> Connection:
        client = Client(self.lab)
        await client.connect(key)
        return client

    @override
    async def ask_udp(self, key: VirtualKey) -> str | None:
        return await ask_udp(self.lab, key)
