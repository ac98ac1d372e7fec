"""The name server alone, for the bench: PORT NAMES, answering nNNN.bench.test."""

import asyncio
import sys

import uvloop
from dns_peers import address

from meshdns.server import NameServer
from meshdns.zone import Zone


async def serve(port: int, names: int) -> None:
    """Until the process is ended."""
    zone = Zone.build({f"n{n}.bench.test": [address(n)] for n in range(names)}, ["bench.test"])
    await NameServer([("127.0.0.1", port)], zone).start()
    await asyncio.get_running_loop().create_future()


if __name__ == "__main__":
    if sys.argv[3:] == ["asyncio"]:
        asyncio.run(serve(int(sys.argv[1]), int(sys.argv[2])))
    uvloop.run(serve(int(sys.argv[1]), int(sys.argv[2])))
