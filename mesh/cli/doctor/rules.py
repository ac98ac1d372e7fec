"""Turns the facts of a host into findings, each with the command or setting that fixes it. Pure.

An error keeps the daemon from starting or forwarding. A warning causes a failure later or in some cases. A hint is only
about convenience. Successful checks are findings, too: they rule out causes.
"""

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from math import ceil

from mesh.cli.doctor.facts import CollectedOutput, DescribedEngine, DoctorFacts, KernelModule, ListeningSocket
from mesh.config.labels.values import escape_unprintable
from mesh.config.name_policy import name_policy
from mesh.config.settings import Driver, Settings
from mesh.daemon.firewall import firewall_settings
from mesh.daemon.host_needs import host_needs
from mesh.host.firewall.plan import firewall_problems
from mesh.host.host_problems import host_problems
from mesh.model.codes import Code
from mesh.model.engine_facts import EngineFacts
from mesh.model.problem import Severity
from mesh.sources.docker.log_files import READABLE_DRIVER

_RESOLVED = "/etc/systemd/resolved.conf.d/vipmesh.conf"
_STUB_LISTENERS = ("127.0.0.53", "127.0.0.54")
"""Where systemd-resolved listens by itself."""
_OF_SYSTEMD = "AmbientCapabilities={0} in the unit, `cap_add: [{1}]` in Compose, or run as root"


MAX_CLOCK_DIFFERENCE = 5.0
"""Seconds by which the engine's clock may differ from this host's without a finding."""

MAX_COMPOSE_ERRORS = 10
"""The most errors of compose files that are shown: `vipmesh check` shows all."""

RENEWED_BEFORE = 0.2
"""The share of its lifetime that is left when an engine has renewed its certificate at the latest (swarmkit
ca/renewer.go: after half to four fifths of it).
"""

LEAST_KEPT = 600.0
"""Seconds of lines that rotation should keep: as long may a store of logs be away, and nothing is lost."""

CODES = {
    "vip pool": Code.DOCTOR_VIP_POOL,
    "store": Code.DOCTOR_STORE,
    "data plane": Code.DOCTOR_DATA_PLANE,
    "capabilities": Code.DOCTOR_CAPABILITIES,
    "kernel settings": Code.DOCTOR_KERNEL_SETTINGS,
    "dns port": Code.DOCTOR_DNS_PORT,
    "published ports": Code.DOCTOR_PUBLISHED_PORTS,
    "resolver": Code.DOCTOR_RESOLVER,
    "container engine": Code.DOCTOR_CONTAINER_ENGINE,
    "live-restore": Code.DOCTOR_LIVE_RESTORE,
    "swarm": Code.DOCTOR_SWARM_CERTIFICATE,
    "log driver": Code.DOCTOR_LOG_DRIVER,
    "log rotation": Code.DOCTOR_LOG_ROTATION,
    "names": Code.DOCTOR_NAMES,
    "clock": Code.DOCTOR_CLOCK,
    "firewall": Code.DOCTOR_FIREWALL,
}
"""The code of a finding, by what it is about."""


_WATCHED = {Code.VIP_POOL_OVERLAPS: "vip pool", Code.OUTGOING_PORTS: "published ports"}
"""Problems of the daemon that have a code of their own here, with what they are about."""


class FindingLevel(StrEnum):
    """How severe a finding is."""

    ERROR = "error"
    """The daemon cannot start or cannot forward."""
    WARNING = "warning"
    """A failure later, or in some cases."""
    HINT = "hint"
    """A matter of convenience."""
    OK = "ok"
    """The check has succeeded."""


