"""etcd with TLS, client certificates, users, or a disabled gateway, and the error that a user reads for each."""

import asyncio
import dataclasses
from collections.abc import AsyncIterator, Iterator
from contextlib import aclosing, asynccontextmanager
from pathlib import Path

import pytest

from mesh.config.settings import Settings, parse_settings
from mesh.daemon.open_store import open_store
from mesh.store import Store, StoreError
from tests.store.contract import watching
from tests.store.etcd.certificates import authority, signed
from tests.store.etcd.server import EtcdServer, etcd, until


def settings(server: EtcdServer, tmp_path: Path, prefix: str = "vipmesh", **changes: object) -> Settings:
    scheme = "etcds" if server.urls[0].startswith("https") else "etcd"
    members = ",".join(url.partition("//")[2] for url in server.urls)
    text = f'[store]\nurl = "{scheme}://{members}/{prefix}"\nsaved_view = "{tmp_path}/view.json"'
    return dataclasses.replace(parse_settings(text, {}, hostname="w1"), **changes)  # type: ignore[arg-type]


@asynccontextmanager
async def opened(settings: Settings) -> AsyncIterator[Store]:
    store = await open_store(settings)
    try:
        async with asyncio.TaskGroup() as tasks:
            running = tasks.create_task(store.run())
            yield store
            running.cancel()
    finally:
        await store.close()


async def trouble_of(store: Store) -> str:
    """What the status would say of a watch that never begins."""
    async with aclosing(watching(store)) as snapshots:
        watch = asyncio.ensure_future(anext(snapshots))
        async with asyncio.timeout(15):
            while store.trouble is None:
                await asyncio.sleep(0.02)
        trouble = store.trouble
        watch.cancel()
        await asyncio.wait([watch])
    return trouble.text


