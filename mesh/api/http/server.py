"""The admin API, which `vipmesh status`, Prometheus and the page use. `mesh/api/openapi.yaml` describes it."""

import asyncio
import errno
import logging
import ssl
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from importlib.resources import files
from ipaddress import ip_address
from pathlib import Path
from types import MappingProxyType

from aiohttp import ClientError, web
from aiohttp.typedefs import Handler, Middleware

from mesh.api.channel.worker_channel import WorkerChannel
from mesh.api.events import EventInput
from mesh.api.http.actions import ActionsHandler
from mesh.api.http.audit import AuditTrail
from mesh.api.http.auth import AdminToken, AdminTokens, TokenError, auth_middleware, quote_untrusted, refusal_response
from mesh.api.http.broadcaster import EventBroadcaster
from mesh.api.http.claims import ClaimService, ClaimsHandler
from mesh.api.http.cluster_explanation import ClusterExplanation
from mesh.api.http.connections import (
    BODY_TIMEOUT,
    MAX_UNAUTHENTICATED,
    MAX_UNAUTHENTICATED_PER_CLIENT,
    AdminConnection,
    AdminTcpListener,
    UnauthenticatedLimit,
)
from mesh.api.http.connectivity import ConnectivityHandler, ConnectivityService
from mesh.api.http.event_stream import stream_events
from mesh.api.http.handlers import ExplainFunction, MeasureFunction, MetricsHandler, get_explanation
from mesh.api.http.history import HistoryHandler
from mesh.api.http.page import add_page, is_page_path
from mesh.api.http.past_events import PastEventsHandler
from mesh.api.http.refusals import RefusalLog
from mesh.api.http.release_shares import ReleaseShareService, ReleaseSharesHandler
from mesh.api.http.service_logs import ServiceLogsHandler
from mesh.api.http.stacks import StackRequests, StacksHandler
from mesh.api.http.status import StatusHandler
from mesh.api.http.tls import ReloadingTls, check_revoked
from mesh.api.http.worker_list import WorkerListHandler
from mesh.api.http.worker_removal import WorkerRemovalHandler, WorkerRemovalService
from mesh.api.http.workers import LocalAnswer, WorkersHandler
from mesh.api.metrics.families import MetricsInput
from mesh.config.values import parse_socket_address
from mesh.control.endpoint_actions import ActionHandler
from mesh.control.snapshot import WorkerSnapshot
from mesh.model.codes import Code
from mesh.model.errors import MeshError
from mesh.model.part import DaemonPart
from mesh.platform.logs.reading.worker_reader import ServiceLogSource
from mesh.platform.rollouts.rollout_steps import RolloutWish
from mesh.util.bulkhead import Bulkhead
from mesh.util.private_socket import listen_privately

__all__ = ["AdminApi", "AdminApiError", "AdminListenConfig"]

log = logging.getLogger("vipmesh")
bulkhead = Bulkhead(DaemonPart.ADMIN)

MAX_BODY_BYTES = 64 << 10
"""The most bytes of a request body."""
SECURITY_HEADERS = MappingProxyType(
    {
        "Cache-Control": "no-store",
        "X-Content-Type-Options": "nosniff",
        "Referrer-Policy": "no-referrer",
        "Cross-Origin-Resource-Policy": "same-origin",
    }
)
"""Headers of every response: it must not be cached, its type not guessed, and no page of another origin may embed it.
"""


class AdminApiError(MeshError):
    """The API cannot listen on its address. The text ends with the remedy."""


@dataclass(frozen=True, slots=True)
class AdminListenConfig:
    """Where the API listens, and how clients over TCP authenticate."""

    listen: str
    """`unix:///PATH` or `HOST:PORT`."""
    tcp: str | None = None
    """`HOST:PORT`, beside `listen`; None for none."""
    token_file: Path | None = None
    """The file with the token that may do everything; None for no token."""
    cert: Path | None = None
    """The PEM file with the server's certificate; None for no TLS."""
    key: Path | None = None
    """The PEM file with its private key; None if the key is in the file of the certificate."""
    client_ca: Path | None = None
    """The PEM file with the CA of client certificates; None if clients have none."""
    hosts: frozenset[str] = frozenset()
    """Names of this worker that clients may send as `Host`, in lower case without a final dot. Addresses and
    `localhost` are always allowed.
    """
    read_token_file: Path | None = None
    """The file with the token that may only read; None for no such token."""
    connections: int = MAX_UNAUTHENTICATED
    """The most connections over TCP whose clients have not authenticated."""
    audit_file: Path | None = None
    """The file that gets every audit line beside the log; None for none."""


