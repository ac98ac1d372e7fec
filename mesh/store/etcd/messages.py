"""The messages of etcd's v3 API as its JSON gateway writes them.

Source: etcd's `api/etcdserverpb/rpc.proto`. 64-bit numbers come as text, bytes as base64, and whatever is zero, false
or empty is left out. Only the fields that are read are here.
"""

from typing import Any, TypeAlias, TypeVar

import msgspec

T = TypeVar("T")

RequestBody: TypeAlias = dict[str, Any]
"""A request."""


class ResponseHeader(msgspec.Struct, frozen=True):
    """Of every answer."""

    cluster_id: int = 0
    """0: it does not say."""
    revision: int = 0
    """Of the whole store, as of the answer."""


class KeyValue(msgspec.Struct, frozen=True):
    """A key, its value, and the lease it lives under (0: for good)."""

    key: bytes
    value: bytes = b""
    mod_revision: int = 0
    lease: int = 0


class EtcdResponse(msgspec.Struct, frozen=True):
    """What all of them have."""

    header: ResponseHeader = ResponseHeader()


class RangeResponse(EtcdResponse, frozen=True):
    """Of `kv/range`."""

    kvs: tuple[KeyValue, ...] = ()
    more: bool = False


class OperationResponse(msgspec.Struct, frozen=True):
    """Of one operation in a transaction; only ranges are read."""

    response_range: RangeResponse | None = None


class TransactionResponse(EtcdResponse, frozen=True):
    """Of `kv/txn`."""

    succeeded: bool = False
    responses: tuple[OperationResponse, ...] = ()

    @property
    def found(self) -> list[KeyValue]:
        """What the ranges of the branch that was taken have found."""
        return [kv for answer in self.responses if answer.response_range for kv in answer.response_range.kvs]


class LeaseGrant(EtcdResponse, frozen=True):
    """Of `lease/grant`, and inside of `lease/keepalive`; a TTL of 0: there is no such lease."""

    id: int = msgspec.field(default=0, name="ID")
    ttl: int = msgspec.field(default=0, name="TTL")


class LeaseKeepAlive(msgspec.Struct, frozen=True):
    """Of `lease/keepalive`: a stream with one message."""

    result: LeaseGrant = LeaseGrant()

    @property
    def header(self) -> ResponseHeader:
        """Of the message."""
        return self.result.header


class AuthToken(EtcdResponse, frozen=True, kw_only=True):
    """Of `auth/authenticate`."""

    token: str


class WatchEvent(msgspec.Struct, frozen=True):
    """A change of one key."""

    kv: KeyValue
    type: str = "PUT"
    """Or `DELETE`."""


class WatchResponse(EtcdResponse, frozen=True):
    """What happened in one revision or in several; always whole revisions."""

    created: bool = False
    canceled: bool = False
    compact_revision: int = 0
    cancel_reason: str = ""
    events: tuple[WatchEvent, ...] = ()


class GatewayFault(msgspec.Struct, frozen=True):
    """What is answered instead, with a status of 400 or more. `code`: grpc/codes."""

    message: str = ""
    code: int = 2


class WatchMessage(msgspec.Struct, frozen=True):
    """One line of a watch."""

    result: WatchResponse | None = None
    error: GatewayFault | None = None


def encode_request(body: RequestBody) -> bytes:
    """A request."""
    return msgspec.json.encode(body)


def decode_response(payload: bytes, type_: type[T]) -> T:
    """An answer. Raises `msgspec.MsgspecError`, whatever the payload is."""
    try:
        return msgspec.json.decode(payload, type=type_, strict=False)  # numbers may be text
    except (UnicodeDecodeError, RecursionError) as error:
        raise msgspec.DecodeError(str(error)) from error


def prefix_end(prefix: bytes) -> bytes:
    """The first key behind all keys with this prefix, which ends with a byte below 255."""
    return prefix[:-1] + bytes([prefix[-1] + 1])
