"""doctor: findings from the facts of a host, and facts gathered from this host."""

import asyncio
import os
import socket
from dataclasses import replace
from ipaddress import ip_network
from pathlib import Path
from typing import Any

import msgspec
import pytest

from mesh.cli.doctor import DiagnosisDocument
from mesh.cli.doctor.collect import doctor_input, examine_host
from mesh.cli.doctor.facts import (
    CollectedOutput,
    DescribedEngine,
    DoctorFacts,
    KernelModule,
    KernelSetting,
    ListeningSocket,
)
from mesh.cli.doctor.rules import DoctorInput, Finding, FindingLevel, host_findings
from mesh.config.settings import parse_settings
from mesh.host.certificates import CertificateFacts
from mesh.host.facts import ConntrackRoom, HostFacts
from mesh.host.firewall.direct_access import DirectEndpoint
from mesh.host.firewall.facts import Backend, FirewallTexts, read_facts
from mesh.host.overlap import HostRoute
from mesh.model.codes import Code
from mesh.model.engine_facts import EngineFacts
from mesh.model.problem import Problem, Severity
from mesh.model.service import Transport
from mesh.sources.docker.messages import EngineVersion
from tests.host.firewall.listings import ENGINE_28, OWN_CHAINS
from tests.sources.docker.fake_engine import FakeEngine
from tests.system.e2e.programs import VIPMESH, call

POOL = "10.112.0.0/16"


def asked(text: str = "", resolver: str | None = "10.112.0.1") -> DoctorInput:
    settings = parse_settings(text, {}, hostname="w1")
    return DoctorInput(settings, {"net.ipv4.ip_forward": 1, "net.ipv4.vs.conntrack": 1}, resolver)


GOOD = DoctorFacts(
    release="6.12.0",
    nft="/usr/sbin/nft",
    modules={"ip_vs": KernelModule.LOADED, "ip_vs_wrr": KernelModule.AVAILABLE},
    sysctls={
        "net.ipv4.ip_forward": KernelSetting("1", True),
        "net.ipv4.vs.conntrack": KernelSetting(None),
    },
    host=HostFacts(local_ports=range(32768, 61000)),
    capabilities=frozenset({"CAP_NET_ADMIN", "CAP_NET_BIND_SERVICE"}),
    root=True,
    nameservers=("127.0.0.1", "192.0.2.53"),
    docker_dns=("10.112.0.1",),
    clock=True,
    store={"/var/lib/vipmesh": None},
)
DOCKER = '[source.docker]\nsocket = "unix:///var/run/docker.sock"'
PODMAN = '[source.docker]\nsocket = "unix:///run/podman/podman.sock"'
ETCD = '[store]\nurl = "etcd://a:2379,b:2379"'
ERROR, WARNING, HINT = FindingLevel.ERROR, FindingLevel.WARNING, FindingLevel.HINT


def worst(host: DoctorFacts, of: DoctorInput) -> list[Finding]:
    return [finding for finding in host_findings(host, of) if finding.level is not FindingLevel.OK]


def test_all_is_well() -> None:
    assert worst(GOOD, asked(DOCKER)) == []
    assert {finding.about for finding in host_findings(GOOD, asked(DOCKER))} == {
        "vip pool",
        "store",
        "data plane",
        "capabilities",
        "kernel settings",
        "dns port",
        "resolver",
        "container engine",
        "clock",
    }


def test_names_that_the_running_daemon_serves_and_new_services_may_not_have() -> None:
    host = replace(GOOD, served_names=frozenset({"web.test", "github.com", "corp.example"}))
    found = worst(host, asked('[dns.forward]\n"corp.example" = ["10.1.1.1"]'))
    assert [(each.level, each.about, each.code) for each in found] == [(WARNING, "names", Code.DOCTOR_NAMES)] * 2
    assert "corp.example is in the domain" in found[0].found
    assert "github.com is outside" in found[1].found


def taken(program: str | None, address: str = "0.0.0.0", *, ours: bool = False) -> dict[str, Any]:
    return {"listeners": (ListeningSocket("udp", address, 53, program, ours),)}


def firewall(iptables: str = "", nft: str = "") -> dict[str, Any]:
    texts = FirewallTexts({Backend.NFT: iptables}, nft=nft, networks={"br-shop": ["172.18.0.1/16"]})
    return {"firewall": read_facts(texts, 4)}


