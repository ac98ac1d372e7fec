"""Requests and watches over etcd's JSON gateway, from whichever member serves.

A member that dies with a request in flight never answers it, so the request timeout is the gap that the caller sees: it
is short, and the next member is asked. That the request may have been applied all the same is why every write of the
store is idempotent. A watch says nothing while nothing happens, so its silence proves nothing: the member it hangs on
is trusted only as long as it answers requests, the kernel's keepalives find a dead path, and `hasleader` makes a member
that was cut off from its quorum end the watch.
"""

import asyncio
import random
import socket
import ssl
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from typing import TypeVar

import aiohttp
import msgspec

from mesh.store.etcd import faults
from mesh.store.etcd.faults import RefusedError, UnreachableError
from mesh.store.etcd.wire import Body, Fault, StreamMessage, Token, WatchAnswer, decode, encode

T = TypeVar("T")

REQUEST_TIMEOUT = 1.5
"""Seconds: longer than an election with etcd's own defaults takes, and the longest pause when the leader dies."""
CONNECT_TIMEOUT = 1.0
"""Seconds."""
PATIENCE = 4.0
"""Seconds after which the caller is told that no member serves."""
_LATE = 0.25
"""Seconds. A timeout that comes so late says that this process was busy, and nothing of the member."""
_LONGEST_PAUSE = 0.5
"""Seconds between two rounds over all members: several fit in the shortest lease."""
_KEEPALIVE = {socket.TCP_KEEPIDLE: 2, socket.TCP_KEEPINTVL: 1, socket.TCP_KEEPCNT: 3}  # tcp(7); seconds, times
_HAS_LEADER = {"Grpc-Metadata-hasleader": "true"}


@dataclass(frozen=True, slots=True)
class Credentials:
    """A user of etcd."""

    user: str
    password: str = field(repr=False)


class Stream:
    """One open watch; iterate it for all that has arrived since the last look, in order."""

    def __init__(self, response: aiohttp.ClientResponse) -> None:
        self._response = response
        self._rest = b""

    def __aiter__(self) -> "Stream":
        return self

    async def __anext__(self) -> list[WatchAnswer]:
        """Raises `UnreachableError` when the stream ends, and `RefusedError`."""
        while True:
            with _transport_errors(0):
                arrived = await self._response.content.readany()
            if not arrived:
                raise UnreachableError("ended the watch")
            *lines, self._rest = (self._rest + arrived).split(b"\n")
            if messages := [_message(line) for line in lines if line]:
                return messages


