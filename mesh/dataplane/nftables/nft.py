"""Running nft(8): a transaction goes in as text, a listing comes out as JSON.

The program and not its library: it does not hold up the event loop, however large the table is, and what goes wrong in
it stays in it.
"""

import asyncio
import os
import shutil
from collections.abc import Sequence

from mesh.dataplane import DataPlaneError

_PATIENCE = 120.0
"""Seconds for one run."""
_MISSING = "the program nft is not installed: `apt-get install nftables`"
_FORBIDDEN = "not permitted to program nftables: run as root or with CAP_NET_ADMIN (compose: `cap_add: [NET_ADMIN]`)"


class NftError(Exception):
    """nft refused what it was given; nothing of it was done. The text is nft's own first words."""


async def commit(lines: Sequence[str], *, check: bool = False) -> None:
    """Run commands as one transaction: all or, with `NftError`, nothing. `check`: only see whether it could be done.

    Raises `DataPlaneError` where nft cannot be used at all.
    """
    await _run(*(("-c",) if check else ()), "-f", "-", given="\n".join(lines) + "\n")


async def listing(*what: str, terse: bool = False) -> str | None:
    """What nft lists as JSON; None: it is not there. `terse`: without the elements of sets that have a name.

    Raises `NftError` and `DataPlaneError`.
    """
    try:
        return await _run("-j", *(("-t",) if terse else ()), "list", *what)
    except NftError as error:
        if os.strerror(2) in str(error):
            return None
        raise


async def _run(*arguments: str, given: str = "") -> str:
    program = shutil.which("nft", path=f"{os.environ.get('PATH', os.defpath)}:/usr/sbin:/sbin")
    if program is None:
        raise DataPlaneError(_MISSING)
    process = await asyncio.create_subprocess_exec(
        program,
        *arguments,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env={**os.environ, "LC_ALL": "C"},
    )
    try:
        async with asyncio.timeout(_PATIENCE):
            out, err = await process.communicate(given.encode())
    except TimeoutError as error:
        raise DataPlaneError(f"nft did not end within {_PATIENCE:g} s: look into `dmesg`") from error
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    if process.returncode:
        raise _refusal(err.decode(errors="replace"))
    return out.decode()


def _refusal(said: str) -> NftError | DataPlaneError:
    first = next((line.strip() for line in said.splitlines() if "rror" in line), said.strip() or "no reason is given")
    if "Operation not permitted" in said or "must be root" in said:
        return DataPlaneError(_FORBIDDEN)
    return NftError(first.partition("Error: ")[2] or first)
