"""Listens on a unix socket that others may not open, from the moment it exists."""

import asyncio
import os
from collections.abc import Callable
from pathlib import Path


async def listen_privately(
    connected: Callable[[], asyncio.Protocol], path: Path, mode: int = 0o660, group: int = -1
) -> asyncio.AbstractServer:
    """Listen on a socket of this mode. `connected` makes the protocol of a connection; `group` is the number of a
    group, -1 for that of the process. What was left at the path by an earlier process is replaced. Raises `OSError`.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    previous = os.umask(0o777 ^ (mode if group < 0 else 0o600))
    try:
        server = await asyncio.get_running_loop().create_unix_server(connected, path)
    finally:
        os.umask(previous)
    if group >= 0:
        try:
            _give_to(path, mode, group)
        except OSError:
            server.close()
            raise
    return server


def _give_to(path: Path, mode: int, group: int) -> None:
    os.chown(path, -1, group)
    path.chmod(mode)
