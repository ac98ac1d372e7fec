"""Questions over TCP: several on one connection, answered as soon as each answer is known (RFC 7766).

A connection that is idle, or whose client does not read, is closed after a while; beyond a number of connections the
new one is closed at once, so that nobody can use them up for long.
"""

import asyncio
import struct
from collections.abc import Awaitable, Callable

from meshdns.answer import Forward

IDLE = 10.0
"""Seconds without a question after which a connection is closed (RFC 7766, section 6.2.3)."""
CONNECTIONS = 256
PIPELINED = 32
"""Forwarded questions of one connection that are under way; the next one waits in the socket."""


class TcpServer:
    """One listening address. `answer` and `forward` are as for UDP, except that `forward` is awaited."""

    def __init__(
        self,
        answer: Callable[[bytes, str], bytes | Forward | None],
        forward: Callable[[Forward], Awaitable[bytes]],
        *,
        idle: float = IDLE,
        connections: int = CONNECTIONS,
    ) -> None:
        self._answer = answer
        self._forward = forward
        self._idle = idle
        self._connections = connections
        self._serving: set[asyncio.Task[None]] = set()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One connection, until its client is done or was idle for too long. Callback of `asyncio.start_server`."""
        task = asyncio.current_task()
        assert task is not None
        if len(self._serving) >= self._connections:
            writer.transport.abort()
            return
        self._serving.add(task)
        try:
            host = str(writer.get_extra_info("peername")[0])
            async with asyncio.TaskGroup() as pending:
                await self._converse(reader, writer, host, pending)
        except* (OSError, EOFError):
            pass  # the client went away, or was idle: nothing to answer
        finally:
            self._serving.discard(task)
            writer.close()

    async def stop(self) -> None:
        """End all connections."""
        serving = list(self._serving)
        for task in serving:
            task.cancel()
        await asyncio.gather(*serving, return_exceptions=True)

    async def _converse(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, host: str, pending: asyncio.TaskGroup
    ) -> None:
        room = asyncio.Semaphore(PIPELINED)

        async def forwarded(question: Forward) -> None:
            try:
                await self._send(writer, await self._forward(question))
            finally:
                room.release()

        while True:
            async with asyncio.timeout(self._idle):
                (length,) = struct.unpack("!H", await reader.readexactly(2))
                packet = await reader.readexactly(length)
            said = self._answer(packet, host)
            if isinstance(said, Forward):
                await room.acquire()
                pending.create_task(forwarded(said), name="dns forward")
            elif said is not None:
                await self._send(writer, said)

    async def _send(self, writer: asyncio.StreamWriter, reply: bytes) -> None:
        # Length and body in one write: some clients take the first segment for all of it.
        writer.write(struct.pack("!H", len(reply)) + reply)
        async with asyncio.timeout(self._idle):
            await writer.drain()
