"""Clients of the user-space proxy that are gone before it accepts them."""

import asyncio
from unittest.mock import AsyncMock, Mock

import pytest

from mesh.dataplane.userspace.tcp_proxy import TcpListener
from mesh.util.bulkhead import INTERNAL_ERRORS


async def test_a_client_without_an_address_is_dropped_and_is_no_error(monkeypatch: pytest.MonkeyPatch) -> None:
    behind = Mock()
    listener = TcpListener(behind)
    before = sum(INTERNAL_ERRORS.counts().values())
    transport = Mock(spec=asyncio.Transport)
    transport.get_extra_info.side_effect = {"socket": Mock()}.get  # uvloop has no `peername` for such a connection
    create_server = AsyncMock()
    monkeypatch.setattr(asyncio.get_running_loop(), "create_server", create_server)
    await listener.open("127.0.0.1", 1)
    client = create_server.call_args.args[0]()
    client.connection_made(transport)
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    transport.abort.assert_called_once_with()
    behind.pick.assert_not_called()
    assert sum(INTERNAL_ERRORS.counts().values()) == before
