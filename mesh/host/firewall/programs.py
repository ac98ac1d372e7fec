"""Reads and edits the firewall of this host by its own programs: iptables(8), whose rules other programs see too.

Nothing here waits without a limit. What cannot be read is part of the result, with the reason and the remedy.
"""

import asyncio
import re
from collections.abc import AsyncIterator, Mapping, Sequence
from pathlib import Path
from socket import AF_INET, AF_INET6
from typing import Protocol

from pyroute2 import IPRoute, NetlinkError
from typing_extensions import override

from mesh.host import HostError
from mesh.host.firewall.advice import iptables_program
from mesh.host.firewall.facts import OWN_TABLES, Backend, FirewallTexts
from mesh.host.firewall.marking import TABLE
from mesh.host.firewall.watch import watch_rule_changes
from mesh.host.nft_table import OwnedTable, TableChange
from mesh.model.codes import Code
from mesh.util import nft
from mesh.util.nft import NftError
from mesh.util.program import ADMIN_PATH, ProgramResult, run_program

PATIENCE = 10.0
"""Seconds for one run."""
_LOCK_SECONDS = "5"
"""How long iptables waits for its lock: an argument of `-w`."""
_MOST = 16 << 20
"""Characters of a listing that are read; what comes after is left out."""
_IPTABLES_TABLES = frozenset({"filter", "nat", "mangle", "raw", "security"})
_INCOMPATIBLE = "Table `filter' is incompatible"
_LEGACY_TABLES = {4: Path("/proc/net/ip_tables_names"), 6: Path("/proc/net/ip6_tables_names")}


class MarkingTable(Protocol):
    """The nftables table that marks packets, of one address family. All methods raise `NftError`."""

    async def ensure(self, script: str) -> TableChange:
        """Load the script unless the table is what it has made before."""
        ...

    async def remove(self) -> bool:
        """Delete the table; returns whether there was one."""
        ...


class FirewallPrograms(Protocol):
    """The programs of the firewall of this host, as far as they are needed."""

    async def read(self, version: int) -> FirewallTexts:
        """Return the listings of an address family; `version` is its IP version. Changes nothing.

        Raises `HostError` if nothing at all can be read.
        """
        ...

    async def edit(self, backend: Backend, version: int, arguments: Sequence[str]) -> None:
        """Run iptables for a backend, such as `-A DOCKER-USER -j ACCEPT`. Raises `HostError` if it fails."""
        ...

    def marking_table(self, family: str) -> MarkingTable:
        """Return the table that marks packets, for the family `ip` or `ip6`."""
        ...

    def changes(self) -> AsyncIterator[None]:
        """Yield whenever rules may have changed; ends if that cannot be noticed."""
        ...


class SystemPrograms(FirewallPrograms):
    """Runs `iptables-nft`, `iptables-legacy`, their forms for IPv6, and `nft`."""

    @override
    async def read(self, version: int) -> FirewallTexts:
        legacy = await asyncio.to_thread(_uses_legacy, version)
        saves: dict[Backend, str] = {}
        failures: dict[Backend, str] = {}
        # iptables-legacy-save would load the modules of the backend `legacy` on a host that does not use it.
        for backend in (Backend.NFT,) if legacy is False else tuple(Backend):
            program = f"{iptables_program(backend, version)}-save"
            try:
                done = await _run(program, ())
            except HostError as error:
                failures[backend] = str(error)
                continue
            if done.status == 0 and _INCOMPATIBLE not in done.printed + done.trouble:
                saves[backend] = done.printed[:_MOST]
            else:
                failures[backend] = explain_refusal(program, backend, done)
        try:
            listing = await _foreign_tables(version, without_iptables=Backend.NFT in saves)
        except NftError as error:
            if not saves:
                raise HostError(Code.FIREWALL_UNREADABLE, f"the firewall cannot be read: {error}") from error
            listing = ""
        try:
            bridges, links, networks = await asyncio.to_thread(_links, version)
        except (OSError, NetlinkError) as error:
            raise HostError(Code.FIREWALL_UNREADABLE, f"interfaces cannot be listed: {error}") from error
        return FirewallTexts(saves, failures, legacy, listing[:_MOST], bridges, links, networks)

    @override
    async def edit(self, backend: Backend, version: int, arguments: Sequence[str]) -> None:
        program = iptables_program(backend, version)
        done = await _run(program, ("-w", _LOCK_SECONDS, *arguments))
        if done.status:
            raise HostError(Code.FIREWALL_FAILED, explain_refusal(program, backend, done))

    @override
    def marking_table(self, family: str) -> MarkingTable:
        return OwnedTable(family, TABLE)

    @override
    def changes(self) -> AsyncIterator[None]:
        return watch_rule_changes()


