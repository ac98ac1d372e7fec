"""Asks other workers over HTTPS, with one connection to each, which stays open for a short while.

A connection that is kept saves the handshakes of a question that is repeated, as by the page. When it has not been used
for `IDLE_TIMEOUT` it is closed, and then nothing is left of it: no timer, no packet.
"""

import asyncio
import ssl
from collections.abc import Collection
from ipaddress import ip_address
from typing import NamedTuple

import aiohttp
import msgspec
from typing_extensions import override
from yarl import URL

from mesh.api.channel.certificates import ChannelCertificates
from mesh.api.channel.worker_channel import (
    DEADLINE,
    MAX_ANSWER_BYTES,
    ChannelDirectory,
    ChannelError,
    ChannelReply,
    WorkerChannel,
    find_address,
)
from mesh.model.codes import Code
from mesh.model.credential import CertificateHolder, parse_holder
from mesh.model.past_event import bounded_text
from mesh.model.table import RealKey

IDLE_TIMEOUT = 15.0
"""Seconds that an unused connection stays open."""
MAX_ASKED = 16
"""The most workers that are asked at one time."""
MAX_REFUSAL_BYTES = 4096
"""The most bytes of an answer that is an error."""
_NO_CERTIFICATE = (
    "this worker has no certificate to ask others with; make them with `vipmesh cluster certs`, and set [admin] tcp, "
    "cert and client_ca on every worker"
)


class PooledWorker(NamedTuple):
    """The session with one worker, which holds its connection while there is one."""

    at: RealKey
    tls: ssl.SSLContext
    session: aiohttp.ClientSession


class HttpsWorkerChannel(WorkerChannel):
    """Asks other workers with this worker's certificate. `close` ends it."""

    def __init__(self, directory: ChannelDirectory, certificates: ChannelCertificates | None) -> None:
        """`certificates` is None if this worker has none: then nobody can be asked."""
        self._directory = directory
        self._certificates = certificates
        self._pool: dict[str, PooledWorker] = {}
        self._room = asyncio.Semaphore(MAX_ASKED)

    @override
    def others(self) -> Collection[str]:
        return self._directory.others()

    @override
    def address(self, worker: str) -> RealKey:
        return find_address(self._directory, worker)

    @override
    async def ask(
        self,
        worker: str,
        path: str,
        *,
        accept: str = "application/json",
        deadline: float = DEADLINE,
        most: int = MAX_ANSWER_BYTES,
    ) -> ChannelReply:
        try:
            async with asyncio.timeout(deadline), self._room:
                return await self._get(worker, path, accept, most)
        except TimeoutError as error:
            raise _no_answer(worker, f"no answer within {deadline:g} s") from error
        except aiohttp.ClientSSLError as error:
            raise _tls_failure(worker, error) from error
        except (aiohttp.ClientError, OSError, ValueError) as error:
            if _is_by_tls(error):
                raise _tls_failure(worker, error) from error
            raise _no_answer(worker, bounded_text(str(error) or type(error).__name__)) from error

    async def close(self) -> None:
        """Close all connections."""
        pool, self._pool = self._pool, {}
        for pooled in pool.values():
            await pooled.session.close()

    async def _get(self, worker: str, path: str, accept: str, most: int) -> ChannelReply:
        if self._certificates is None and worker in self.others():
            raise ChannelError(Code.CHANNEL_WITHOUT_CERTIFICATE, _NO_CERTIFICATE)
        at = self.address(worker)
        if self._certificates is None:
            raise ChannelError(Code.CHANNEL_WITHOUT_CERTIFICATE, _NO_CERTIFICATE)
        if not _is_certifiable(worker):
            raise _refused_tls(worker, "no certificate can have this name")
        session = await self._session(worker, at, self._certificates.context())
        # The path is quoted by who asks: another quoting would change it.
        url = URL(f"https://{at}{path}", encoded=True)
        headers = {"Accept": accept, "Accept-Encoding": "identity", "User-Agent": "vipmesh"}
        async with session.get(url, headers=headers, server_hostname=worker, allow_redirects=False) as answer:
            if answer.status != 200:
                body = await _read(answer, MAX_REFUSAL_BYTES)
                raise _refusal(worker, answer.status, body)
            if answer.content_type != accept:
                raise _no_answer(worker, "its answer is not that of vipmesh")
            body = await _read(answer, most)
            if len(body) > most:
                raise _no_answer(worker, f"its answer has more than {most} bytes")
            return ChannelReply(body, accept, {name.lower(): text for name, text in answer.headers.items()})

    async def _session(self, worker: str, at: RealKey, tls: ssl.SSLContext) -> aiohttp.ClientSession:
        """Return the session with a worker, a new one if its address or the certificates have changed."""
        known = self._directory.admin_addresses()
        stale = [name for name, kept in self._pool.items() if kept.at != known.get(name) or kept.tls is not tls]
        gone = [self._pool.pop(name) for name in stale]
        if worker not in self._pool:
            # A connector of its own: a connection to one worker is never taken for one to another at its address.
            connector = aiohttp.TCPConnector(limit=1, keepalive_timeout=IDLE_TIMEOUT, ssl=tls)
            session = aiohttp.ClientSession(
                connector=connector,
                cookie_jar=aiohttp.DummyCookieJar(),
                auto_decompress=False,
                timeout=aiohttp.ClientTimeout(total=None),
            )
            self._pool[worker] = PooledWorker(at, tls, session)
        found = self._pool[worker].session
        for pooled in gone:
            await pooled.session.close()
        return found


