"""Opens files below a directory, where a container may put whatever it wants: links, FIFOs, devices.

The kernel resolves a path beneath the directory alone and follows no link, whatever is renamed meanwhile: openat2(2),
of Linux 5.6. glibc has no wrapper for it, so it is called by its number.
"""

import ctypes
import errno
import os
import platform
import stat
from pathlib import Path

_NUMBERS = dict.fromkeys(("x86_64", "aarch64", "riscv64", "ppc64le", "s390x", "loongarch64", "armv7l", "i686"), 437)
"""The number of openat2 by machine. Calls since 5.1 have one number on almost all of them:
https://github.com/torvalds/linux/blob/v6.1/include/uapi/asm-generic/unistd.h
"""
_NO_MAGICLINKS, _NO_SYMLINKS, _BENEATH = 0x02, 0x04, 0x08
"""RESOLVE_*: include/uapi/linux/openat2.h."""
_TRIES = 8
"""The kernel answers EAGAIN if it cannot exclude that a rename led out meanwhile."""


class NotRegularFileError(OSError):
    """It is a link, a FIFO, a device, a socket or a directory, or the path leads through a link."""


class OpenHow(ctypes.Structure):
    """`struct open_how`, include/uapi/linux/openat2.h."""

    _fields_ = (("flags", ctypes.c_uint64), ("mode", ctypes.c_uint64), ("resolve", ctypes.c_uint64))


_LIBC = ctypes.CDLL(None, use_errno=True)


def open_base(path: Path) -> int:
    """Open a directory of the host that the engine has named, through its links. Raises `OSError`."""
    return os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)


def open_directory(base: int, name: str) -> int:
    """Open a directory beneath `base`. Raises `NotRegularFileError` for anything else, and `OSError`."""
    try:
        return _openat2(base, name, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except NotADirectoryError:
        raise NotRegularFileError(errno.ENOTDIR, "it is no directory", name) from None


def open_file(base: int, name: str) -> int:
    """Open a regular file beneath `base`. Raises `NotRegularFileError` for anything else, and `OSError`."""
    # Opening a device may have an effect, so it is looked at before: O_PATH opens nothing, open(2).
    seen = _openat2(base, name, os.O_PATH | os.O_CLOEXEC)
    try:
        _require_regular(seen, name)
    finally:
        os.close(seen)
    # If it was replaced by a FIFO meanwhile, O_NONBLOCK does not wait for a writer.
    descriptor = _openat2(base, name, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)
    try:
        _require_regular(descriptor, name)
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


def _require_regular(descriptor: int, name: str) -> None:
    mode = os.fstat(descriptor).st_mode
    if not stat.S_ISREG(mode):
        raise NotRegularFileError(errno.EINVAL, f"it is a {_kind(mode)}", name)


def _kind(mode: int) -> str:
    kinds = {
        stat.S_IFIFO: "FIFO",
        stat.S_IFCHR: "device",
        stat.S_IFBLK: "device",
        stat.S_IFSOCK: "socket",
        stat.S_IFDIR: "directory",
        stat.S_IFLNK: "link",
    }
    return kinds.get(stat.S_IFMT(mode), "special file")


def _openat2(base: int, name: str, flags: int) -> int:
    how = OpenHow(flags, 0, _BENEATH | _NO_SYMLINKS | _NO_MAGICLINKS)
    number = _NUMBERS.get(platform.machine())
    if number is None:
        raise OSError(errno.ENOSYS, f"openat2 is not known on {platform.machine()}", name)
    error = errno.EAGAIN
    for _ in range(_TRIES):
        found: int = _LIBC.syscall(
            ctypes.c_long(number),
            ctypes.c_int(base),
            ctypes.c_char_p(os.fsencode(name)),
            ctypes.byref(how),
            ctypes.c_size_t(ctypes.sizeof(how)),
        )
        if found >= 0:
            return found
        error = ctypes.get_errno()
        if error not in (errno.EAGAIN, errno.EINTR):
            break
    if error in (errno.ELOOP, errno.EXDEV):
        raise NotRegularFileError(error, "it is a link, or leads out of the directory", name)
    raise OSError(error, os.strerror(error), name)
