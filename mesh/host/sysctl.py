"""The kernel's settings that a router of VIPs needs, all of the network namespace we run in.

Only what differs is written, and what was written is told with the old value, so that it can be undone. In a
container /proc/sys is often read-only: then the host must have the values already, and the error gives the lines for
its /etc/sysctl.d.
"""

import asyncio
import os
import re
from collections.abc import Mapping
from pathlib import Path

from mesh.host import HostError
from mesh.model.codes import Code

PROC_SYS = Path("/proc/sys")

_REUSE_REPAIRED = (5, 9)
_SWAPPED = str.maketrans("./", "/.")


class SysctlError(HostError):
    """Settings that are not as they must be and cannot be changed. The text ends with the remedy."""


class RouterSettings:
    """Keeps the settings of a router of VIPs as they must be; `ipv6`: of IPv6 VIPs; `ipvs`: with those of IPVS."""

    def __init__(self, *, ipv6: bool = False, ipvs: bool = True) -> None:
        self._ipv6 = ipv6
        self._ipvs = ipvs

    async def mend(self, *_: object) -> list[str]:
        """Make them so; what was changed, a line each. Raises `SysctlError`."""
        changed = await asyncio.to_thread(self._mend)
        return [f"sysctl {key} is {new}, was {old}" for key, old, new in changed]

    def _mend(self) -> list[tuple[str, str, str]]:
        kept = ensure_settings(route_advertisement_settings()) if self._ipv6 else []
        return kept + ensure_settings(router_settings(os.uname().release, ipv6=self._ipv6, ipvs=self._ipvs))


def route_advertisement_settings(root: Path = PROC_SYS) -> Mapping[str, int]:
    """What keeps a host's own IPv6 routes when it begins to forward.

    A router ignores router advertisements unless accept_ra is 2 (kernel docs, networking/ip-sysctl): a host that has
    its default route from them would lose it. On a host that forwards already, whatever is set is meant.
    """
    conf = root / "net/ipv6/conf"
    forwards = conf / "all/forwarding"
    if not forwards.exists() or forwards.read_text().strip() != "0":
        return {}
    heeding = [path.parent.name for path in conf.glob("*/accept_ra") if path.read_text().strip() == "1"]
    return {f"net.ipv6.conf.{name.replace('.', '/')}.accept_ra": 2 for name in sorted(heeding)}


def router_settings(release: str, *, ipv6: bool = False, ipvs: bool = True) -> Mapping[str, int]:
    """What VIPs on a local interface need on this kernel (`uname -r`): kernel docs, networking/ipvs-sysctl.

    * conntrack: what IPVS translates can be source-translated, so that replies come back by this worker;
    * expire_nodest_conn, expire_quiescent_template: clients leave a real server that is gone or has weight 0;
    * conn_reuse_mode: a client that takes a source port again is scheduled anew (1), but kernels before 5.9 drop the
      first packet of such a connection for a second when conntrack is on, so there it is 0;
    * arp_ignore, arp_announce: no worker answers for a VIP on the wire, since every worker has it.
    """
    version = tuple(int(number) for number in re.findall(r"\d+", release)[:2])
    of_ipvs = {
        "net.ipv4.vs.conntrack": 1,
        "net.ipv4.vs.expire_nodest_conn": 1,
        "net.ipv4.vs.expire_quiescent_template": 1,
        "net.ipv4.vs.conn_reuse_mode": int(version >= _REUSE_REPAIRED),
    }
    return {
        **({"net.ipv6.conf.all.forwarding": 1} if ipv6 else {}),
        "net.ipv4.ip_forward": 1,
        **(of_ipvs if ipvs else {}),
        "net.ipv4.conf.all.arp_ignore": 1,
        "net.ipv4.conf.all.arp_announce": 2,
    }


def ensure_settings(settings: Mapping[str, str | int], root: Path = PROC_SYS) -> list[tuple[str, str, str]]:
    """Make the settings so; returns those that were changed, as (key, old, new).

    As sysctl(8) has it, a slash in a key stands for a dot in a name: `net.ipv6.conf.eth0/100.accept_ra`.

    All that can be set are set before `SysctlError` names those that cannot.
    """
    changed: list[tuple[str, str, str]] = []
    refused: list[tuple[str, str, str]] = []
    for key, value in settings.items():
        path, new = root / key.translate(_SWAPPED), str(value)
        try:
            old = " ".join(path.read_text().split())
        except OSError as error:
            refused.append((key, new, f"it cannot be read ({error.strerror})"))
            continue
        if old == new:
            continue
        try:
            path.write_text(new)
        except OSError as error:
            refused.append((key, new, f"it is {old} and cannot be written ({error.strerror})"))
            continue
        changed.append((key, old, new))
    if refused:
        raise SysctlError(Code.KERNEL_SETTING, _words(refused))
    return changed


def _words(refused: list[tuple[str, str, str]]) -> str:
    reasons = "; ".join(f"{key} must be {new}: {reason}" for key, new, reason in refused)
    lines = ", ".join(f"`{key} = {new}`" for key, new, _ in refused)
    modules = " after `modprobe ip_vs`" if any(key.startswith("net.ipv4.vs.") for key, _, _ in refused) else ""
    return f"{reasons}: on the host, write {lines} to /etc/sysctl.d/60-vipmesh.conf and run `sysctl --system`{modules}"
