"""The lines that `vipmesh doctor` and other messages show work as they are printed."""

import json
import re
import shlex
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest

from mesh.cli.doctor.facts import DoctorFacts, ListeningSocket
from mesh.cli.doctor.rules import CODES, DoctorInput, host_findings
from mesh.cli.parser import build_parser
from mesh.config.labels.reader import PROBE_LABELS, SERVICE_LABELS
from mesh.config.settings import SETTINGS, parse_settings
from mesh.model.codes import Code
from tests.cli.test_doctor import CASES, GOOD, asked
from tests.system.e2e.programs import CI

ROOT = Path(__file__).parents[2]
TEXTS = "\n".join(
    file.read_text() for pattern in ("mesh/**/*.py", "docs/**/*.md", "README.md") for file in sorted(ROOT.glob(pattern))
)
PACKAGES = sorted({word for line in re.findall(r"apt-get install ([a-z0-9 .+-]+)", TEXTS) for word in line.split()})
MODULES = sorted(
    {word for line in re.findall(r"`modprobe ([a-z0-9_ -]+)", TEXTS) for word in line.split() if word[0] != "-"}
)


def fixes(facts: DoctorFacts, text: str = "") -> list[str]:
    """The lines behind `fix:` for a host."""
    settings = DoctorInput(parse_settings(text, {}, hostname="w1"), {}, None)
    return [finding.mend for finding in host_findings(facts, settings) if finding.mend is not None]


@pytest.mark.parametrize("package", [package for package in PACKAGES if package[0] != "-"])
def test_packages_exist(package: str) -> None:
    apt = shutil.which("apt-cache")
    if apt is None and not CI:
        pytest.skip("needs apt-cache, which Debian and Ubuntu have")
    shown = subprocess.run([apt or "apt-cache", "show", package], capture_output=True, text=True, check=False)
    if "Package:" not in shown.stdout and not CI:
        lists = subprocess.run([apt or "apt-cache", "stats"], capture_output=True, text=True, check=False).stdout
        if re.search(r"Normal packages: 0\b", lists):
            pytest.skip("needs the lists of packages: `apt-get update`")
    assert f"Package: {package}\n" in shown.stdout


def test_modules_are_those_of_linux() -> None:
    """Their names are those of sources in net/ and drivers/net/ of Linux."""
    known = r"ip_vs(_(rr|wrr|lc|wlc|sh|mh|dh|sed|nq))?|nf_tables|nf_conntrack(_netlink)?|br_netfilter|dummy|nft_\w+"
    assert MODULES
    assert [module for module in MODULES if not re.fullmatch(known, module)] == []


def test_the_program_that_has_a_port_is_shown() -> None:
    listeners = (ListeningSocket("tcp", "0.0.0.0", 53),)
    (line,) = [each for each in fixes(DoctorFacts("6.1", listeners=listeners, nft="/nft")) if "ss -" in each]
    quoted = re.search(r"`(ss [^`]+)`", line)
    assert quoted
    if shutil.which("ss") is None and not CI:
        pytest.skip("needs ss, of iproute2")
    subprocess.run(["sh", "-c", quoted[1]], check=True, capture_output=True)


@pytest.mark.parametrize(
    ("listen", "line"),
    [
        ("127.0.0.1:53", "echo nameserver 127.0.0.1 > /etc/resolv.conf"),
        ("127.0.0.7:53", "echo nameserver 127.0.0.7 > /etc/resolv.conf"),
        ("127.0.0.1:5353", None),
    ],
)
def test_a_resolver_without_a_name_server_is_given_ours(listen: str, line: str | None) -> None:
    shown = [each for each in fixes(DoctorFacts("6.1", nft="/nft"), f'[dns]\nlisten = ["{listen}"]') if "echo" in each]
    assert shown == ([] if line is None else [line])


