"""Requests and watches over etcd's JSON gateway, from whichever member serves.

A member that dies with a request in flight never answers it, so the request timeout is the gap that the caller sees: it
is short, and the next member is asked. That the request may have been applied all the same is why every write of the
store is idempotent. A watch says nothing while nothing happens, so its silence proves nothing: the member it hangs on
is trusted only as long as it answers requests, the kernel's keepalives find a dead path, and `hasleader` makes a member
that was cut off from its quorum end the watch.

Which cluster a member is of is asked before anything else, and again when it was away (`membership`).
"""

import asyncio
import logging
import random
import ssl
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from typing import Literal, Protocol, TypeVar

import aiohttp
import msgspec

from mesh.model.codes import Code
from mesh.store.etcd import cluster_id as membership
from mesh.store.etcd import errors as faults
from mesh.store.etcd.errors import EtcdRequestRefusedError, EtcdUnreachableError, transport_errors
from mesh.store.etcd.messages import (
    AuthToken,
    EtcdResponse,
    LeaseKeepAlive,
    RequestBody,
    decode_response,
    encode_request,
)
from mesh.store.etcd.watch import WatchStream, check_cluster, keep_alive
from mesh.util.backoff import Backoff

T = TypeVar("T", bound=EtcdResponse | LeaseKeepAlive)

log = logging.getLogger("vipmesh")

REQUEST_TIMEOUT = 1.5
"""Seconds: longer than an election with etcd's own defaults takes, and the longest pause when the leader dies."""
CONNECT_TIMEOUT = 1.0
"""Seconds."""
CALL_TIMEOUT = 4.0
"""Seconds after which the caller is told that no member serves."""
_LATE = 0.25
"""Seconds. A timeout that comes so late says that this process was busy, and nothing of the member."""
_STRAGGLERS = 0.2
"""Seconds that members get to say which cluster they are of when most have said the same."""
_FIRST_PAUSE, _LONGEST_PAUSE = 0.1, 0.5
"""Seconds between two rounds over all members, at random down to half of it: several fit in the shortest lease."""
_HAS_LEADER = {"Grpc-Metadata-hasleader": "true"}
_STRAY = (
    "is of another cluster of etcd than most members in [store] url",
    "take it out of the URL, on all workers, or make it a member of that cluster",
)


@dataclass(frozen=True, slots=True)
class EtcdCredentials:
    """A user of etcd."""

    user: str
    password: str = field(repr=False)


class EtcdTlsFiles(Protocol):
    """How to connect to members over TLS."""

    @property
    def context(self) -> ssl.SSLContext:
        """For every connection."""
        ...

    def renew(self) -> None:
        """Read the certificates again. Blocks; raises nothing."""
        ...