@dataclass(frozen=True, slots=True)
class Finding:
    """The result of one check of the host."""

    level: FindingLevel
    about: str
    """`data plane`, `capabilities`, `kernel settings`, `dns port`, `vip pool`, `host`, `resolver`, ..."""
    found: str
    """The state that was found."""
    mend: str | None = None
    """How to fix it: a command, or what to write where; None if there is nothing to do."""
    problem: Code | None = None
    """The code of a problem that the daemon reports too; None if the finding has the code of what it is about."""

    @property
    def code(self) -> Code | None:
        """The code, which `docs/errors.md` explains; None for `ok`."""
        return None if self.level is FindingLevel.OK else self.problem or CODES[self.about]

    def __str__(self) -> str:
        line = f"{self.level:<8} {self.about}: {self.found}" + (f" [{self.code}]" if self.code else "")
        return line if self.mend is None else f"{line}\n         fix: {self.mend}"


@dataclass(frozen=True, slots=True)
class DoctorInput:
    """The settings, and what they require of the host."""

    settings: Settings
    sysctls: Mapping[str, int]
    """The values that the data plane needs in the kernel's settings."""
    resolver: str | None
    """The address of the name server for containers; None if there is none."""


def host_findings(host: DoctorFacts, asked: DoctorInput) -> tuple[Finding, ...]:
    """Return all findings, in the order in which a start of the daemon would meet them."""
    parts: tuple[Callable[[DoctorFacts, DoctorInput], Iterator[Finding]], ...] = (
        _watched,
        _store,
        _plane,
        _capabilities,
        _sysctls,
        _dns_port,
        _firewall,
        _resolver,
        _containers,
        _engine,
        _swarm,
        _log_drivers,
        _log_rotation,
        _names,
        _compose,
        _cut_off,
        _clock,
    )
    return tuple(finding for part in parts for finding in part(host, asked))


def forwards_in_kernel(settings: Settings) -> bool:
    """Return whether the settings let the kernel forward; a proxy in user space depends on nothing of the host."""
    return settings.dataplane_driver is not Driver.USERSPACE and not settings.vip_pool.is_loopback


def _watched(host: DoctorFacts, asked: DoctorInput) -> Iterator[Finding]:
    """Yield what the daemon reports of this host while it runs, by the same rules."""
    settings = asked.settings
    needs = host_needs(settings, _data_plane(host, settings), host.published)
    if host.firewall is not None:
        # The rules tell what the engine's version only suggests.
        needs = replace(needs, routes_to_containers=False)
    problems = host_problems(host.host, needs)
    for problem in problems:
        level = FindingLevel.ERROR if problem.severity is Severity.ERROR else FindingLevel.WARNING
        about = _WATCHED.get(problem.code, "host")
        code = None if problem.code in _WATCHED else problem.code
        yield Finding(level, about, f"{problem.subject} {problem.reason}", problem.remedy, code)
    if all(problem.code is not Code.VIP_POOL_OVERLAPS for problem in problems):
        yield Finding(FindingLevel.OK, "vip pool", f"{settings.vip_pool} overlaps no route and no address")


def _data_plane(host: DoctorFacts, settings: Settings) -> str:
    """Return the data plane that a daemon would choose."""
    if not forwards_in_kernel(settings):
        return Driver.USERSPACE
    if host.no_ipvs is None and settings.dataplane_driver is not Driver.NFTABLES:
        return Driver.IPVS
    return Driver.NFTABLES if host.no_nftables is None else Driver.USERSPACE


def _store(host: DoctorFacts, _: DoctorInput) -> Iterator[Finding]:
    reached = [member for member, trouble in host.store.items() if trouble is None]
    for member, trouble in host.store.items():
        if trouble is not None:
            level = FindingLevel.WARNING if reached else FindingLevel.ERROR
            reason, semicolon, remedy = trouble.rpartition("; ")
            mend = remedy if semicolon else f"check that {member} can be used from this host"
            yield Finding(level, "store", f"{member}: {reason or trouble}", mend)
    if len(reached) == len(host.store):
        yield Finding(FindingLevel.OK, "store", f"{', '.join(reached)} can be used")


