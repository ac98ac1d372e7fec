"""recvmmsg(2) and sendmmsg(2): many datagrams by one system call, for those who lay out the memory themselves."""

import ctypes
import sys
from collections.abc import Callable


class IoVector(ctypes.Structure):
    """struct iovec: readv(2)."""

    _fields_ = (("base", ctypes.c_void_p), ("length", ctypes.c_size_t))


class MsgHeader(ctypes.Structure):
    """struct msghdr: recvmsg(2)."""

    _fields_ = (
        ("name", ctypes.c_void_p),
        ("name_length", ctypes.c_uint32),
        ("vectors", ctypes.c_void_p),
        ("vector_count", ctypes.c_size_t),
        ("control", ctypes.c_void_p),
        ("control_length", ctypes.c_size_t),
        ("flags", ctypes.c_int),
    )


class MmsgHeader(ctypes.Structure):
    """struct mmsghdr: recvmmsg(2)."""

    _fields_ = (("message", MsgHeader), ("length", ctypes.c_uint32))


def available() -> bool:
    """Whether this kernel and C library have the calls, with the layout that is wired here."""
    if sys.platform != "linux" or ctypes.sizeof(ctypes.c_void_p) != 8:
        return False
    libc = ctypes.CDLL(None)
    return hasattr(libc, "recvmmsg") and hasattr(libc, "sendmmsg")


def load_calls() -> tuple[Callable[..., int], Callable[..., int]]:
    """Both of them: file descriptor, headers, how many, flags; receiving takes a timeout at the end."""
    # Without giving the interpreter away: neither call waits, and to get it back from a busy thread would take longer.
    libc = ctypes.PyDLL(None, use_errno=True)
    receive, send = libc.recvmmsg, libc.sendmmsg
    receive.argtypes = [ctypes.c_int, ctypes.c_void_p, ctypes.c_uint, ctypes.c_int, ctypes.c_void_p]
    send.argtypes = [ctypes.c_int, ctypes.c_void_p, ctypes.c_uint, ctypes.c_int]
    return receive, send
