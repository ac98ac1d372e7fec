"""`vipmesh cluster certs` and `revoke`: the certificates that workers and operators show one another.

The files stay where they are made. The authority's key signs for everybody, so it belongs on no worker.
"""

import argparse
import os
import tempfile
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TypeAlias

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import serialization

from mesh.cli.certificates import (
    Issued,
    hosts_of,
    issue,
    make_authority,
    read_pem,
    read_revoked,
    sign_revoked,
    write_pem,
)
from mesh.cli.documents import CertificateDocument, CertificatesDocument
from mesh.cli.output import print_json, printable, report_failure
from mesh.model.codes import Code
from mesh.model.credential import CertificateHolder
from mesh.model.errors import MeshError
from mesh.util.regular_file import read_regular_file

RENEW_DAYS = 30
"""Days before its end from which a certificate is made anew."""
AUTHORITY = "ca"
"""The stem of the authority's files."""
MAX_PEM_BYTES = 1 << 20
"""The most bytes of a file; a list of revoked certificates takes some 40 for each."""


Wanted: TypeAlias = tuple[CertificateHolder, Sequence[str] | None]
"""A holder and the further hosts that its certificate names; None for those of its present one."""


class CertificateFileError(MeshError):
    """A file of the certificates cannot be used. The text ends with the remedy."""


def certs(options: argparse.Namespace) -> int:
    """Make what is missing, near its end or asked for with other hosts; exit status 1 if a file cannot be used."""
    wanted: list[Wanted] = [(CertificateHolder(name, is_worker=True), hosts) for name, hosts in options.workers]
    wanted.append((CertificateHolder(options.operator, is_worker=False), ()))
    try:
        made = make_certificates(options.directory, wanted, datetime.now(UTC), options.days, renew=options.renew)
    except CertificateFileError as error:
        return report_failure(options, error.lines)
    if options.json:
        print_json(CertificatesDocument(str(options.directory), tuple(made)))
        return 0
    for each in made:
        print(printable(f"{each.file}: {each.action}, valid until {each.ends}"))
    print(printable(_next_steps(options.directory, options.operator)), end="")
    return 0


def make_certificates(
    directory: Path,
    wanted: Sequence[Wanted],
    now: datetime,
    days: int,
    *,
    renew: bool = False,
) -> list[CertificateDocument]:
    """Make the authority unless the directory has one, and a certificate for each holder with its further hosts.

    One that is there is kept if it names the same hosts and has `RENEW_DAYS` left, unless `renew` is true. Raises
    `CertificateFileError`, also if two holders have the same name, which is that of their file.
    """
    names = [holder.name for holder, _ in wanted]
    if twice := {name for name in names if names.count(name) > 1}:
        raise CertificateFileError(
            Code.CERTIFICATE_FILE, f"{min(twice)} is named twice; give each worker and the --operator a name of its own"
        )
    try:
        # One that is there keeps its mode: it may be /etc. Each file of ours is readable for its owner alone.
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        authority, made = _authority(directory, now)
        made += [_certificate(directory, authority, each, now, days, renew=renew) for each in wanted]
    except OSError as error:
        raise CertificateFileError(
            Code.CERTIFICATE_FILE,
            f"{error.filename or directory}: {error.strerror}; name a directory that you may write",
        ) from error
    return made


def _authority(directory: Path, now: datetime, *, make: bool = True) -> tuple[Issued, list[CertificateDocument]]:
    """Return the authority of a directory, which is made if there is none and `make` is true, and what is said of it.

    Raises `CertificateFileError` and `OSError`.
    """
    public, private = directory / f"{AUTHORITY}.pem", directory / f"{AUTHORITY}.key"
    kept = _read(private)
    if kept is None:
        if public.exists() or not make:
            raise CertificateFileError(
                Code.CERTIFICATE_FILE,
                f"{private}: it is missing, and without it nothing can be signed; put it back, or make certificates "
                "for everybody in another directory",
            )
        made = make_authority(now)
        _write(private, write_pem(made))
    else:
        made = kept
    if made.certificate.not_valid_after_utc - now < timedelta(days=RENEW_DAYS):
        raise CertificateFileError(
            Code.CERTIFICATE_FILE,
            f"{private}: the authority ends at {_day(made)}; make certificates for everybody in another directory",
        )
    if kept is None or _read_list(public, made) is None:
        # With a list from the beginning, workers check it from the beginning.
        _write(public, _public(made, sign_revoked(made, [], now)))
    action = "made" if kept is None else "kept"
    return made, [CertificateDocument(str(public), "authority", _day(made), action)]


def _public(authority: Issued, revoked: bytes) -> bytes:
    """Return the file that everybody gets: the authority's certificate, and the list of those that it has revoked."""
    return authority.certificate.public_bytes(serialization.Encoding.PEM) + revoked


def _read_list(public: Path, authority: Issued) -> list[tuple[int, datetime]] | None:
    """Return what an authority has revoked; None if there is no file yet. Raises `CertificateFileError`, `OSError`."""
    try:
        content = read_regular_file(public, MAX_PEM_BYTES)
        if not content.startswith(_public(authority, b"")):
            raise ValueError("it is another authority's")
        return read_revoked(content)
    except FileNotFoundError:
        return None
    except ValueError as error:
        raise CertificateFileError(
            Code.CERTIFICATE_FILE, f"{public}: it cannot be used ({error}); move it away and run the same again"
        ) from error


