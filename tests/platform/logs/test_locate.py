"""Where on the host the files are that a path of a container means."""

import pytest

from mesh.config.labels.log_files import parse_log_path
from mesh.config.labels.logs import LogPathLabel
from mesh.platform.logs.locate import locate_sources
from mesh.sources.docker.container_files import (
    ContainerFilesystem,
    ContainerMount,
    MountDetails,
    StorageDriverDetails,
    container_filesystem,
)

VOLUME = ContainerMount("/var/log/mysql", "/vol/mysql/_data", "volume")
BIND = ContainerMount("/var/log", "/srv/logs", "bind")
FILE = ContainerMount("/etc/app.log", "/srv/app.log", "bind")
MEMORY = ContainerMount("/run", "", "tmpfs")
FILESYSTEM = ContainerFilesystem((BIND, VOLUME, FILE, MEMORY), "/upper", "overlay2")


def located(path: str, filesystem: ContainerFilesystem = FILESYSTEM) -> list[tuple[str, tuple[str, ...]]]:
    sources, refused = locate_sources([LogPathLabel("db", parse_log_path(path))], filesystem)
    assert refused == ()
    return [(each.base, each.parts) for each in sources]


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("/var/log/mysql/error.log", [("/vol/mysql/_data", ("error.log",))]),
        ("/var/log/mysql/", [("/vol/mysql/_data", ("*",))]),
        ("/var/log/mysql", [("/vol/mysql/_data", ())]),
        ("/var/log/mysql2/x.log", [("/srv/logs", ("mysql2", "x.log"))]),
        ("/var/log/*.log", [("/srv/logs", ("*.log",))]),
        ("/opt/app/x.log", [("/upper", ("opt", "app", "x.log"))]),
        ("/etc/app.log", [("/srv/app.log", ())]),
        ("/etc/*.log", [("/upper", ("etc", "*.log")), ("/srv/app.log", ())]),
        ("/var/log/*/x.log", [("/srv/logs", ("*", "x.log")), ("/vol/mysql/_data", ("x.log",))]),
        ("/var/*/mysql/x.log", [("/upper", ("var", "*", "mysql", "x.log")), ("/srv/logs", ("mysql", "x.log")),
                                ("/vol/mysql/_data", ("x.log",))]),
    ],
)  # fmt: skip
def test_the_longest_mount_has_the_files_and_the_layer_the_others(
    path: str, expected: list[tuple[str, tuple[str, ...]]]
) -> None:
    assert located(path) == expected


def test_what_a_mount_covers_is_hidden() -> None:
    (source,), _ = locate_sources([LogPathLabel("db", parse_log_path("/var/log/*"))], ContainerFilesystem((BIND,)))
    assert source.hidden == frozenset()
    sources, _ = locate_sources([LogPathLabel("db", parse_log_path("/var/log/*/x.log"))], FILESYSTEM)
    assert sources[0].hidden == {("mysql",)}


@pytest.mark.parametrize(
    ("path", "filesystem", "reason"),
    [
        ("/run/x.log", FILESYSTEM, "/run is a tmpfs"),
        ("/opt/x.log", ContainerFilesystem((), "", "btrfs"), "storage driver btrfs"),
        ("/opt/x.log", ContainerFilesystem(), "storage driver unknown"),
        ("/data/x.log", ContainerFilesystem((ContainerMount("/data", "", "cluster"),)), "no directory of the cluster"),
    ],
)
def test_what_the_host_does_not_have_is_refused_with_what_to_do(
    path: str, filesystem: ContainerFilesystem, reason: str
) -> None:
    sources, (refused,) = locate_sources([LogPathLabel("db", parse_log_path(path))], filesystem)
    assert sources == ()
    assert reason in refused.reason
    assert f"mount a volume at {path.rpartition('/')[0]}" in refused.remedy


def test_the_filesystem_is_read_from_the_inspection() -> None:
    storage = StorageDriverDetails("overlay2", {"UpperDir": "/var/lib/docker/overlay2/a/diff", "MergedDir": None})
    found = container_filesystem([MountDetails("volume", "/v", "/data")], {"/run": "size=1m"}, storage)
    assert found.mounts == (ContainerMount("/data", "/v", "volume"), ContainerMount("/run", "", "tmpfs"))
    assert (found.upper, found.driver) == ("/var/lib/docker/overlay2/a/diff", "overlay2")


@pytest.mark.parametrize("upper", [None, 7, "", "relative", "/nul\0", "/half \ud800"])
def test_a_path_that_cannot_be_opened_is_none(upper: object) -> None:
    storage = StorageDriverDetails("overlay2", {"UpperDir": upper})
    mounts = [MountDetails("bind", "/nul\0", "/data"), MountDetails("bind", "/srv", "relative")]
    found = container_filesystem(mounts, None, storage)
    assert found.mounts == (ContainerMount("/data", "", "bind"),)
    assert found.upper == ""