DIRECT = DirectEndpoint("web.test", "172.18.0.2", 81, Transport.TCP)
DOCKER_28 = HostFacts(engine=EngineFacts("28.5.2", live_restore=None))
CONTAINER_ADDRESSES = f'{ETCD}\n[source.docker]\nendpoint_address = "container"'


CASES: list[tuple[str, dict[str, Any], str, list[tuple[FindingLevel, str, str]]]] = [
    (
        "output that labels ask for is not in a file",
        {"outputs": (CollectedOutput("web", "journald", False, 1),)},
        "",
        [(WARNING, "container web logs by the driver journald, and `vipmesh ship` reads json-file alone", "json-file")],
    ),
    (
        "rotation keeps too little",
        {"outputs": (CollectedOutput("web", "json-file", True, 3, 90.0), CollectedOutput("db", "json-file", True, 1))},
        "",
        [
            (WARNING, "container db keeps one file", 'max-file: "5"'),
            (WARNING, "container web writes so much that its files go back 90 s", "max-size or max-file 7 times"),
        ],
    ),
    (
        "the pool overlaps a route",
        {"host": HostFacts(routes=(HostRoute(ip_network("10.112.3.0/24"), "eth1"),))},
        "",
        [(ERROR, "10.112.0.0/16 overlaps route 10.112.3.0/24 dev eth1", '[vip] pool = "10.113.0.0/16"')],
    ),
    ("Docker's rules, which the daemon opens", firewall(iptables=ENGINE_28), "", []),
    (
        "Docker's rules, and the operator opens them",
        firewall(iptables=ENGINE_28),
        '[host]\nfirewall = "report"',
        [(WARNING, "[host] firewall is report", "iptables-nft -A DOCKER-USER -m mark --mark 0x1000/0x1000 -j ACCEPT")],
    ),
    (
        "chains that drop by default, under IPVS",
        firewall(nft=OWN_CHAINS),
        "",
        [(WARNING, "chain input of table inet filter", "nft insert rule inet filter input ip daddr 10.112.0.0/16")],
    ),
    (
        "the same under nftables",
        {**firewall(nft=OWN_CHAINS), "no_ipvs": "no module"},
        '[dataplane]\ndriver = "nftables"',
        [
            (WARNING, "chain forward of table inet filter", "meta mark and 0x1000 == 0x1000 accept"),
            (WARNING, "chain input of table inet filter", "ip daddr 10.112.0.0/16"),
        ],
    ),
    (
        "containers that other workers cannot reach at their own addresses",
        {**firewall(iptables=ENGINE_28), "direct": frozenset([DIRECT])},
        "",
        [
            (
                WARNING,
                "container network br-shop: the firewall of this host drops what other workers",
                "nat-unprotected`",
            )
        ],
    ),
    (
        "rules that drop nothing, whatever the version of the engine suggests",
        {**firewall(), "direct": frozenset([DIRECT]), "host": DOCKER_28},
        CONTAINER_ADDRESSES,
        [],
    ),
    (
        "rules that cannot be read",
        {"host": DOCKER_28},
        CONTAINER_ADDRESSES,
        [(WARNING, "docker engine 28.5.2 it drops what other workers send", '"allow-direct-routing": true')],
    ),
    (
        "a firewall that this user may not read",
        {"no_firewall": "nft is not permitted"},
        "",
        [(WARNING, "nft is not permitted", "sudo vipmesh doctor")],
    ),
    (
        "the store's directory",
        {"store": {"/var/lib/vipmesh": "it cannot be written by this user"}},
        "",
        [(ERROR, "/var/lib/vipmesh: it cannot be written", "can be used")],
    ),
    (
        "one member of etcd is away",
        {"store": {"http://a:2379": "Connection refused", "http://b:2379": None}},
        ETCD,
        [(WARNING, "http://a:2379: Connection refused", "http://a:2379")],
    ),
    (
        "etcd requires a user",
        {"store": {"http://a:2379": "etcd refuses: user name is empty; set [store] user and password"}},
        ETCD,
        [(ERROR, "http://a:2379: etcd refuses: user name is empty", "set [store] user and password")],
    ),
    (
        "all of etcd is away",
        {"store": {"http://a:2379": "Connection refused"}},
        ETCD,
        [(ERROR, "http://a:2379: Connection refused", "http://a:2379")],
    ),
    ("no IPVS, with nftables", {"no_ipvs": "this kernel offers none"}, "", [(WARNING, "no IPVS:", "modprobe ip_vs")]),
    (
        "no IPVS, and it is asked for",
        {"no_ipvs": "none", "modules": {"ip_vs": KernelModule.ABSENT}},
        '[dataplane]\ndriver = "ipvs"',
        [(ERROR, "no IPVS: none", "linux-image-amd64")],
    ),
    (
        "a scheduler that this kernel lacks",
        {"modules": {"ip_vs": KernelModule.LOADED, "ip_vs_mh": KernelModule.ABSENT}},
        "",
        [(WARNING, "no module ip_vs_mh", "routing.scheduler")],
    ),
    ("no nft", {"nft": None}, "", [(ERROR, "program nft is not installed", "apt-get install nftables")]),
    (
        "nftables is asked for and does not do",
        {"no_nftables": "not permitted"},
        '[dataplane]\ndriver = "nftables"',
        [(ERROR, "nftables cannot balance: not permitted", "cap_add: [NET_ADMIN]")],
    ),
    (
        "nftables is seen in part without root",
        {"no_nftables": "not permitted", "root": False},
        "",
        [(WARNING, "nftables cannot balance", "sudo vipmesh doctor")],
    ),
    (
        "no capability",
        {"capabilities": frozenset()},
        "",
        [
            (ERROR, "CAP_NET_ADMIN is missing", "cap_add: [NET_ADMIN]"),
            (
                ERROR,
                "CAP_NET_BIND_SERVICE is missing here, and the daemon needs it to listen on 127.0.0.1:53",
                "AmbientCapabilities",
            ),
        ],
    ),
    (
        "low ports are free for all",
        {
            "capabilities": frozenset({"CAP_NET_ADMIN"}),
            "sysctls": {"net.ipv4.ip_unprivileged_port_start": KernelSetting("0")},
        },
        "",
        [],
    ),
    (
        "a kernel setting that the daemon sets",
        {"sysctls": {"net.ipv4.ip_forward": KernelSetting("0", True)}},
        "",
        [(HINT, "net.ipv4.ip_forward is 0, and the daemon sets it to 1", "")],
    ),
    (
        "a kernel setting that it cannot set",
        {"sysctls": {"net.ipv4.ip_forward": KernelSetting("0")}},
        "",
        [(ERROR, "net.ipv4.ip_forward is 0, must be 1, and cannot be written", "echo 'net.ipv4.ip_forward = 1' >>")],
    ),
    (
        "systemd-resolved on all addresses",
        taken("systemd-resolved"),
        "",
        [
            (ERROR, "systemd-resolved listens on udp 0.0.0.0:53", "remove DNSStubListenerExtra=0.0.0.0"),
            (ERROR, "needs 10.112.0.1:53", "remove DNSStubListenerExtra=0.0.0.0"),
        ],
    ),
    (
        "systemd-resolved where the name server listens on all addresses",
        {**taken("systemd-resolved", "127.0.0.53"), "nameservers": ("0.0.0.0",)},
        '[dns]\nlisten = ["0.0.0.0:53"]\nresolver = "off"\nupstream = ["192.0.2.53"]',
        [(ERROR, "systemd-resolved listens on udp 127.0.0.53:53", "DNSStubListener=no under [Resolve]")],
    ),
    ("systemd-resolved's own address", taken("systemd-resolved", "127.0.0.53"), "", []),
    (
        "dnsmasq",
        taken("dnsmasq", "10.112.0.1"),
        "",
        [(ERROR, "dnsmasq listens on udp 10.112.0.1:53", "except-interface")],
    ),
    (
        "somebody on all of IPv6",
        taken(None, "::"),
        "",
        [(ERROR, "only root can see", "ss -lntup")] * 2,
    ),
    ("a daemon of ours", taken("vipmesh", ours=True), "", []),
    (
        "published ports among those of outgoing connections",
        {"host": HostFacts(local_ports=range(1024, 61000))},
        "",
        [(WARNING, "[publish] ports 30000-32767 overlap", "ip_local_reserved_ports = 30000-32767")],
    ),
    (
        "they are reserved",
        {"host": HostFacts(local_ports=range(1024, 61000), reserved_ports=frozenset(range(30000, 32768)))},
        "",
        [],
    ),
    (
        "a published port of a label among them",
        {"published": {(Transport.TCP, 40000): "web.test"}},
        "",
        [(WARNING, "service web.test published port 40000 is among", "ip_local_reserved_ports = 40000")],
    ),
    (
        "the daemon's own problems",
        {"host": HostFacts(conntrack=ConntrackRoom(9, 10), engine=EngineFacts("26.1.0", live_restore=False))},
        DOCKER,
        [
            (WARNING, "connection tracking more than 80% of its 10 entries", "nf_conntrack_max = 20"),
            (WARNING, "docker engine 26.1.0 live-restore is off", "daemon.json"),
        ],
    ),
    ("no name server at all", {"nameservers": ()}, "", [(HINT, "names no name server", "nameserver 127.0.0.1")]),
    (
        "it would ask itself",
        {"nameservers": ("127.0.0.1", "10.112.0.1")},
        "",
        [(ERROR, "only this name server", "[dns] upstream")],
    ),
    ("it has somebody to ask", {"nameservers": ("127.0.0.1",)}, '[dns]\nupstream = ["192.0.2.53"]', []),
    (
        "the host asks somebody else",
        {"nameservers": ("192.0.2.53",)},
        "",
        [
            (
                HINT,
                "this host asks 192.0.2.53",
                'set [dns] upstream = ["192.0.2.53"], restart the daemon, and make `nameserver 127.0.0.1` the only one',
            )
        ],
    ),
    (
        "the host asks somebody else, and the settings say whom to ask then",
        {"nameservers": ("192.0.2.53",)},
        '[dns]\nupstream = ["192.0.2.53"]',
        [(HINT, "this host asks 192.0.2.53", "make `nameserver 127.0.0.1` the only one in /etc/resolv.conf")],
    ),
    (
        "the host asks systemd-resolved",
        {"nameservers": ("127.0.0.53",)},
        "",
        [(HINT, "this host asks 127.0.0.53", "`DNS=127.0.0.1` and `Domains=~mesh.internal` under [Resolve]")],
    ),
    (
        "containers ask somebody else",
        {"docker_dns": None},
        DOCKER,
        [(HINT, "not configure containers to ask 10.112.0.1", "daemon.json")],
    ),
    (
        "the engine does not answer",
        {"engine": "No such file or directory"},
        DOCKER,
        [(ERROR, "docker.sock: No such file", "systemctl start docker")],
    ),
    (
        "podman does not answer",
        {"engine": "No such file or directory"},
        PODMAN,
        [(ERROR, "podman.sock: No such file", "systemctl enable --now podman.socket")],
    ),
    (
        "podman does not tell of a stop",
        {"described_engine": DescribedEngine("Podman 4.3.1", "1.41", is_podman=True), "docker_dns": None},
        PODMAN,
        [
            (HINT, "Podman's containers must ask 10.112.0.1", "/etc/containers/containers.conf"),
            (WARNING, "Podman reports a stop only when the container has ended", "`vipmesh stop CONTAINER`"),
        ],
    ),
    (
        "podman without systemd runs no health checks",
        {"described_engine": DescribedEngine("Podman 4.3.1", "1.41", is_podman=True), "systemd": False},
        PODMAN,
        [
            (WARNING, "Podman reports a stop only", "vipmesh stop"),
            (WARNING, "Podman runs a HEALTHCHECK by a timer of systemd", "mesh.probe.url"),
        ],
    ),
    (
        "the engine's clock is behind",
        {"described_engine": DescribedEngine("Docker 28.1.1", "1.49", ahead=-30.4)},
        DOCKER,
        [(HINT, "its clock is 30 s behind this host's", "timedatectl")],
    ),
    (
        "the engine's clock is ahead",
        {"described_engine": DescribedEngine("Docker 28.1.1", "1.49", ahead=3600.0)},
        DOCKER,
        [(HINT, "its clock is 3600 s ahead of this host's", "timedatectl")],
    ),
    (
        "the engine's clock is right",
        {"described_engine": DescribedEngine("Docker 28.1.1", "1.49", ahead=-0.9)},
        DOCKER,
        [],
    ),
    (
        "live-restore, with which no swarm starts",
        {"host": HostFacts(engine=EngineFacts(live_restore=True))},
        DOCKER,
        [(HINT, "no swarm starts with it", '"live-restore": false')],
    ),
    (
        "a certificate of the swarm that was not renewed",
        {"swarm_certificate": CertificateFacts("swarm-node.crt", "2026-12-10", 17 * 86400.0, 90 * 86400.0)},
        DOCKER,
        [(WARNING, "ends on 2026-12-10 and should have been renewed", "docker node ls")],
    ),
    (
        "a certificate of the swarm that is renewed in time",
        {"swarm_certificate": CertificateFacts("swarm-node.crt", "2026-12-25", 19 * 86400.0, 90 * 86400.0)},
        DOCKER,
        [],
    ),
    ("the clock, alone", {"clock": False}, "", [(HINT, "it is not synchronised", "timedatectl set-ntp true")]),
    ("the clock, in a cluster", {"clock": False}, ETCD, [(WARNING, "it is not synchronised", "timedatectl")]),
    ("the clock cannot be asked", {"clock": None}, "", []),
    (
        "what the running daemon says of cut-off workers",
        {"cut_off": ((Code.WORKER_UNREACHABLE, "worker w3: it does not answer this worker", "check that it runs"),)},
        "",
        [(WARNING, "worker w3: it does not answer this worker", "check that it runs")],
    ),
]


