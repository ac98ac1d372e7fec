"""Whether an engine still listens: it closes its address before it ends its containers."""

import asyncio
import socket
from pathlib import Path

from mesh.sources.docker.client import refuses_connections


async def test_a_socket_that_nobody_listens_on_refuses(tmp_path: Path) -> None:
    path = tmp_path / "docker.sock"
    assert await refuses_connections(f"unix://{path}")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        assert await refuses_connections(f"unix://{path}")
        listener.listen()
        assert not await refuses_connections(f"unix://{path}")
    assert await refuses_connections(f"unix://{path}")


async def test_a_port_that_nobody_listens_on_refuses() -> None:
    server = await asyncio.start_server(lambda _, writer: writer.close(), "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    assert not await refuses_connections(f"tcp://127.0.0.1:{port}")
    server.close()
    await server.wait_closed()
    assert await refuses_connections(f"tcp://127.0.0.1:{port}")


async def test_an_engine_that_takes_nothing_for_now_is_not_ending(tmp_path: Path) -> None:
    """A full queue, a name that does not resolve: nothing is concluded."""
    path = tmp_path / "docker.sock"
    with socket.socket(socket.AF_UNIX) as listener, socket.socket(socket.AF_UNIX) as waiting:
        listener.bind(str(path))
        listener.listen(0)
        waiting.connect(str(path))
        assert not await refuses_connections(f"unix://{path}")
    assert not await refuses_connections("tcp://engine.invalid:2375")
