"""The name server as a forwarder with all its defences, for the bench: PORT UPSTREAM-PORT."""

import asyncio
import sys
from ipaddress import ip_network

import uvloop

from mesh.util.offload import shorten_thread_switches
from meshdns.forwarder import Forwarder, ForwardLimits
from meshdns.server import NameServer, ServerRates
from meshdns.zone import Zone


async def serve(port: int, upstream: int) -> None:
    """Until the process is ended."""
    zone = Zone.build({"web.mesh.internal": ["10.112.0.1"]}, ["mesh.internal"])
    # The rate is counted, and too high to be reached.
    limits = ForwardLimits(rate=1_000_000, refused=[ip_network("10.112.0.0/16")], refuse_private=True)
    forwarder = Forwarder([("127.0.0.1", upstream)], limits=limits)
    await NameServer([("127.0.0.1", port)], zone, forwarder, rates=ServerRates(refusals=100)).start()
    await asyncio.get_running_loop().create_future()


if __name__ == "__main__":
    shorten_thread_switches()
    uvloop.run(serve(int(sys.argv[1]), int(sys.argv[2])))