def _plane(host: DoctorFacts, asked: DoctorInput) -> Iterator[Finding]:
    settings = asked.settings
    if not forwards_in_kernel(settings):
        yield Finding(FindingLevel.OK, "data plane", "a proxy in user space, which needs no kernel support")
        return
    wants_ipvs = settings.dataplane_driver in (Driver.AUTO, Driver.IPVS)
    if wants_ipvs and host.no_ipvs is None:
        yield Finding(FindingLevel.OK, "data plane", "IPVS can be programmed")
        yield from _modules(host)
    elif wants_ipvs:
        falls_back = settings.dataplane_driver is Driver.AUTO
        level = FindingLevel.WARNING if falls_back else FindingLevel.ERROR
        mend = "modprobe ip_vs && echo ip_vs > /etc/modules-load.d/vipmesh.conf"
        if host.modules.get("ip_vs") is KernelModule.ABSENT:
            mend = "boot a kernel that has ip_vs (Debian: linux-image-amd64, not linux-image-cloud-amd64)"
        yield Finding(level, "data plane", f"no IPVS: {host.no_ipvs}", mend)
    if host.nft is None:
        found = "the program nft is not installed: without source NAT, replies of endpoints on other workers are lost"
        yield Finding(FindingLevel.ERROR, "data plane", found, "apt-get install nftables")
    elif host.no_nftables is not None:
        needed = settings.dataplane_driver is Driver.NFTABLES
        level = FindingLevel.ERROR if needed else FindingLevel.WARNING
        yield Finding(
            level, "data plane", f"nftables cannot balance: {host.no_nftables}", _module_line(host, host.no_nftables)
        )
    elif not wants_ipvs or host.no_ipvs is not None:
        yield Finding(FindingLevel.OK, "data plane", "nftables can balance")


def _modules(host: DoctorFacts) -> Iterator[Finding]:
    """Yield a warning if schedulers are missing: IPVS refuses a service with such a scheduler only when it appears."""
    absent = [
        name for name, state in host.modules.items() if state is KernelModule.ABSENT and name.startswith("ip_vs_")
    ]
    if absent:
        found = f"this kernel has no module {', '.join(absent)}: services with that scheduler are refused"
        yield Finding(
            FindingLevel.WARNING, "data plane", found, "set their label routing.scheduler to another one, such as rr"
        )


def _module_line(host: DoctorFacts, reason: str) -> str:
    """Return how to make nftables usable: the command in the reason, if it has one."""
    if not host.root:
        return "run `sudo vipmesh doctor`, since only root sees everything"
    if "permitted" in reason:
        return _OF_SYSTEMD.format("CAP_NET_ADMIN", "NET_ADMIN")
    quoted = re.search(r"`(modprobe [^`]+)`", reason)
    return "modprobe -a nf_tables nft_ct nft_masq nft_fib_inet" if quoted is None else quoted[1]


def _capabilities(host: DoctorFacts, asked: DoctorInput) -> Iterator[Finding]:
    settings = asked.settings
    needs = {}
    if forwards_in_kernel(settings):
        needs["CAP_NET_ADMIN"] = "to program the data plane and to hold the VIPs"
    low = [f"{address}:{port}" for address, port in _dns_sockets(asked) if port < _first_free(host)]
    if low:
        needs["CAP_NET_BIND_SERVICE"] = f"to listen on {', '.join(low)}"
    for capability, why in needs.items():
        if capability not in host.capabilities:
            mend = _OF_SYSTEMD.format(capability, capability.removeprefix("CAP_"))
            found = f"{capability} is missing here, and the daemon needs it {why}"
            yield Finding(FindingLevel.ERROR, "capabilities", found, mend)
    if needs and host.capabilities.issuperset(needs):
        yield Finding(FindingLevel.OK, "capabilities", f"{' and '.join(needs)} in effect")