@pytest.mark.parametrize(("facts", "text", "findings"), [c[1:] for c in CASES], ids=[c[0] for c in CASES])
def test_each_fault_is_found_with_its_remedy(
    facts: dict[str, Any], text: str, findings: list[tuple[FindingLevel, str, str]]
) -> None:
    found = worst(replace(GOOD, **facts), asked(text))
    assert [finding.level for finding in found] == [level for level, _, _ in findings]
    for finding, (_, words, mend) in zip(found, findings, strict=True):
        assert words in finding.found
        assert mend in (finding.mend or "")
        assert finding.mend or finding.level is HINT, "whoever reads of a fault reads how to mend it"


def test_the_userspace_proxy_needs_no_kernel_features() -> None:
    bare = replace(GOOD, capabilities=frozenset(), nft=None, no_ipvs="none", no_nftables="none", no_firewall="no nft")
    settings = parse_settings(
        '[dataplane]\ndriver = "userspace"\n[dns]\nlisten = ["127.0.0.1:5353"]', {}, hostname="w1"
    )
    assert worst(bare, DoctorInput(settings, {}, None)) == [
        Finding(
            HINT,
            "resolver",
            "this host asks 127.0.0.1, 192.0.2.53: routing names do not resolve on the host itself",
        )
    ]


