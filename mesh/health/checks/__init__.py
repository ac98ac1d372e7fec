"""The network checks, by kind of probe."""

import ssl
from collections.abc import Coroutine, Mapping
from typing import Protocol

from mesh.health.checks.grpc import check_grpc
from mesh.health.checks.http import check_http
from mesh.health.checks.http_body import MAX_BODY_BYTES, check_http_body
from mesh.health.checks.tcp import check_tcp
from mesh.health.checks.udp import check_udp
from mesh.health.state_machine import Verdict
from mesh.model.probe import Probe, ProbeKind
from mesh.model.service import Address


class CheckFunction(Protocol):
    """Runs one kind of check."""

    def __call__(self, address: Address, port: int, probe: Probe, /) -> Coroutine[None, None, Verdict]:
        """Run one check, which ends within `probe.timeout`. Network failures result in a verdict, not an exception.

        Raises `ResourceLackError` if this worker lacks what it takes to ask. Leaves no connection open, even if it is
        cancelled. Any other exception is a bug, and the check counts as failed.
        """
        ...


def network_checks(body_bytes: int = MAX_BODY_BYTES) -> Mapping[ProbeKind, CheckFunction]:
    """Return the checks over the network. TLS trusts the certificate authorities that the worker trusts. `body_bytes`:
    in how much of the body of an answer a text is looked for.
    """
    web, calls = _TlsContexts(), _TlsContexts("h2")

    async def http(address: Address, port: int, probe: Probe, /) -> Verdict:
        tls = web.of(probe)
        if probe.expect_body or probe.follow_redirects:
            return await check_http_body(address, port, probe, tls=tls, body_bytes=body_bytes)
        return await check_http(address, port, probe, tls=tls)

    async def grpc(address: Address, port: int, probe: Probe, /) -> Verdict:
        return await check_grpc(address, port, probe, tls=calls.of(probe))

    return {
        ProbeKind.HTTP: http,
        ProbeKind.HTTPS: http,
        ProbeKind.TCP: check_tcp,
        ProbeKind.UDP: check_udp,
        ProbeKind.GRPC: grpc,
        ProbeKind.GRPCS: grpc,
    }


class _TlsContexts:
    """The TLS contexts for one application protocol; created once, since loading the certificates is slow."""

    def __init__(self, alpn: str = "") -> None:
        self._strict = ssl.create_default_context()
        self._lax = ssl.create_default_context()
        self._lax.check_hostname = False
        self._lax.verify_mode = ssl.CERT_NONE
        for context in (self._strict, self._lax) if alpn else ():
            context.set_alpn_protocols([alpn])

    def of(self, probe: Probe) -> ssl.SSLContext | None:
        """Return the context for a probe, or None if it does not use TLS."""
        if probe.kind not in (ProbeKind.HTTPS, ProbeKind.GRPCS):
            return None
        return self._strict if probe.tls_verify else self._lax
