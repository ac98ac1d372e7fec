"""The name server as a forwarder, for the bench: PORT UPSTREAM-PORT."""

import asyncio
import sys

import uvloop

from mesh.util.offload import shorten_thread_switches
from meshdns.forwarder import Forwarder
from meshdns.server import NameServer
from meshdns.zone import Zone


async def serve(port: int, upstream: int) -> None:
    """Until the process is ended."""
    zone = Zone.build({"web.mesh.internal": ["10.112.0.1"]}, ["mesh.internal"])
    await NameServer([("127.0.0.1", port)], zone, Forwarder([("127.0.0.1", upstream)])).start()
    await asyncio.get_running_loop().create_future()


if __name__ == "__main__":
    shorten_thread_switches()
    uvloop.run(serve(int(sys.argv[1]), int(sys.argv[2])))
