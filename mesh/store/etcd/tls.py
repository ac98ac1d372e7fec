"""The TLS certificates for etcd, which may be renewed on disk while the daemon runs."""

import logging
import ssl

from mesh.config.settings import Settings
from mesh.model.codes import Code
from mesh.store import StoreError

log = logging.getLogger("vipmesh")


class TlsCertificates:
    """The TLS files in the settings. The constructor reads them, so call it in a thread."""

    def __init__(self, settings: Settings) -> None:
        """Raises `StoreError` for files that cannot be used."""
        self._ca, self._cert, self._key = settings.store_ca, settings.store_cert, settings.store_key
        try:
            self.context = ssl.create_default_context(cafile=self._ca)
        except (OSError, ssl.SSLError) as error:
            raise StoreError(
                Code.STORE_CREDENTIALS, f"[store] ca {self._ca}: {error}; set a file with certificates in PEM format"
            ) from error
        self._told: str | None = None
        self._load()

    def renew(self) -> None:
        """Read the files again, for new connections. An unusable file, which may be half written, is logged once."""
        try:
            if self._ca is not None:
                self.context.load_verify_locations(self._ca)
            self._load()
        except (OSError, ssl.SSLError, StoreError) as error:
            if str(error) != self._told:
                log.warning("certificates for etcd cannot be read again: %s", error, extra=Code.STORE_CREDENTIALS.extra)
            self._told = str(error)
        else:
            self._told = None

    def _load(self) -> None:
        if self._cert is None:
            return
        try:
            self.context.load_cert_chain(self._cert, self._key)
        except (OSError, ssl.SSLError) as error:
            files = f"[store] cert {self._cert} and key {self._key or 'in the same file'}"
            raise StoreError(
                Code.STORE_CREDENTIALS, f"{files}: {error}; set a certificate and its private key in PEM format"
            ) from error
