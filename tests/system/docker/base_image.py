"""A base image for the Dockerfile, made of this machine's own Python: no registry is asked, no package index either.

It holds the interpreter with its standard library, nft, iptables for the backend nft, the shared libraries that they
need, busybox as the shell, and the packages that vipmesh and its installation need, as they are in the environment of
the tests.
"""

import os
import re
import shutil
import subprocess
import sys
import sysconfig
import tarfile
from collections.abc import Iterator
from configparser import ConfigParser
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path
from typing import IO

from tests.system.docker.engine import BUSYBOX

_SETUP = Path(__file__).parents[3] / "setup.cfg"
_BUILDS = ("pip", "setuptools", "wheel")
"""What the image is built with; what it needs besides stands in setup.cfg."""
_LEFT_OUT = {
    "__pycache__",
    "test",
    "tests",
    "idlelib",
    "tkinter",
    "site-packages",
    "dist-packages",
    "ensurepip",
    "lib2to3",
}
_PROGRAMS = ("nft", *(f"{program}-nft{end}" for program in ("iptables", "ip6tables") for end in ("", "-save")))
_APPLETS = ("sh", "cat", "ls", "mkdir", "rm", "ln", "cp")


def write(out: IO[bytes]) -> None:
    """The image's root file system as a tar archive."""
    executable = Path(os.path.realpath(sys.executable))
    standard = Path(sysconfig.get_paths()["stdlib"])
    site = standard / "site-packages"
    found: dict[str, Path] = {str(executable): executable}
    for folder, folders, names in os.walk(standard):
        folders[:] = [name for name in folders if name not in _LEFT_OUT and not name.startswith("config-")]
        found.update({f"{folder}/{name}": Path(folder, name) for name in names if not name.endswith((".pyc", ".a"))})
    for name in _closure():
        for file in distribution(name).files or ():
            path = Path(str(file.locate()))
            if ".." not in file.parts and path.is_file() and "__pycache__" not in file.parts:
                found[f"{site}/{file}"] = path
    programs = [executable]
    for name in _PROGRAMS:
        program = shutil.which(name, path=f"{os.environ['PATH']}:/usr/sbin:/sbin")
        assert program is not None, f"needs {name}: apt-get install nftables iptables"
        found[f"/usr/sbin/{name}"] = Path(program)
        programs.append(Path(program))
    # iptables loads one library for each match and target.
    (extensions,) = {path.parent for path in Path("/usr/lib").glob("*/xtables/libxt_mark.so")}
    found.update({str(path): path for path in extensions.glob("*.so")})
    for library in _libraries([path for path in found.values() if path in programs or ".so" in path.name]):
        found[str(library)] = library
    with tarfile.open(fileobj=out, mode="w|") as tar:
        # All of them: the engine makes those that are missing, for root with all its capabilities alone.
        parents = {str(parent).lstrip("/") for inside in found for parent in Path(inside).parents} - {""}
        for name in sorted(parents | {"bin", "etc", "run", "tmp", "usr", "usr/bin", "var"}):
            mode = 0o1777 if name == "tmp" else 0o755
            folder_info = tarfile.TarInfo(name)
            folder_info.type, folder_info.mode = tarfile.DIRTYPE, mode
            tar.addfile(folder_info)
        for inside, path in sorted(found.items()):
            tar.add(os.path.realpath(path), inside.lstrip("/"), recursive=False, filter=_plain)
        tar.add(BUSYBOX, "bin/busybox", filter=_plain)
        for link, target in [("usr/bin/python3", str(executable)), *((f"bin/{name}", "busybox") for name in _APPLETS)]:
            link_info = tarfile.TarInfo(link)
            link_info.type, link_info.linkname = tarfile.SYMTYPE, target
            tar.addfile(link_info)


def _plain(info: tarfile.TarInfo) -> tarfile.TarInfo:
    """Root's, and readable by everybody: a root without capabilities is nobody in particular."""
    info.uid = info.gid = 0
    info.uname = info.gname = "root"
    info.mode |= 0o444
    return info


def _closure() -> set[str]:
    """The packages with what they require, as far as it is installed."""
    settings = ConfigParser()
    settings.read(_SETUP)
    required = [line for line in settings["options"]["install_requires"].splitlines() if line.strip()]
    todo, found = [*_BUILDS, *map(_name, required)], set[str]()
    while todo:
        name = todo.pop()
        try:
            required = distribution(name).requires or []
        except PackageNotFoundError:
            continue
        if name not in found:
            found.add(name)
            todo += [_name(text) for text in required if "extra ==" not in text]
    return found


def _name(required: str) -> str:
    return re.split(r"[^A-Za-z0-9._-]", required)[0]


def _libraries(files: list[Path]) -> Iterator[Path]:
    """The shared libraries that these files are linked with."""
    listed = subprocess.run(["ldd", *files], capture_output=True, text=True, check=False).stdout
    yield from {Path(path) for path in re.findall(r"(?:=> |^\t)(/\S+)", listed, re.MULTILINE)}