class EtcdClient:
    """Of one cluster. To be made in the event loop; ended by `close`."""

    def __init__(
        self, members: tuple[str, ...], credentials: EtcdCredentials | None = None, tls: EtcdTlsFiles | None = None
    ) -> None:
        self._members = members
        self._first = random.randrange(len(members))  # the workers spread over the members
        self._credentials = credentials
        self._token: str | None = None
        self._tls = tls
        self._ssl: ssl.SSLContext | Literal[True] = True if tls is None else tls.context
        self._session = aiohttp.ClientSession(
            timeout=aiohttp.ClientTimeout(total=REQUEST_TIMEOUT, sock_connect=CONNECT_TIMEOUT),
            cookie_jar=aiohttp.DummyCookieJar(),
        )
        self._streams: dict[aiohttp.ClientResponse, str] = {}
        self._before: int | None = None
        self._cluster: int | None = None
        """The numbers of the one that a former life used, and of the one that is used; None: not known."""
        self._admitted: set[str] = set()
        """The members that are of it, as far as is known; who was away is asked again."""
        self._strays: set[str] = set()
        """Those of another one, which was told."""

    @property
    def member(self) -> str:
        """Who is asked now."""
        return self._members[self._first]

    def expect(self, cluster: int) -> None:
        """This is the cluster that a former life of the daemon used; to be told before anything is asked."""
        self._before = cluster or None

    async def call(self, path: str, body: RequestBody, type_: type[T], within: float = CALL_TIMEOUT) -> T:
        """Ask, member after member, for as long as `within` seconds; each of them is asked at least once.

        Raises `EtcdRequestRefusedError` if etcd will not do it, `StoreError` if no member serves.
        """
        deadline = asyncio.get_running_loop().time() + within
        reasons: dict[str, EtcdUnreachableError] = {}
        failures = 0
        backoff = Backoff(_FIRST_PAUSE, _LONGEST_PAUSE, jitter=0.5, random=random.random)
        while True:
            member = self.member
            try:
                await self._admit(member)
                with self._left_if_silent(member):
                    answer = await self._authenticated(member, path, body, type_)
                    check_cluster(answer.header.cluster_id, self._cluster)
                return answer
            except EtcdUnreachableError as error:
                reasons[member] = error
            if self._tls is not None:
                await asyncio.to_thread(self._tls.renew)  # the reason may be that they have expired
            failures += 1
            # The next member is asked at once; a round over all of them without success is followed by a pause.
            is_round_over = failures % len(self._members) == 0
            pause = backoff.next_pause() if is_round_over else 0.0
            if failures >= len(self._members) and asyncio.get_running_loop().time() + pause > deadline:
                raise faults.error_from_members(reasons)
            await asyncio.sleep(pause)

    @asynccontextmanager
    async def stream(self, body: RequestBody) -> AsyncIterator[WatchStream]:
        """A watch on the member that serves. Raises like `call`, but asks that member alone."""
        member = self.member
        await self._admit(member)
        timeout = aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_TIMEOUT)
        headers = {**await self._headers(member), **_HAS_LEADER}
        try:
            with transport_errors(REQUEST_TIMEOUT):
                async with asyncio.timeout(REQUEST_TIMEOUT):
                    response = await self._session.post(
                        f"{member}/v3/watch", data=encode_request(body), headers=headers, ssl=self._ssl, timeout=timeout
                    )
        except EtcdUnreachableError:
            self._leave(member)
            raise
        self._streams[response] = member
        try:
            if response.status >= 400:
                with transport_errors(REQUEST_TIMEOUT):
                    raise faults.error_from_response(response.status, await response.read())
            keep_alive(response)
            yield WatchStream(response, self._cluster)
        except EtcdUnreachableError:
            self._leave(member)
            raise
        except EtcdRequestRefusedError as error:
            self._distrust(error)
            raise
        finally:
            del self._streams[response]
            response.close()

    async def close(self) -> None:
        """Let go of all connections."""
        await self._session.close()

    async def _admit(self, member: str) -> None:
        """See which cluster a member is of before it is asked for anything.

        Raises `EtcdUnreachableError` if it is of another one, and `StoreError` if there is none to go on with.
        """
        if member in self._admitted:
            return
        with self._left_if_silent(member):
            number = await self._cluster_of(member)
        if number not in (0, self._cluster):
            await self._choose({member: number})
        if number not in (0, self._cluster):
            self._leave(member)
            raise EtcdUnreachableError(*_STRAY, code=Code.ETCD_CLUSTERS_DIFFER)
        self._admitted.add(member)

    async def _choose(self, said: dict[str, int]) -> None:
        """The cluster to go on with, by what all members say that answer."""
        asked = {asyncio.ensure_future(self._cluster_of(m)): m for m in self._members if m not in said}
        waiting = set(asked)
        try:
            while waiting:
                rest = _STRAGGLERS if membership.is_majority(said, self._members) else None
                done, waiting = await asyncio.wait(waiting, timeout=rest, return_when=asyncio.FIRST_COMPLETED)
                if not done:
                    break
                said |= {asked[one]: one.result() for one in done if one.exception() is None and one.result()}
        finally:
            for one in waiting:
                one.cancel()
        self._cluster = membership.choose_cluster(said, self._members, self._cluster or self._before)
        strays = {member for member, number in said.items() if number != self._cluster}
        for member in strays - self._strays:
            log.error("etcd: %s %s; %s", member, *_STRAY, extra=Code.STORE_UNREACHABLE.extra)
        self._strays, self._admitted = strays, said.keys() - strays

    async def _cluster_of(self, member: str) -> int:
        """Its number, 0 if it does not say; needs no user, no leader and no room."""
        try:
            return (await self._ask(member, "maintenance/status", {}, EtcdResponse, {})).header.cluster_id
        except EtcdRequestRefusedError:
            return 0

    @contextmanager
    def _left_if_silent(self, member: str) -> Iterator[None]:
        asked = asyncio.get_running_loop().time()
        try:
            yield
        except EtcdUnreachableError:
            if asyncio.get_running_loop().time() - asked < REQUEST_TIMEOUT + _LATE:
                self._leave(member)
            raise

    def _leave(self, member: str) -> None:
        """Ask the next one from now on; a watch on a member that does not answer is not to be trusted either."""
        self._admitted.discard(member)
        if member == self.member:
            self._first = (self._first + 1) % len(self._members)
        for response, where in self._streams.items():
            if where == member:
                response.close()

    async def _authenticated(self, member: str, path: str, body: RequestBody, type_: type[T]) -> T:
        """A token lasts minutes and may belong to one member alone: a second attempt is made with a new one."""
        try:
            return await self._ask(member, path, body, type_, await self._headers(member))
        except EtcdRequestRefusedError as error:
            if not self._distrust(error):
                raise
        return await self._ask(member, path, body, type_, await self._headers(member))

    def _distrust(self, error: EtcdRequestRefusedError) -> bool:
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
            self._token = (await self._ask(member, "auth/authenticate", asked, AuthToken, {})).token
        return {"Authorization": self._token}

    async def _ask(self, member: str, path: str, body: RequestBody, type_: type[T], headers: dict[str, str]) -> T:
        with transport_errors(REQUEST_TIMEOUT):
            try:
                async with self._session.post(
                    f"{member}/v3/{path}", data=encode_request(body), headers=headers, ssl=self._ssl
                ) as response:
                    status, payload = response.status, await response.read()
            except aiohttp.ServerDisconnectedError:
                self._token = None  # some versions of etcd hang up on a bad token (etcd issues 15256 and 20332)
                raise
        if status >= 400:
            raise faults.error_from_response(status, payload)
        try:
            return decode_response(payload, type_)
        except msgspec.MsgspecError as error:
            raise EtcdUnreachableError(f"answers what no etcd does: {error}") from error
