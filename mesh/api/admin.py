"""The admin API: what `vipmesh status` asks, on a unix socket unless the operator wants TCP."""

import errno
import os
from collections.abc import Callable
from pathlib import Path

import msgspec
from aiohttp import web

from mesh.status import WorkerStatus


class AdminError(Exception):
    """The API cannot listen where it was told to. The text ends with the remedy."""


class AdminApi:
    """`GET /v1/status` is the worker's status as JSON, `GET /healthz` says `ok` while the daemon's loop turns."""

    def __init__(self, listen: str, status: Callable[[], WorkerStatus]) -> None:
        self._listen = listen
        self._status = status
        app = web.Application()
        app.router.add_get("/v1/status", self._get_status)
        app.router.add_get("/healthz", self._get_health)
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=1)

    async def start(self) -> None:
        """Listen. Raises `AdminError`."""
        await self._runner.setup()
        try:
            await self._site().start()
        except OSError as error:
            await self._runner.cleanup()
            raise AdminError(
                f"admin API: cannot listen on {self._listen}: {error.strerror}; "
                f"set [admin] listen to a {'free port' if error.errno == errno.EADDRINUSE else 'place you may write'}"
            ) from error

    async def stop(self) -> None:
        """Close the socket and end the requests under way."""
        await self._runner.cleanup()

    def _site(self) -> web.BaseSite:
        if not self._listen.startswith("unix://"):
            host, _, port = self._listen.rpartition(":")
            return web.TCPSite(self._runner, host.strip("[]"), int(port))
        path = Path(self._listen.removeprefix("unix://"))
        path.parent.mkdir(parents=True, exist_ok=True)
        return _PrivateSite(self._runner, path)

    async def _get_status(self, _: web.Request) -> web.Response:
        return web.Response(body=msgspec.json.encode(self._status()), content_type="application/json")

    async def _get_health(self, _: web.Request) -> web.Response:
        return web.Response(text="ok\n")


class _PrivateSite(web.UnixSite):
    """A unix socket that only its owner may use from the moment it exists: it tells all of the configuration."""

    async def start(self) -> None:
        previous = os.umask(0o177)
        try:
            await super().start()
        finally:
            os.umask(previous)