def _first_free(host: DoctorFacts) -> int:
    """Return the lowest port that needs no capability."""
    setting = host.sysctls.get("net.ipv4.ip_unprivileged_port_start")
    return int(setting.value) if setting is not None and setting.value is not None else 1024


def _sysctls(host: DoctorFacts, asked: DoctorInput) -> Iterator[Finding]:
    if not forwards_in_kernel(asked.settings):
        return
    wrong = []
    for key, wanted in asked.sysctls.items():
        setting = host.sysctls.get(key)
        if setting is None or setting.value is None or setting.value == str(wanted):
            continue
        if setting.writable:
            found = f"{key} is {setting.value}, and the daemon sets it to {wanted}"
            yield Finding(FindingLevel.HINT, "kernel settings", found)
        else:
            wrong.append(f"{key} = {wanted}")
            found = f"{key} is {setting.value}, must be {wanted}, and cannot be written from here"
            line = f"echo '{key} = {wanted}' >> /etc/sysctl.d/60-vipmesh.conf && sysctl --system    # on the host"
            yield Finding(FindingLevel.ERROR, "kernel settings", found, line)
    if not wrong:
        yield Finding(FindingLevel.OK, "kernel settings", "all are correct, or the daemon can set them")


def _dns_sockets(asked: DoctorInput) -> tuple[tuple[str, int], ...]:
    """Return every address and port that the name server listens on."""
    listen = asked.settings.dns_listen
    return listen if asked.resolver is None else (*listen, (asked.resolver, 53))


def _dns_port(host: DoctorFacts, asked: DoctorInput) -> Iterator[Finding]:
    free = True
    for address, port in _dns_sockets(asked):
        for other in host.listeners:
            if not other.ours and other.port == port and _collide(address, other):
                free = False
                who = other.program or "a program that only root can see"
                there = f"{other.transport} {other.address}:{other.port}"
                found = f"{who} listens on {there}, where the name server needs {address}:{port}"
                yield Finding(FindingLevel.ERROR, "dns port", found, _make_room(other))
    if free:
        sockets = ", ".join(f"{address}:{port}" for address, port in _dns_sockets(asked))
        yield Finding(FindingLevel.OK, "dns port", f"free, or used by vipmesh: {sockets}")


def _collide(address: str, other: ListeningSocket) -> bool:
    """Return whether two sockets of one port conflict: the addresses are equal, or one of them stands for all."""
    if (":" in address) != (":" in other.address):
        return other.address == "::"  # takes IPv4 as well, unless IPV6_V6ONLY is set
    return address == other.address or address in ("0.0.0.0", "::") or other.address in ("0.0.0.0", "::")


def _make_room(other: ListeningSocket) -> str:
    """Return how to free the port that another program listens on."""
    if other.program == "systemd-resolved":
        # resolved.conf(5): its own addresses are the stub's; every other one stands in a DNSStubListenerExtra=.
        line = f"remove DNSStubListenerExtra={other.address} from /etc/systemd/resolved.conf"
        if other.address in _STUB_LISTENERS:
            line = f"write DNSStubListener=no under [Resolve] to {_RESOLVED}"
        return f"{line}, then `systemctl restart systemd-resolved`"
    if other.program == "dnsmasq":
        return (
            "write bind-dynamic and except-interface=mesh0 to /etc/dnsmasq.conf, or `systemctl disable --now dnsmasq`"
        )
    return f"set [dns] listen to another address, or stop it (`ss -lntup sport = :{other.port}` shows it)"


