"""The admin API on real sockets."""

import os
import stat
from pathlib import Path

import aiohttp
import pytest

from mesh.api.admin import AdminApi, AdminError
from mesh.status import WorkerStatus
from tests.e2e.programs import free_port

STATUS = WorkerStatus("1", "w1", "fake", "a test", ("127.0.0.1:53",))


async def test_on_a_unix_socket_that_only_the_owner_may_use(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "admin.sock"
    before = os.umask(0)
    os.umask(before)
    api = AdminApi(f"unix://{path}", lambda: STATUS)
    await api.start()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    async with aiohttp.ClientSession(connector=aiohttp.UnixConnector(str(path))) as session:
        async with session.get("http://vipmesh/v1/status") as answer:
            assert (await answer.json())["worker"] == "w1"
        async with session.get("http://vipmesh/healthz") as answer:
            assert (answer.status, await answer.text()) == (200, "ok\n")
        async with session.get("http://vipmesh/metrics") as answer:
            assert answer.content_type == "text/plain"
            assert 'worker="w1"' in await answer.text()
        async with session.get("http://vipmesh/v1/nothing") as answer:
            assert answer.status == 404
    await api.stop()
    assert os.umask(before) == before, "the process's own mask is as it was"
    again = AdminApi(f"unix://{path}", lambda: STATUS)
    await again.start()
    await again.stop()


async def test_over_tcp_and_a_taken_port_is_told() -> None:
    listen = f"127.0.0.1:{free_port()}"
    api = AdminApi(listen, lambda: STATUS)
    await api.start()
    async with aiohttp.ClientSession() as session, session.get(f"http://{listen}/v1/status") as answer:
        assert (await answer.json())["dns"] == ["127.0.0.1:53"]
    with pytest.raises(AdminError, match=rf"cannot listen on {listen}: .*; set \[admin\] listen to a free port"):
        await AdminApi(listen, lambda: STATUS).start()
    await api.stop()
