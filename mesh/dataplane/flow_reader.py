"""Reads which connections of clients were answered: from connection tracking by netlink, and from the text of IPVS.

Each listing has a socket of its own, so that one that is too long is ended by closing it.
"""

import asyncio
import os
import socket
from collections.abc import Callable, Collection, Iterator
from functools import partial
from itertools import islice
from pathlib import Path

from mesh.dataplane import DataPlaneError
from mesh.dataplane.client_flows import (
    ClientFlow,
    list_address_request,
    list_unassured_request,
    parse_flow,
    parse_ipvs_connections,
)
from mesh.dataplane.netlink import MalformedNetlinkError, NetlinkAck, unpack_messages
from mesh.model.codes import Code
from mesh.model.table import VirtualKey

MOST_ENTRIES = 1 << 16
"""Entries of one listing that are looked at; later ones are left out."""
MOST_ADDRESSES = 16
"""Addresses that are listed at a time."""
_NETLINK_NETFILTER = 12  # linux/netlink.h
_DATAGRAM = 1 << 17
_PATIENCE = 5.0
IP_VS_CONN = Path("/proc/net/ip_vs_conn")
"""The connections of IPVS."""


class FlowReader:
    """Reads connections in the network namespace of the daemon."""

    def __init__(self, version: int, *, ipvs: bool, root: Path = IP_VS_CONN) -> None:
        """`version` is the IP version of the VIPs. `ipvs`: whether IPVS forwards, whose own table is read too."""
        self._version = version
        self._ipvs = ipvs
        self._root = root

    async def unassured(self, keys: Collection[VirtualKey]) -> list[ClientFlow]:
        """Return connections to these virtual servers that were not established, answered or not.

        Established ones may be among them. Raises `DataPlaneError`.
        """
        return await asyncio.to_thread(self._unassured, frozenset(keys))

    async def all_to(self, keys: Collection[VirtualKey]) -> list[ClientFlow]:
        """Return all connections to the first few addresses of these virtual servers. Raises `DataPlaneError`."""
        addresses = sorted({key.address for key in keys})[:MOST_ADDRESSES]
        wanted = frozenset(keys)

        def read() -> list[ClientFlow]:
            return [flow for address in addresses for flow in _listed(partial(list_address_request, address), wanted)]

        return await asyncio.to_thread(read) if keys else []

    def _unassured(self, keys: frozenset[VirtualKey]) -> list[ClientFlow]:
        found = {flow.key: flow for flow in self._of_ipvs(keys) if not flow.is_answered}
        # What connection tracking calls answered may be unanswered for IPVS, which sees only what was not dropped.
        for flow in _listed(partial(list_unassured_request, self._version), keys):
            found.setdefault(flow.key, flow)
        return list(found.values())

    def _of_ipvs(self, keys: frozenset[VirtualKey]) -> Iterator[ClientFlow]:
        if not self._ipvs:
            return
        try:
            with self._root.open() as lines:
                next(lines, None)
                yield from parse_ipvs_connections(islice(lines, MOST_ENTRIES), keys)
        except FileNotFoundError:
            return  # no virtual server was ever made here
        except OSError as error:
            raise DataPlaneError(
                Code.NETLINK_FAILED, f"the connections of IPVS cannot be read ({error.strerror}): see {self._root}"
            ) from error


def _listed(request: Callable[[int], bytes], keys: Collection[VirtualKey]) -> Iterator[ClientFlow]:
    """Yield the entries of one listing. Raises `DataPlaneError`."""
    try:
        with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, _NETLINK_NETFILTER) as kernel:
            kernel.settimeout(_PATIENCE)
            kernel.send(request(1))
            for body in islice(_bodies(kernel), MOST_ENTRIES):
                flow = parse_flow(body, keys)
                if flow is not None:
                    yield flow
    except TimeoutError as error:
        raise DataPlaneError(
            Code.NETLINK_FAILED, f"netfilter did not answer within {_PATIENCE:g} s: see dmesg"
        ) from error
    except MalformedNetlinkError as error:
        raise DataPlaneError(
            Code.NETLINK_FAILED, f"netfilter's answer is not understood ({error}): report it"
        ) from error
    except OSError as error:
        remedy = "run as root or with CAP_NET_ADMIN, and `modprobe nf_conntrack_netlink`"
        raise DataPlaneError(
            Code.NETLINK_FAILED, f"tracked connections cannot be listed ({error.strerror}): {remedy}"
        ) from error


def _bodies(kernel: socket.socket) -> Iterator[bytes]:
    """Yield the entries until the list ends. Raises `OSError` for a refusal."""
    while True:
        for answer in unpack_messages(kernel.recv(_DATAGRAM)):
            if isinstance(answer, NetlinkAck):
                if answer.error:
                    raise OSError(answer.error, os.strerror(answer.error))
                return
            yield answer.body
