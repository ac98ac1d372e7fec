"""One open watch of etcd's JSON gateway: a stream with one line of JSON per message."""

import socket

import aiohttp
import msgspec

from mesh.model.codes import Code
from mesh.store.etcd import errors as faults
from mesh.store.etcd.errors import EtcdUnreachableError, transport_errors
from mesh.store.etcd.messages import GatewayFault, WatchMessage, WatchResponse, decode_response
from mesh.util.bounded_response import MAX_RESPONSE_BYTES

_KEEPALIVE = {socket.TCP_KEEPIDLE: 2, socket.TCP_KEEPINTVL: 1, socket.TCP_KEEPCNT: 3}  # tcp(7); seconds, times


class WatchStream:
    """An open watch. Each iteration yields all messages that have arrived since the last one, in order."""

    def __init__(self, response: aiohttp.ClientResponse, cluster: int | None) -> None:
        self._response = response
        self._cluster = cluster
        self._rest = bytearray()
        """The beginning of a line whose end has not arrived."""

    def __aiter__(self) -> "WatchStream":
        return self

    async def __anext__(self) -> list[WatchResponse]:
        """Raises `EtcdUnreachableError` when the stream ends, and `EtcdRequestRefusedError`."""
        while True:
            with transport_errors(0):
                arrived = await self._response.content.readany()
            if not arrived:
                raise EtcdUnreachableError("ended the watch")
            # Each byte is looked at once, however small the pieces are.
            *lines, rest = arrived.split(b"\n")
            if lines:
                lines[0] = bytes(self._rest) + lines[0]
                self._rest.clear()
            self._rest += rest
            if len(self._rest) > MAX_RESPONSE_BYTES:
                raise EtcdUnreachableError(f"sent a line of more than {MAX_RESPONSE_BYTES >> 20} MiB")
            if messages := [_message(line) for line in lines if line]:
                for message in messages:
                    check_cluster(message.header.cluster_id, self._cluster)
                return messages


def check_cluster(number: int, wanted: int | None) -> None:
    """Raise `EtcdUnreachableError` if a member now belongs to another cluster: it was replaced."""
    if wanted is not None and number not in (0, wanted):
        reason = f"now belongs to another etcd cluster ({number:x}) than before ({wanted:x})"
        raise EtcdUnreachableError(reason, code=Code.ETCD_CLUSTERS_DIFFER)


def _message(line: bytes) -> WatchResponse:
    try:
        message = decode_response(line, WatchMessage)
    except msgspec.MsgspecError as error:
        raise EtcdUnreachableError(f"sent a response that is not from etcd: {error}") from error
    if message.result is None:
        raise (
            faults.error_from_fault(message.error)
            if message.error
            else EtcdUnreachableError("sent a response that is not from etcd")
        )
    if message.result.canceled and not message.result.compact_revision:
        raise faults.error_from_fault(GatewayFault(message.result.cancel_reason or "the watch is cancelled"))
    return message.result


def keep_alive(response: aiohttp.ClientResponse) -> None:
    """Enable TCP keepalives, which detect a dead path: nothing is sent on a watch, so no other timeout would."""
    connection = response.connection
    taken = connection.transport.get_extra_info("socket") if connection and connection.transport else None
    if taken is not None:
        taken.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        for option, value in _KEEPALIVE.items():
            taken.setsockopt(socket.IPPROTO_TCP, option, value)
