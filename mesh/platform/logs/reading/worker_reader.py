"""Reads the lines of a service on this worker: from the files by `vipmesh ship`, else by the engine."""

import asyncio
from pathlib import Path
from typing import Protocol

import aiohttp
import msgspec
from typing_extensions import override

from mesh.model.codes import Code
from mesh.platform.logs.reading.document import WorkerLogDocument, note
from mesh.platform.logs.reading.engine_reader import EngineLogReader
from mesh.platform.logs.reading.query import LogQuery
from mesh.platform.logs.ship_state import MAX_STATE_BYTES, ShipState, read_ship_state

ANSWER_SECONDS = 3.0
"""Seconds that `vipmesh ship` has for an answer with lines."""
STATE_SECONDS = 1.0
"""Seconds that it has for its state."""
MAX_ANSWER_BYTES = 32 << 20
"""The most bytes of an answer: the text of its lines, with escapes."""


class ServiceLogSource(Protocol):
    """Where the lines of services on this worker come from."""

    async def read(self, query: LogQuery) -> WorkerLogDocument:
        """Return the lines of a service. Why lines are missing is a note."""
        ...


class ShipUnreachableError(Exception):
    """Nothing on the socket answers as `vipmesh ship` does. The message says why."""


class ShipSocketClient:
    """Asks `vipmesh ship` on this worker over its socket."""

    def __init__(self, path: Path) -> None:
        self._path = path

    async def read(self, query: LogQuery) -> WorkerLogDocument:
        """Return the lines of a service. Raises `ShipUnreachableError`."""
        body = await self._get(
            "/v1/logs", ANSWER_SECONDS, MAX_ANSWER_BYTES, service=query.service, **query.parameters()
        )
        try:
            return await asyncio.to_thread(msgspec.json.decode, body, type=WorkerLogDocument)
        except (ValueError, RecursionError) as error:
            raise ShipUnreachableError(f"its answer cannot be read: {error}") from error

    async def state(self) -> ShipState:
        """Return its state. Raises `ShipUnreachableError`."""
        body = await self._get("/v1/ship", STATE_SECONDS, MAX_STATE_BYTES)
        try:
            return read_ship_state(body)
        except ValueError as error:
            raise ShipUnreachableError(f"its answer cannot be read: {error}") from error

    async def _get(self, path: str, seconds: float, most: int, **query: str) -> bytes:
        received = bytearray()
        try:
            async with (
                asyncio.timeout(seconds),
                aiohttp.ClientSession(
                    connector=aiohttp.UnixConnector(str(self._path), force_close=True),
                    cookie_jar=aiohttp.DummyCookieJar(),
                    timeout=aiohttp.ClientTimeout(total=None),
                ) as session,
                session.get(f"http://localhost{path}", params=query, allow_redirects=False) as answer,
            ):
                async for chunk in answer.content.iter_any():
                    received += chunk
                    if len(received) > most:
                        answer.close()
                        raise ShipUnreachableError(f"its answer has more than {most} bytes")
                if answer.status != 200:
                    raise ShipUnreachableError(f"it answers with status {answer.status}")
        except TimeoutError as error:
            raise ShipUnreachableError(f"no answer within {seconds:g} s") from error
        except (aiohttp.ClientError, OSError, ValueError) as error:
            raise ShipUnreachableError(getattr(error, "strerror", None) or str(error)) from error
        return bytes(received)


class WorkerLogReader(ServiceLogSource):
    """Reads lines of this worker."""

    def __init__(self, worker: str, ship: ShipSocketClient, engine: EngineLogReader | None) -> None:
        """`engine` is None for a worker without an engine."""
        self.worker = worker
        self._ship = ship
        self._engine = engine

    @override
    async def read(self, query: LogQuery) -> WorkerLogDocument:
        silent: str | None = None
        try:
            found = await self._ship.read(query)
            if found.services or self._engine is None:
                return found
        except ShipUnreachableError as error:
            silent = str(error)
        if self._engine is None:
            text = f"vipmesh ship does not answer: {silent}; and this worker has no engine"
            return WorkerLogDocument(self.worker, "none", notes=(note(text, Code.LOG_LINES_BY_ENGINE),))
        return await self._engine.read(query)