async def test_facts_are_gathered_from_this_host() -> None:
    with socket.socket() as tcp, socket.socket(socket.AF_INET6) as v6:
        tcp.bind(("127.0.0.1", 0))
        tcp.listen()
        v6.bind(("::1", 0))
        v6.listen()
        found = await examine_host(doctor_input(parse_settings('[vip]\npool = "127.112.0.0/16"', {}, hostname="w1")))
        there = {(listener.address, listener.port): listener for listener in found.listeners}
        for name in (tcp.getsockname(), v6.getsockname()):
            mine = there[name[0], name[1]]
            assert mine.transport == "tcp"
            assert mine.program == Path("/proc/self/comm").read_text().strip()
    assert found.release == os.uname().release
    low, high = Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()
    assert found.host.local_ports == range(int(low), int(high) + 1)
    assert ("CAP_NET_ADMIN" in found.capabilities) <= found.root or not found.root
    assert found.no_ipvs is None, "a pool on loopback does not look at it"


async def test_a_missing_store_and_a_missing_engine(tmp_path: Path) -> None:
    text = f"""
        [vip]
        pool = "127.112.0.0/16"
        [store]
        url = "etcd://127.0.0.1:1"
        [source.docker]
        socket = "unix://{tmp_path}/none.sock"
    """
    found = await examine_host(doctor_input(parse_settings(text, {}, hostname="w1")))
    assert list(found.store) == ["http://127.0.0.1:1"]
    assert found.store["http://127.0.0.1:1"]
    assert found.engine == "No such file or directory"


