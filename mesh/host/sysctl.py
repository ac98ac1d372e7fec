"""The sysctl settings that a router of VIPs needs, all of them of the network namespace that the daemon runs in.

Only settings that differ are written, and each is reported with its old value, so that it can be undone. In a container
/proc/sys is often read-only. Then the host must have the values already, and the error lists the lines for its
/etc/sysctl.d.
"""

import asyncio
import os
import re
from collections.abc import Mapping
from pathlib import Path

from mesh.host import HostError
from mesh.model.codes import Code

PROC_SYS = Path("/proc/sys")
"""The directory of the kernel's settings."""

_REUSE_REPAIRED = (5, 9)
"""The kernel version from which conn_reuse_mode works with connection tracking."""
_SWAPPED = str.maketrans("./", "/.")


class SysctlError(HostError):
    """Settings are not as they must be and cannot be changed. The text ends with the remedy."""


class RouterSettings:
    """Keeps the settings of a router of VIPs as they must be.

    `ipv6` includes those for IPv6 VIPs, `ipvs` those of IPVS.
    """

    def __init__(self, *, ipv6: bool = False, ipvs: bool = True) -> None:
        self._ipv6 = ipv6
        self._ipvs = ipvs

    async def repair(self, *_: object) -> list[str]:
        """Set every setting that differs; returns one line for each that was changed. Raises `SysctlError`."""
        changed = await asyncio.to_thread(self._mend)
        return [f"sysctl {key} is {new}, was {old}" for key, old, new in changed]

    def _mend(self) -> list[tuple[str, str, str]]:
        # accept_ra first: switching on forwarding before would drop the routes that are to be kept.
        kept = ensure_settings(route_advertisement_settings()) if self._ipv6 else []
        return kept + ensure_settings(router_settings(os.uname().release, ipv6=self._ipv6, ipvs=self._ipvs))


def route_advertisement_settings(root: Path = PROC_SYS) -> Mapping[str, int]:
    """Return the settings that keep a host's own IPv6 routes when it begins to forward; empty if it forwards already.

    A router ignores router advertisements unless accept_ra is 2 (kernel docs, networking/ip-sysctl), so a host that has
    its default route from them would lose it. On a host that forwards already, the present values are taken as
    intended.
    """
    conf = root / "net/ipv6/conf"
    forwards = conf / "all/forwarding"
    if not forwards.exists() or forwards.read_text().strip() != "0":
        return {}
    heeding = [path.parent.name for path in conf.glob("*/accept_ra") if path.read_text().strip() == "1"]
    return {f"net.ipv6.conf.{name.replace('.', '/')}.accept_ra": 2 for name in sorted(heeding)}


def router_settings(release: str, *, ipv6: bool = False, ipvs: bool = True) -> Mapping[str, int]:
    """Return the settings that VIPs on a local interface need on a kernel (kernel docs, networking/ipvs-sysctl).

    `release` is the kernel release as `uname -r` prints it.

    * conntrack: packets that IPVS has translated can be source-translated too, so that replies come back through this
      worker.
    * expire_nodest_conn, expire_quiescent_template: clients move away from a real server that is gone or has weight 0.
    * conn_reuse_mode: a client that reuses a source port is scheduled again (1). Before 5.9, kernels with connection
      tracking drop the first packet of such a connection for a second, so the value is 0 there.
    * arp_ignore, arp_announce: no worker answers ARP for a VIP on the wire, since every worker has it.
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
    """Write the settings that differ; returns those that were changed, as (key, old, new).

    A slash in a key stands for a dot in a name, as in sysctl(8): `net.ipv6.conf.eth0/100.accept_ra`. `root` is the
    directory that holds the settings. All settings that can be written are written before `SysctlError` is raised,
    which names those that cannot.
    """
    changed: list[tuple[str, str, str]] = []
    refused: list[tuple[str, str, str]] = []
    for key, value in settings.items():
        path, new = root / key.translate(_SWAPPED), str(value)
        try:
            # The kernel separates the numbers of one setting by tabs.
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
