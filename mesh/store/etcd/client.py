"""Requests and watches over etcd's JSON gateway, sent to a member that serves.

A member that dies with a request in flight never answers it, so the request timeout is the delay that the caller sees:
it is short, and then the next member is asked. The request may have been applied all the same, which is why every write
of the store is idempotent. A watch is silent while nothing changes, so its silence proves nothing: its member is
trusted only as long as it answers requests, TCP keepalives detect a dead path, and `hasleader` makes a member end the
watch when it is cut off from its quorum.

The client checks which cluster a member belongs to before any other request, and again after the member was not
available (`cluster_id`).
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
from mesh.util.bounded_response import BoundedResponse, ResponseTooLargeError

T = TypeVar("T", bound=EtcdResponse | LeaseKeepAlive)

log = logging.getLogger("vipmesh")

REQUEST_TIMEOUT = 1.5
"""Seconds. It is longer than an election with etcd's defaults takes, and the longest delay when the leader dies."""
CONNECT_TIMEOUT = 1.0
"""Seconds."""
CALL_TIMEOUT = 4.0
"""Seconds after which the caller gets an error if no member serves."""
_LATE = 0.25
"""Seconds. A timeout that is reported this late means that this process was busy, and says nothing about the member."""
_STRAGGLERS = 0.2
"""Seconds that the other members have to report their cluster once a majority has reported the same one."""
_FIRST_PAUSE, _LONGEST_PAUSE = 0.1, 0.5
"""Seconds between two rounds over all members, at random down to half of it: several fit in the shortest lease."""
_HAS_LEADER = {"Grpc-Metadata-hasleader": "true"}
_STRAY = (
    "belongs to another etcd cluster than most members in [store] url",
    "remove it from the URL on all workers, or make it a member of that cluster",
)


@dataclass(frozen=True, slots=True)
class EtcdCredentials:
    """A user of etcd."""

    user: str
    password: str = field(repr=False)


class EtcdTlsFiles(Protocol):
    """The TLS files for connections to members."""

    @property
    def context(self) -> ssl.SSLContext:
        """The TLS context for all connections."""
        ...

    def renew(self) -> None:
        """Read the certificates again. Blocks; raises nothing."""
        ...


class EtcdClient:
    """Sends requests to the members of one etcd cluster. Create it in the event loop; end it with `close`."""

    def __init__(
        self, members: tuple[str, ...], credentials: EtcdCredentials | None = None, tls: EtcdTlsFiles | None = None
    ) -> None:
        self._members = members
        self._first = random.randrange(len(members))  # so that the workers spread over the members
        self._credentials = credentials
        self._token: str | None = None
        self._tls = tls
        self._ssl: ssl.SSLContext | Literal[True] = True if tls is None else tls.context
        self._session = aiohttp.ClientSession(
            timeout=aiohttp.ClientTimeout(total=REQUEST_TIMEOUT, sock_connect=CONNECT_TIMEOUT),
            cookie_jar=aiohttp.DummyCookieJar(),
            response_class=BoundedResponse,
        )
        self._streams: dict[aiohttp.ClientResponse, str] = {}
        self._before: int | None = None
        self._cluster: int | None = None
        """IDs of the cluster that a previous run used (`_before`) and of the one in use; None: not known."""
        self._admitted: set[str] = set()
        """Members known to belong to the cluster. A member that was not available is checked again."""
        self._strays: set[str] = set()
        """Members of another cluster, which were logged."""

    @property
    def member(self) -> str:
        """The member that is asked next."""
        return self._members[self._first]

    def expect(self, cluster: int) -> None:
        """Set the cluster that a previous run of the daemon used. Call it before any request."""
        self._before = cluster or None

    async def call(self, path: str, body: RequestBody, type_: type[T], within: float = CALL_TIMEOUT) -> T:
        """Send a request to one member after another for up to `within` seconds; each of them is asked at least once.

        Raises `EtcdRequestRefusedError` if etcd refuses the request, and `StoreError` if no member serves.
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
                await asyncio.to_thread(self._tls.renew)  # the certificates may have expired
            failures += 1
            # The next member is asked at once; a round over all of them without success is followed by a pause.
            is_round_over = failures % len(self._members) == 0
            pause = backoff.next_pause() if is_round_over else 0.0
            if failures >= len(self._members) and asyncio.get_running_loop().time() + pause > deadline:
                raise faults.error_from_members(reasons)
            await asyncio.sleep(pause)

    @asynccontextmanager
    async def stream(self, body: RequestBody) -> AsyncIterator[WatchStream]:
        """Open a watch on the current member. Raises the same errors as `call`, but asks that member only."""
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
        """Close all connections."""
        await self._session.close()

    async def _admit(self, member: str) -> None:
        """Check which cluster a member belongs to before any other request to it.

        Raises `EtcdUnreachableError` if it belongs to another one, and `StoreError` if no cluster can be chosen.
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
        """Choose the cluster to use, from the reports of all members that answer."""
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
        """Return the member's cluster ID, 0 if it does not report one. Needs no user, no leader and no disk space."""
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
        """Ask the next member from now on, and close watches on this one: it cannot be trusted to report changes."""
        self._admitted.discard(member)
        if member == self.member:
            self._first = (self._first + 1) % len(self._members)
        for response, where in self._streams.items():
            if where == member:
                response.close()

    async def _authenticated(self, member: str, path: str, body: RequestBody, type_: type[T]) -> T:
        """Send the request, again with a new token if need be: a token lasts minutes and may be valid on one member."""
        try:
            return await self._ask(member, path, body, type_, await self._headers(member))
        except EtcdRequestRefusedError as error:
            if not self._distrust(error):
                raise
        return await self._ask(member, path, body, type_, await self._headers(member))

    def _distrust(self, error: EtcdRequestRefusedError) -> bool:
        """Return whether the token was the reason and a new one may help."""
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
            except ResponseTooLargeError as error:
                raise faults.EtcdResponseTooLargeError(member) from error
            except aiohttp.ServerDisconnectedError:
                # Some versions of etcd close the connection on a bad token (etcd issues 15256 and 20332).
                self._token = None
                raise
        if status >= 400:
            raise faults.error_from_response(status, payload)
        try:
            return decode_response(payload, type_)
        except msgspec.MsgspecError as error:
            raise EtcdUnreachableError(f"sent a response that is not from etcd: {error}") from error
