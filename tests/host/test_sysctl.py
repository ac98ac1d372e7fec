"""Kernel settings: which are written, which are left alone, and the error if they cannot be set."""

from pathlib import Path

import pytest

from mesh.host.sysctl import SysctlError, ensure_settings, route_advertisement_settings, router_settings


def tree(root: Path, **values: str) -> Path:
    """A /proc/sys in small: `net__ipv4__x="0"` is the key net.ipv4.x."""
    for key, value in values.items():
        path = root / key.replace("__", "/")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"{value}\n")
    return root


def test_only_differing_settings_are_written_and_reported_with_the_old_value(tmp_path: Path) -> None:
    root = tree(tmp_path, net__ip_forward="0", net__arp_ignore="1")
    (root / "net/arp_ignore").chmod(0o444)

    changed = ensure_settings({"net.ip_forward": 1, "net.arp_ignore": "1"}, root)

    assert changed == [("net.ip_forward", "0", "1")]
    assert (root / "net/ip_forward").read_text() == "1"
    assert ensure_settings({"net.ip_forward": 1, "net.arp_ignore": "1"}, root) == []


def test_values_of_several_words_compare_by_word(tmp_path: Path) -> None:
    root = tree(tmp_path, net__range="32768\t60999")

    assert ensure_settings({"net.range": "32768 60999"}, root) == []


def test_all_settings_that_cannot_be_set_are_named_and_the_rest_is_set(tmp_path: Path) -> None:
    root = tree(tmp_path, net__ipv4__free="0", net__ipv4__fits="1")
    (root / "net/ipv4/fixed").symlink_to("/proc/sys/kernel/ngroups_max")  # not even root may write it

    with pytest.raises(SysctlError) as raised:
        ensure_settings({"net.ipv4.fixed": 1, "net.ipv4.vs.gone": 1, "net.ipv4.fits": 1, "net.ipv4.free": 1}, root)

    text = str(raised.value)
    assert "`net.ipv4.fixed = 1`, `net.ipv4.vs.gone = 1` to /etc/sysctl.d/" in text
    assert "net.ipv4.fixed must be 1: it is 65536 and cannot be written" in text
    assert "net.ipv4.vs.gone must be 1: it cannot be read (No such file or directory)" in text
    assert "modprobe ip_vs" in text
    assert "fits" not in text
    assert (root / "net/ipv4/free").read_text() == "1"


def test_a_slash_in_a_key_is_a_dot_in_a_name(tmp_path: Path) -> None:
    root = tree(tmp_path, net__conf__eth0__accept_ra="1")
    (root / "net/conf/eth0").rename(root / "net/conf/eth0.100")

    assert ensure_settings({"net.conf.eth0/100.accept_ra": 2}, root) == [("net.conf.eth0/100.accept_ra", "1", "2")]


@pytest.mark.parametrize(
    ("forwarding", "kept"),
    [
        pytest.param("0", {"net.ipv6.conf.eth0.accept_ra": 2}, id="a host that begins to forward"),
        pytest.param("1", {}, id="a router already"),
    ],
)
def test_routes_by_advertisement_are_kept(tmp_path: Path, forwarding: str, kept: dict[str, int]) -> None:
    conf = {"all__forwarding": forwarding, "eth0__accept_ra": "1", "eth1__accept_ra": "0", "eth2__accept_ra": "2"}
    root = tree(tmp_path, **{f"net__ipv6__conf__{key}": value for key, value in conf.items()})

    assert route_advertisement_settings(root) == kept
    assert route_advertisement_settings(tmp_path / "without IPv6") == {}


def test_ipv6_is_forwarded_for_ipv6_vips_only() -> None:
    assert "net.ipv6.conf.all.forwarding" not in router_settings("6.1.0")
    assert router_settings("6.1.0", ipv6=True)["net.ipv6.conf.all.forwarding"] == 1


@pytest.mark.parametrize(
    ("release", "reuse"),
    [("4.19.0-26-amd64", 0), ("5.8.18", 0), ("5.9.0", 1), ("5.10.0-0.deb10.16-amd64", 1), ("6.1.0-56-amd64", 1)],
)
def test_ports_are_reused_by_kernel_version(release: str, reuse: int) -> None:
    assert router_settings(release)["net.ipv4.vs.conn_reuse_mode"] == reuse
