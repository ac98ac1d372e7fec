"""Usage of containers from cgroup files of both versions, by recorded trees of each engine and cgroup driver."""

import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mesh.platform.autoscaling.cgroup_files import (
    MAX_NUMBER,
    CgroupLimits,
    CgroupUsage,
    locate_cgroup,
    parse_limits_v1,
    parse_limits_v2,
    parse_mounts,
    parse_usage_v1,
    parse_usage_v2,
)
from mesh.platform.autoscaling.cgroup_reader import CgroupReader
from tests.platform.autoscaling.cgroup_trees import CONTAINER, PID, tree_files, tree_names, write_tree

WITHOUT_LIMIT = {"v1-docker-cgroupfs", "v2-docker-cgroupfs"}
V1, V2 = "1:cpu,cpuacct:{0}\n2:memory:{0}\n", "0::{0}\n"
MOUNTS = {
    V1: "1 1 0:1 / /c rw - cgroup c rw,cpu,cpuacct\n2 1 0:2 / /m rw - cgroup c rw,memory\n",
    V2: "1 1 0:1 / /c rw - cgroup2 c rw\n",
}


@pytest.mark.parametrize("name", tree_names())
def test_usage_and_limits_are_read_from_each_tree(name: str, tmp_path: Path) -> None:
    write_tree(name, tmp_path)
    reader = CgroupReader(tmp_path / "proc", str(tmp_path))
    found = reader.find(CONTAINER, PID)
    assert found is not None
    assert found.version == int(name[1])
    usage = reader.usage(found)
    assert usage is not None
    assert usage.cpu_ns // 1_000_000 == 3715
    assert usage.memory == (None if name.endswith("without-memory") else 80 << 20)
    assert (usage.periods, usage.throttled) == ((0, 0) if name == "v2-docker-cgroupfs" else (512, 128))
    limits = reader.limits(found)
    assert limits.cpu == (None if name in WITHOUT_LIMIT else 0.2)
    assert limits.memory == (None if name in WITHOUT_LIMIT or name.endswith("without-memory") else 128 << 20)


@pytest.mark.parametrize("name", tree_names())
def test_a_container_that_is_gone_has_no_usage(name: str, tmp_path: Path) -> None:
    write_tree(name, tmp_path)
    reader = CgroupReader(tmp_path / "proc", str(tmp_path))
    found = reader.find(CONTAINER, PID)
    assert found is not None
    for path in (tmp_path / "sys").rglob("*"):
        if path.is_file():
            path.unlink()
    assert reader.usage(found) is None
    assert reader.limits(found) == CgroupLimits()


def test_what_is_no_small_regular_text_is_not_read(tmp_path: Path) -> None:
    write_tree("v2-docker-cgroupfs", tmp_path)
    reader = CgroupReader(tmp_path / "proc", str(tmp_path))
    found = reader.find(CONTAINER, PID)
    assert found is not None
    stat = tmp_path / found.cpu.lstrip("/") / "cpu.stat"
    text = stat.read_text()
    stat.write_text(text + "x" * 20_000)
    assert reader.usage(found) is None
    stat.unlink()
    os.mkfifo(stat)
    assert reader.usage(found) is None, "and nobody waits for a writer"
    stat.unlink()
    (tmp_path / "elsewhere").write_text(text)
    stat.symlink_to(tmp_path / "elsewhere")
    assert reader.usage(found) is None


@pytest.mark.parametrize("form", [V1, V2])
@pytest.mark.parametrize(
    "path",
    [
        "/",
        "/docker",
        "/docker/" + "a" * 64,
        f"/../{CONTAINER}",
        f"/docker/../../etc/{CONTAINER}",
        f"docker/{CONTAINER}",
        f"/docker/x{CONTAINER}",
        f"/docker/{CONTAINER}x",
    ],
)
def test_a_cgroup_that_is_not_the_containers_or_not_mounted_is_not_found(form: str, path: str) -> None:
    assert locate_cgroup(CONTAINER, form.format(path), parse_mounts(MOUNTS[form])) is None


@pytest.mark.parametrize("form", [V1, V2])
def test_the_cgroup_of_the_container_counts_and_not_one_that_it_made_below(form: str) -> None:
    found = locate_cgroup(CONTAINER, form.format(f"/docker/{CONTAINER}/a/{CONTAINER}/b"), parse_mounts(MOUNTS[form]))
    assert found is not None
    assert found.cpu == f"/c/docker/{CONTAINER}"