class Gateway:
    """Of one cluster. To be made in the event loop; ended by `close`."""

    def __init__(
        self, members: tuple[str, ...], credentials: Credentials | None = None, tls: ssl.SSLContext | None = None
    ) -> None:
        self._members = members
        self._first = random.randrange(len(members))  # the workers spread over the members
        self._credentials = credentials
        self._token: str | None = None
        self._tls = tls
        self._session = aiohttp.ClientSession(
            timeout=aiohttp.ClientTimeout(total=REQUEST_TIMEOUT, sock_connect=CONNECT_TIMEOUT),
            cookie_jar=aiohttp.DummyCookieJar(),
        )
        self._streams: dict[aiohttp.ClientResponse, str] = {}

    @property
    def member(self) -> str:
        """Who is asked now."""
        return self._members[self._first]

    async def call(self, path: str, body: Body, type_: type[T], within: float = PATIENCE) -> T:
        """Ask, member after member, for as long as `within` seconds; each of them is asked at least once.

        Raises `RefusedError` if etcd will not do it, `StoreError` if no member serves.
        """
        deadline = asyncio.get_running_loop().time() + within
        reasons: dict[str, UnreachableError] = {}
        failures = 0
        while True:
            member, asked = self.member, asyncio.get_running_loop().time()
            try:
                return await self._authenticated(member, path, body, type_)
            except UnreachableError as error:
                reasons[member] = error
            if asyncio.get_running_loop().time() - asked < REQUEST_TIMEOUT + _LATE:
                self._leave(member)
            failures += 1
            pause = self._pause(failures)
            if failures >= len(self._members) and asyncio.get_running_loop().time() + pause > deadline:
                raise faults.of_all(reasons)
            await asyncio.sleep(pause)

    @asynccontextmanager
    async def stream(self, body: Body) -> AsyncIterator[Stream]:
        """A watch on the member that serves. Raises like `call`, but asks that member alone."""
        member = self.member
        timeout = aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_TIMEOUT)
        headers = {**await self._headers(member), **_HAS_LEADER}
        try:
            with _transport_errors(REQUEST_TIMEOUT):
                async with asyncio.timeout(REQUEST_TIMEOUT):
                    response = await self._session.post(
                        f"{member}/v3/watch", data=encode(body), headers=headers, ssl=self._tls or True, timeout=timeout
                    )
        except UnreachableError:
            self._leave(member)
            raise
        self._streams[response] = member
        try:
            if response.status >= 400:
                with _transport_errors(REQUEST_TIMEOUT):
                    raise faults.of_answer(response.status, await response.read())
            _keep_alive(response)
            yield Stream(response)
        except UnreachableError:
            self._leave(member)
            raise
        except RefusedError as error:
            self._distrust(error)
            raise
        finally:
            del self._streams[response]
            response.close()

    async def close(self) -> None:
        """Let go of all connections."""
        await self._session.close()

    def _pause(self, failures: int) -> float:
        """None within a round over all members; then longer ones, and not all workers at once."""
        rounds, rest = divmod(failures, len(self._members))
        return 0 if rest else min(_LONGEST_PAUSE, 0.05 * 2**rounds) * random.uniform(0.5, 1)

    def _leave(self, member: str) -> None:
        """Ask the next one from now on; a watch on a member that does not answer is not to be trusted either."""
        if member == self.member:
            self._first = (self._first + 1) % len(self._members)
        for response, where in self._streams.items():
            if where == member:
                response.close()

    async def _authenticated(self, member: str, path: str, body: Body, type_: type[T]) -> T:
        """A token lasts minutes and may belong to one member alone: a second attempt is made with a new one."""
        try:
            return await self._ask(member, path, body, type_, await self._headers(member))
        except RefusedError as error:
            if not self._distrust(error):
                raise
        return await self._ask(member, path, body, type_, await self._headers(member))

    def _distrust(self, error: RefusedError) -> bool:
        """Whether the token was the reason and another one may help."""
        if self._credentials is None or not error.wants_authentication:
            return False
        self._token = None
        return True

    async def _headers(self, member: str) -> dict[str, str]:
        if self._credentials is None:
            return {}
        if self._token is None:
            asked = {"name": self._credentials.user, "password": self._credentials.password}
            self._token = (await self._ask(member, "auth/authenticate", asked, Token, {})).token
        return {"Authorization": self._token}

    async def _ask(self, member: str, path: str, body: Body, type_: type[T], headers: dict[str, str]) -> T:
        with _transport_errors(REQUEST_TIMEOUT):
            try:
                async with self._session.post(
                    f"{member}/v3/{path}", data=encode(body), headers=headers, ssl=self._tls or True
                ) as response:
                    status, payload = response.status, await response.read()
            except aiohttp.ServerDisconnectedError:
                self._token = None  # some versions of etcd hang up on a bad token (etcd issues 15256 and 20332)
                raise
        if status >= 400:
            raise faults.of_answer(status, payload)
        try:
            return decode(payload, type_)
        except msgspec.MsgspecError as error:
            raise UnreachableError(f"answers what no etcd does: {error}") from error


@contextmanager
def _transport_errors(timeout: float) -> Iterator[None]:
    try:
        yield
    except (aiohttp.ClientError, TimeoutError, OSError) as error:
        raise faults.of_exception(error, timeout) from error


def _message(line: bytes) -> WatchAnswer:
    try:
        message = decode(line, StreamMessage)
    except msgspec.MsgspecError as error:
        raise UnreachableError(f"answers what no etcd does: {error}") from error
    if message.result is None:
        raise faults.of_fault(message.error) if message.error else UnreachableError("answers what no etcd does")
    if message.result.canceled and not message.result.compact_revision:
        raise faults.of_fault(Fault(message.result.cancel_reason or "the watch is cancelled"))
    return message.result


def _keep_alive(response: aiohttp.ClientResponse) -> None:
    """Let the kernel find out when the path is dead: nobody writes on a watch, so nothing else would."""
    connection = response.connection
    taken = connection.transport.get_extra_info("socket") if connection and connection.transport else None
    if taken is not None:
        taken.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        for option, value in _KEEPALIVE.items():
            taken.setsockopt(socket.IPPROTO_TCP, option, value)
