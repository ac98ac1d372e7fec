"""The messages of etcd's v3 API in the form of its JSON gateway.

Source: etcd's `api/etcdserverpb/rpc.proto`. 64-bit numbers are text, bytes are base64, and fields that are zero, false
or empty are omitted. Only fields that are read are declared.
"""

from typing import Any, TypeAlias, TypeVar

import msgspec

T = TypeVar("T")

RequestBody: TypeAlias = dict[str, Any]
"""The body of a request."""


class ResponseHeader(msgspec.Struct, frozen=True):
    """The header of every response."""

    cluster_id: int = 0
    """0: the response does not contain it."""
    revision: int = 0
    """Revision of the whole store at the time of the response."""


class KeyValue(msgspec.Struct, frozen=True):
    """A key, its value, and the ID of its lease (0: none)."""

    key: bytes
    value: bytes = b""
    mod_revision: int = 0
    lease: int = 0


class EtcdResponse(msgspec.Struct, frozen=True):
    """The fields that all responses have."""

    header: ResponseHeader = ResponseHeader()


class RangeResponse(EtcdResponse, frozen=True):
    """The response of `kv/range`."""

    kvs: tuple[KeyValue, ...] = ()
    more: bool = False


class OperationResponse(msgspec.Struct, frozen=True):
    """The response of one operation in a transaction; only ranges are read."""

    response_range: RangeResponse | None = None


class TransactionResponse(EtcdResponse, frozen=True):
    """The response of `kv/txn`."""

    succeeded: bool = False
    responses: tuple[OperationResponse, ...] = ()

    @property
    def found(self) -> list[KeyValue]:
        """The keys found by the ranges of the branch that was executed."""
        return [kv for answer in self.responses if answer.response_range for kv in answer.response_range.kvs]


class LeaseGrant(EtcdResponse, frozen=True):
    """The response of `lease/grant`, and the content of that of `lease/keepalive`. TTL 0: no such lease."""

    id: int = msgspec.field(default=0, name="ID")
    ttl: int = msgspec.field(default=0, name="TTL")


class LeaseKeepAlive(msgspec.Struct, frozen=True):
    """The response of `lease/keepalive`: a stream with one message."""

    result: LeaseGrant = LeaseGrant()

    @property
    def header(self) -> ResponseHeader:
        """The header of the message."""
        return self.result.header


class AuthToken(EtcdResponse, frozen=True, kw_only=True):
    """The response of `auth/authenticate`."""

    token: str


class WatchEvent(msgspec.Struct, frozen=True):
    """A change of one key."""

    kv: KeyValue
    type: str = "PUT"
    """`PUT` or `DELETE`."""


class WatchResponse(EtcdResponse, frozen=True):
    """The changes of one or several revisions; always whole revisions."""

    created: bool = False
    canceled: bool = False
    compact_revision: int = 0
    cancel_reason: str = ""
    events: tuple[WatchEvent, ...] = ()


class GatewayFault(msgspec.Struct, frozen=True):
    """The body of a response with status 400 or higher. `code` is one of grpc/codes."""

    message: str = ""
    code: int = 2


class WatchMessage(msgspec.Struct, frozen=True):
    """One line of a watch."""

    result: WatchResponse | None = None
    error: GatewayFault | None = None


def encode_request(body: RequestBody) -> bytes:
    """Encode the body of a request."""
    return msgspec.json.encode(body)


def decode_response(payload: bytes, type_: type[T]) -> T:
    """Decode a response. Raises `msgspec.MsgspecError` for any invalid payload."""
    try:
        return msgspec.json.decode(payload, type=type_, strict=False)  # not strict: 64-bit numbers are text
    except (UnicodeDecodeError, RecursionError) as error:
        raise msgspec.DecodeError(str(error)) from error


def prefix_end(prefix: bytes) -> bytes:
    """Return the first key after all keys with this prefix, whose last byte must be below 255."""
    return prefix[:-1] + bytes([prefix[-1] + 1])
