"""Traces the packets of tests through the rules of nftables: `nft monitor trace`, for the test's own ports alone.

The rules are in a table with the flag `owner`: it belongs to the netlink socket of one nft process, and the kernel
removes it when that process ends, however it ends. nft runs interactively, and ends with its standard input.
"""

import asyncio
import itertools
import os
import socket
from collections.abc import AsyncIterator, Collection
from contextlib import asynccontextmanager

from mesh.model.codes import Code
from mesh.model.part import DaemonPart
from mesh.model.service import Transport
from mesh.util.bulkhead import Bulkhead
from mesh.util.nft import NftError, explain_refusal
from mesh.util.program import ADMIN_PATH

bulkhead = Bulkhead(DaemonPart.HOST)

TABLE = "vipmesh_test"
"""The beginning of the table's name. The process ID and a number follow: several traces may run at once."""
MAX_LINES = 20_000
"""Lines of the trace that are kept; a packet has some ten to twenty."""
_PATIENCE = 10.0
"""Seconds that nft has to start and to show a packet."""
_MARK_AGAIN = 0.05
"""Seconds after which the marking packet is sent again, until nft listens."""
_PRIORITY = -350
"""Before connection tracking (-200) and before the rules of `raw` (-300): linux/netfilter_ipv4.h."""


_numbers = itertools.count()


class PacketTrace:
    """A running trace. `trace_packets` makes it."""

    def __init__(
        self,
        table: str,
        rules: asyncio.subprocess.Process,
        monitor: asyncio.subprocess.Process,
        refusal: asyncio.Task[bytes | None],
    ) -> None:
        """`rules`: the process that owns the table. `refusal`: reads the first error that it prints; None if
        that failed.
        """
        self._table = table
        self._rules = rules
        self._monitor = monitor
        self._refusal = refusal
        self.lines: list[str] = []
        """The lines of `nft monitor trace` so far, without those of the marking packets."""

    async def watch(self, transport: Transport, ports: Collection[int]) -> None:
        """Trace packets from and to these ports of the test from now on. Raises `NftError`."""
        if ports:
            await self.run(
                f"add element inet {self._table} {transport}_ports {{ {', '.join(map(str, sorted(ports)))} }}\n"
            )
        await self.flush()

    async def flush(self) -> None:
        """Wait until every packet before this call is in `lines`. Raises `NftError`."""
        # The kernel reports packets in order, so a packet of our own is behind all that came before it.
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as marker:
            marker.bind(("127.0.0.1", 0))
            port = marker.getsockname()[1]
            await self.run(f"add element inet {self._table} udp_ports {{ {port} }}\n")
            try:
                async with asyncio.timeout(_PATIENCE):
                    while not await self._has_seen(marker, port):
                        if self._refusal.done():
                            raise _explain(self._refusal.result())
            except TimeoutError as error:
                raise NftError(
                    Code.NFT_FAILED, f"nft shows no packets within {_PATIENCE:g} s: run `nft monitor trace` to see why"
                ) from error

    async def _has_seen(self, marker: socket.socket, port: int) -> bool:
        """Send a marking packet, and read lines until it is seen or some time has passed."""
        assert self._monitor.stdout is not None
        marker.sendto(b"", ("127.0.0.1", port))
        try:
            async with asyncio.timeout(_MARK_AGAIN):
                while line := (await self._monitor.stdout.readline()).decode("utf-8", "replace"):
                    if f"udp sport {port} udp dport {port} " in line:
                        return True
                    if len(self.lines) < MAX_LINES:
                        self.lines.append(line.rstrip("\n"))
        except TimeoutError:
            return False
        assert self._monitor.stderr is not None
        raise explain_refusal((await self._monitor.stderr.read()).decode("utf-8", "replace"))

    async def run(self, text: str) -> None:
        """Run commands in the nft process that owns the table. `flush` raises what it refuses. Raises `NftError`."""
        assert self._rules.stdin is not None
        try:
            self._rules.stdin.write(text.encode())
            await self._rules.stdin.drain()
        except (ConnectionError, BrokenPipeError) as error:
            raise _explain(await self._refusal) from error


@asynccontextmanager
async def trace_packets() -> AsyncIterator[PacketTrace]:
    """Trace the packets that are to be watched; the rules are removed at the end, whatever happens.

    Raises `NftError` if nftables cannot be used here.
    """
    monitor = await _nft("monitor", "trace")
    try:
        rules = await _nft("-i")
        try:
            assert rules.stdout is not None
            table, refusal = (
                f"{TABLE}_{os.getpid()}_{next(_numbers)}",
                asyncio.ensure_future(bulkhead.run("the output of nft", _read_refusal, rules.stdout)),
            )
            trace = PacketTrace(table, rules, monitor, refusal)
            await trace.run(_table_script(table))
            await trace.flush()
            yield trace
        finally:
            await _end(rules)
            await asyncio.gather(refusal, return_exceptions=True)
    finally:
        await _end(monitor)


def _explain(refusal: bytes | None) -> NftError:
    return explain_refusal((refusal or b"").decode("utf-8", "replace"))


async def _read_refusal(output: asyncio.StreamReader) -> bytes:
    """Return the first error that nft prints; empty once it has ended. Notes, such as on the terminal, are dropped."""
    while line := await output.readline():
        if b"rror" in line or b"not permitted" in line:
            return line
    return b""


def _table_script(table: str) -> str:
    """Return the commands that make the table."""
    lines = [f"add table inet {table} {{ flags owner; }}", f"add chain inet {table} tests"]
    for transport in ("tcp", "udp"):
        lines.append(f"add set inet {table} {transport}_ports {{ type inet_service; }}")
        lines += [
            f"add rule inet {table} tests {transport} {end} @{transport}_ports meta nftrace set 1"
            for end in ("sport", "dport")
        ]
    # Chains without rules show that a packet has come to their hook.
    for hook in ("prerouting", "output", "input", "forward", "postrouting"):
        lines.append(f"add chain inet {table} {hook} {{ type filter hook {hook} priority {_PRIORITY}; }}")
    lines += [f"add rule inet {table} {hook} jump tests" for hook in ("prerouting", "output")]
    return "\n".join((*lines, ""))


async def _nft(*arguments: str) -> asyncio.subprocess.Process:
    try:
        return await asyncio.create_subprocess_exec(
            "nft",
            *arguments,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT if arguments == ("-i",) else asyncio.subprocess.PIPE,
            env={**os.environ, "LC_ALL": "C", "PATH": f"{os.environ.get('PATH', '')}:{ADMIN_PATH}"},
        )
    except OSError as error:
        raise NftError(Code.NFT_FAILED, f"nft cannot be run ({error.strerror}): `apt-get install nftables`") from error


async def _end(process: asyncio.subprocess.Process) -> None:
    if process.returncode is None:
        process.kill()
    await process.wait()
