"""Reads how long certificates in files are valid."""

import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from mesh.util.regular_file import read_regular_file

MAX_PEM_BYTES = 1 << 20
"""The most bytes of a file of certificates."""


@dataclass(frozen=True, slots=True)
class CertificateFacts:
    """How long the first certificate of a file is valid."""

    file: str
    last_day: str = ""
    """The day of its end, such as `2027-11-30`; empty if the file cannot be read."""
    seconds_left: float = 0.0
    """Seconds until its end; negative after it."""
    lifetime: float = 0.0
    """Seconds from its beginning to its end."""


def read_certificates(files: Iterable[Path]) -> tuple[CertificateFacts, ...]:
    """Return the facts of the certificate in each PEM file."""
    return tuple(map(_read, files))


def _read(file: Path) -> CertificateFacts:
    from cryptography import x509  # noqa: PLC0415 -- 10 MB that a worker without certificates does not need

    try:
        certificate = x509.load_pem_x509_certificate(read_regular_file(file, MAX_PEM_BYTES))
        ends = certificate.not_valid_after_utc
    except (OSError, ValueError):
        return CertificateFacts(str(file))
    lifetime = (ends - certificate.not_valid_before_utc).total_seconds()
    return CertificateFacts(str(file), ends.strftime("%Y-%m-%d"), ends.timestamp() - time.time(), lifetime)