@pytest.mark.parametrize(
    ("reason", "line"),
    [
        ("nft refuses (Operation not supported): `modprobe -a nf_tables nft_ct`", "modprobe -a nf_tables nft_ct"),
        ("nft refuses: syntax error", "modprobe -a nf_tables nft_ct nft_masq nft_fib_inet"),
    ],
)
def test_modules_that_nftables_lacks_are_loaded(reason: str, line: str) -> None:
    facts = DoctorFacts("6.1", no_ipvs="none", no_nftables=reason, nft="/usr/sbin/nft", root=True)
    assert line in fixes(facts)


# --------------------------------------------------------------------------------- the lines of every finding

LINES = sorted(
    {
        (finding.code or finding.level, finding.mend)
        for _, facts, text, _ in CASES
        for finding in host_findings(replace(GOOD, **facts), asked(text))
        if finding.mend is not None
    },
    key=str,
)
"""Code and `fix:` line of every finding that the table of faults makes."""
EACH = pytest.mark.parametrize("line", [line for _, line in LINES])
PROGRAMS = {
    "apt-get": "apt",
    "dnsmasq": "dnsmasq",
    "docker": "docker.io",
    "echo": "coreutils",
    "ip6tables-nft": "iptables",
    "iptables-nft": "iptables",
    "modprobe": "kmod",
    "nft": "nftables",
    "podman": "podman",
    "ss": "iproute2",
    "sysctl": "procps",
    "systemctl": "systemd",
    "timedatectl": "systemd",
}
"""The package of each program that a line begins with."""
UNITS = {"docker", "dnsmasq", "podman.socket", "systemd-resolved"}
OF_MODULES = ("net.ipv4.vs.", "net.netfilter.nf_conntrack_", "net.bridge.bridge-nf-call-")
"""Settings that are there with their module: ip_vs, nf_conntrack, br_netfilter."""
_BEGINS = re.compile(rf"(?:sudo )?(?:{'|'.join([*PROGRAMS, 'vipmesh'])}) ")
_PLACEHOLDERS = {"CONTAINER": "web-1"}


def commands(line: str) -> list[str]:
    """The shell commands of a line: what it quotes, or the whole of it up to a semicolon with words behind it."""
    found = [quoted for quoted in re.findall(r"`([^`]+)`", line) if _BEGINS.match(f"{quoted} ")]
    if _BEGINS.match(line):
        found.append(line.partition("; ")[0])
    return found


def test_every_code_of_doctor_has_a_line() -> None:
    """Those without one are looked at in the tests of what makes them."""
    assert set(CODES.values()) <= {code for code, _ in LINES} | {Code.DOCTOR_NAMES}


@EACH
def test_commands_are_a_shells_and_of_a_known_package(line: str) -> None:
    for command in commands(line):
        subprocess.run(["sh", "-n", "-c", command], check=True, capture_output=True)
        for part in re.split(r" && ", command):
            words = shlex.split(part, comments=True)
            words = words[1:] if words[0] == "sudo" else words
            assert words[0] in PROGRAMS or words[0] == "vipmesh"
            if words[0] == "vipmesh":
                build_parser().parse_args([_PLACEHOLDERS.get(word, word) for word in words[1:]])
            if words[0] == "systemctl":
                assert set(words[1:]) & UNITS
                assert words[1] in {"start", "restart", "reload", "enable", "disable"}


@pytest.mark.parametrize("package", sorted({*PROGRAMS.values()}))
def test_the_packages_of_the_programs_exist(package: str) -> None:
    test_packages_exist(package)


@EACH
def test_kernel_settings_exist(line: str) -> None:
    for key in re.findall(r"\bnet\.(?:[a-z0-9_-]+\.)+[a-z0-9_-]+", line):
        assert key.startswith(OF_MODULES) or Path("/proc/sys", key.replace(".", "/")).exists(), key


@EACH
def test_lines_for_sysctl_are_read_by_it(line: str) -> None:
    """Typed, without an effect."""
    written = re.findall(r"sysctl -w ('[^']+'|\S+=\S+)", line)
    if written and shutil.which("sysctl") is None and not CI:
        pytest.skip("needs sysctl, of procps")
    for assignment in written:
        key, value = map(str.strip, assignment.strip("'`").split("="))
        if not Path("/proc/sys", key.replace(".", "/")).exists():
            continue  # its module is not loaded here
        typed = subprocess.run(
            ["sh", "-c", f"sysctl --dry-run -w {assignment.strip('`')}"], capture_output=True, text=True, check=True
        )
        assert typed.stdout.split("=")[0].strip() == key
        assert typed.stdout.split("=")[1].strip() == value


