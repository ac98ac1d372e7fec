"""Asking other name servers on behalf of a client.

A query goes out as it came, over the transport it came by, with an ID and a source port of our own (RFC 5452): an
upstream that truncates tells the client so, who then comes back over TCP. A timeout, SERVFAIL or REFUSED moves on to
the next upstream; NXDOMAIN is an answer. All of it ends before a client's own patience of 5 s does. Identical
questions under way share one exchange, and beyond a bound new ones fail at once: an upstream that hangs must not take
the server's memory with it.
"""

import asyncio
import ipaddress
import secrets
import struct
from collections.abc import Sequence

from meshdns.answer import Rcode, failure, parse

TRY = 1.5
"""Seconds that one upstream gets."""
BUDGET = 4.5
"""Seconds for all tries together."""
OUTSTANDING = 512
"""Questions under way at a time."""


class Forwarder:
    """Resolves what is not ours. Without upstreams it refuses."""

    def __init__(
        self,
        upstreams: Sequence[tuple[str, int]],
        *,
        timeout: float = TRY,
        budget: float = BUDGET,
        outstanding: int = OUTSTANDING,
    ) -> None:
        self._upstreams = tuple(upstreams)
        self._timeout = timeout
        self._budget = budget
        self._outstanding = outstanding
        self._under_way: dict[tuple[bytes, bool], asyncio.Task[bytes]] = {}

    async def resolve(self, packet: bytes, *, tcp: bool = False) -> bytes:
        """The upstream's answer under the client's ID; SERVFAIL if none answers, REFUSED if there is nobody to ask."""
        if not self._upstreams:
            return failure(packet, Rcode.REFUSED)
        key = (packet[2:], tcp)
        exchange = self._under_way.get(key)
        if exchange is None:
            if len(self._under_way) >= self._outstanding:
                return failure(packet, Rcode.SERVFAIL)
            exchange = asyncio.get_running_loop().create_task(self._ask_all(packet, tcp), name="forward")
            self._under_way[key] = exchange
            exchange.add_done_callback(lambda _: self._under_way.pop(key))
        # A client that goes away must not take the answer from those who asked the same.
        return packet[:2] + (await asyncio.shield(exchange))[2:]

    async def close(self) -> None:
        """End what is under way."""
        exchanges = list(self._under_way.values())
        for exchange in exchanges:
            exchange.cancel()
        await asyncio.gather(*exchanges, return_exceptions=True)

    async def _ask_all(self, packet: bytes, tcp: bool) -> bytes:
        """Each upstream in turn, twice at most; one that says SERVFAIL or REFUSED is believed when all others did."""
        last = failure(packet, Rcode.SERVFAIL)
        try:
            async with asyncio.timeout(self._budget):
                for number, upstream in enumerate(self._upstreams * 2, start=1):
                    try:
                        async with asyncio.timeout(self._timeout):
                            last = await (_ask_tcp if tcp else _ask_udp)(packet, upstream)
                    except (OSError, EOFError):
                        continue  # timeouts too: the next upstream, or the end of the budget
                    if last[3] & 0xF not in (Rcode.SERVFAIL, Rcode.REFUSED) or number >= len(self._upstreams):
                        break
        except TimeoutError:
            pass  # the budget is used up: what the last upstream said, or SERVFAIL
        return last


def upstreams_from_resolv_conf(text: str, exclude: Sequence[tuple[str, int]] = ()) -> tuple[tuple[str, int], ...]:
    """The name servers of a resolv.conf(5), port 53, without our own addresses: to ask oneself is a loop."""
    found = []
    for line in text.splitlines():
        words = line.split()
        if len(words) < 2 or words[0] != "nameserver":
            continue
        host, _, scope = words[1].partition("%")
        try:
            upstream = (str(ipaddress.ip_address(host)) + (f"%{scope}" if scope else ""), 53)
        except ValueError:
            continue  # a line that the C library ignores as well
        if upstream not in exclude:
            found.append(upstream)
    return tuple(dict.fromkeys(found))


def _fits(reply: bytes, packet: bytes) -> bool:
    """Whether a reply is one to this packet: same ID, an answer, same question (RFC 5452, section 4)."""
    query = parse(packet)
    return (
        query is not None
        and len(reply) >= 12
        and reply[:2] == packet[:2]
        and bool(reply[2] & 0x80)
        and reply[4:6] == b"\0\1"
        and reply[12 : 12 + len(query.question)].lower() == query.question.lower()
    )


async def _ask_udp(packet: bytes, upstream: tuple[str, int]) -> bytes:
    """One exchange from a fresh source port. Raises OSError."""
    question = secrets.token_bytes(2) + packet[2:]
    loop = asyncio.get_running_loop()
    transport, exchange = await loop.create_datagram_endpoint(lambda: _Exchange(question), remote_addr=upstream)
    try:
        transport.sendto(question)
        return await exchange.reply
    finally:
        transport.close()


class _Exchange(asyncio.DatagramProtocol):
    """Waits for the one reply that fits; anything else that arrives is passed over."""

    def __init__(self, question: bytes) -> None:
        self._question = question
        self.reply: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()

    def datagram_received(self, data: bytes, addr: object) -> None:
        if not self.reply.done() and _fits(data, self._question):
            self.reply.set_result(data)

    def error_received(self, exc: Exception) -> None:
        if not self.reply.done():
            self.reply.set_exception(exc)


async def _ask_tcp(packet: bytes, upstream: tuple[str, int]) -> bytes:
    """One exchange over a connection of its own. Raises OSError or EOFError."""
    question = secrets.token_bytes(2) + packet[2:]
    reader, writer = await asyncio.open_connection(*upstream)
    try:
        writer.write(struct.pack("!H", len(question)) + question)
        (length,) = struct.unpack("!H", await reader.readexactly(2))
        reply = await reader.readexactly(length)
    finally:
        writer.transport.abort()  # nothing is left to say, and no TIME_WAIT behind
    if not _fits(reply, question):
        raise OSError(f"{upstream[0]} answered another question")
    return reply
