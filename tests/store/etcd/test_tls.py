"""TLS over time: a member that dies, certificates renewed on disk, and a client certificate with a CN."""

import asyncio
from collections.abc import Iterator
from contextlib import aclosing
from pathlib import Path

import pytest

from mesh.store import StoreError
from tests.store.contract import watching
from tests.store.etcd.certificates import authority, signed
from tests.store.etcd.server import EtcdServer, etcd, retried, until
from tests.store.etcd.test_auth import opened, settings


@pytest.fixture
def ca(tmp_path: Path) -> Path:
    (tmp_path / "ca").mkdir()
    return authority(tmp_path / "ca")


@pytest.fixture
def locked(ca: Path, tmp_path: Path) -> Iterator[EtcdServer]:
    """Three members that want client certificates."""
    certificate, key = signed(ca, "server", "/", "IP:127.0.0.1", "serverAuth,clientAuth")
    options = ["--cert-file", str(certificate), "--key-file", str(key), "--trusted-ca-file", str(ca)]
    tls = ["--cacert", str(ca), "--cert", str(certificate), "--key", str(key)]
    with etcd(tmp_path / "etcd", 3, [*options, "--client-cert-auth"], tls) as server:
        yield server


async def test_another_member_takes_over(locked: EtcdServer, ca: Path, tmp_path: Path) -> None:
    certificate, key = signed(ca, "w1", "/", "DNS:w1.example", "clientAuth")
    own = settings(locked, tmp_path, store_ca=ca, store_cert=certificate, store_key=key)
    async with opened(own) as store, aclosing(watching(store)) as snapshots:
        await store.register({"workers/w1/x": b"0"})
        await until(snapshots, lambda seen: seen == {"workers/w1/x": b"0"})
        for turn, member in enumerate(locked.members):
            member.kill()
            assert await retried(store, {"workers/w1/x": str(turn + 1).encode()}) < 10
            await until(snapshots, lambda seen, turn=turn: seen["workers/w1/x"] == str(turn + 1).encode())  # type: ignore[misc]
            await asyncio.to_thread(locked.start, [member])


async def test_certificates_renewed_on_disk_are_used(locked: EtcdServer, ca: Path, tmp_path: Path) -> None:
    """What was there at the start is refused, as one that has expired is."""
    (tmp_path / "other").mkdir()
    former, former_key = signed(authority(tmp_path / "other"), "w1", "/", "DNS:w1.example", "clientAuth")
    certificate, key = signed(ca, "w1", "/", "DNS:w1.example", "clientAuth")
    own = settings(locked, tmp_path, store_ca=ca, store_cert=former, store_key=former_key)
    async with opened(own) as store:
        with pytest.raises(StoreError, match=r"set \[store\] cert and key"):
            await store.register({"workers/w1/x": b"0"})
        former.write_text("half of a fi")
        with pytest.raises(StoreError, match=r"set \[store\] cert and key"):
            await store.register({"workers/w1/x": b"0"})
        key.replace(former_key)
        certificate.replace(former)
        await retried(store, {"workers/w1/x": b"1"})


async def test_a_client_certificate_with_a_cn_is_reported(locked: EtcdServer, ca: Path, tmp_path: Path) -> None:
    """etcd minds it once it has users."""
    locked.ctl("user", "add", "root:secret")
    locked.ctl("user", "grant-role", "root", "root")
    locked.ctl("auth", "enable")
    certificate, key = signed(ca, "w1", "/CN=w1", "DNS:w1.example", "clientAuth")
    own = settings(locked, tmp_path, store_ca=ca, store_cert=certificate, store_key=key)
    async with opened(own) as store:
        with pytest.raises(StoreError, match="give the client certificate an empty subject"):
            await store.register({"workers/w1/x": b"0"})