@EACH
def test_settings_and_labels_exist(line: str) -> None:
    for table, key in re.findall(r"(?<!under )\[([a-z.]+)\] ([a-z_]+)", line):
        assert f"{table}.{key}" in SETTINGS, line
    for label in re.findall(r"\b(?:mesh\.)?((?:routing|probe)\.[a-z_]+)", line):
        assert label in {*SERVICE_LABELS, *PROBE_LABELS}


@EACH
def test_json_for_the_engine_is_json(line: str) -> None:
    for pair in re.findall(r'("[a-z-]+": (?:true|\[[^]]*\]|"[^"]*"))', line):
        assert json.loads(f"{{{pair}}}")


@EACH
def test_files_are_those_of_the_how_tos(line: str) -> None:
    """A file that no page names is written by nobody else's words."""
    pages = "\n".join(page.read_text() for page in sorted((ROOT / "docs").glob("**/*.md")) if page.name != "errors.md")
    for file in re.findall(r"/etc/[a-z0-9/._-]*[a-z0-9]", line):
        assert file in pages or file == "/etc/dnsmasq.conf", file


AGREED: list[tuple[Code, str, str]] = [
    (Code.DOCTOR_DATA_PLANE, "deploy.md", "modprobe ip_vs && echo ip_vs > /etc/modules-load.d/vipmesh.conf"),
    (Code.DOCTOR_KERNEL_SETTINGS, "deploy.md", "net.ipv4.ip_forward = 1"),
    (Code.DOCTOR_KERNEL_SETTINGS, "deploy.md", "sysctl --system"),
    (Code.DOCTOR_KERNEL_SETTINGS, "howto/troubleshooting.md", "/etc/sysctl.d/60-vipmesh.conf"),
    (Code.DOCTOR_RESOLVER, "howto/resolver.md", '"dns": ["10.112.0.1"]'),
    (Code.DOCTOR_RESOLVER, "dns.md", '"dns": ["10.112.0.1"]'),
    (Code.DOCTOR_RESOLVER, "howto/resolver.md", "`systemctl restart docker`"),
    (Code.DOCTOR_RESOLVER, "dns.md", "`systemctl restart docker`"),
    (Code.DOCTOR_RESOLVER, "howto/resolver.md", 'dns_servers = ["10.112.0.1"]'),
    (Code.DOCTOR_RESOLVER, "howto/resolver.md", "/etc/systemd/resolved.conf.d/vipmesh.conf"),
    (Code.DOCTOR_RESOLVER, "howto/resolver.md", "`systemctl restart systemd-resolved`"),
    (Code.DOCTOR_RESOLVER, "howto/resolver.md", "nameserver 127.0.0.1"),
    (Code.DOCTOR_RESOLVER, "dns.md", "`nameserver 127.0.0.1`"),
    (Code.DOCTOR_RESOLVER, "howto/resolver.md", "DNS=127.0.0.1"),
    (Code.DOCTOR_RESOLVER, "howto/resolver.md", "Domains=~mesh.internal"),
    (Code.DOCTOR_DNS_PORT, "howto/resolver.md", "DNSStubListenerExtra="),
    (Code.DOCTOR_CONTAINER_ENGINE, "docker.md", "vipmesh stop"),
    (Code.ENGINE_FIREWALL, "firewall.md", '"allow-direct-routing": true'),
]
"""Words that a finding and a page have in common: the page speaks of the same fault."""


@pytest.mark.parametrize(("code", "page", "words"), AGREED)
def test_doctor_and_the_how_tos_say_the_same(code: Code, page: str, words: str) -> None:
    assert any(words in line for known, line in LINES if known is code)
    assert words in (ROOT / "docs" / page).read_text()