def test_without_an_id_nothing_is_found() -> None:
    assert locate_cgroup("", V2.format("/docker//x"), parse_mounts(MOUNTS[V2])) is None


def test_a_mount_that_shows_only_a_part_has_what_is_below_it() -> None:
    """As in a container that shares the cgroups of its host: only its own part is mounted."""
    mounts = parse_mounts("1 1 0:1 /docker /sys/fs/cg\\040roup rw - cgroup2 c rw\n")
    found = locate_cgroup(CONTAINER, V2.format(f"/docker/{CONTAINER}"), mounts)
    assert found is not None
    assert found.cpu == f"/sys/fs/cg roup/{CONTAINER}"
    assert locate_cgroup(CONTAINER, V2.format(f"/dockerd/{CONTAINER}"), mounts) is None


def test_the_mount_of_the_whole_hierarchy_goes_before_others() -> None:
    mounts = parse_mounts("1 1 0:1 /docker/x /part rw - cgroup2 c rw\n1 1 0:1 / /whole rw - cgroup2 c rw\n")
    assert mounts[""].point == "/whole"


@pytest.mark.parametrize(
    ("usage", "wanted"),
    [
        (parse_usage_v1(b"5\n", b"", b"", b""), CgroupUsage(5)),
        (parse_usage_v1(b"-5\n", b"", b"", b""), None),
        (parse_usage_v1(b"9" * 19, b"", b"", b""), CgroupUsage(MAX_NUMBER)),
        (parse_usage_v1(b"9" * 20, b"", b"", b""), None),
        (parse_usage_v1(b"5", b"nr_periods 3\n", b"10", b"total_inactive_file 90\n"), CgroupUsage(5, memory=0)),
        (parse_usage_v2(b"usage_usec 7\n", b"", b""), CgroupUsage(7000)),
        (parse_usage_v2(b"user_usec 7\n", b"", b""), None),
        (parse_usage_v2(b"usage_usec seven\n", b"", b""), None),
        (parse_usage_v2(b"usage_usec 7\n", b"max", b"inactive_file 1"), CgroupUsage(7000)),
    ],
)
def test_numbers_are_bounded_and_what_is_none_is_left_out(
    usage: CgroupUsage | None, wanted: CgroupUsage | None
) -> None:
    assert usage == wanted


@pytest.mark.parametrize(
    ("limits", "wanted"),
    [
        (parse_limits_v1(b"-1\n", b"100000\n", b"9223372036854771712\n"), CgroupLimits()),
        (parse_limits_v1(b"150000", b"100000", b"4096"), CgroupLimits(1.5, 4096)),
        (parse_limits_v1(b"100000", b"0", b""), CgroupLimits()),
        (parse_limits_v2(b"max 100000\n", b"max\n"), CgroupLimits()),
        (parse_limits_v2(b"50000 100000\n", b"4096\n"), CgroupLimits(0.5, 4096)),
        (parse_limits_v2(b"0 0", b""), CgroupLimits()),
    ],
)
def test_no_limit_is_none(limits: CgroupLimits, wanted: CgroupLimits) -> None:
    assert limits == wanted


@given(st.text(max_size=300), st.text(max_size=300), st.lists(st.binary(max_size=100), min_size=4, max_size=4))
def test_anything_is_read_or_left_out(proc: str, mountinfo: str, files: list[bytes]) -> None:
    found = locate_cgroup(CONTAINER, proc, parse_mounts(mountinfo))
    assert found is None or CONTAINER in found.cpu
    for usage in (parse_usage_v1(*files), parse_usage_v2(*files[:3])):
        assert usage is None or (usage.cpu_ns >= 0 and (usage.memory is None or usage.memory >= 0))


@given(st.sampled_from(tree_names()), st.data())
def test_a_tree_with_a_changed_byte_is_read_or_left_out(name: str, data: st.DataObject) -> None:
    files = tree_files(name)
    path = data.draw(st.sampled_from(sorted(files)))
    text = files[path]
    at = data.draw(st.integers(0, len(text) - 1))
    changed = {**files, path: text[:at] + data.draw(st.characters(codec="ascii")) + text[at + 1 :]}
    mounts = parse_mounts(changed["proc/self/mountinfo"])
    found = locate_cgroup(CONTAINER, changed[f"proc/{PID}/cgroup"], mounts)
    assert found is None or CONTAINER in found.cpu
