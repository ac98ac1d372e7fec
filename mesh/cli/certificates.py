"""Issues the certificates of a cluster: an authority, one for each worker and one for operators.

A worker's certificate names it twice: as a DNS name, by which others verify whom they talk to (RFC 9525), and as the
URI `vipmesh:worker/NAME`, which says what it may do. An operator's has the URI `vipmesh:operator/NAME`. Keys are on the
curve P-256.
"""

from collections.abc import Sequence
from datetime import datetime, timedelta
from ipaddress import ip_address
from typing import NamedTuple

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from mesh.model.credential import CertificateHolder

AUTHORITY_DAYS = 3650
"""Days for which the authority may sign."""
_LIST_BEGINS = b"-----BEGIN X509 CRL-----"
_CLOCK_SKEW = timedelta(hours=1)
"""A certificate is valid from this long ago, since the clocks of workers differ."""


class Issued(NamedTuple):
    """A certificate with its private key."""

    certificate: x509.Certificate
    key: ec.EllipticCurvePrivateKey


def make_authority(now: datetime) -> Issued:
    """Make an authority that signs certificates and lists of revoked ones, and no other authority."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "vipmesh cluster authority")])
    unsigned = (
        _unsigned(name, name, key.public_key(), now, AUTHORITY_DAYS)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_key_usage(signs=True), critical=True)
    )
    return Issued(unsigned.sign(key, hashes.SHA256()), key)


def issue(authority: Issued, holder: CertificateHolder, hosts: Sequence[str], now: datetime, days: int) -> Issued:
    """Issue a certificate that is valid for `days`, but no longer than the authority's.

    `hosts` are further names and addresses that clients may reach a worker by.
    """
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, holder.name[:64])])
    names: list[x509.GeneralName] = [x509.UniformResourceIdentifier(holder.uri)]
    if holder.is_worker:
        names += [x509.DNSName(holder.name), *map(_host_name, hosts)]
    purposes = [ExtendedKeyUsageOID.CLIENT_AUTH]
    if holder.is_worker:
        purposes.append(ExtendedKeyUsageOID.SERVER_AUTH)
    left = (authority.certificate.not_valid_after_utc - now).days
    unsigned = (
        _unsigned(name, authority.certificate.subject, key.public_key(), now, min(days, left))
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_key_usage(signs=False), critical=True)
        .add_extension(x509.ExtendedKeyUsage(purposes), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(authority.key.public_key()), critical=False)
    )
    return Issued(unsigned.sign(authority.key, hashes.SHA256()), key)


def sign_revoked(authority: Issued, serials: Sequence[tuple[int, datetime]], now: datetime) -> bytes:
    """Return the list of revoked certificates as PEM (RFC 5280, section 5), by serial number and time.

    It is valid as long as the authority: a worker that gets no newer one must not refuse everybody.
    """
    unsigned = (
        x509.CertificateRevocationListBuilder()
        .issuer_name(authority.certificate.subject)
        .last_update(now - _CLOCK_SKEW)
        .next_update(authority.certificate.not_valid_after_utc)
        .add_extension(x509.CRLNumber(int(now.timestamp())), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(authority.key.public_key()), critical=False)
    )
    for serial, when in serials:
        unsigned = unsigned.add_revoked_certificate(
            x509.RevokedCertificateBuilder().serial_number(serial).revocation_date(when).build()
        )
    return unsigned.sign(authority.key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)


def read_revoked(text: bytes) -> list[tuple[int, datetime]]:
    """Return serial number and time of each certificate in the list of a PEM file; empty if it has none.

    Raises `ValueError`.
    """
    at = text.find(_LIST_BEGINS)
    if at < 0:
        return []
    found = x509.load_pem_x509_crl(text[at:])
    return [(each.serial_number, each.revocation_date_utc) for each in found]


def write_pem(issued: Issued) -> bytes:
    """Return certificate and private key, in this order, as PEM."""
    return issued.certificate.public_bytes(serialization.Encoding.PEM) + issued.key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


def read_pem(text: bytes) -> Issued:
    """Return the certificate and the private key of a PEM file. Raises `ValueError` if it has not one of each."""
    key = serialization.load_pem_private_key(text, None)
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise ValueError("the private key is not on an elliptic curve")
    return Issued(x509.load_pem_x509_certificate(text), key)


def hosts_of(certificate: x509.Certificate) -> frozenset[str]:
    """Return the DNS names and addresses of a certificate."""
    try:
        found = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return frozenset()
    names = found.get_values_for_type(x509.DNSName)
    return frozenset([*names, *map(str, found.get_values_for_type(x509.IPAddress))])


def _unsigned(
    name: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePublicKey, now: datetime, days: int
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - _CLOCK_SKEW)
        .not_valid_after(now + timedelta(days=days))
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key), critical=False)
    )


def _key_usage(*, signs: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not signs,
        key_cert_sign=signs,
        crl_sign=signs,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


def _host_name(host: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ip_address(host))
    except ValueError:
        return x509.DNSName(host)
