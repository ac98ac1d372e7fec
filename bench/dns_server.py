"""The name server alone, for the bench: PORT NAMES [swap], answering nNNN.bench.test.

With `swap` every name gets another address once a second.
"""

import asyncio
import sys

import uvloop
from dns_peers import address

from mesh.util.offload import shorten_thread_switches
from meshdns.server import NameServer
from meshdns.service_records import DnsService
from meshdns.thread import ThreadedServer
from meshdns.zone import ZoneBuilder


async def serve(port: int, names: int, *, swap: bool) -> None:
    """Until the process is ended."""
    draft = ZoneBuilder(["bench.test"])

    def services(turn: int) -> dict[str, DnsService]:
        return {f"n{n}.bench.test": DnsService((address(n + turn),)) for n in range(names)}

    zone, _ = draft.update(services(0))
    server = ThreadedServer(lambda: NameServer([("127.0.0.1", port)], zone))
    await server.start()
    turn = 0
    while True:
        await asyncio.sleep(1 if swap else 3600)
        turn += 1
        server.replace(*draft.update(services(turn)))


if __name__ == "__main__":
    shorten_thread_switches()
    uvloop.run(serve(int(sys.argv[1]), int(sys.argv[2]), swap=sys.argv[3:] == ["swap"]))
