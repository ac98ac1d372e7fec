"""Reads the facts of this host, and says when they may have changed."""

import asyncio
import re
from collections.abc import AsyncGenerator, Iterable, Sequence
from contextlib import aclosing
from dataclasses import replace
from functools import partial
from pathlib import Path

from mesh.host import HostError
from mesh.host.addresses import watch_network_changes
from mesh.host.certificates import read_certificates
from mesh.host.facts import ConntrackRoom, HostFacts
from mesh.host.free_space import parse_port_list
from mesh.host.listeners import listening_ports
from mesh.host.overlap import Network, read_networks
from mesh.model.codes import Code
from mesh.model.part import DaemonPart
from mesh.model.service import Transport
from mesh.util.bulkhead import Bulkhead
from mesh.util.regular_file import world_readable

bulkhead = Bulkhead(DaemonPart.HOST)

PROC = Path("/proc")
"""The directory of the kernel's files."""
INTERVAL = 10.0
"""Seconds after which the facts are read although no change was announced: kernel settings announce none."""
_REST, _LEAST_REST = 20, 0.5
"""The pause between two readings: a multiple of the last one's duration, and at least so many seconds."""
_FEW_SOCKETS = 4096
"""With more sockets the ports in use are not read; they only serve to propose free ones."""


class HostFactReader:
    """Reads the facts of the network namespace that the daemon runs in."""

    def __init__(
        self,
        pool: Network,
        certificates: Sequence[Path] = (),
        *,
        secrets: Iterable[Path] = (),
        interval: float = INTERVAL,
    ) -> None:
        """`certificates`: files of the daemon's own. `secrets` are files that not every user may read. `interval`:
        seconds.
        """
        self._pool = pool
        self._certificates = certificates
        self._secrets = tuple(secrets)
        self._interval = interval
        self._took = 0.0

    async def changes(self) -> AsyncGenerator[None, None]:
        """Yield at once, when announcements begin, after each change of the network, and after `interval` seconds
        without one. The interval is all there is while the kernel offers no notifications.
        """
        changed = asyncio.Event()
        follow = bulkhead.keep_running("network changes", partial(_follow, changed))
        following = asyncio.get_running_loop().create_task(follow, name="network changes")
        try:
            while True:
                changed.clear()
                yield
                # Routes may change all the time: reading them must not cost more than a few per cent of a core.
                await asyncio.sleep(max(_LEAST_REST, _REST * self._took))
                try:
                    async with asyncio.timeout(self._interval):
                        await changed.wait()
                except TimeoutError:
                    pass
        finally:
            following.cancel()

    async def read(self) -> HostFacts:
        """Return the facts, without those of the engine. Raises `HostError` if the kernel cannot be asked."""
        loop = asyncio.get_running_loop()
        began = loop.time()
        try:
            readable = await asyncio.to_thread(world_readable, self._secrets)
            facts = await read_host_facts(self._pool, certificates=self._certificates)
            return replace(facts, readable_files=readable)
        except OSError as error:
            raise HostError(
                Code.HOST_UNREADABLE, f"the facts of this host cannot be read ({error.strerror or error}): see `dmesg`"
            ) from error
        finally:
            self._took = loop.time() - began


async def read_host_facts(pool: Network, proc: Path = PROC, certificates: Sequence[Path] = ()) -> HostFacts:
    """Return the facts of this host for a pool, without those of the engine. Raises `OSError`."""
    listening = await listening_ports(proc / "net") if await asyncio.to_thread(_sockets, proc) <= _FEW_SOCKETS else ()
    facts = await asyncio.to_thread(_read, pool, proc, frozenset(listening))
    return replace(facts, certificates=await asyncio.to_thread(read_certificates, certificates))


def port_range(text: str | None) -> range:
    """Return the ports of the text of ip_local_port_range; empty for None or a text that is not understood."""
    numbers = re.fullmatch(r"\s*(\d+)\s+(\d+)\s*", text or "")
    return range(int(numbers[1]), int(numbers[2]) + 1) if numbers else range(0)


async def _follow(changed: asyncio.Event) -> None:
    async with aclosing(watch_network_changes(routes=True)) as notifications:
        async for _ in notifications:
            changed.set()


def _read(pool: Network, proc: Path, listening: frozenset[tuple[Transport, int]]) -> HostFacts:
    routes, addresses = read_networks(pool.version)
    net = proc / "sys/net"
    count, maximum = (_number(net / f"netfilter/nf_conntrack_{name}") for name in ("count", "max"))
    filtering = _number(net / f"bridge/bridge-nf-call-ip{'6' if pool.version == 6 else ''}tables")
    return HostFacts(
        routes=routes,
        addresses=addresses,
        local_ports=port_range(_text(net / "ipv4/ip_local_port_range")),
        reserved_ports=parse_port_list(_text(net / "ipv4/ip_local_reserved_ports") or ""),
        listening=listening,
        rp_filter=_rp_filter(net / "ipv4/conf", {entry.interface for entry in addresses}),
        bridge_filtering=None if filtering is None else filtering > 0,
        conntrack=None if count is None or not maximum else ConntrackRoom(count, maximum),
    )


def _rp_filter(conf: Path, interfaces: Iterable[str]) -> dict[str, int]:
    """Return the mode of each interface: the kernel takes the higher one of `all` and the interface's own."""
    everywhere = _number(conf / "all/rp_filter") or 0
    return {name: max(everywhere, _number(conf / name / "rp_filter") or 0) for name in sorted(interfaces)}


def _sockets(proc: Path) -> int:
    """Return the number of sockets, proc_net(5); 0 if it is not told."""
    found = re.match(r"sockets: used (\d+)", _text(proc / "net/sockstat") or "")
    return int(found[1]) if found else 0


def _number(path: Path) -> int | None:
    """Return the number in a file; None if there is no such file or it has no number."""
    text = (_text(path) or "").strip()
    return int(text) if text.isdigit() else None


def _text(path: Path) -> str | None:
    """Return the text of a file; None if it does not exist here, or may not be read."""
    try:
        return path.read_text()
    except (FileNotFoundError, PermissionError, NotADirectoryError):
        return None
