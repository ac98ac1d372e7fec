"""What labels say of the probe of a service, as one frozen value."""

from dataclasses import dataclass, field
from enum import StrEnum


class ProbeKind(StrEnum):
    """The ways of asking an endpoint whether it works."""

    HTTP = "http"
    HTTPS = "https"
    TCP = "tcp"
    UDP = "udp"
    GRPC = "grpc"
    """The health service of gRPC, without TLS."""
    GRPCS = "grpcs"
    """The same over TLS."""
    COMMAND = "command"
    """A command inside the endpoint."""


@dataclass(frozen=True, slots=True)
class Probe:
    """The check of every endpoint of a service; times in seconds."""

    kind: ProbeKind
    port: int | None
    """The container port to ask; None: the first routed one."""
    path: str = "/"
    """Path and query of the request; for gRPC the service to ask about after the slash; unused for TCP and UDP."""
    initial_delay: float = 0.0
    timeout: float = 2.0
    interval: float = 5.0
    healthy_threshold: int = 2
    unhealthy_threshold: int = 3
    expect_status: tuple[tuple[int, int], ...] = ((200, 399),)
    """Inclusive ranges of the HTTP status codes that count as healthy."""
    command: str = ""
    """What to run, for a shell; for COMMAND only."""
    method: str = "GET"
    host: str = ""
    """What the endpoint is called in the request and in its certificate; empty: by its address."""
    headers: tuple[tuple[str, str], ...] = field(default=(), repr=False)
    """Further lines of the HTTP request. They may hold a password, and are shown nowhere."""
    expect_body: str = ""
    """Text that the body of the answer must contain; empty: the body is not read."""
    follow_redirects: bool = False
    """Whether a redirect to the same endpoint is followed; otherwise it is an answer like any other."""
    tls_verify: bool = True
    """Whether the certificate is checked."""
    send: bytes = b""
    """What to send, for UDP only."""
    expect_reply: bytes = b""
    """Octets that the reply must contain, for UDP only; empty: any reply will do."""
    startup: float = 60.0
    """How long an endpoint may take until its first success; then it counts as unhealthy."""
    startup_interval: float | None = None
    """From the start of one check to that of the next until the first success; None: a fifth of `interval`."""
    floor: int | None = None
    """Per cent of the endpoints that stay in traffic when most fail at once; None: as the settings say."""

    @property
    def starting_interval(self) -> float:
        """Seconds between two checks of an endpoint that has not answered yet; never longer than `interval`."""
        return min(self.interval, self.interval / 5 if self.startup_interval is None else self.startup_interval)
