"""The probe that a service's labels declare, as one frozen value."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum
from ipaddress import ip_address
from types import MappingProxyType

_HOST = re.compile(
    r"(?:([A-Za-z0-9_][A-Za-z0-9._-]{0,252})|\[([0-9A-Fa-f:.]{2,45})\])(?::([1-9][0-9]{0,4}))?", re.ASCII
)


class ProbeKind(StrEnum):
    """How an endpoint is probed."""

    HTTP = "http"
    HTTPS = "https"
    TCP = "tcp"
    UDP = "udp"
    GRPC = "grpc"
    """The health service of gRPC, without TLS."""
    GRPCS = "grpcs"
    """The health service of gRPC, over TLS."""
    COMMAND = "command"
    """A command inside the endpoint's container."""


DEFAULT_PROBE_PORTS: Mapping[ProbeKind, int] = MappingProxyType({ProbeKind.HTTP: 80, ProbeKind.HTTPS: 443})
"""The port of a probe whose URL names none, by kind; the other kinds have no default."""


@dataclass(frozen=True, slots=True)
class Probe:
    """The check that runs against every endpoint of a service. Times are in seconds."""

    kind: ProbeKind
    port: int | None
    """The container port to probe, or None for the first routed one."""
    path: str = "/"
    """Path and query of the request. For gRPC, a slash and the name of the service to ask about. Not used for TCP and
    UDP.
    """
    initial_delay: float = 0.0
    timeout: float = 2.0
    interval: float = 5.0
    healthy_threshold: int = 2
    unhealthy_threshold: int = 3
    expect_status: tuple[tuple[int, int], ...] = ((200, 399),)
    """Inclusive ranges of the HTTP status codes that count as a success."""
    command: str = ""
    """Command line for a shell; for COMMAND only."""
    method: str = "GET"
    host: str = ""
    """Host name for the request and for the check of the certificate; empty: the endpoint's address."""
    headers: tuple[tuple[str, str], ...] = field(default=(), repr=False)
    """Additional headers of the HTTP request. They may contain a password and are shown nowhere."""
    expect_body: str = ""
    """Text that the body of the response must contain; empty: the body is not read."""
    follow_redirects: bool = False
    """Whether a redirect to the same endpoint is followed. If not, it is a response like any other."""
    tls_verify: bool = True
    """Whether the certificate is verified."""
    send: bytes = b""
    """Datagram to send; for UDP only."""
    expect_reply: bytes = b""
    """Bytes that the reply must contain; for UDP only. Empty: any reply counts."""
    startup: float = 60.0
    """Seconds after `initial_delay` within which the first success must come. After that, a failure makes it unhealthy.
    """
    startup_interval: float | None = None
    """Seconds from the start of one check to that of the next, until the first success; None: a fifth of `interval`."""
    floor: int | None = None
    """Percentage of the endpoints that stay in traffic during a mass failure; None: as in the settings."""
    withheld_headers: tuple[str, ...] = ()
    """Names of headers whose values this copy lacks: it comes from the store, which has none. Only the worker that has
    the endpoint's labels can run such a probe.
    """

    @property
    def has_headers(self) -> bool:
        """Whether the probe sends additional headers, with or without their values here."""
        return bool(self.headers or self.withheld_headers)

    def without_header_values(self) -> "Probe":
        """Return a copy that names its headers but lacks their values; the probe itself if it has no values."""
        if not self.headers:
            return self
        names = (*(name for name, _ in self.headers), *self.withheld_headers)
        return replace(self, headers=(), withheld_headers=tuple(dict.fromkeys(names)))

    def without_headers(self) -> "Probe":
        """Return a copy without headers, to which any HTTP response is a success.

        An endpoint that requires the headers answers such a probe with a refusal, which says nothing about its health.
        """
        return replace(
            self,
            headers=(),
            withheld_headers=(),
            expect_status=((100, 599),),
            expect_body="",
            follow_redirects=False,
        )

    def with_port(self, port: int) -> "Probe":
        """Return a copy that probes this container port."""
        return replace(self, port=port)

    @property
    def starting_interval(self) -> float:
        """Seconds between two checks of an endpoint that has had no success yet; never longer than `interval`."""
        return min(self.interval, self.interval / 5 if self.startup_interval is None else self.startup_interval)


def validate_host(text: str) -> str:
    """Return a host of a request: a DNS name or an address, with an optional port; IPv6 in brackets. Raises ValueError.

    A name must be one that TLS can ask for: no part of it is empty or longer than 63 characters.
    """
    match = _HOST.fullmatch(text)
    if match is None:
        raise ValueError("it is neither a DNS name nor an address")
    name, address, port = match.groups()
    if address is not None and ip_address(address).version != 6:
        raise ValueError("only an IPv6 address is written in brackets")
    if name is not None and not all(0 < len(part) <= 63 for part in name.removesuffix(".").split(".")):
        raise ValueError("a part of the name is empty or longer than 63 characters")
    if port is not None and int(port) > 65535:
        raise ValueError("its port is above 65535")
    return text
