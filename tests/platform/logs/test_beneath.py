"""Nothing is opened outside of a directory, and nothing but regular files in it."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from mesh.platform.logs.beneath import NotRegularFileError, open_base, open_directory, open_file


@pytest.fixture
def base(tmp_path: Path) -> Iterator[int]:
    (tmp_path / "base" / "below").mkdir(parents=True)
    (tmp_path / "secret").write_text("secret")
    (tmp_path / "base" / "file").write_text("file")
    (tmp_path / "base" / "below" / "file").write_text("below")
    descriptor = open_base(tmp_path / "base")
    yield descriptor
    os.close(descriptor)


@pytest.mark.parametrize(("name", "content"), [("file", b"file"), ("below/file", b"below")])
def test_regular_files_beneath_are_opened(base: int, name: str, content: bytes) -> None:
    descriptor = open_file(base, name)
    assert os.read(descriptor, 100) == content
    os.close(descriptor)


@pytest.mark.parametrize("name", ["../secret", "/etc/passwd", "below/../../secret"])
def test_no_path_leads_out(base: int, name: str) -> None:
    with pytest.raises(NotRegularFileError):
        open_file(base, name)


@pytest.mark.parametrize("target", ["file", "../secret", "/etc/passwd", "/proc/self/fd/0", "nowhere"])
def test_no_link_is_followed(base: int, tmp_path: Path, target: str) -> None:
    (tmp_path / "base" / "link").symlink_to(target)
    (tmp_path / "base" / "directory").symlink_to(tmp_path)
    with pytest.raises(NotRegularFileError):
        open_file(base, "link")
    with pytest.raises(NotRegularFileError):
        open_file(base, "directory/secret")
    with pytest.raises(NotRegularFileError):
        open_directory(base, "directory")


@pytest.mark.parametrize("kind", ["FIFO", "socket", "device", "directory"])
def test_special_files_are_named_and_not_waited_for(base: int, tmp_path: Path, kind: str) -> None:
    path = tmp_path / "base" / "special"
    if kind == "directory":
        path.mkdir()
    else:
        modes = {"FIFO": 0o010600, "socket": 0o140600, "device": 0o020600}
        os.mknod(path, modes[kind], os.makedev(1, 3) if kind == "device" else 0)
    with pytest.raises(NotRegularFileError, match=kind):
        open_file(base, "special")


def test_a_file_that_is_not_there_is_an_error_of_its_own(base: int) -> None:
    with pytest.raises(FileNotFoundError):
        open_file(base, "missing")
    with pytest.raises(FileNotFoundError):
        open_directory(base, "missing")
    with pytest.raises(NotRegularFileError):
        open_directory(base, "file")


def test_no_descriptor_is_left_open_by_a_refusal(base: int, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "base" / "fifo")
    before = len(list(Path("/proc/self/fd").iterdir()))
    for _ in range(10):
        with pytest.raises(NotRegularFileError):
            open_file(base, "fifo")
    assert len(list(Path("/proc/self/fd").iterdir())) == before