class AdminApi:
    """The HTTP server of the admin API.

    `GET /v1/status` is the worker's status as JSON, `GET /healthz` answers `ok` while the event loop runs, and `GET
    /metrics` has the metrics in Prometheus' text format. `POST /v1/VERB` with `{"name": ...}` carries out one of
    `verbs`. The response comes when it has ended: `{"endpoint": ...}`, or `{"error": ...}` with status 409.
    """

    # 10 parameters: one for each part of the worker that a path asks; a test gives those of the paths that it asks.

    def __init__(
        self,
        entrance: AdminListenConfig,
        observe: Callable[[], WorkerSnapshot],
        verbs: Mapping[str, ActionHandler] = MappingProxyType({}),
        measure: MeasureFunction | None = None,
        feed: EventBroadcaster | None = None,
        *,
        explain: ExplainFunction | None = None,
        connectivity: ConnectivityService | None = None,
        past: PastEventsHandler | None = None,
        claims: ClaimService | None = None,
        channel: WorkerChannel | None = None,
        removal: WorkerRemovalService | None = None,
        history: HistoryHandler | None = None,
        stacks: StackRequests | None = None,
        shares: ReleaseShareService | None = None,
        logs: ServiceLogSource | None = None,
    ) -> None:
        """`observe` and `measure` take snapshots, which do not change any more.

        `observe` is called in the event loop's thread. Without `measure`, the metrics are those of `observe` alone.
        Without `feed`, the API makes one, which must be run. Without `explain` or `connectivity`, their paths do not
        exist; without `claims`, `removal` or `shares`, their requests are refused. Without `past`, there are no past
        events, and without `history` no samples of traffic. Without `channel`, there are no other workers. Without
        `stacks`, only other workers know what runs of them. Without `logs`, the path of the lines of services does not
        exist.
        """
        # 13 parameters: one for each kind of request that needs a part of the daemon.
        self._claims = claims
        self._removal = removal
        self._shares = shares
        self._channel = channel
        self._stacks = stacks
        self._entrance = entrance
        self._observe = observe
        self._verbs = verbs
        self._refusals = RefusalLog()
        self._metrics = MetricsHandler(measure if measure is not None else self._measure, self._refusals)
        self.feed = feed if feed is not None else EventBroadcaster(self._moment)
        """Sends events to watchers; its `run` must run beside the API, else watchers wait."""
        self._status = StatusHandler(observe, self.feed.take_input)
        self._explain = explain
        self._connectivity = connectivity
        self._past = past if past is not None else PastEventsHandler(lambda: observe().facts.worker)
        self._logs = None
        if logs is not None:
            self._logs = ServiceLogsHandler(self._past.worker, logs, channel, self._owner)
        self._history = history if history is not None else HistoryHandler(lambda: observe().facts.worker)
        self._runner: web.AppRunner | None = None
        self._audit: AuditTrail | None = None
        self._listeners: list[AdminTcpListener | asyncio.AbstractServer] = []

    async def start(self) -> None:
        """Start to listen. Raises `AdminApiError`, and then listens nowhere."""
        entrance = self._entrance
        try:
            tokens = AdminTokens(
                None if entrance.token_file is None else AdminToken(entrance.token_file),
                None if entrance.read_token_file is None else AdminToken(entrance.read_token_file, "read_token_file"),
            )
            tls = _tls(entrance)
        except TokenError as error:
            raise AdminApiError(error.code, f"admin API: {error}") from error
        except OSError as error:
            raise AdminApiError(Code.ADMIN_API_CANNOT_LISTEN, f"admin API: {error}") from error
        tokens.warn_of_equal()
        self._runner = web.AppRunner(self._app(tokens), access_log=None, shutdown_timeout=1)
        await self._runner.setup()
        # One address never takes all places.
        per_client = min(MAX_UNAUTHENTICATED_PER_CLIENT, max(1, entrance.connections // 2))
        limit = UnauthenticatedLimit(entrance.connections, per_client)
        for listen in filter(None, (entrance.listen, entrance.tcp)):
            try:
                await self._listen(listen, tls, limit)
            except OSError as error:
                await self.stop()
                raise AdminApiError(
                    Code.ADMIN_API_CANNOT_LISTEN,
                    f"admin API: cannot listen on {listen}: {error.strerror}; set [admin] "
                    f"{'listen' if listen == entrance.listen else 'tcp'} to a "
                    f"{'free port' if error.errno == errno.EADDRINUSE else 'path or address that it may use'}",
                ) from error
            if tls is None and not listen.startswith("unix://") and not _is_loopback(listen):
                log.warning(
                    "admin API: clients send the token to %s unencrypted; set [admin] cert",
                    listen,
                    extra=Code.ADMIN_TOKEN.extra,
                )

    async def stop(self) -> None:
        """Close the sockets and end the running requests."""
        listeners, self._listeners = self._listeners, []
        for listener in listeners:
            if isinstance(listener, AdminTcpListener):
                await listener.stop()
            else:
                listener.close()
        if self._runner is not None:
            runner, self._runner = self._runner, None
            await runner.cleanup()
        if self._audit is not None:
            audit, self._audit = self._audit, None
            await audit.close()

    async def _listen(self, listen: str, tls: ssl.SSLContext | None, limit: UnauthenticatedLimit) -> None:
        """Listen on one address. Raises `OSError`."""
        server = self._runner.server if self._runner is not None else None
        if server is None:
            raise RuntimeError("the server of the admin API is not set up")
        if listen.startswith("unix://"):
            path = Path(listen.removeprefix("unix://"))
            # Its clients may do everything: only its owner and group may open it.
            self._listeners.append(await listen_privately(lambda: AdminConnection(server), path))
            return
        listener = AdminTcpListener(server, tls, limit)
        listener.start(*parse_socket_address(listen))
        self._listeners.append(listener)

    def routes(self) -> list[web.AbstractRoute]:
        """Return all routes while it listens; empty otherwise."""
        return list(self._runner.app.router.routes()) if self._runner is not None else []

    def _app(self, tokens: AdminTokens) -> web.Application:
        begun: dict[int, bool] = {}

        async def note_begin(request: web.Request, _: web.StreamResponse) -> None:
            if id(request) in begun:
                begun[id(request)] = True

        app = web.Application(
            middlewares=[
                _contained(begun),
                _timed,
                _in_words,
                auth_middleware(tokens, _is_open, self._refusals, self._entrance.hosts),
            ],
            client_max_size=MAX_BODY_BYTES,
        )
        app.on_response_prepare.extend((note_begin, _complete))
        app.on_shutdown.append(self._dismiss)
        app.router.add_get("/healthz", _get_health)
        app.router.add_get("/metrics", self._metrics.get)
        app.router.add_get("/v1/events", partial(stream_events, self.feed))
        app.router.add_get("/v1/history", self._history.get)
        app.router.add_get("/v1/openapi.yaml", _get_description)
        app.router.add_get("/v1/workers", WorkerListHandler(self._observe).get)
        app.router.add_get("/v1/status", self._status.get)
        add_page(app)
        if self._explain is not None:
            app.router.add_get("/v1/explain", ClusterExplanation(self._explain, self._channel).get)
        if self._logs is not None:
            app.router.add_get("/v1/logs/{service:.+}", self._logs.get)
        self._add_workers(app)
        self._audit = AuditTrail(self._entrance.audit_file)
        actions = ActionsHandler(self._audit, self._refusals)
        claims = ClaimsHandler(self._claims, actions)
        app.router.add_get("/v1/claims", claims.get)
        app.router.add_post("/v1/claims/free", claims.free)
        app.router.add_post("/v1/claims/move", claims.move)
        rollouts = ReleaseSharesHandler(self._shares, actions)
        app.router.add_post("/v1/rollouts/share", rollouts.post)
        for wish in RolloutWish:
            app.router.add_post(f"/v1/rollouts/{wish}", partial(rollouts.wish, wish))
        app.router.add_post("/v1/workers/remove", WorkerRemovalHandler(self._removal, actions).post)
        stacks = StacksHandler(self._stacks, lambda: self._observe().facts.worker, self._channel, actions)
        app.router.add_get("/v1/stacks", stacks.get)
        app.router.add_get("/v1/stacks/{project}", stacks.get_project)
        app.router.add_get("/v1/stacks/{project}/history", stacks.get_history)
        app.router.add_post("/v1/stacks/{project}/scale", stacks.scale)
        if self._connectivity is not None:
            handler = ConnectivityHandler(self._connectivity, actions)
            app.router.add_get("/v1/test", handler.get)
            app.router.add_post("/v1/test", handler.post)
        for name, verb in self._verbs.items():
            app.router.add_post(f"/v1/{name}", partial(actions.post, name, verb))
        return app

    def _add_workers(self, app: web.Application) -> None:
        """Add the paths that ask other workers."""
        local: dict[str, LocalAnswer] = {"status": self._status.get, "events/past": self._past.get}
        if self._explain is not None:
            local["explain"] = partial(get_explanation, self._explain)
        workers = WorkersHandler(self._channel, self._past, local)
        app.router.add_get("/v1/events/past", workers.get_events)
        app.router.add_get("/v1/workers/{worker}/address", workers.get_address)
        for what in local:
            app.router.add_get(f"/v1/workers/{{worker}}/{what}", partial(workers.get, what))

    async def _dismiss(self, _: web.Application) -> None:
        self.feed.close()
        if self._logs is not None:
            self._logs.close()

    def _owner(self, asked: str) -> str:
        """Return the service with a routing name; what was asked if it is none."""
        view, name = self._observe().view, asked.lower().rstrip(".")
        services = () if view is None or "." not in name or "/" in name else view.services
        return next((service.owner for service in services if name in service.names), asked)

    async def _moment(self) -> EventInput:
        return EventInput(self._observe(), asyncio.get_running_loop().time())

    async def _measure(self) -> MetricsInput:
        return MetricsInput(self._observe())


async def _get_health(_: web.Request) -> web.Response:
    return web.Response(text="ok\n")


async def _get_description(_: web.Request) -> web.Response:
    return web.Response(body=_DESCRIPTION, content_type="application/yaml")


_DESCRIPTION = (files("mesh.api") / "openapi.yaml").read_bytes()
_OPEN = frozenset({"/healthz", "/v1/openapi.yaml"})


def _is_open(path: str) -> bool:
    """Return whether a path needs no token, since its response has no secret."""
    return path in _OPEN or is_page_path(path)


def _contained(begun: dict[int, bool]) -> Middleware:
    """Return the middleware that ends one request at an unexpected exception.

    `begun` says of each request that is being handled, by its `id()`, whether its response has begun. What aiohttp
    raises about a broken connection passes.
    """

    @web.middleware
    async def contain(request: web.Request, handler: Handler) -> web.StreamResponse:
        begun[id(request)] = False
        try:
            return await handler(request)
        except (web.HTTPException, ClientError, ConnectionError):
            raise
        except web.RequestPayloadError:
            return refusal_response(400, "the request body is broken; send the length that its header says")
        except Exception as error:  # noqa: BLE001 -- one request fails
            bulkhead.caught(f"{request.method} {quote_untrusted(request.path)}", error)
            if begun[id(request)] and request.transport is not None:
                request.transport.abort()  # the client must not take what it has got for the whole response
            reason = "an internal error; the log of the daemon has more about it"
            return refusal_response(500, reason, Code.INTERNAL_ERROR)
        finally:
            del begun[id(request)]

    return contain


@web.middleware
async def _timed(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Tell the connection when a request begins and ends, since only its head has a deadline."""
    connection = request.protocol
    if not isinstance(connection, AdminConnection):
        raise TypeError(f"{connection!r} is no connection of the admin API")
    connection.begin_request()
    try:
        return await handler(request)
    finally:
        connection.end_request()


@web.middleware
async def _in_words(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Answer with a JSON error where aiohttp itself refuses a request."""
    try:
        return await handler(request)
    except web.HTTPNotFound:
        return refusal_response(404, "no such path; /v1/openapi.yaml lists all paths")
    except web.HTTPMethodNotAllowed as error:
        return refusal_response(405, f"method not allowed; use {' or '.join(sorted(error.allowed_methods))}")
    except web.HTTPRequestTimeout:
        return refusal_response(408, f"the request body does not arrive; send it within {BODY_TIMEOUT:g} s")
    except web.HTTPRequestEntityTooLarge:
        return refusal_response(413, f"the request body is too large; send {MAX_BODY_BYTES} bytes at most")


async def _complete(_: web.Request, answer: web.StreamResponse) -> None:
    """Add the security headers to a response."""
    for name, value in SECURITY_HEADERS.items():
        answer.headers.setdefault(name, value)


def _tls(entrance: AdminListenConfig) -> ssl.SSLContext | None:
    """Return the TLS context, or None without a certificate. Raises `OSError` with the names of the files."""
    if entrance.cert is None:
        return None
    files = tuple(file for file in (entrance.cert, entrance.key, entrance.client_ca) if file is not None)
    return ReloadingTls(files, partial(_load_tls, entrance, entrance.cert)).context


def _load_tls(entrance: AdminListenConfig, cert: Path) -> ssl.SSLContext:
    """Return the context of the files as they are now. Raises `OSError` with their names."""
    tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    # A resumed session is not verified again, so a certificate that has ended or was revoked would go on.
    tls.num_tickets = 0
    tls.options |= ssl.OP_NO_TICKET
    try:
        tls.load_cert_chain(cert, entrance.key, password="")  # an encrypted key is refused, not asked about
        if entrance.client_ca is not None:
            tls.load_verify_locations(entrance.client_ca)
            check_revoked(tls, entrance.client_ca)
            tls.verify_mode = (
                ssl.CERT_OPTIONAL if entrance.token_file or entrance.read_token_file else ssl.CERT_REQUIRED
            )
    except OSError as error:  # SSLError is one
        named = ", ".join(str(file) for file in (cert, entrance.key, entrance.client_ca) if file is not None)
        raise OSError(
            f"{error.strerror or error} in one of {named}; [admin] cert, key and client_ca must be PEM files"
        ) from error
    return tls


def _is_loopback(listen: str) -> bool:
    return ip_address(parse_socket_address(listen)[0]).is_loopback
