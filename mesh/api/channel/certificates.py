"""The certificates with which a worker asks others: its own, and the authority that signs those of all workers.

The store says where a worker is, and is not believed: only who shows a certificate of the authority with the name of
the worker that is asked gets a request. TLS 1.3 sends the own certificate after that, encrypted (RFC 8446, section 2).
"""

import logging
import ssl
from pathlib import Path

from typing_extensions import override

from mesh.api.channel.worker_channel import ChannelError
from mesh.api.http.tls import check_revoked, file_stamps
from mesh.model.codes import Code
from mesh.model.credential import CertificateHolder, parse_holder

log = logging.getLogger("vipmesh")


class WorkerTlsObject(ssl.SSLObject):
    """A connection that is refused if the certificate of the other side names another worker.

    Its DNS names are checked already. A worker's certificate may have further ones, by which hosts are called, so what
    its URI says decides if it has one (`mesh.model.credential`).
    """

    @override
    def do_handshake(self) -> None:
        """Do the handshake, or a step of it. Raises `SSLCertVerificationError`."""
        super().do_handshake()
        shown = self.getpeercert()
        names = shown.get("subjectAltName", ()) if shown else ()
        uris = [str(name[1]) for name in names if name[0] == "URI"]
        holder = parse_holder(uris)
        if holder is not None and holder != CertificateHolder(self.server_hostname or "", is_worker=True):
            kind = "worker" if holder.is_worker else "operator"
            raise ssl.SSLCertVerificationError(1, f"the certificate is that of {kind} {holder.name}")


class ChannelCertificates:
    """The files of the certificates, which are read again when they have changed."""

    def __init__(self, cert: Path, key: Path | None, authority: Path) -> None:
        """`key` is None if it is in the file of the certificate."""
        self._cert = cert
        self._key = key
        self._authority = authority
        self._files = tuple(file for file in (cert, key, authority) if file is not None)
        self._stamps: tuple[tuple[int, int] | None, ...] | None = None
        self._context: ssl.SSLContext | None = None

    def context(self) -> ssl.SSLContext:
        """Return the TLS context of the files as they are now: the same object until they change.

        Files that cannot be used change nothing. Raises `ChannelError` if there has never been a usable one.
        """
        stamps = file_stamps(self._files)
        if stamps != self._stamps or self._context is None:
            self._stamps = stamps
            try:
                self._context = self._load()
            except OSError as error:
                if self._context is None:
                    named = ", ".join(map(str, self._files))
                    raise ChannelError(
                        Code.CHANNEL_WITHOUT_CERTIFICATE,
                        f"other workers cannot be asked: {error.strerror or error} in one of {named}; make them "
                        "with `vipmesh cluster certs`",
                    ) from error
                log.warning(
                    "channel: the previous certificates stay in force: %s", error, extra=Code.CERTIFICATE_ENDS.extra
                )
        return self._context

    def _load(self) -> ssl.SSLContext:
        """Return a context of the files. Raises `OSError`."""
        tls = ssl.create_default_context(ssl.Purpose.SERVER_AUTH, cafile=str(self._authority))
        tls.minimum_version = ssl.TLSVersion.TLSv1_3
        tls.sslobject_class = WorkerTlsObject
        tls.load_cert_chain(self._cert, self._key, password="")  # an encrypted key is refused, not asked about
        check_revoked(tls, self._authority)
        return tls
