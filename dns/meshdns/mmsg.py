"""ctypes bindings of recvmmsg(2) and sendmmsg(2), which pass many datagrams per call; callers lay out the memory."""

import ctypes
import sys
from collections.abc import Callable


class IoVector(ctypes.Structure):
    """struct iovec, see readv(2)."""

    _fields_ = (("base", ctypes.c_void_p), ("length", ctypes.c_size_t))


class MsgHeader(ctypes.Structure):
    """struct msghdr, see recvmsg(2)."""

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
    """struct mmsghdr, see recvmmsg(2)."""

    _fields_ = (("message", MsgHeader), ("length", ctypes.c_uint32))


def available() -> bool:
    """Return whether this platform has both calls, with the 64-bit Linux structures that are declared here."""
    if sys.platform != "linux" or ctypes.sizeof(ctypes.c_void_p) != 8:
        return False
    libc = ctypes.CDLL(None)
    return hasattr(libc, "recvmmsg") and hasattr(libc, "sendmmsg")


def load_calls() -> tuple[Callable[..., int], Callable[..., int]]:
    """Return recvmmsg and sendmmsg.

    Both take a file descriptor, the headers, their count and flags; recvmmsg takes a timeout in addition. They return
    the number of datagrams, or -1 with errno in `ctypes.get_errno()`.
    """
    # PyDLL keeps the GIL during the call: neither call blocks, and getting the GIL back from a busy thread would take
    # longer than the call itself.
    libc = ctypes.PyDLL(None, use_errno=True)
    receive, send = libc.recvmmsg, libc.sendmmsg
    receive.argtypes = [ctypes.c_int, ctypes.c_void_p, ctypes.c_uint, ctypes.c_int, ctypes.c_void_p]
    send.argtypes = [ctypes.c_int, ctypes.c_void_p, ctypes.c_uint, ctypes.c_int]
    return receive, send