@pytest.mark.parametrize(
    ("fake", "facts"),
    [
        (FakeEngine("1.44", "1.52"), ("Docker 29.0.1", "1.52", False, 0.0)),
        (FakeEngine("1.24", "1.41", ahead=-30.0), ("Docker 29.0.1", "1.41", False, -30.0)),
    ],
)
async def test_the_engine_describes_itself(
    tmp_path: Path, fake: FakeEngine, facts: tuple[str, str, bool, float]
) -> None:
    fake.told = {"ApiVersion": fake.newest, "MinAPIVersion": fake.oldest, "Version": "29.0.1"}
    async with fake.listening(tmp_path / "docker.sock") as url:
        found = await examine_host(doctor_input(parse_settings(_with_engine(url), {}, hostname="w1")))
    assert found.engine is None
    told = found.described_engine
    assert told is not None
    assert (told.name, told.api, told.is_podman) == facts[:3]
    assert told.ahead == pytest.approx(facts[3], abs=2)


async def test_an_engine_that_speaks_no_known_version(tmp_path: Path) -> None:
    async with FakeEngine("1.12", "1.40").listening(tmp_path / "docker.sock") as url:
        found = await examine_host(doctor_input(parse_settings(_with_engine(url), {}, hostname="w1")))
    assert found.described_engine is None
    assert "it speaks API 1.12 to 1.40" in (found.engine or "")


