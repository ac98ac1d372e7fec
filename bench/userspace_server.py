"""The user-space data plane alone, for the bench: LISTEN_ADDRESS LISTEN_PORT, then the ports of real servers."""

import asyncio
import sys

import uvloop

from mesh.dataplane.diff import diff_tables
from mesh.dataplane.userspace import UserspaceDataPlane
from mesh.host.vip_interface import LoopbackAddresses
from mesh.model.service import Transport
from mesh.model.table import RealKey, RealServer, Table, VirtualKey, VirtualServer


async def serve(address: str, port: int, reals: list[int]) -> None:
    """Until the process is ended."""
    key = VirtualKey(address, port, Transport.TCP)
    server = VirtualServer(real_servers={RealKey("127.0.0.1", real): RealServer(1) for real in reals})
    plane = UserspaceDataPlane(LoopbackAddresses())
    failures = await plane.apply(diff_tables(Table(), Table({key: server}, frozenset([address]))))
    if failures:
        sys.exit(str(failures))
    await asyncio.get_running_loop().create_future()


if __name__ == "__main__":
    uvloop.run(serve(sys.argv[1], int(sys.argv[2]), [int(port) for port in sys.argv[3:]]))
