"""Stands for Elasticsearch: takes `_bulk`, and counts which lines it has, how often, and when.

    PYTHONPATH=. python bench/logs_store.py PORT

A line is `<number> <nanoseconds since 1970> <text>`, in the field `message` or `log`. An identifier that is there is
answered with 409 and is no second line, as with `create` of Elasticsearch; without an identifier each line is stored.
A line is searchable at the next refresh, one second apart as by default. `GET /counts` has the result.
"""

import asyncio
import json
import sys
import time

import msgspec
from aiohttp import web

REFRESH = 1_000_000_000
"""Nanoseconds between two refreshes."""


class Action(msgspec.Struct):
    """The line before a document."""

    create: dict[str, str] | None = None
    index: dict[str, str] | None = None


class Line(msgspec.Struct):
    """A document of either shipper."""

    message: str = ""
    log: str = ""


class BulkStore:
    """Counts lines."""

    def __init__(self) -> None:
        self._ids: set[str] = set()
        self._seen: dict[int, int] = {}
        self._stored: list[int] = []
        """Nanoseconds from the write of each line to its arrival."""
        self._searchable: list[int] = []

    async def bulk(self, request: web.Request) -> web.Response:
        """The handler of `POST /_bulk`."""
        # rsyslog ends what its templates make with a line feed, and adds one.
        lines = [line for line in (await request.read()).split(b"\n") if line]
        now = time.time_ns()
        items = [self._store(lines[n], lines[n + 1], now) for n in range(0, len(lines) - 1, 2)]
        return web.Response(
            body=b'{"took":1,"errors":false,"items":[' + b",".join(items) + b"]}", content_type="application/json"
        )

    def _store(self, action: bytes, source: bytes, now: int) -> bytes:
        found = msgspec.json.decode(action, type=Action)
        word = "index" if found.create is None else "create"
        id = ((found.create or found.index or {}).get("_id")) or ""
        if id in self._ids:
            return b'{"create":{"status":409}}'
        if id:
            self._ids.add(id)
        line = msgspec.json.decode(source, type=Line)
        number, _, rest = (line.message or line.log).partition(" ")
        written = int(rest.partition(" ")[0])
        self._seen[int(number)] = self._seen.get(int(number), 0) + 1
        self._stored.append(now - written)
        self._searchable.append((now // REFRESH + 1) * REFRESH - written)
        return b'{"%s":{"status":201}}' % word.encode()

    async def counts(self, _: web.Request) -> web.Response:
        """The handler of `GET /counts`."""
        stored, searchable = sorted(self._stored), sorted(self._searchable)
        last = max(0, len(stored) * 99 // 100 - 1)
        return web.json_response(
            {
                "distinct": len(self._seen),
                "twice": sum(count - 1 for count in self._seen.values()),
                "stored_p99": stored[last] / 1e9 if stored else 0.0,
                "searchable_p99": searchable[last] / 1e9 if searchable else 0.0,
            }
        )

    @staticmethod
    async def known(_: web.Request) -> web.Response:
        """The handler of everything else: rsyslog asks whether the server is there."""
        return web.Response(text=json.dumps({"version": {"number": "8.17.0"}}), content_type="application/json")


async def serve(port: int) -> None:
    """Answer until the process ends."""
    store = BulkStore()
    application = web.Application(client_max_size=1 << 28)
    application.router.add_post("/_bulk", store.bulk)
    application.router.add_get("/counts", store.counts)
    application.router.add_route("*", "/{path:.*}", store.known)
    runner = web.AppRunner(application, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", port).start()
    await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(serve(int(sys.argv[1])))
