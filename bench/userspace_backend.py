"""A real server for the bench: PORT. A line `N` is answered with N bytes; an empty one is answered with one."""

import asyncio
import sys
from typing import cast

import uvloop
from typing_extensions import override


class Backend(asyncio.Protocol):
    """One connection."""

    @override
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Accepted."""
        self._transport = cast(asyncio.Transport, transport)

    @override
    def data_received(self, data: bytes) -> None:
        """One line."""
        self._transport.write(bytes(int(data.strip() or b"1")))


async def serve(port: int) -> None:
    """Until the process is ended."""
    await asyncio.get_running_loop().create_server(Backend, "127.0.0.1", port, backlog=1024)
    await asyncio.get_running_loop().create_future()


if __name__ == "__main__":
    uvloop.run(serve(int(sys.argv[1])))
