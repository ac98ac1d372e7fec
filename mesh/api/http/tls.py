"""The TLS of the admin API over TCP: the worker's certificate, and the authority that signs those of its clients.

The files are read again when they have changed, at the next connection, so that a renewed certificate needs no restart.
"""

import logging
import ssl
from collections.abc import Callable, Iterable
from pathlib import Path

from mesh.model.codes import Code
from mesh.util.regular_file import read_regular_file

log = logging.getLogger("vipmesh")

_REVOKED = b"-----BEGIN X509 CRL-----"


class ReloadingTls:
    """A TLS context whose certificates are those that the files have now. Files that cannot be used change nothing."""

    def __init__(self, files: tuple[Path, ...], load: Callable[[], ssl.SSLContext]) -> None:
        """`load` makes a context of the files. Raises `OSError`, as `load` does."""
        self._files = files
        self._load = load
        self._stamps = file_stamps(files)
        self._newest = load()
        self.context = self._newest = load()
        """The context to listen with."""
        self.context.sni_callback = self._choose

    def _choose(self, connection: ssl.SSLObject, _: str | None, __: ssl.SSLContext) -> int | None:
        """Give a new connection the newest certificates, before any is sent: SSL_CTX_set_tlsext_servername_callback(3).

        It is called for clients that name no server, too. Returns an alert, which ends the handshake, if the first list
        of revoked certificates has just come: this connection would not be held against it, since its flags are those
        of the context that it was made of.
        """
        stamps = file_stamps(self._files)
        if stamps != self._stamps:
            self._stamps = stamps
            try:
                self._newest = self._load()
            except OSError as error:
                log.warning(
                    "admin API: the previous certificates stay in force: %s", error, extra=Code.CERTIFICATE_ENDS.extra
                )
            else:
                log.info("admin API: new certificates are in force")
        connection.context = self._newest
        if self.context.verify_flags != self._newest.verify_flags:
            self.context.verify_flags = self._newest.verify_flags
            return ssl.ALERT_DESCRIPTION_INTERNAL_ERROR
        return None


def file_stamps(files: Iterable[Path]) -> tuple[tuple[int, int] | None, ...]:
    """Return what changes when a file changes; None for a file that is not there."""
    return tuple(map(_stamp, files))


def check_revoked(tls: ssl.SSLContext, authority: Path) -> None:
    """Hold certificates against the list of revoked ones, if the authority's file has one. Raises `OSError`."""
    if _REVOKED in read_regular_file(authority):
        # Whose authority has no list is refused then, too: X509_VERIFY_PARAM_set_flags(3).
        tls.verify_flags |= ssl.VERIFY_CRL_CHECK_LEAF


def _stamp(file: Path) -> tuple[int, int] | None:
    try:
        found = file.stat()
    except OSError:
        return None
    return found.st_mtime_ns, found.st_ino
