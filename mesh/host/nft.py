"""The program nft(8): run a script as one transaction, read a table back as JSON.

A program of its own and not a library: it cannot block the loop, its grammar is the one that operators read and the
docs show, and a transaction is whatever one script holds.
"""

import asyncio
import json
import os
import shutil
from collections.abc import Mapping
from typing import Any

from mesh.host import HostError

PATIENCE = 10.0
"""Seconds for one run; tables of thousands of rules take less than one."""

_SBIN = "/usr/sbin:/sbin"
_ABSENT = "No such file or directory"


class NftError(HostError):
    """nft is missing, may not or would not. The text ends with the remedy where there is one."""


async def run(script: str) -> None:
    """Apply a script (nft(8)), all of it or nothing. Raises `NftError`."""
    await _nft("-f", "-", given=script)


async def table(family: str, name: str) -> list[Mapping[str, Any]] | None:
    """What a table holds, as libnftables-json(5) objects such as `{"rule": {...}}`; None: there is no such table.

    Raises `NftError`.
    """
    try:
        said = await _nft("-j", "list", "table", family, name)
    except NftError as error:
        if _ABSENT in str(error):
            return None
        raise
    return [thing for thing in json.loads(said)["nftables"] if "metainfo" not in thing]


async def _nft(*arguments: str, given: str = "") -> str:
    program = shutil.which("nft", path=f"{os.environ.get('PATH', '')}:{_SBIN}")
    if program is None:
        raise NftError("the program nft is not installed, which sets up source NAT: `apt-get install nftables`")
    process = await asyncio.create_subprocess_exec(
        program,
        *arguments,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env={**os.environ, "LC_ALL": "C"},  # the kernel's reasons are recognised by their words
    )
    try:
        async with asyncio.timeout(PATIENCE):
            said, complaint = await process.communicate(given.encode())
    except TimeoutError as error:
        raise NftError(f"nft {arguments[0]} took more than {PATIENCE:g} s: is the host short of CPU time?") from error
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    if process.returncode != 0:
        raise NftError(_words(complaint.decode(errors="replace").strip()))
    return said.decode()


def _words(complaint: str) -> str:
    reason = f"nft: {complaint.splitlines()[0] if complaint else 'no reason given'}"
    if "not permitted" in complaint:
        return (
            f"{reason}; run the daemon as root, or with CAP_NET_ADMIN as an ambient capability "
            f"(systemd: AmbientCapabilities=), which reaches the programs that it starts"
        )
    if "not supported" in complaint:
        return (
            f"{reason}; the kernel lacks a part of nftables: `modprobe -a nft_chain_nat nft_masq nft_ct nft_fib_ipv4`"
        )
    return reason
