"""What the text of files in /proc/PID says about a container's process."""

import sys
from ipaddress import ip_interface
from pathlib import Path

import pytest

from mesh.sources.docker.process_facts import (
    ContainerProcess,
    count_accepted,
    moved_address,
    parse_cgroup,
    parse_interfaces,
    parse_stat,
)
from mesh.sources.docker.served_connections import accepted_connections

ID, OTHER = "a1" * 32, "b2" * 32

FIB_TRIE = """Main:
  +-- 0.0.0.0/0 3 0 5
     |-- 0.0.0.0
        /0 universe UNICAST
Local:
  +-- 0.0.0.0/0 3 0 5
     +-- 127.0.0.0/8 2 0 2
           |-- 127.0.0.1
              /32 host LOCAL
        |-- 127.255.255.255
           /32 link BROADCAST
     +-- 172.18.0.0/16 2 0 2
           |-- 172.18.0.0
              /16 link UNICAST
           |-- 172.18.0.5
              /32 host LOCAL
        |-- 172.18.255.255
           /32 link BROADCAST
           |-- 10.0.1.7
              /32 host LOCAL
"""
HEADER = "Iface\tDestination\tGateway \tFlags\tRefCnt\tUse\tMetric\tMask\t\tMTU\tWindow\tIRTT\n"
SIX = (
    "00000000000000000000000000000001 01 80 10 80       lo\n"
    "fe80000000000000004200fffe120005 02 40 20 80     eth0\n"
    "fd120000000000000000000000000005 02 40 00 80     eth0\n"
)


def number(address: str) -> str:
    """As the kernel prints it."""
    return f"{int.from_bytes(bytes(map(int, address.split('.'))), sys.byteorder):08X}"


def route(destination: str, mask: str, gateway: str = "0.0.0.0", flags: str = "0001") -> str:
    return f"eth0\t{number(destination)}\t{number(gateway)}\t{flags}\t0\t0\t0\t{number(mask)}\t0\t0\t0\n"


ROUTES = HEADER + "".join(
    (
        route("0.0.0.0", "0.0.0.0", "172.18.0.1", "0003"),
        route("172.18.0.0", "255.255.0.0"),
        route("10.0.0.0", "255.0.0.0", "172.18.0.1", "0003"),
        route("10.0.1.0", "255.255.255.0"),
    )
)


@pytest.mark.parametrize(
    ("text", "container"),
    [
        (f"0::/system.slice/docker-{ID}.scope\n", ID),
        (f"12:pids:/docker/{ID}\n1:name=systemd:/docker/{ID}\n0::/\n", ID),
        (f"0::/machine.slice/libpod-{ID}.scope/container\n", ID),
        (f"0::/../{ID}\n", ID),
        (f"0::/system.slice/docker-{ID}.scope/docker-{OTHER}.scope\n", ID),
        (f"0::/system.slice/docker-{ID}.scope/docker/{OTHER}\n", ID),
        (f"2:pids:/docker/{ID}\n1:cpu:/docker/{OTHER}\n", None),
        (f"0::/system.slice/x{ID}.scope\n", None),
        (f"0::/{ID[:63]}\n", None),
        (f"0::/{ID.upper()}\n", None),
        ("0::/user.slice\n", None),
        ("0:", None),
        ("", None),
    ],
)
def test_the_first_id_of_a_cgroup_is_that_of_the_container(text: str, container: str | None) -> None:
    assert parse_cgroup(text) == container


def stat(state: str = "S", parent: str = "17", began: str = "4711", name: str = "httpd") -> str:
    return f"42 ({name}) {state} {parent} " + " ".join("0" for _ in range(17)) + f" {began} 0 0\n"


@pytest.mark.parametrize("name", ["httpd", "a) S 1 2 3 (b", "x y", ""])
def test_a_process_is_known_by_its_start_whatever_its_name(name: str) -> None:
    process = parse_stat(42, stat(name=name))
    assert process == ContainerProcess(42, 4711)
    assert process is not None
    assert process.parent == 17


@pytest.mark.parametrize("text", [stat(state="Z"), stat(state="X"), stat(began="never"), "42 (httpd) S 17\n", ""])
def test_a_process_that_has_ended_is_none(text: str) -> None:
    assert parse_stat(42, text) is None


