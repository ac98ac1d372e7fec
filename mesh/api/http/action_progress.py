"""Tells a client how far its action is, and the action that its client has gone.

A client that accepts `application/x-ndjson` gets a line `{"connections": 3}` after each pass of the control loop while
an endpoint drains, null if they are not counted, and at last the line that is otherwise the response: `{"endpoint":
...}`, or `{"error": ..., "code": ...}`. An action that has nothing to tell gets the ordinary response.
"""

import asyncio
import json
from collections.abc import Coroutine
from typing import Any

from aiohttp import web

from mesh.api.http.auth import CODE
from mesh.model.codes import Code
from mesh.model.errors import ActionRefusedError
from mesh.model.part import DaemonPart
from mesh.util.bulkhead import Bulkhead

bulkhead = Bulkhead(DaemonPart.ADMIN)

LINES = "application/x-ndjson"
"""The media type of one JSON document a line: github.com/ndjson/ndjson-spec."""


class ActionProgress:
    """Follows one action of one request."""

    def __init__(self, request: web.Request) -> None:
        self._request = request
        self._wanted = LINES in request.headers.get("Accept", "")
        self._told: int | None = None
        """The newest number of connections."""
        self._changed = asyncio.Event()
        self._ended = False
        self._stream: web.StreamResponse | None = None

    def begin(self) -> None:
        """Raise `ActionRefusedError` if the client has gone before its action begins."""
        self._refuse_if_gone("nothing was done")

    def each_pass(self, connections: int | None) -> None:
        """Note how many connections are left. Raises `ActionRefusedError` if the client has gone."""
        self._refuse_if_gone("a drain goes on until `vipmesh undrain`; what had not begun is not done")
        self._told = connections
        self._changed.set()

    async def answer(self, acting: Coroutine[Any, Any, web.Response]) -> web.StreamResponse:
        """Return the response of an action, which has lines before it if the client accepts them."""
        if not self._wanted:
            return await acting
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(bulkhead.run("the progress of an action", self._tell), name="action progress")
            try:
                ended = await acting
            finally:
                # Not cancelled: a response that has begun in part could not be completed.
                self._ended = True
                self._changed.set()
        if self._stream is None:
            return ended
        last = json.loads(ended.body) if isinstance(ended.body, bytes) else {}
        if (code := ended.headers.get(CODE)) is not None:
            last["code"] = code
        await self._stream.write(f"{json.dumps(last)}\n".encode())
        await self._stream.write_eof()
        return self._stream

    async def _tell(self) -> None:
        try:
            while True:
                await self._changed.wait()
                if self._ended:
                    return
                self._changed.clear()
                if self._stream is None:
                    stream = web.StreamResponse(headers={"Content-Type": LINES})
                    await stream.prepare(self._request)
                    self._stream = stream
                await self._stream.write(f'{{"connections": {json.dumps(self._told)}}}\n'.encode())
        except ConnectionError:
            pass  # `each_pass` says so to the action

    def _refuse_if_gone(self, state: str) -> None:
        transport = self._request.transport
        if transport is None or transport.is_closing():
            raise ActionRefusedError(Code.ACTION_INTERRUPTED, f"the client has gone: {state}")
