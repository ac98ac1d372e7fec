"""Servers that stand for stores of logs, each with its URL."""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import pytest
from aiohttp import web

from tests.platform.logs.bulk_server import BulkServer
from tests.platform.logs.loki_server import LokiServer
from tests.platform.logs.otlp_server import OtlpServer


@asynccontextmanager
async def _serving(path: str, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]) -> AsyncIterator[str]:
    application = web.Application(client_max_size=1 << 26)
    application.router.add_route("*", path, handler)
    runner = web.AppRunner(application)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    try:
        yield f"http://127.0.0.1:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()


@pytest.fixture
async def bulk() -> AsyncIterator[tuple[BulkServer, str]]:
    server = BulkServer()
    async with _serving("/{path:.*}", server.answer) as url:
        yield server, url


@pytest.fixture
async def loki() -> AsyncIterator[tuple[LokiServer, str]]:
    server = LokiServer()
    async with _serving("/loki/api/v1/push", server.push) as url:
        yield server, url


@pytest.fixture
async def otlp() -> AsyncIterator[tuple[OtlpServer, str]]:
    server = OtlpServer()
    async with _serving("/v1/logs", server.export) as url:
        yield server, url
