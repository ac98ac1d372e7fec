"""Asks a store of logs over HTTP: several endpoints with failover, credentials, TLS, and the pause that a store wants.

The endpoints are of one store: the one that answered last is asked first. Certificates and the names in them are always
verified.
"""

import ssl
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import NamedTuple

import aiohttp

from mesh.platform.logs.sinks import LogSinkError
from mesh.platform.logs.sinks.credentials import LogStoreCredentials
from mesh.util.bounded_response import BoundedResponse

CONNECT_TIMEOUT, ANSWER_TIMEOUT = 5.0, 60.0
"""Seconds for a connection, and for a whole request."""
LONGEST_PAUSE = 300.0
"""Seconds that a store can ask for with `Retry-After`; more are not waited."""
_MAX_REASON = 500
"""Characters of an answer that are shown."""


@dataclass(frozen=True, slots=True)
class LogStoreAccess:
    """Where a store is, and how it is reached."""

    endpoints: tuple[str, ...]
    """URLs without trailing slash; at least one."""
    credentials: LogStoreCredentials = field(default_factory=LogStoreCredentials)
    ca: Path | None = None
    """Who signed the certificates; None: the system's authorities."""
    certificate: Path | None = None
    """The client's own certificate, in PEM format."""
    key: Path | None = None
    """Its private key; None: in the file of the certificate."""


class LogStoreRequest(NamedTuple):
    """A request, whichever endpoint gets it."""

    method: str
    path: str
    """What follows the URL of the endpoint: `/_bulk`."""
    body: bytes
    headers: Mapping[str, str]
    understood: frozenset[int]
    """The statuses that are an answer. With any other one, the next endpoint is asked."""


class LogStoreAnswer(NamedTuple):
    """An answer that has one of the expected statuses."""

    status: int
    body: bytes

    def text(self) -> str:
        """Return the beginning of the body on one line, as it may be shown."""
        return printable(self.body[: 4 * _MAX_REASON].decode(errors="replace"))


class LogStoreClient:
    """Sends requests to the first endpoint that takes them."""

    def __init__(self, access: LogStoreAccess) -> None:
        """Raises `OSError` if the files of TLS cannot be used."""
        self._access = access
        self._first = 0
        """Which endpoint is asked first."""
        self._tls: ssl.SSLContext | None = open_tls(access) if _needs_tls(access) else None
        self._session: aiohttp.ClientSession | None = None

    async def ask(self, request: LogStoreRequest) -> LogStoreAnswer:
        """Return the first answer with an understood status. Raises `LogSinkError` if there is none."""
        reasons: list[str] = []
        pauses: list[float] = []
        statuses: list[int] = []
        headers = {**self._access.credentials.headers(), **request.headers}
        count = len(self._access.endpoints)
        for turn in range(count):
            number = (self._first + turn) % count
            endpoint = self._access.endpoints[number]
            try:
                answer, pause = await self._send(endpoint, request, headers)
            except (aiohttp.ClientError, OSError, ValueError) as error:  # `TimeoutError` is an `OSError`
                reasons.append(f"{endpoint}: {printable(str(error)) or type(error).__name__}")
                continue
            if answer.status in request.understood:
                self._first = number
                return answer
            statuses.append(answer.status)
            pauses.append(pause)
            reasons.append(f"{endpoint}: status {answer.status} {answer.text()}".rstrip())
        # A certificate, an authority or an address may be another one by now: the next request looks again.
        self._tls = None
        await self.close()
        text = "; ".join(reason[:200] for reason in reasons)
        raise LogSinkError(text, _remedy(statuses), pause=min(pauses, default=0.0))

    async def close(self) -> None:
        """Close the connections."""
        if self._session is not None:
            await self._session.close()
            self._session = None

    async def _send(
        self, endpoint: str, request: LogStoreRequest, headers: dict[str, str]
    ) -> tuple[LogStoreAnswer, float]:
        """Return the answer of an endpoint, and the seconds that it asks to wait."""
        if self._tls is None and _needs_tls(self._access):
            self._tls = open_tls(self._access)
        if self._session is None:
            timeout = aiohttp.ClientTimeout(total=ANSWER_TIMEOUT, sock_connect=CONNECT_TIMEOUT)
            self._session = aiohttp.ClientSession(timeout=timeout, response_class=BoundedResponse)
        async with self._session.request(
            request.method,
            f"{endpoint}{request.path}",
            data=request.body,
            headers=headers,
            ssl=self._tls or True,
            allow_redirects=False,
        ) as response:
            answer = LogStoreAnswer(response.status, await response.read())
            return answer, parse_pause(response.headers.get("Retry-After"), datetime.now(UTC))


def _needs_tls(access: LogStoreAccess) -> bool:
    """Return whether an endpoint has TLS, or files are named for it: the system's authorities take time to load."""
    is_encrypted = any(not each.lower().startswith("http://") for each in access.endpoints)
    return is_encrypted or access.ca is not None or access.certificate is not None


def open_tls(access: LogStoreAccess) -> ssl.SSLContext:
    """Return what verifies the store, and shows the client's certificate. Raises `OSError`, `ssl.SSLError` included."""
    # Without a file of its own these are the system's; certificates and names are verified either way.
    context = ssl.create_default_context(cafile=None if access.ca is None else str(access.ca))
    if access.certificate is not None:
        # An encrypted key is refused, not asked about.
        context.load_cert_chain(access.certificate, access.key, password="")
    return context


def parse_pause(value: str | None, now: datetime) -> float:
    """Return the seconds that `Retry-After` asks for (RFC 9110, section 10.2.3), at most `LONGEST_PAUSE`; 0 if none."""
    if value is None:
        return 0.0
    text = value.strip()
    if text.isascii() and text.isdigit():
        return min(float(text[:9]), LONGEST_PAUSE)
    try:
        moment = parsedate_to_datetime(text)
        moment = moment if moment.tzinfo is not None else moment.replace(tzinfo=UTC)
        return min(max((moment - now).total_seconds(), 0.0), LONGEST_PAUSE)
    except (ValueError, OverflowError, TypeError, IndexError):
        return 0.0


def printable(text: str) -> str:
    """Return the beginning of a text of a store, without what could not be shown on one line."""
    words = " ".join(text[: 2 * _MAX_REASON].split())[:_MAX_REASON]
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in words)


def _remedy(statuses: list[int]) -> str:
    if any(status in (401, 403) for status in statuses):
        return "check the credentials"
    if 429 in statuses:
        return "it asks to come back later; raise its limits, or send less"
    if any(300 <= status < 500 for status in statuses):
        return "check the URL"
    return "start it, or check the network"
