"""Questions over UDP: one socket per address, so that an answer leaves from the address that was asked."""

import asyncio
from collections.abc import Callable
from typing import Any, TypeAlias, cast

from meshdns.answer import Forward

Peer: TypeAlias = tuple[Any, ...]
"""A socket address as asyncio gives it: host and port first."""


class UdpServer(asyncio.DatagramProtocol):
    """Answers what `answer` can at once; hands the rest to `forward` together with the way back."""

    def __init__(
        self,
        answer: Callable[[bytes, str], bytes | Forward | None],
        forward: Callable[[Forward, Callable[[bytes], None]], None],
    ) -> None:
        self._answer = answer
        self._forward = forward
        self._transport: asyncio.DatagramTransport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """The socket is bound."""
        self._transport = cast(asyncio.DatagramTransport, transport)

    def datagram_received(self, data: bytes, addr: Peer) -> None:
        """One question."""
        said = self._answer(data, addr[0])
        if isinstance(said, Forward):
            self._forward(said, lambda reply: self._send(reply, addr))
        elif said is not None:
            self._send(said, addr)

    def error_received(self, exc: Exception) -> None:
        """A client that has gone away (ICMP port unreachable) is no trouble of ours: it asks again or it does not."""

    def _send(self, reply: bytes, peer: Peer) -> None:
        if self._transport is not None and not self._transport.is_closing():
            self._transport.sendto(reply, peer)