def test_addresses_come_with_the_most_narrow_network_that_needs_no_gateway() -> None:
    expected = {ip_interface(text) for text in ("172.18.0.5/16", "10.0.1.7/24", "fd12::5/64")}
    assert parse_interfaces(FIB_TRIE, ROUTES, SIX) == expected
    assert parse_interfaces(FIB_TRIE, HEADER, "") == frozenset()
    assert parse_interfaces("", "", "") == frozenset()


@pytest.mark.parametrize(
    ("fib_trie", "routes", "six"),
    [
        (FIB_TRIE, HEADER + "eth0\tzz\n", ""),
        ("|-- 1.2.3\n /32 host LOCAL\n", ROUTES, ""),
        ("", "", "nonsense\n"),
        ("", "", "".join(f"fd{n:030x} 02 40 00 80 eth0\n" for n in range(100))),
    ],
)
def test_unreadable_addresses_are_an_error(fib_trie: str, routes: str, six: str) -> None:
    with pytest.raises(ValueError):  # noqa: PT011 -- whatever it says, the caller takes it for not seen
        parse_interfaces(fib_trie, routes, six)


@pytest.mark.parametrize(
    ("before", "there", "after"),
    [
        ("172.18.0.5", ["172.18.0.5/16"], "172.18.0.5"),
        ("172.18.0.5", ["172.18.0.6/16", "172.18.0.5/16"], "172.18.0.5"),
        ("172.18.0.5", ["172.18.0.6/16", "10.0.1.7/24"], "172.18.0.6"),
        ("172.18.0.5", ["172.18.0.6/16", "172.18.0.7/16"], None),
        ("172.18.0.5", ["10.0.1.7/24"], None),
        ("172.18.0.5", [], None),
        ("fd12::5", ["fd12::6/64", "172.18.0.6/16"], "fd12::6"),
    ],
)
def test_an_address_moves_only_within_its_network_and_to_the_only_one(
    before: str, there: list[str], after: str | None
) -> None:
    assert moved_address(before, frozenset(map(ip_interface, there))) == after


TCP = """  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode
   0: 00000000:0050 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 4242 1
   1: 050012AC:0050 0100090A:D431 01 00000000:00000000 00:00000000 00000000     0        0 4243 1
   2: 050012AC:0050 0100090A:D432 06 00000000:00000000 03:00000000 00000000     0        0 0 3
   3: 050012AC:9C40 0900090A:1538 01 00000000:00000000 00:00000000 00000000     0        0 4244 1
"""
TCP6 = """  sl  local_address                         remote_address                        st tx_queue
   0: 00000000000000000000000000000000:1F90 00000000000000000000000000000000:0000 0A 00000000
   1: 0000000000000000FFFF0000050012AC:1F90 0000000000000000FFFF00000100090A:D433 01 00000000
"""


@pytest.mark.parametrize(
    ("tables", "count"),
    [
        ((TCP,), 1),
        ((TCP, TCP6), 2),
        ((TCP6.replace("0A", "01", 1),), 0),
        ((), 0),
        (("", "\x00" * 100, "sl\n 1: x\n 2: a:0050 b:1 0A\n 3: a:0050 b:1 01"), 1),
    ],
)
def test_connections_that_a_container_has_accepted(tables: tuple[str, ...], count: int) -> None:
    assert count_accepted(tables) == count


def test_connections_are_read_of_the_container_that_is_meant(tmp_path: Path) -> None:
    (tmp_path / "7" / "net").mkdir(parents=True)
    (tmp_path / "7" / "cgroup").write_text(f"0::/system.slice/docker-{ID}.scope\n")
    (tmp_path / "7" / "net" / "tcp").write_text(TCP)
    assert accepted_connections(ID, 7, tmp_path) == 1, "a kernel without IPv6"
    (tmp_path / "7" / "net" / "tcp6").write_text(TCP6)
    assert accepted_connections(ID, 7, tmp_path) == 2
    assert accepted_connections(OTHER, 7, tmp_path) is None
    assert accepted_connections(ID, 8, tmp_path) is None
    assert accepted_connections(ID, 0, tmp_path) is None
