"""The admin API: what `vipmesh status` asks, on a unix socket unless the operator wants TCP."""

import errno
import os
from collections.abc import Awaitable, Callable, Mapping
from functools import partial
from pathlib import Path
from types import MappingProxyType

import msgspec
from aiohttp import web
from prometheus_client import CONTENT_TYPE_LATEST

from mesh.metrics import render
from mesh.status import WorkerStatus


class AdminError(Exception):
    """The API cannot listen where it was told to. The text ends with the remedy."""


Verb = Callable[[str], Awaitable[str]]
"""Does something to the endpoint or container that is named; returns the endpoint's id. Raises `RefusalError`."""


class RefusalError(Exception):
    """A verb cannot be carried out: what, why and what to do."""


class AdminApi:
    """`GET /v1/status` is the worker's status as JSON, `GET /metrics` the same in numbers, for Prometheus;
    `GET /healthz` says `ok` while the daemon's loop turns.

    `POST /v1/VERB` with `{"name": ...}` carries out one of `verbs`; the answer comes when it is done,
    `{"endpoint": ...}` or, with status 409, `{"error": ...}`.
    """

    def __init__(
        self, listen: str, status: Callable[[], WorkerStatus], verbs: Mapping[str, Verb] = MappingProxyType({})
    ) -> None:
        self._listen = listen
        self._status = status
        app = web.Application()
        app.router.add_get("/v1/status", self._get_status)
        for name, verb in verbs.items():
            app.router.add_post(f"/v1/{name}", partial(_carry_out, verb))
        app.router.add_get("/healthz", self._get_health)
        app.router.add_get("/metrics", self._get_metrics)
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

    async def _get_metrics(self, _: web.Request) -> web.Response:
        return web.Response(body=render(self._status()), headers={"Content-Type": CONTENT_TYPE_LATEST})

    async def _get_health(self, _: web.Request) -> web.Response:
        return web.Response(text="ok\n")


async def _carry_out(verb: Verb, request: web.Request) -> web.Response:
    try:
        asked = msgspec.json.decode(await request.read(), type=_Asked)
    except msgspec.MsgspecError as error:
        return web.json_response({"error": f'{error}; send {{"name": "..."}}'}, status=400)
    try:
        return web.json_response({"endpoint": await verb(asked.name)})
    except RefusalError as refusal:
        return web.json_response({"error": str(refusal)}, status=409)


class _Asked(msgspec.Struct, frozen=True):
    name: str


class _PrivateSite(web.UnixSite):
    """A unix socket that only its owner may use from the moment it exists: it tells all of the configuration."""

    async def start(self) -> None:
        previous = os.umask(0o177)
        try:
            await super().start()
        finally:
            os.umask(previous)
