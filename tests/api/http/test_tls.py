"""The certificates of the admin API: a new file counts at the next connection, a broken one changes nothing."""

import asyncio
import ssl
from datetime import UTC, datetime
from pathlib import Path

import pytest

from mesh.api.http.server import AdminListenConfig
from mesh.cli.certificates import Issued, issue, make_authority, write_pem
from mesh.cli.certs import make_certificates, revoke_certificates
from mesh.model.credential import CertificateHolder
from tests.api.http.worker import serving
from tests.system.e2e.programs import free_port

W1, ALICE = CertificateHolder("w1", is_worker=True), CertificateHolder("alice", is_worker=False)


def put(file: Path, content: bytes) -> None:
    """Replace a file as `vipmesh cluster certs` and `mv` do."""
    fresh = file.with_suffix(".new")
    fresh.write_bytes(content)
    fresh.replace(file)


def issued(authority: Issued, holder: CertificateHolder, days: int) -> bytes:
    return write_pem(issue(authority, holder, ["127.0.0.1"], datetime.now(UTC), days))


def listening(directory: Path, port: int) -> AdminListenConfig:
    """With the certificates of a directory."""
    return AdminListenConfig(
        f"unix://{directory}/admin.sock",
        f"127.0.0.1:{port}",
        cert=directory / "w1.pem",
        client_ca=directory / "ca.pem",
    )


def client(directory: Path) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=str(directory / "ca.pem"))
    context.load_cert_chain(directory / "alice.pem")
    return context


async def ends(port: int, tls: ssl.SSLContext) -> str:
    """When the certificate ends that the API shows to a new connection. Raises `OSError` if it refuses the client's."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port, ssl=tls, server_hostname="w1")
    writer.write(b"GET /v1/status HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n")
    try:
        line = await reader.readline()
        if not line:
            raise ConnectionRefusedError
        assert line.startswith(b"HTTP/1.1 200")
        return str(writer.get_extra_info("peercert")["notAfter"])
    finally:
        writer.transport.abort()


async def test_files_count_at_the_next_connection(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    authority = make_authority(datetime.now(UTC))
    ca, mine, port = tmp_path / "ca.pem", tmp_path / "w1.pem", free_port()
    put(ca, write_pem(authority).partition(b"-----BEGIN PRIVATE")[0])
    put(mine, issued(authority, W1, 40))
    put(tmp_path / "alice.pem", issued(authority, ALICE, 40))
    alice = client(tmp_path)
    async with serving(listening(tmp_path, port)):
        first = await ends(port, alice)
        assert await ends(port, alice) == first
        put(mine, b"not a certificate")
        assert await ends(port, alice) == first
        assert await ends(port, alice) == first
        assert caplog.text.count("the previous certificates stay in force") == 1, "once for each change"
        mine.unlink()
        assert await ends(port, alice) == first
        put(mine, issued(authority, W1, 80))
        second = await ends(port, alice)
        assert second != first
        # The authority of the clients is read again, too: those of the old one are strangers then.
        other = make_authority(datetime.now(UTC))
        put(ca, write_pem(other).partition(b"-----BEGIN PRIVATE")[0])
        with pytest.raises((ConnectionError, ssl.SSLError)):
            await ends(port, alice)


async def test_a_key_with_a_password_is_refused_without_asking_for_it(tmp_path: Path) -> None:
    from cryptography.hazmat.primitives import serialization

    from mesh.api.http.server import AdminApiError

    made = make_authority(datetime.now(UTC))
    locked = made.key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.BestAvailableEncryption(b"secret")
    )
    put(tmp_path / "w1.pem", made.certificate.public_bytes(serialization.Encoding.PEM) + locked)
    listen = AdminListenConfig(f"unix://{tmp_path}/admin.sock", f"127.0.0.1:{free_port()}", cert=tmp_path / "w1.pem")
    with pytest.raises(AdminApiError, match=r"w1\.pem; \[admin\] cert, key and client_ca must be PEM files"):
        async with serving(listen):
            pass


async def test_a_revoked_certificate_is_refused_at_the_next_connection(tmp_path: Path) -> None:
    now = datetime.now(UTC)
    bob = CertificateHolder("bob", is_worker=False)
    make_certificates(tmp_path, [(W1, ["127.0.0.1"]), (ALICE, ()), (bob, ())], now, 90)
    port = free_port()
    contexts = [ssl.create_default_context(cafile=str(tmp_path / "ca.pem")) for _ in range(2)]
    for context, name in zip(contexts, ("alice", "bob"), strict=True):
        context.load_cert_chain(tmp_path / f"{name}.pem")
    async with serving(listening(tmp_path, port)):
        for context in contexts:
            assert await ends(port, context)
        revoke_certificates(tmp_path, ["bob"], now)
        assert await ends(port, contexts[0])
        with pytest.raises((ConnectionError, ssl.SSLError)):
            await ends(port, contexts[1])
        make_certificates(tmp_path, [(W1, None)], now, 90, renew=True)
        with pytest.raises((ConnectionError, ssl.SSLError)):
            await ends(port, contexts[1])
        assert await ends(port, contexts[0])


async def test_the_first_list_of_revoked_certificates_counts_as_well(tmp_path: Path) -> None:
    now = datetime.now(UTC)
    make_certificates(tmp_path, [(W1, ["127.0.0.1"]), (ALICE, ())], now, 90)
    listed = (tmp_path / "ca.pem").read_bytes()
    put(tmp_path / "ca.pem", listed.partition(b"-----BEGIN X509 CRL")[0])
    alice, port = client(tmp_path), free_port()
    async with serving(listening(tmp_path, port)):
        assert await ends(port, alice)
        put(tmp_path / "ca.pem", listed)
        with pytest.raises((ConnectionError, ssl.SSLError)):
            await ends(port, alice)
        assert await ends(port, alice), "it is not listed, so only the connection that found the list is refused"
        revoke_certificates(tmp_path, ["alice"], now)
        with pytest.raises((ConnectionError, ssl.SSLError)):
            await ends(port, alice)