@pytest.mark.parametrize("parts", [None, 5, "Podman Engine", [5], [["Name"]], [{"Name": 5}], {"Name": "Podman Engine"}])
def test_an_engine_may_tell_nonsense_of_itself(parts: object) -> None:
    told = EngineVersion(version="1\x1b[31m", components=parts)
    assert (told.product, told.is_podman) == ("Docker ?", False)


def _with_engine(url: str) -> str:
    return f'[vip]\npool = "127.112.0.0/16"\n[source.docker]\nsocket = "{url}"'


async def test_as_a_program_sees_it(tmp_path: Path) -> None:
    settings = tmp_path / "vipmesh.toml"
    settings.write_text(
        '[vip]\npool = "127.112.0.0/16"\n[store]\nurl = "etcd://127.0.0.1:1"\n[dns]\nlisten = ["127.0.0.1:5353"]'
    )
    code, output = await call(*VIPMESH, "doctor", "--json", "-c", str(settings))
    diagnosis = msgspec.json.decode(output, type=DiagnosisDocument)
    assert (code, diagnosis.errors) == (1, 1)
    (error,) = (finding for finding in diagnosis.findings if finding.level == ERROR)
    assert (error.about, "127.0.0.1:1" in error.found) == ("store", True)
    code, text = await call(*VIPMESH, "doctor", "-c", str(settings))
    assert code == 1
    assert "error    store: http://127.0.0.1:1: " in text
    assert " [VM802]\n" in text
    assert "\n         fix: check that etcd runs and that [store] url lists its client addresses" in text


async def test_published_ports_of_compose_files_are_read_within_the_bounds_of_the_settings(tmp_path: Path) -> None:
    file = tmp_path / "compose.yaml"
    labels = "labels: {mesh.routing.port_80: web.test, mesh.routing.publish.port_80: '31080'}"
    file.write_text(f"services: {{web: {{{labels}}}}}\nx-more: [{'a, ' * 120}]\n")
    text = f'[vip]\npool = "127.112.0.0/16"\n[source.compose]\nfiles = ["{file}"]\nvalues = '
    for values, ports in ((100, {}), (200, {(Transport.TCP, 31080): "web.test"})):
        found = await examine_host(doctor_input(parse_settings(f"{text}{values}", {}, hostname="w1")))
        assert found.published == ports


def test_a_compose_file_that_this_version_refuses_is_reported_beforehand(tmp_path: Path) -> None:
    """The daemon of an earlier version may serve it: its upgrade would freeze what it lists."""
    file = tmp_path / "compose.yaml"
    file.write_text("services:\n  web:\n    x-endpoints: [10.0.0.1, 10.0.0.2, 10.0.0.3]\n")
    text = f"[source.compose]\nfiles = ['{file}']\nendpoints = 2"
    facts = asyncio.run(examine_host(asked(text)))
    [found] = [each for each in host_findings(facts, asked(text)) if each.about == "compose files"]
    assert (found.level, found.problem) == (ERROR, Code.COMPOSE_NOT_YAML)
    assert "more than 2 instances" in found.found
    assert found.mend is not None
    assert "[source.compose] endpoints" in found.mend


def test_errors_of_compose_files_are_counted_beyond_ten() -> None:
    broken = Problem(Code.COMPOSE_NOT_YAML, Severity.ERROR, "service web", "it is wrong", "write it right", where="a:1")
    hint = replace(broken, severity=Severity.WARNING)
    host = replace(GOOD, compose=(hint, *[broken] * 12))
    found = [each for each in host_findings(host, asked()) if each.about == "compose files"]
    assert [each.level for each in found] == [WARNING] * 11
    assert found[-1].found == "they have 2 more errors"
