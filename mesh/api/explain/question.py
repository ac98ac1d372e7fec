"""Parses the questions of `explain` and of past events. Pure."""

import ipaddress
import re
from dataclasses import dataclass

from mesh.model.service import EndpointKey, Transport
from mesh.model.table import VirtualKey

_SCHEME = re.compile(r"([a-z]+)://")
_HOST_PORT = re.compile(r"\[?(?P<host>[^][]+?)\]?:(?P<port>\d{1,5})")
_PORT = re.compile(r"(?P<port>\d{1,5})(?:/(?P<transport>tcp|udp|sctp))?")
_SCHEMES = {"http": 80, "https": 443}


@dataclass(frozen=True, slots=True)
class TraceScope:
    """The part of a service that a question is about."""

    port: int | None = None
    """The listen port or published port; None for all of them."""
    transport: Transport | None = None
    """The transport; None for all of them."""
    endpoint: EndpointKey | None = None
    """The endpoint; None for all of them."""

    def has(self, key: VirtualKey) -> bool:
        """Return whether the scope includes a virtual server."""
        return self.port in (None, key.port) and self.transport in (None, key.transport)


@dataclass(frozen=True, slots=True)
class ExplainQuery:
    """A question, split into its parts."""

    host: str
    """The name or address, in lower case; empty if the question is only a port."""
    text: str
    """The question without scheme and path."""
    place: TraceScope
    """The port, transport or endpoint that the question is limited to."""


def parse_question(asked: str) -> ExplainQuery:
    """Split a question into host, port and transport."""
    scheme: str | None = None
    rest = asked.strip()
    if url := _SCHEME.match(rest):
        scheme, rest = url[1], rest[url.end() :].partition("/")[0]
    transport = Transport(scheme) if scheme in set(Transport) else None
    if (only := _PORT.fullmatch(rest)) and scheme is None:
        return ExplainQuery(
            "", rest, TraceScope(int(only["port"]), Transport(only["transport"]) if only["transport"] else None)
        )
    if (both := _HOST_PORT.fullmatch(rest)) and not is_address(rest):
        return ExplainQuery(both["host"].lower().rstrip("."), rest, TraceScope(int(both["port"]), transport))
    port = _SCHEMES.get(scheme) if scheme is not None and rest else None
    return ExplainQuery(rest.strip("[]").lower().rstrip("."), rest, TraceScope(port, transport))


def is_address(text: str) -> bool:
    """Return whether the text is an IPv4 or IPv6 address."""
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True
