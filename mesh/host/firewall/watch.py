"""Notices when a program changes the rules of nftables, those of iptables with its backend `nft` included.

The kernel announces each change to a netlink multicast group. A message is only a reason to look again: what was
changed is then read. Changes of our data plane and of our source NAT, which are many, are left out.
"""

import asyncio
import errno
import logging
import socket
import struct
from collections.abc import AsyncGenerator, Iterator

from mesh.model.part import DaemonPart
from mesh.util.bulkhead import Bulkhead

log = logging.getLogger("vipmesh")
bulkhead = Bulkhead(DaemonPart.HOST)

_NETLINK_NETFILTER = 12  # linux/netlink.h
_GROUPS = 1 << 7 - 1  # NFNLGRP_NFTABLES, linux/netfilter/nfnetlink.h
_NEW_GENERATION = 0xA0F  # NFNL_SUBSYS_NFTABLES << 8 | NFT_MSG_NEWGEN: it follows each change and tells nothing new
_HEADER = struct.Struct("=IHHII")  # nlmsghdr: length, type, flags, sequence, port id
_ATTRIBUTE = struct.Struct("=HH")  # nlattr: length, kind
_TABLE_NAME = 1  # NFTA_TABLE_NAME, NFTA_CHAIN_TABLE, NFTA_RULE_TABLE, NFTA_SET_TABLE, ...
_FIRST_ATTRIBUTE = _HEADER.size + 4  # after nlmsghdr and nfgenmsg
_LEFT_OUT = frozenset({b"vipmesh", b"vipmesh_lb", b"vipmesh_count"})


def concerns_firewall(datagram: bytes) -> bool:
    """Return whether a datagram announces a change of rules that may matter. What is not understood may."""
    return any(
        kind != _NEW_GENERATION and _table_name(message) not in _LEFT_OUT for kind, message in _messages(datagram)
    )


def _messages(datagram: bytes) -> Iterator[tuple[int, bytes]]:
    """Yield the type and the bytes of each message."""
    place = 0
    while place + _HEADER.size <= len(datagram):
        length, kind, *_ = _HEADER.unpack_from(datagram, place)
        yield kind, datagram[place : place + length]
        place += max(_HEADER.size, length + 3 & ~3)


def _table_name(message: bytes) -> bytes | None:
    """Return the table that a message is about; None if it is not where it is expected."""
    if len(message) < _FIRST_ATTRIBUTE + _ATTRIBUTE.size:
        return None
    length, kind = _ATTRIBUTE.unpack_from(message, _FIRST_ATTRIBUTE)
    if kind != _TABLE_NAME:
        return None
    return message[_FIRST_ATTRIBUTE + _ATTRIBUTE.size : _FIRST_ATTRIBUTE + length].rstrip(b"\0")


async def watch_rule_changes() -> AsyncGenerator[None, None]:
    """Yield after each change of rules; changes while the consumer is busy are reported once.

    Ends at once if this process may not be told (it lacks CAP_NET_ADMIN, or the kernel has no nftables).
    """
    loop, changed = asyncio.get_running_loop(), asyncio.Event()
    try:
        sock = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, _NETLINK_NETFILTER)
    except OSError as error:
        log.debug("changes of nftables are not announced: %s", error)
        return
    with sock:
        sock.setblocking(False)
        try:
            sock.bind((0, _GROUPS))
        except OSError as error:
            log.debug("changes of nftables are not announced: %s", error)
            return
        loop.add_reader(sock.fileno(), bulkhead.callback(_drain), sock, changed)
        try:
            while True:
                await changed.wait()
                # Cleared before the consumer looks: a change during its look leads to another one.
                changed.clear()
                yield
        finally:
            loop.remove_reader(sock.fileno())


def _drain(sock: socket.socket, changed: asyncio.Event) -> None:
    """Read all waiting messages. If some were lost because the buffer was full, that is a change, too."""
    while True:
        try:
            if concerns_firewall(sock.recv(65536)):
                changed.set()
        except BlockingIOError:
            return
        except OSError as error:
            if error.errno != errno.ENOBUFS:
                raise
            changed.set()
