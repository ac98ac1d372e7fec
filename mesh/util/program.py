"""Runs programs that change the host, such as nft(8) and iptables(8), with a limit for their time."""

import asyncio
import os
from collections.abc import Sequence
from dataclasses import dataclass

ADMIN_PATH = "/usr/sbin:/sbin"
"""Directories of programs for administrators, which the PATH of a service may lack."""


@dataclass(frozen=True, slots=True)
class ProgramResult:
    """What a program printed, and how it ended."""

    status: int
    """The exit status; negative if a signal ended it."""
    printed: str
    """Its standard output."""
    trouble: str
    """Its standard error."""


async def run_program(
    program: str, arguments: Sequence[str], *, given: str = "", seconds: float, admin_path: str = ADMIN_PATH
) -> ProgramResult:
    """Run a program with `given` as its standard input; it has so many seconds. It is searched for in PATH, and in
    `admin_path` after that.

    Raises `FileNotFoundError` if there is no such program, another `OSError` if it cannot be run, and `TimeoutError` if
    it has not ended in time; then it is killed. It is killed also if the caller is cancelled.
    """
    # A file in memory and not a pipe: a program may end before it has read its input, and writing to the pipe would
    # fail.
    with os.fdopen(os.memfd_create(program), "w+b") as text:
        text.write(given.encode())
        text.seek(0)
        process = await asyncio.create_subprocess_exec(
            program,
            *arguments,
            stdin=text,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            # LC_ALL=C: callers recognise errors by their English text.
            env={**os.environ, "LC_ALL": "C", "PATH": f"{os.environ.get('PATH', '')}:{admin_path}"},
        )
    try:
        async with asyncio.timeout(seconds):
            printed, trouble = await process.communicate()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    return ProgramResult(process.returncode or 0, printed.decode(errors="replace"), trouble.decode(errors="replace"))
