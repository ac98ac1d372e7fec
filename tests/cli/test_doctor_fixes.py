"""The lines that `vipmesh doctor` and other messages show work as they are printed."""

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from mesh.cli.doctor.facts import DoctorFacts, ListeningSocket
from mesh.cli.doctor.rules import DoctorInput, host_findings
from mesh.config.settings import parse_settings
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
    asked = DoctorInput(parse_settings(text, {}, hostname="w1"), {}, None)
    return [finding.mend for finding in host_findings(facts, asked) if finding.mend is not None]


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
