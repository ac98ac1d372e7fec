"""Requests that test whether packets arrive, and what came back."""

from dataclasses import dataclass
from enum import StrEnum

from mesh.model.service import Address, Name, Transport


@dataclass(frozen=True, slots=True)
class ServiceRequest:
    """One connection or datagram to a VIP or to a published port."""

    transport: Transport
    """TCP or UDP."""
    port: int
    address: Address | None = None
    """The destination; None if `name` is looked up first."""
    name: Name | None = None
    """The name to look up; None if `address` is the destination."""
    payload: bytes = b""
    """The datagram; for UDP only."""
    linger: float = 0.0
    """Seconds that a TCP connection must stay open to count. A proxy accepts before it has reached an endpoint."""
    ipv6: bool = False
    """Whether IPv6 addresses of the name are looked up."""
    nameserver: Address | None = None
    """The name server to ask; None for those of the client."""
    source_port: int = 0
    """The client's port; 0 for any that is free. Only a request by address may have one."""

    def __str__(self) -> str:
        host = self.name or self.address or ""
        return f"{self.transport}://{f'[{host}]' if ':' in host else host}:{self.port}"


class RequestOutcome(StrEnum):
    """What came back. The values are stable: programs may compare them."""

    ANSWERED = "answered"
    """TCP: the connection was accepted. UDP: a datagram came back."""
    REFUSED = "refused"
    """TCP: the connection was reset. UDP: ICMP port unreachable came from the destination."""
    REJECTED = "rejected"
    """A router or packet filter on the way refused it by ICMP."""
    NO_ANSWER = "no-answer"
    """Nothing came back in time."""
    CLOSED = "closed"
    """The connection was accepted and closed at once."""
    NO_NAME = "no-name"
    """The name did not resolve."""
    NOT_SENT = "not-sent"
    """The client could not send it: it has no route, or is not permitted to."""


@dataclass(frozen=True, slots=True)
class RequestResult:
    """What came back for one request."""

    outcome: RequestOutcome
    seconds: float
    """The time until the outcome, with the lookup of the name."""
    detail: str = ""
    """The error, the ICMP message or the answer of the name server; empty if there is nothing to add."""
    address: Address | None = None
    """The destination; None if the name did not resolve."""
    source: Address | None = None
    """The client's address; None if nothing was sent."""
    source_port: int | None = None
    """The client's port; None if nothing was sent."""