def revoke_certificates(directory: Path, names: Sequence[str], now: datetime) -> list[CertificateDocument]:
    """Add certificates to the list of revoked ones, which is in the authority's file, and remove their files.

    Raises `CertificateFileError`, and then revokes none.
    """
    try:
        authority, said = _authority(directory, now, make=False)
        revoked = _read_list(directory / f"{AUTHORITY}.pem", authority) or []
        for name in dict.fromkeys(names):
            file = directory / f"{name}.pem"
            found = _read(file)
            if found is None:
                raise CertificateFileError(
                    Code.CERTIFICATE_FILE, f"{file}: there is no such certificate; name a file of {directory}"
                )
            revoked.append((found.certificate.serial_number, now))
            said.append(CertificateDocument(str(file), name, _day(found), "revoked"))
        _write(directory / f"{AUTHORITY}.pem", _public(authority, sign_revoked(authority, revoked, now)))
        for each in said[1:]:
            Path(each.file).unlink(missing_ok=True)
    except OSError as error:
        raise CertificateFileError(
            Code.CERTIFICATE_FILE,
            f"{error.filename or directory}: {error.strerror}; name the directory of `vipmesh cluster certs`",
        ) from error
    return said


def revoke(options: argparse.Namespace) -> int:
    """Revoke certificates of workers and operators; exit status 1 if a file cannot be used."""
    try:
        done = revoke_certificates(options.directory, options.names, datetime.now(UTC))
    except CertificateFileError as error:
        return report_failure(options, error.lines)
    if options.json:
        print_json(CertificatesDocument(str(options.directory), tuple(done)))
        return 0
    for each in done[1:]:
        print(printable(f"{each.file}: {each.action}"))
    public = options.directory / f"{AUTHORITY}.pem"
    print(printable(f"\nPut {public} in the place of the old one on each worker: it counts at the next connection."))
    return 0


def _certificate(
    directory: Path,
    authority: Issued,
    wanted: Wanted,
    now: datetime,
    days: int,
    *,
    renew: bool,
) -> CertificateDocument:
    holder, hosts = wanted
    file = directory / f"{holder.name}.pem"
    kept = _read(file)
    if hosts is None:
        hosts = sorted(hosts_of(kept.certificate) - {holder.name}) if kept is not None else ()
    action = "made" if kept is None else "renewed"
    if kept is not None and not renew and not _is_due(kept, authority, holder, hosts, now):
        made, action = kept, "kept"
    else:
        made = issue(authority, holder, hosts, now, days)
        _write(file, write_pem(made))
    return CertificateDocument(str(file), holder.uri, _day(made), action)


def _is_due(kept: Issued, authority: Issued, holder: CertificateHolder, hosts: Sequence[str], now: datetime) -> bool:
    """Return whether a certificate is near its end, names other hosts, or is signed by another authority."""
    if kept.certificate.not_valid_after_utc - now < timedelta(days=RENEW_DAYS):
        return True
    if holder.is_worker and hosts_of(kept.certificate) != {holder.name, *hosts}:
        return True
    try:
        kept.certificate.verify_directly_issued_by(authority.certificate)
    except (ValueError, TypeError, InvalidSignature):
        return True
    return False


def _read(file: Path) -> Issued | None:
    """Return what a file holds; None if there is none. Raises `CertificateFileError` and `OSError`."""
    try:
        return read_pem(read_regular_file(file, MAX_PEM_BYTES))
    except FileNotFoundError:
        return None
    except ValueError as error:
        raise CertificateFileError(
            Code.CERTIFICATE_FILE,
            f"{file}: it is no certificate with its private key ({error}); move it away and run the same again",
        ) from error


def _write(file: Path, content: bytes) -> None:
    """Replace a file at once by one that only its owner may read. Raises `OSError`."""
    place, temporary = tempfile.mkstemp(dir=file.parent, prefix=f".{file.name}.")  # mode 0600
    try:
        with os.fdopen(place, "wb") as out:
            out.write(content)
            out.flush()
            os.fsync(out.fileno())
        Path(temporary).replace(file)
    except OSError:
        Path(temporary).unlink()
        raise


def _day(issued: Issued) -> str:
    return issued.certificate.not_valid_after_utc.strftime("%Y-%m-%d")


def _next_steps(directory: Path, operator: str) -> str:
    return f"""
On each worker NAME, put {directory}/NAME.pem and {directory}/{AUTHORITY}.pem into /etc/vipmesh, and into its settings:

[admin]
tcp = "ADDRESS:9780"
cert = "/etc/vipmesh/NAME.pem"
client_ca = "/etc/vipmesh/{AUTHORITY}.pem"

A renewed file counts at the next connection; no restart is needed. Operators use {directory}/{operator}.pem. Keep
{directory}/{AUTHORITY}.key away from the workers.
"""


def parse_worker(text: str) -> tuple[str, tuple[str, ...] | None]:
    """Parse `NAME`, with None for its hosts, or `NAME=HOST,HOST`. Raises `argparse.ArgumentTypeError`."""
    from mesh.config.values import parse_host_name

    name, given, rest = text.partition("=")
    hosts = tuple(host for host in rest.split(",") if host)
    try:
        parsed = parse_host_name(name)
        for host in hosts:
            parse_host_name(host) if ":" not in host else _check_address(host)
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{error}; write w1 or w1=192.0.2.11,w1.example.com") from error
    if parsed == AUTHORITY:
        raise argparse.ArgumentTypeError(f"{AUTHORITY!r} is the name of the authority's files")
    return parsed, hosts if given else None


def _check_address(text: str) -> None:
    from ipaddress import ip_address

    ip_address(text)
