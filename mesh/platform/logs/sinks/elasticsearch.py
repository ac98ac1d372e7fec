"""Elasticsearch and OpenSearch as a store of logs, by the bulk API.

Documents are created under their identifiers, so what is sent again after a lost answer is not stored twice. Several
endpoints are of one cluster: the one that answered last is asked first.
"""

import base64
import ssl
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import aiohttp
from typing_extensions import override

from mesh.platform.logs.documents import LogDocument
from mesh.platform.logs.sinks import LogSink, LogSinkError, RefusedDocument
from mesh.platform.logs.sinks.bulk import MisunderstoodAnswerError, encode_bulk, judge_bulk
from mesh.util.bounded_response import BoundedResponse
from mesh.util.regular_file import read_regular_file

CONNECT_TIMEOUT, ANSWER_TIMEOUT = 5.0, 60.0
"""Seconds for a connection, and for a whole request."""
_TOO_LARGE = 413
_MAX_SECRET = 64 * 1024


@dataclass(frozen=True, slots=True)
class ElasticsearchTarget:
    """Where Elasticsearch is, and how it is asked."""

    endpoints: tuple[str, ...]
    """URLs without trailing slash; at least one."""
    index: str
    """What the name of each index begins with."""
    user: str | None = None
    password_file: Path | None = None
    api_key_file: Path | None = None
    """Files are read before each request, so that new credentials need no restart."""
    ca: Path | None = None
    """Who signed the certificates; None: the system's authorities."""


class ElasticsearchSink(LogSink):
    """Sends documents to the first endpoint that takes them."""

    def __init__(self, target: ElasticsearchTarget) -> None:
        """Raises `OSError` if the file of authorities cannot be read."""
        self._target = target
        self._first = 0
        """Which endpoint is asked first."""
        # Without a file of its own these are the system's; certificates and names are verified either way.
        self._tls = ssl.create_default_context(cafile=None if target.ca is None else str(target.ca))
        self._session: aiohttp.ClientSession | None = None

    @override
    async def deliver(self, documents: Sequence[LogDocument]) -> Sequence[RefusedDocument]:
        if not documents:
            return ()
        status, body = await self._post(encode_bulk(documents, self._target.index))
        if status == _TOO_LARGE:
            if len(documents) == 1:
                return (RefusedDocument(documents[0], "status 413: the document is too large"),)
            half = len(documents) // 2
            return (*await self.deliver(documents[:half]), *await self.deliver(documents[half:]))
        try:
            verdict = judge_bulk(documents, body)
        except MisunderstoodAnswerError as error:
            text = f"the answer is not one of Elasticsearch: {str(error)[:200]}"
            raise LogSinkError(text, "check [ship] elasticsearch") from error
        if verdict.postponed:
            text = f"{verdict.postponed} of {len(documents)} documents are postponed, {verdict.reason}"
            raise LogSinkError(text, "look at the health of the cluster")
        return verdict.refused

    @override
    async def close(self) -> None:
        if self._session is not None:
            await self._session.close()
            self._session = None

    async def _post(self, body: bytes) -> tuple[int, bytes]:
        """Return status and body of the first usable answer: 200 or 413. Raises `LogSinkError` if there is none."""
        reasons = []
        headers = {"Content-Type": "application/x-ndjson", **self._credentials()}
        count = len(self._target.endpoints)
        for turn in range(count):
            number = (self._first + turn) % count
            endpoint = self._target.endpoints[number]
            try:
                status, answer = await self._ask(endpoint, body, headers)
            except (aiohttp.ClientError, OSError, ValueError) as error:  # `TimeoutError` is an `OSError`
                reasons.append(f"{endpoint}: {str(error) or type(error).__name__}")
                continue
            if status in (200, _TOO_LARGE):
                self._first = number
                return status, answer
            reasons.append(f"{endpoint}: status {status}")
        remedy = "check the credentials" if reasons[-1].endswith(("401", "403")) else "start it, or check the network"
        raise LogSinkError("; ".join(reason[:200] for reason in reasons), remedy)

    async def _ask(self, endpoint: str, body: bytes, headers: dict[str, str]) -> tuple[int, bytes]:
        if self._session is None:
            timeout = aiohttp.ClientTimeout(total=ANSWER_TIMEOUT, sock_connect=CONNECT_TIMEOUT)
            self._session = aiohttp.ClientSession(timeout=timeout, response_class=BoundedResponse)
        async with self._session.post(
            f"{endpoint}/_bulk", data=body, headers=headers, ssl=self._tls, allow_redirects=False
        ) as response:
            return response.status, await response.read()

    def _credentials(self) -> dict[str, str]:
        target = self._target
        if target.api_key_file is not None:
            return {"Authorization": f"ApiKey {read_secret(target.api_key_file)}"}
        if target.user is not None and target.password_file is not None:
            pair = f"{target.user}:{read_secret(target.password_file)}".encode()
            return {"Authorization": f"Basic {base64.b64encode(pair).decode()}"}
        return {}


def read_secret(path: Path, read: Callable[[Path, int], bytes] = read_regular_file) -> str:
    """Return the content of a file of credentials without the white space around it. Raises `LogSinkError`."""
    try:
        text = read(path, _MAX_SECRET).decode().strip()
    except (OSError, UnicodeDecodeError) as error:
        raise LogSinkError(f"{path} cannot be read: {error}", "name a file with the credentials") from error
    if not text or not text.isprintable():
        raise LogSinkError(f"{path} has no credentials on one line", "write them into it")
    return text
