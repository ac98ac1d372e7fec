"""The checks by which users judge a new release, as frozen values."""

from dataclasses import dataclass

from mesh.model.probe import Probe, ProbeKind

CHECKED_CONTAINER = "container"
"""The host that stands for the address of each instance."""


@dataclass(frozen=True, slots=True)
class CheckUrl:
    """Where an HTTP request shows whether a release works."""

    is_tls: bool
    host: str
    """`container`, a DNS name or an address, IPv6 without brackets."""
    port: int
    path: str = "/"
    """Path and query."""

    @property
    def is_container(self) -> bool:
        """Whether the instance itself is asked."""
        return self.host == CHECKED_CONTAINER

    @property
    def authority(self) -> str:
        """Host and port as a request names them: RFC 9110, section 7.2."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == (443 if self.is_tls else 80) else f"{host}:{self.port}"

    def request(self, timeout: float) -> Probe:
        """Return the request of the check as a probe that may take so many seconds."""
        kind = ProbeKind.HTTPS if self.is_tls else ProbeKind.HTTP
        return Probe(kind, self.port, self.path, timeout=timeout, host="" if self.is_container else self.authority)


@dataclass(frozen=True, slots=True)
class ReleaseChecks:
    """What the labels of one container say of the checks of its release."""

    command: str = ""
    """Command line for a shell inside the container; empty: none. It is taken from the container's own labels alone."""
    url: CheckUrl | None = None

    def command_run(self, timeout: float) -> Probe:
        """Return the command as a probe that may take so many seconds."""
        return Probe(ProbeKind.COMMAND, None, command=self.command, timeout=timeout)