def _firewall(host: DoctorFacts, asked: DoctorInput) -> Iterator[Finding]:
    wanted = firewall_settings(asked.settings, _driver(host, asked.settings))
    if host.no_firewall is not None and wanted.forwards:
        yield Finding(FindingLevel.WARNING, "firewall", host.no_firewall, "run `sudo vipmesh doctor`")
    if host.firewall is None:
        return
    problems = tuple(firewall_problems(host.firewall, wanted, host.direct))
    for problem in problems:
        direct = problem.code is Code.ENGINE_FIREWALL
        found = f"{problem.subject}: {problem.reason}" if direct else problem.reason
        code = problem.code if direct else None
        yield Finding(FindingLevel.WARNING, "firewall", found, problem.remedy, code)
    if not problems:
        opens = wanted.forwards and host.firewall.filters_forwarded
        found = "the daemon lets translated connections through" if opens else "nothing drops translated connections"
        yield Finding(FindingLevel.OK, "firewall", found)


def _driver(host: DoctorFacts, settings: Settings) -> Driver:
    """Return the data plane that the daemon would take here."""
    if not forwards_in_kernel(settings):
        return Driver.USERSPACE
    if settings.dataplane_driver is not Driver.AUTO:
        return settings.dataplane_driver
    if host.no_ipvs is None:
        return Driver.IPVS
    return Driver.NFTABLES if host.no_nftables is None else Driver.USERSPACE


def _resolver(host: DoctorFacts, asked: DoctorInput) -> Iterator[Finding]:
    own = {address for address, port in _dns_sockets(asked) if port == 53}
    if not host.nameservers:
        found = "/etc/resolv.conf names no name server"
        # A resolver asks port 53 only: resolv.conf(5).
        ours = [address for address, port in _dns_sockets(asked) if port == 53]
        mend = f"echo nameserver {ours[0]} > /etc/resolv.conf" if ours else None
        yield Finding(FindingLevel.HINT, "resolver", found, mend)
    elif own.issuperset(host.nameservers) and not asked.settings.dns_upstream:
        found = "/etc/resolv.conf names only this name server, which then cannot forward other names"
        yield Finding(
            FindingLevel.ERROR,
            "resolver",
            found,
            'set [dns] upstream = ["192.0.2.53"], the address of your name server',
        )
    elif host.nameservers[0] in own:
        yield Finding(FindingLevel.OK, "resolver", f"this host asks {host.nameservers[0]} first")
    else:
        found = f"this host asks {', '.join(host.nameservers)}: routing names do not resolve on the host itself"
        yield Finding(FindingLevel.HINT, "resolver", found, _ask_first(host, asked.settings))


def _ask_first(host: DoctorFacts, settings: Settings) -> str | None:
    """Return how to let the host ask the name server; None if it listens where no resolver asks."""
    address, port = settings.dns_listen[0]
    if port != 53:
        return None
    if host.nameservers[0] in _STUB_LISTENERS:
        lines = f"`DNS={address}` and `Domains=~{settings.dns_domain}` under [Resolve] to {_RESOLVED}"
        return f"write {lines}, then `systemctl restart systemd-resolved`"
    line = f"make `nameserver {address}` the only one in /etc/resolv.conf"
    if settings.dns_upstream:
        return line
    asked = ", ".join(f'"{each}"' for each in host.nameservers if each != address)
    return f"set [dns] upstream = [{asked}], restart the daemon, and {line}"


def _containers(host: DoctorFacts, asked: DoctorInput) -> Iterator[Finding]:
    if asked.settings.source_docker_socket is None or asked.resolver is None:
        return
    if host.docker_dns is not None and asked.resolver in host.docker_dns:
        yield Finding(FindingLevel.OK, "resolver", f"containers ask {asked.resolver}")
    elif host.described_engine is not None and host.described_engine.is_podman:
        line = f'dns_servers = ["{asked.resolver}"] under [containers] in /etc/containers/containers.conf'
        yield Finding(FindingLevel.HINT, "resolver", f"Podman's containers must ask {asked.resolver}", line)
    else:
        line = f'"dns": ["{asked.resolver}"] in /etc/docker/daemon.json, then `systemctl restart docker`'
        yield Finding(
            FindingLevel.HINT, "resolver", f"Docker does not configure containers to ask {asked.resolver}", line
        )


