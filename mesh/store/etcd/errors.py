"""Failures of etcd, as messages that end with the remedy.

There are two kinds: a member cannot be reached (another one may answer), and a request was refused (every member would
refuse it).
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager

import aiohttp
import msgspec

from mesh.model.codes import Code
from mesh.store import StoreError
from mesh.store.etcd.messages import GatewayFault, decode_response
from mesh.util.bounded_response import MAX_RESPONSE_BYTES

MAX_QUOTED_LENGTH = 300
"""Characters of etcd's own words in a message."""
UNAUTHENTICATED = 16
"""A code of gRPC (grpc/codes)."""
_PASSING = frozenset({4, 14})
"""Codes DeadlineExceeded and Unavailable: no leader, leader changed, request timed out. Try another member."""

_SEE_THAT_IT_RUNS = "check that etcd runs and that [store] url lists its client addresses"
_REFUSALS = (
    ("CommonName of client", "give the client certificate an empty subject: the gateway refuses one with a CN"),
    ("permission denied", "run etcdctl role grant-permission ROLE readwrite --prefix=true PREFIX"),
    ("authentication failed", "set [store] user and password to those of a user of etcd"),
    ("user name is empty", "etcd requires a user: set [store] user and password"),
    ("authentication is not enabled", "remove [store] user, or run etcdctl auth enable"),
    (
        "database space exceeded",
        "its quota is used up: run etcdctl compact, defrag, alarm disarm; start it with --auto-compaction-retention=1h",
    ),
)
_TRANSPORT = (
    ("HTTPS server", "it speaks TLS: write etcds:// in [store] url"),
    ("Server disconnected", "check its log; if it speaks TLS, write etcds:// in [store] url"),
    ("WRONG_VERSION_NUMBER", "it does not speak TLS: write etcd:// in [store] url"),
    ("record layer failure", "it does not speak TLS: write etcd:// in [store] url"),
    ("alert", "it requires a client certificate that it trusts: set [store] cert and key"),
    ("CERTIFICATE_VERIFY_FAILED", "set [store] ca to the certificate of the authority that signed its certificate"),
)


class EtcdUnreachableError(StoreError):
    """A member cannot serve now. The text contains the reason, and the remedy if there is a specific one."""

    def __init__(self, reason: str, remedy: str = "", *, code: Code = Code.STORE_UNREACHABLE) -> None:
        super().__init__(code, f"{reason}; {remedy}" if remedy else reason)
        self.reason = reason
        self.remedy = remedy


class EtcdRequestRefusedError(StoreError):
    """etcd answered that it refuses the request."""

    def __init__(self, fault: GatewayFault) -> None:
        remedy = next((remedy for words, remedy in _REFUSALS if words in fault.message), "check the log of etcd")
        super().__init__(Code.STORE_REFUSES, f"etcd refuses: {_one_line(fault.message)}; {remedy}")
        self.fault = fault

    @property
    def wants_authentication(self) -> bool:
        """Whether a token is missing, has expired, or belongs to another member."""
        said = self.fault.message
        return self.fault.code == UNAUTHENTICATED or any(
            words in said for words in ("user name is empty", "invalid auth token", "revision in header is old")
        )

    @property
    def lease_is_lost(self) -> bool:
        """Whether the lease of a put has ended."""
        return "lease not found" in self.fault.message

    @property
    def is_compacted(self) -> bool:
        """Whether the requested revision has been compacted."""
        return "has been compacted" in self.fault.message


class EtcdResponseTooLargeError(StoreError):
    """A response of a member is larger than this worker reads."""

    def __init__(self, member: str) -> None:
        super().__init__(
            Code.STORE_REFUSES,
            f"etcd: {member} sends a response of more than {MAX_RESPONSE_BYTES >> 20} MiB; remove what is not "
            f"vipmesh's from the prefix in [store] url, or check that an etcd listens there",
        )


def error_from_response(status: int, payload: bytes) -> StoreError:
    """Return the error for a response with status 400 or higher."""
    try:
        fault = decode_response(payload, GatewayFault)
    except msgspec.MsgspecError:
        fault = GatewayFault()
    if not fault.message:
        said = payload[:100].decode(errors="replace").strip()
        if any(words in said for words, _ in _REFUSALS):
            return EtcdRequestRefusedError(GatewayFault(said))
        if status == 404:
            return EtcdUnreachableError(
                "its JSON gateway is off",
                "start etcd with --enable-grpc-gateway (with a --config-file: `enable-grpc-gateway: true` in it)",
            )
        return EtcdUnreachableError(f"answers {status}: {_one_line(said)}", _remedy(said))
    return error_from_fault(fault)


def _one_line(text: str) -> str:
    """Return etcd's own words for a message of one line: control characters escaped, cut after 300 characters."""
    kept = text[:MAX_QUOTED_LENGTH]
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in kept)


def error_from_fault(fault: GatewayFault) -> StoreError:
    """Return the error for a fault: unreachable if another member, or the same one later, may succeed; else refused."""
    if fault.code in _PASSING or "too many requests" in fault.message:
        return EtcdUnreachableError(_one_line(fault.message))
    return EtcdRequestRefusedError(fault)


def error_from_exception(error: Exception, timeout: float) -> EtcdUnreachableError:
    """Return the error for a failed connection."""
    if isinstance(error, TimeoutError):
        return EtcdUnreachableError(f"no answer within {timeout:g} s")
    if isinstance(error, aiohttp.ClientConnectorCertificateError):
        return EtcdUnreachableError(str(error.certificate_error), _remedy("CERTIFICATE_VERIFY_FAILED"))
    if isinstance(error, aiohttp.ClientPayloadError):
        return EtcdUnreachableError("closed the connection within a response")
    cause = error.os_error if isinstance(error, aiohttp.ClientConnectorError) else error
    said = getattr(cause, "strerror", None) or str(cause)
    if isinstance(cause, ConnectionError) and cause.errno:
        said = os.strerror(cause.errno)  # asyncio's own text repeats the address
    return EtcdUnreachableError(said or type(cause).__name__, _remedy(said))


@contextmanager
def transport_errors(timeout: float) -> Iterator[None]:
    """Convert connection errors to `EtcdUnreachableError`. `timeout` is in seconds, for the message."""
    try:
        yield
    except (aiohttp.ClientError, TimeoutError, OSError) as error:
        raise error_from_exception(error, timeout) from error


def error_from_members(reasons: dict[str, EtcdUnreachableError]) -> StoreError:
    """Return the error if no member serves; `reasons` are by member."""
    each = ", ".join(f"{member}: {error.reason}" for member, error in reasons.items())
    remedy = next((error.remedy for error in reasons.values() if error.remedy), _SEE_THAT_IT_RUNS)
    return StoreError(Code.STORE_UNREACHABLE, f"etcd is not available ({each}); {remedy}")


def _remedy(said: str) -> str:
    return next((remedy for words, remedy in _TRANSPORT if words.lower() in said.lower()), "")