async def _read(answer: aiohttp.ClientResponse, most: int) -> bytes:
    """Return the body, or its beginning with more than `most` bytes; the connection is closed then."""
    received = bytearray()
    async for chunk in answer.content.iter_any():
        received += chunk
        if len(received) > most:
            answer.close()
            break
    return bytes(received)


def _is_certifiable(worker: str) -> bool:
    """Return whether a certificate can have this name as a DNS name. One that is an address would be held against the
    addresses in it, which are those of hosts.
    """
    holder = CertificateHolder(worker, is_worker=True)
    if parse_holder([holder.uri]) != holder:
        return False
    try:
        ip_address(worker)
    except ValueError:
        return True
    return False


def _is_by_tls(error: Exception) -> bool:
    """Return whether TLS ended a connection. An alert after the handshake of TLS 1.3 says that the certificate of this
    worker is not accepted; it is lost if the connection is reset behind it.
    """
    if isinstance(error, aiohttp.ServerDisconnectedError | ConnectionResetError | ssl.SSLError):
        return True
    return isinstance(error.__cause__, ssl.SSLError)


def _tls_failure(worker: str, error: Exception) -> ChannelError:
    cause = next((each for each in (error.__cause__, error) if isinstance(each, ssl.SSLError)), None)
    inner = getattr(error, "certificate_error", None) or getattr(error, "os_error", None) or cause
    if inner is None:
        return _refused_tls(worker, "it ended the connection without an answer; perhaps it refuses this certificate")
    reason = getattr(inner, "verify_message", None) or getattr(inner, "reason", None) or str(inner)
    return _refused_tls(worker, bounded_text(str(reason)))


def _refused_tls(worker: str, reason: str) -> ChannelError:
    return ChannelError(
        Code.CHANNEL_TLS,
        f"worker {worker}: no TLS with its admin API: {reason}; give every worker a certificate of its name and the "
        "same ca.pem, with `vipmesh cluster certs`",
    )


def _no_answer(worker: str, reason: str) -> ChannelError:
    return ChannelError(
        Code.CHANNEL_NO_ANSWER,
        f"worker {worker}: {reason}; look at its daemon, and at firewalls before its [admin] tcp",
    )


def _refusal(worker: str, status: int, body: bytes) -> ChannelError:
    """Return what an answer with an error says."""
    try:
        reason = bounded_text(str(msgspec.json.decode(body, type=dict[str, str])["error"]))
    except (ValueError, LookupError, RecursionError):
        reason = "no reason that could be read"
    remedy = "give this worker a certificate of that cluster" if status in (401, 403) else "see its `vipmesh --version`"
    return ChannelError(
        Code.CHANNEL_REFUSED,
        f"worker {worker}: it refuses the request with status {status}: {reason}; {remedy}",
        status,
    )