def _engine(host: DoctorFacts, asked: DoctorInput) -> Iterator[Finding]:
    socket = asked.settings.source_docker_socket
    if socket is None:
        return
    if host.engine is not None:
        line = "systemctl start docker; the daemon's user must be in the group docker (SupplementaryGroups=docker)"
        if "podman" in socket:
            line = "systemctl enable --now podman.socket; the daemon must run as root"
        yield Finding(FindingLevel.ERROR, "container engine", f"{socket}: {host.engine}", line)
        return
    engine = host.described_engine
    told = "" if engine is None else f": {engine.name}, API {engine.api}"
    told += _about_firewall(host.host.engine)
    yield Finding(FindingLevel.OK, "container engine", f"{socket} answers{told}")
    if engine is not None:
        yield from _engine_limits(engine, host)


def _engine_limits(engine: DescribedEngine, host: DoctorFacts) -> Iterator[Finding]:
    """Yield what the daemon cannot learn from this engine."""
    if engine.ahead is not None and abs(engine.ahead) > MAX_CLOCK_DIFFERENCE:
        where = "ahead of" if engine.ahead > 0 else "behind"
        found = f"its clock is {abs(engine.ahead):.0f} s {where} this host's, which vipmesh allows for"
        yield Finding(FindingLevel.HINT, "container engine", found, "timedatectl set-ntp true    # on both hosts")
    if not engine.is_podman:
        return
    found = (
        "Podman reports a stop only when the container has ended, and does not report which signal a container was "
        "sent: `podman stop` cuts connections, and the drain signal has no effect"
    )
    yield Finding(FindingLevel.WARNING, "container engine", found, "stop containers with `vipmesh stop CONTAINER`")
    if not host.systemd:
        found = "Podman runs a HEALTHCHECK by a timer of systemd, which does not run here: its result stays `starting`"
        line = "set a probe label, such as mesh.probe.url, or run `podman healthcheck run CONTAINER` periodically"
        yield Finding(FindingLevel.WARNING, "container engine", found, line)


def _swarm(host: DoctorFacts, _: DoctorInput) -> Iterator[Finding]:
    """Yield what keeps stacks from being deployed, or this host from staying in its swarm."""
    engine, certificate = host.host.engine, host.swarm_certificate
    if engine is not None and engine.live_restore and not engine.in_swarm and not engine.is_podman:
        found = "live-restore is set, and no swarm starts with it, so `vipmesh deploy` cannot be used on this engine"
        mend = 'only for stacks: write "live-restore": false to /etc/docker/daemon.json and restart the engine'
        yield Finding(FindingLevel.HINT, "live-restore", found, mend)
    if certificate is None:
        return
    when = f"its certificate ends on {certificate.last_day}"
    if certificate.seconds_left >= RENEWED_BEFORE * certificate.lifetime:
        found = f"the engine is part of one; {when}, and is renewed before; a host that is off then must join again"
        yield Finding(FindingLevel.OK, "swarm", found)
        return
    found = f"{when} and should have been renewed: without it the engine leaves the swarm, and starts no instances"
    mend = "`docker node ls` on a manager shows whether this host is reached; else leave the swarm and join it again"
    yield Finding(FindingLevel.WARNING, "swarm", found, mend)


def _log_drivers(host: DoctorFacts, _: DoctorInput) -> Iterator[Finding]:
    """Yield the containers whose output is to be collected and cannot be read."""
    unread = [each for each in host.outputs if each.driver != READABLE_DRIVER]
    if unread:
        driver = escape_unprintable(unread[0].driver or "of another engine")
        found = f"{_first_of(unread)} logs by the driver {driver}, and `vipmesh ship` reads {READABLE_DRIVER} alone"
        mend = "`logging: {driver: json-file}` in Compose, or --log-driver json-file, and create it again"
        yield Finding(FindingLevel.WARNING, "log driver", found, mend)
    elif host.outputs:
        yield Finding(FindingLevel.OK, "log driver", "the output of all containers with a label for it can be read")


