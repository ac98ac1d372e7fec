"""The socket of `vipmesh ship`: lines of services for people, its state for the daemon, its metrics.

Whoever may open the socket may read the lines of all services. Over TCP there are the metrics alone. Each connection
has one request and a few seconds; there are only so many at one time.
"""

import asyncio
import grp
import time
from collections.abc import Callable
from pathlib import Path

import msgspec
from aiohttp import web
from aiohttp.typedefs import Handler
from typing_extensions import override

from mesh.config.values import parse_socket_address
from mesh.model.codes import Code
from mesh.model.part import DaemonPart
from mesh.platform.logs.reading.query import parse_log_query
from mesh.platform.logs.reading.reader import ServiceLogReader
from mesh.platform.logs.ship_state import ShipState
from mesh.util.bulkhead import Bulkhead
from mesh.util.private_socket import listen_privately

bulkhead = Bulkhead(DaemonPart.LOGS)

MAX_CONNECTIONS = 16
"""Connections at one time, on each of the two doors."""
CONNECTION_SECONDS = 10.0
"""Seconds after which a connection is aborted, whatever its client does."""
MAX_BODY_BYTES = 1024
"""The most bytes of the body of a request, which none needs."""


class ShipConnection(web.RequestHandler):
    """A connection that is aborted after `CONNECTION_SECONDS`."""

    __slots__ = ("_deadline",)

    def __init__(self, server: web.Server) -> None:
        super().__init__(server, loop=asyncio.get_running_loop(), access_log=None, auto_decompress=False)  # type: ignore[arg-type]
        self._deadline: asyncio.TimerHandle | None = None

    @override
    @bulkhead.method
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        if isinstance(transport, asyncio.WriteTransport):
            loop = asyncio.get_running_loop()
            self._deadline = loop.call_later(CONNECTION_SECONDS, bulkhead.callback(transport.abort))

    @override
    @bulkhead.method
    def connection_lost(self, exc: BaseException | None) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
        super().connection_lost(exc)


class RefusedShipConnection(asyncio.Protocol):
    """A connection that is one too many."""

    @override
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        transport.close()


class ShipServer:
    """Answers on the socket, and on a TCP port if one is set. `close` ends it."""

    def __init__(self, reader: ServiceLogReader, state: Callable[[], ShipState], metrics: Callable[[], str]) -> None:
        """`state` and `metrics` are called for each request, in the event loop's thread."""
        self._reader = reader
        self._state = state
        self._metrics = metrics
        self._runners: list[web.AppRunner] = []
        self._listeners: list[asyncio.AbstractServer] = []

    async def listen(self, path: Path, group: str | None = None) -> None:
        """Listen on the socket: for its owner alone, or for a group, too. Raises `OSError`."""
        app = self._app()
        app.router.add_get("/v1/logs", self._get_logs)
        app.router.add_get("/v1/ship", self._get_state)
        app.router.add_get("/metrics", self._get_metrics)
        connected = await self._connected(app)
        number, mode = (-1, 0o600) if group is None else (_group_number(group), 0o660)
        self._listeners.append(await listen_privately(connected, path, mode, number))

    async def listen_for_scrapes(self, address: str) -> None:
        """Answer `/metrics` at `HOST:PORT`. Raises `OSError`."""
        app = self._app()
        app.router.add_get("/metrics", self._get_metrics)
        host, port = parse_socket_address(address)
        connected = await self._connected(app)
        self._listeners.append(await asyncio.get_running_loop().create_server(connected, host, port))

    async def close(self) -> None:
        """End all requests."""
        for listener in self._listeners:
            listener.close()
        for runner in self._runners:
            await runner.cleanup()
        self._listeners, self._runners = [], []

    @staticmethod
    def _app() -> web.Application:
        app = web.Application(middlewares=[_contained], client_max_size=MAX_BODY_BYTES)
        app.on_response_prepare.append(_close_behind)
        return app

    async def _connected(self, app: web.Application) -> Callable[[], asyncio.Protocol]:
        """Return what makes the protocol of a new connection."""
        runner = web.AppRunner(app, access_log=None, shutdown_timeout=1)
        await runner.setup()
        self._runners.append(runner)
        server = runner.server
        if server is None:
            raise RuntimeError("the server is not set up")

        def connected() -> asyncio.Protocol:
            return ShipConnection(server) if len(server.connections) < MAX_CONNECTIONS else RefusedShipConnection()

        return connected

    async def _get_logs(self, request: web.Request) -> web.Response:
        try:
            query = parse_log_query(request.query.get("service", ""), request.query, time.time())
        except ValueError as error:
            return web.json_response({"error": str(error)}, status=400)
        return web.Response(body=await self._reader.answer(query), content_type="application/json")

    async def _get_state(self, _: web.Request) -> web.Response:
        return web.Response(body=msgspec.json.encode(self._state()), content_type="application/json")

    async def _get_metrics(self, _: web.Request) -> web.Response:
        return web.Response(text=self._metrics(), headers={"Content-Type": "text/plain; version=0.0.4; charset=utf-8"})


@web.middleware
async def _contained(request: web.Request, handler: Handler) -> web.StreamResponse:
    try:
        return await handler(request)
    except (web.HTTPException, ConnectionError):
        raise
    except Exception as error:  # noqa: BLE001 -- one request fails
        bulkhead.caught("request on the socket", error)
        return web.json_response({"error": "an internal error", "code": str(Code.INTERNAL_ERROR)}, status=500)


async def _close_behind(_: web.Request, answer: web.StreamResponse) -> None:
    answer.headers["Connection"] = "close"
    answer.force_close()


def _group_number(group: str) -> int:
    try:
        return grp.getgrnam(group).gr_gid
    except KeyError as error:
        raise OSError(f"there is no group {group}") from error