async def _run(program: str, arguments: Sequence[str]) -> ProgramResult:
    """Run a program of iptables. Raises `HostError` if it cannot be run or does not end in time."""
    try:
        return await run_program(program, arguments, seconds=PATIENCE, admin_path=ADMIN_PATH)
    except FileNotFoundError as error:
        raise HostError(
            Code.FIREWALL_UNREADABLE, f"there is no program {program}: `apt-get install iptables`"
        ) from error
    except TimeoutError as error:
        raise HostError(
            Code.FIREWALL_FAILED, f"{program} did not end in time ({PATIENCE:g} s): see who holds /run/xtables.lock"
        ) from error
    except OSError as error:
        raise HostError(
            Code.FIREWALL_UNREADABLE, f"{program} cannot be run ({error.strerror}): see `which {program}`"
        ) from error


def explain_refusal(program: str, backend: Backend, done: ProgramResult) -> str:
    """Return why a program failed, ending with the remedy."""
    lines = [line.strip() for line in (done.trouble + done.printed).splitlines() if line.strip()]
    first = next((line for line in lines if not line.startswith("#")), "it gives no reason")
    if _INCOMPATIBLE in done.printed + done.trouble:
        return f"{program} does not understand rules of nft in its tables: move them to a table of their own"
    if re.search(r"Permission denied|Operation not permitted|you must be root", done.trouble):
        lacking = "NET_RAW" if backend is Backend.LEGACY else "NET_ADMIN"
        return f"{program} is not permitted: run as root or with CAP_{lacking} (compose: `cap_add: [{lacking}]`)"
    return f"{program} refuses: {first}"


def _uses_legacy(version: int) -> bool | None:
    """Return whether this network namespace has legacy rules; None if the kernel can have some and this user may not
    see them.
    """
    try:
        return "filter" in _LEGACY_TABLES[version].read_text().split()
    except FileNotFoundError:
        return False
    except PermissionError:
        module = "ip6table_filter" if version == 6 else "iptable_filter"
        return None if Path("/sys/module", module).exists() else False


async def _foreign_tables(version: int, *, without_iptables: bool) -> str:
    """Return the listings of all tables of a family that are not ours. Raises `NftError`."""
    families = ("inet", "ip6" if version == 6 else "ip")
    listings = []
    for family, name in re.findall(r"^table (\w+) (\S+)$", await nft.list_tables(), re.MULTILINE):
        if family not in families or name.startswith(OWN_TABLES):
            continue
        if without_iptables and family != "inet" and name in _IPTABLES_TABLES:
            continue
        listings.append(await nft.list_table(family, name) or "")
    return "".join(listings)


def _links(version: int) -> tuple[Mapping[str, int], frozenset[int], Mapping[str, Sequence[str]]]:
    """Return the bridges by name, the indexes of other interfaces, and the host's addresses on each bridge."""
    with IPRoute() as route:
        links = [link for link in route.get_links() if link.get_attr("IFLA_MASTER") is None]
        bridges = {
            link["index"]: link.get_attr("IFLA_IFNAME")
            for link in links
            if link.get_nested("IFLA_LINKINFO", "IFLA_INFO_KIND") == "bridge"
        }
        networks: dict[str, list[str]] = {name: [] for name in bridges.values()}
        for found in route.get_addr(family=AF_INET6 if version == 6 else AF_INET):
            if found["index"] in bridges:
                networks[bridges[found["index"]]].append(f"{found.get_attr('IFA_ADDRESS')}/{found['prefixlen']}")
    others = frozenset(link["index"] for link in links) - bridges.keys()
    return {name: index for index, name in bridges.items()}, others, networks
