"""Hosts for typed commands: a shell in a network namespace, with its own /etc, /run, /var/lib and /var/log."""

import asyncio
import os
import sys
from asyncio.subprocess import PIPE, STDOUT, Process
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

from tests.docs.pages import ROOT

_SETUP = """
set -e
hostname {name}
mount -t tmpfs tmpfs {scratch}
mkdir {scratch}/etc {scratch}/work {scratch}/bin
mount -t overlay overlay -o lowerdir=/etc,upperdir={scratch}/etc,workdir={scratch}/work /etc
rm -f /etc/vipmesh.toml
[ -z "{socket}" ] || {{ touch {scratch}/docker.sock; mount --bind {socket} {scratch}/docker.sock; }}
for place in /run /var/lib /var/log; do mount -t tmpfs tmpfs $place; done
[ -z "{socket}" ] || {{ touch /run/docker.sock; mount --bind {scratch}/docker.sock /run/docker.sock; }}
printf '#!{python}\\nimport sys\\nfrom mesh.cli.main import main\\nsys.exit(main())\\n' > {scratch}/bin/vipmesh
chmod +x {scratch}/bin/vipmesh
export PATH={scratch}/bin:$PATH:/usr/sbin:/sbin PYTHONPATH={paths} HOME={scratch}
set +e
"""
_END = "=== that was all: "


class Host:
    """A shell. What it runs in the background ends with it."""

    def __init__(self, process: Process) -> None:
        self._process = process

    async def type(self, commands: str, seconds: float = 90) -> tuple[int, str]:
        """Exit status of the last one, and what all of them have printed."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(f'{commands}\necho; echo "{_END}$?"\n'.encode())
        printed = ""
        try:
            async with asyncio.timeout(seconds):
                while line := (await self._process.stdout.readline()).decode():
                    if line.startswith(_END):
                        return int(line.removeprefix(_END)), printed
                    printed += line
        except TimeoutError:
            raise AssertionError(f"no end after {seconds:g} s: {commands}\n{printed}") from None
        raise AssertionError(f"the shell has ended: {commands}\n{printed}")


@asynccontextmanager
async def host(name: str, inside: Sequence[str], scratch: Path, socket: Path | None = None) -> AsyncIterator[Host]:
    """`inside`: what goes before a command that shall run in its network; `socket`: of its Docker engine."""
    scratch.mkdir()
    paths = f"{ROOT}:{ROOT / 'dns'}"
    setup = _SETUP.format(name=name, scratch=scratch, socket=socket or "", python=sys.executable, paths=paths)
    process = await asyncio.create_subprocess_exec(
        *inside,
        *("unshare", "--mount", "--uts", "--pid", "--fork", "--kill-child", "--mount-proc", "bash", "-s"),
        stdin=PIPE,
        stdout=PIPE,
        stderr=STDOUT,
        env={**os.environ, "LC_ALL": "C.UTF-8"},
    )
    there = Host(process)
    try:
        status, printed = await there.type(setup)
        assert status == 0, printed
        yield there
    finally:
        process.kill()
        await process.communicate()