@pytest.fixture(scope="module")
def ca(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return authority(tmp_path_factory.mktemp("ca"))


@pytest.fixture(scope="module")
def locked(ca: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[EtcdServer]:
    # One certificate for both: etcd's gateway is a client of its own server and shows the server's.
    certificate, key = signed(ca, "server", "/", "IP:127.0.0.1", "serverAuth,clientAuth")
    options = ["--cert-file", str(certificate), "--key-file", str(key), "--trusted-ca-file", str(ca)]
    tls = ["--cacert", str(ca), "--cert", str(certificate), "--key", str(key)]
    with etcd(tmp_path_factory.mktemp("tls"), 1, [*options, "--client-cert-auth"], tls) as server:
        yield server


async def test_a_client_with_a_certificate_is_accepted(locked: EtcdServer, ca: Path, tmp_path: Path) -> None:
    certificate, key = signed(ca, "w1", "/", "DNS:w1.example", "clientAuth")
    own = settings(locked, tmp_path, store_ca=ca, store_cert=certificate, store_key=key)
    async with opened(own) as store, aclosing(watching(store)) as snapshots:
        await store.register({"workers/w1/x": b"x"})
        await until(snapshots, lambda seen: seen == {"workers/w1/x": b"x"})
        assert store.trouble is None


async def test_a_missing_certificate_is_reported_with_a_remedy(locked: EtcdServer, ca: Path, tmp_path: Path) -> None:
    async with opened(settings(locked, tmp_path, store_ca=ca)) as store:
        assert "set [store] cert and key" in await trouble_of(store)


async def test_an_authority_that_is_not_trusted_is_named(locked: EtcdServer, tmp_path: Path) -> None:
    async with opened(settings(locked, tmp_path)) as store:
        assert "set [store] ca to the certificate" in await trouble_of(store)


async def test_a_url_without_tls_is_reported_with_a_remedy(locked: EtcdServer, tmp_path: Path) -> None:
    own = settings(locked, tmp_path)
    async with opened(dataclasses.replace(own, store_url=own.store_url.replace("etcds:", "etcd:"))) as store:
        assert "write etcds:// in [store] url" in await trouble_of(store)


async def test_missing_or_invalid_files_are_refused_at_the_start(locked: EtcdServer, ca: Path, tmp_path: Path) -> None:
    with pytest.raises(StoreError, match=r"\[store\] ca /nowhere: .*PEM format"):
        await open_store(settings(locked, tmp_path, store_ca=Path("/nowhere")))
    (tmp_path / "nonsense").write_text("nonsense")
    with pytest.raises(StoreError, match=r"\[store\] cert .*nonsense and key in the same file: .*PEM format"):
        await open_store(settings(locked, tmp_path, store_ca=ca, store_cert=tmp_path / "nonsense"))


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EtcdServer]:
    # A token that ends soon, so that a test sees it end. Cheap hashes of passwords: with the default cost, a login on a
    # busy machine takes longer than a request may.
    options = ["--auth-token-ttl", "2", "--bcrypt-cost", "4"]
    with etcd(tmp_path_factory.mktemp("users"), 3, options) as server:
        server.ctl("user", "add", "root:secret")
        server.ctl("user", "grant-role", "root", "root")
        server.ctl("user", "add", "vipmesh:word")
        server.ctl("role", "add", "mesh")
        server.ctl("role", "grant-permission", "mesh", "readwrite", "--prefix=true", "/vipmesh/")
        server.ctl("user", "grant-role", "vipmesh", "mesh")
        server.ctl("auth", "enable")
        server.tls = ["--user", "root:secret"]
        yield server


async def test_a_user_is_authenticated_again_when_the_token_has_expired(guarded: EtcdServer, tmp_path: Path) -> None:
    own = settings(guarded, tmp_path, store_user="vipmesh", store_password="word")
    async with opened(own) as store, aclosing(watching(store)) as snapshots:
        await store.register({"workers/w1/x": b"0"})
        await until(snapshots, lambda seen: seen == {"workers/w1/x": b"0"})
        await asyncio.sleep(4)
        await store.register({"workers/w1/x": b"1"})
        await until(snapshots, lambda seen: seen == {"workers/w1/x": b"1"})


async def test_another_member_takes_over_with_a_token_of_its_own(guarded: EtcdServer, tmp_path: Path) -> None:
    own = settings(guarded, tmp_path, "vipmesh/failover", store_user="vipmesh", store_password="word")
    async with opened(own) as store, aclosing(watching(store)) as snapshots:
        await anext(snapshots)
        killed = guarded.members[0]
        killed.kill()
        for number in range(40):
            try:
                await store.register({"workers/w1/x": str(number).encode()})
                break
            except StoreError:
                continue
        await until(snapshots, lambda seen: "workers/w1/x" in seen)
        guarded.start([killed])


@pytest.mark.parametrize(
    ("prefix", "user", "said"),
    [
        pytest.param("vipmesh", ("vipmesh", "no"), "set [store] user and password to those", id="wrong password"),
        pytest.param("vipmesh", (None, None), "set [store] user and password", id="no user"),
        pytest.param("x", ("vipmesh", "word"), "etcdctl role grant-permission ROLE readwrite", id="no permission"),
    ],
)
async def test_a_refusal_has_a_remedy(
    guarded: EtcdServer, tmp_path: Path, prefix: str, user: tuple[str | None, str | None], said: str
) -> None:
    async with opened(settings(guarded, tmp_path, prefix, store_user=user[0], store_password=user[1])) as store:
        assert said in await trouble_of(store)
        with pytest.raises(StoreError) as caught:
            await store.claim({"claims/a": b"1"})
        assert said in str(caught.value)


async def test_a_user_without_a_password_is_refused_at_the_start(guarded: EtcdServer, tmp_path: Path) -> None:
    with pytest.raises(StoreError, match=r"set \[store\] password or VIPMESH_STORE_PASSWORD"):
        await open_store(settings(guarded, tmp_path, store_user="vipmesh"))


async def test_a_disabled_gateway_is_reported_with_a_remedy(tmp_path: Path) -> None:
    with etcd(tmp_path / "etcd", 1, ["--enable-grpc-gateway=false"]) as server:
        async with opened(settings(server, tmp_path)) as store:
            assert "its JSON gateway is off" in await trouble_of(store)
            with pytest.raises(StoreError, match="start etcd with --enable-grpc-gateway"):
                await store.register({"workers/w1/x": b"x"})


async def test_a_user_for_an_etcd_without_authentication_is_reported(tmp_path: Path) -> None:
    with etcd(tmp_path / "etcd") as server:
        async with opened(settings(server, tmp_path, store_user="a", store_password="b")) as store:
            assert "remove [store] user" in await trouble_of(store)


async def test_a_full_etcd_is_reported_with_a_remedy(tmp_path: Path) -> None:
    async def fill(store: Store) -> None:
        for number in range(200):
            await store.claim({f"claims/{number}": b"x" * 20_000})

    with etcd(tmp_path / "etcd", 1, ["--quota-backend-bytes", "100000"]) as server:
        async with opened(settings(server, tmp_path)) as store:
            with pytest.raises(StoreError, match="its quota is used up: run etcdctl compact"):
                await fill(store)


@pytest.mark.parametrize(
    "body",
    [
        pytest.param(b"no", id="not JSON"),
        pytest.param(b'{"x":' + b"[" * 3000, id="nested too deep"),
        pytest.param(b'{"message":"\xff","responses":"\xff"}', id="not text"),
        pytest.param(b"{}", id="nothing"),
    ],
)
@pytest.mark.parametrize("status", [200, 500])
async def test_a_web_server_that_is_not_etcd_is_reported(tmp_path: Path, body: bytes, status: int) -> None:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        head = f"HTTP/1.1 {status} X\r\nContent-Length: {len(body)}\r\nConnection: close\r\n\r\n"
        writer.write(head.encode() + body)
        await writer.drain()
        writer.close()

    async with await asyncio.start_server(answer, "127.0.0.1", 0) as web:
        port = web.sockets[0].getsockname()[1]
        own = dataclasses.replace(
            parse_settings(f'[store]\nurl = "etcd://127.0.0.1:{port}"', {}, hostname="w1"),
            store_saved_view=tmp_path / "view.json",
        )
        async with opened(own) as store:
            assert ("sent a response that is not from etcd" if status == 200 else "answers 500: ") in await trouble_of(
                store
            )