def _log_rotation(host: DoctorFacts, _: DoctorInput) -> Iterator[Finding]:
    """Yield the containers whose lines are removed before a store of logs that was away has come back."""
    rotated = [each for each in host.outputs if each.driver == READABLE_DRIVER and each.rotates]
    single = [each for each in rotated if each.files < 2]
    if single:
        found = f"{_first_of(single)} keeps one file, which is emptied when it is full: what was not read is lost"
        mend = '`max-file: "5"` beside max-size in the options of its logging, and create it again'
        yield Finding(FindingLevel.WARNING, "log rotation", found, mend)
    short = [each for each in rotated if each.kept_seconds is not None and each.kept_seconds < LEAST_KEPT]
    short.sort(key=lambda each: each.kept_seconds or 0.0)
    if short:
        seconds = int(short[0].kept_seconds or 0.0)
        found = f"{_first_of(short)} writes so much that its files go back {seconds} s: while the store of logs is away"
        mend = f"raise max-size or max-file {ceil(LEAST_KEPT / max(1, seconds))} times, and create it again"
        yield Finding(FindingLevel.WARNING, "log rotation", f"{found} for longer, lines are lost", mend)


def _first_of(outputs: Sequence[CollectedOutput]) -> str:
    others = f" (and {len(outputs) - 1} others)" if len(outputs) > 1 else ""
    return f"container {escape_unprintable(outputs[0].container)}{others}"


def _names(host: DoctorFacts, asked: DoctorInput) -> Iterator[Finding]:
    policy = name_policy(asked.settings)
    for name in sorted(host.served_names):
        refusal = policy.refusal(name)
        if refusal is not None:
            reason, remedy = refusal
            found = f"{reason}; the running daemon serves it, and a new service may not claim it"
            yield Finding(FindingLevel.WARNING, "names", found, remedy)


def _compose(host: DoctorFacts, asked: DoctorInput) -> Iterator[Finding]:
    """Yield the errors of the compose files, which another version may have read differently."""
    errors = [each for each in host.compose if each.severity is Severity.ERROR]
    level = FindingLevel.ERROR if host.no_compose else FindingLevel.WARNING
    for each in errors[:MAX_COMPOSE_ERRORS]:
        where = f"{each.where}: " if each.where else ""
        yield Finding(level, "compose files", f"{where}{each.subject}: {each.reason}", each.remedy, each.code)
    left = len(errors) - MAX_COMPOSE_ERRORS
    if left > 0:
        files = " ".join(map(str, asked.settings.source_compose_files))
        found = f"they have {left} more errors"
        yield Finding(level, "compose files", found, f"vipmesh check {files}", Code.PROBLEMS_NOT_SHOWN)


def _cut_off(host: DoctorFacts, _: DoctorInput) -> Iterator[Finding]:
    """Yield what the running daemon says of workers that are cut off, in its words."""
    for code, found, mend in host.cut_off:
        yield Finding(FindingLevel.WARNING, "cluster", found, mend, code)


def _about_firewall(engine: EngineFacts | None) -> str:
    """Return how the engine filters, to be appended; empty if it does not tell."""
    return f", firewall backend {engine.firewall_backend}" if engine is not None and engine.firewall_backend else ""


def _clock(host: DoctorFacts, asked: DoctorInput) -> Iterator[Finding]:
    """Yield a finding if the clock is not synchronised.

    TLS certificates are checked against the clock, and logs of several workers are compared by time.
    """
    if host.clock is False:
        level = FindingLevel.WARNING if asked.settings.store_url.startswith("etcd") else FindingLevel.HINT
        yield Finding(level, "clock", "it is not synchronised", "timedatectl set-ntp true    # or install chrony")
    elif host.clock:
        yield Finding(FindingLevel.OK, "clock", "it is synchronised")
