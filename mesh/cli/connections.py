"""The connections of `http.client` that the admin API needs: over a unix socket, and over TLS with a worker by name.

Apart from the client, since a status over the unix socket needs none of it: the standard library takes a while to
import.
"""

import http.client
import socket
from typing import TYPE_CHECKING

from mesh.model.credential import CertificateHolder, parse_holder

if TYPE_CHECKING:
    import ssl


class WorkerHttpsConnection(http.client.HTTPConnection):
    """HTTP over TLS with a worker whose certificate names it, whatever address it has (RFC 9525)."""

    def __init__(self, host: str, port: int, timeout: float, tls: "ssl.SSLContext", worker: str) -> None:
        super().__init__(host, port, timeout=timeout)
        self._context = tls
        self._worker = worker

    def connect(self) -> None:
        """Connect, and check the name."""
        import ssl

        super().connect()
        sock = self._context.wrap_socket(self.sock, server_hostname=self._worker)
        # Its DNS names are checked already. It may have further ones, by which hosts are called, so what its URI says
        # decides if it has one.
        found = (sock.getpeercert() or {}).get("subjectAltName", ())
        holder = parse_holder(str(name[1]) for name in found if name[0] == "URI")
        if holder is not None and holder != CertificateHolder(self._worker, is_worker=True):
            sock.close()
            raise ssl.SSLCertVerificationError(1, f"the certificate is that of {holder.uri}")
        self.sock = sock


class UnixHttpConnection(http.client.HTTPConnection):
    """HTTP over a unix socket; the standard library supports only TCP."""

    def __init__(self, path: str, timeout: float) -> None:
        super().__init__("localhost", timeout=timeout)
        self._path = path

    def connect(self) -> None:
        """Connect to the path instead of a host."""
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self._path)
