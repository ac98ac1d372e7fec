"""Authentication over the socket, with a token and with a certificate, and requests that browsers may not make."""

import logging
import os
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from mesh.api.http.auth import AdminToken, TokenError, quote_untrusted
from mesh.api.http.server import AdminListenConfig
from mesh.cli.certs import make_certificates
from mesh.model.credential import CertificateHolder
from tests.api.http.worker import TOKEN, client, serving, socket_of
from tests.store.etcd.certificates import authority, signed
from tests.system.e2e.programs import free_port

WITH_TOKEN = {"Authorization": f"Bearer {TOKEN}"}
SECRETS = ["/v1/status", "/metrics", "/v1/nothing"]


@pytest.fixture
def token(tmp_path: Path) -> Path:
    file = tmp_path / "token"
    file.write_text(f"{TOKEN}\n")
    file.chmod(0o600)
    return file


@asynccontextmanager
async def over_tcp(directory: Path, token: Path | None, **files: Any) -> AsyncIterator[str]:
    """Where it is."""
    tcp = f"127.0.0.1:{free_port()}"
    async with serving(AdminListenConfig(f"unix://{directory}/admin.sock", tcp, token, **files)):
        yield f"{'https' if 'cert' in files else 'http'}://{tcp}"


async def ask(url: str, **given: object) -> int:
    async with aiohttp.ClientSession() as session, session.request("GET", url, **given) as answer:  # type: ignore[arg-type]
        return answer.status


async def test_over_tcp_only_with_the_token(tmp_path: Path, token: Path, caplog: pytest.LogCaptureFixture) -> None:
    async with over_tcp(tmp_path, token) as url:
        for path in SECRETS:
            async with aiohttp.ClientSession() as session, session.get(url + path) as answer:
                assert answer.status == 401
                assert answer.headers["WWW-Authenticate"] == 'Bearer realm="vipmesh"'
                assert "[admin] token_file" in (await answer.json())["error"]
            for wrong in (f"Bearer {TOKEN}x", "Bearer ", f"Basic {TOKEN}", TOKEN, "Bearer é"):
                assert await ask(url + path, headers={"Authorization": wrong}) == 401, wrong
        async with (
            aiohttp.ClientSession() as session,
            session.post(f"{url}/v1/drain", json={"name": "web-1"}) as answer,
        ):
            assert answer.status == 401
        assert await ask(f"{url}/v1/status", headers=WITH_TOKEN) == 200
        assert await ask(f"{url}/metrics", headers=WITH_TOKEN) == 200
        assert await ask(f"{url}/healthz") == 200, "whether it lives is no secret"
        assert await ask(f"{url}/v1/openapi.yaml") == 200
    assert 'POST "/v1/drain" by 127.0.0.1 refused: no valid token' in caplog.text
    assert TOKEN not in caplog.text
    assert "audit" not in caplog.text, "nothing was carried out"


async def test_a_new_token_counts_at_once_and_a_broken_one_changes_nothing(tmp_path: Path, token: Path) -> None:
    read = AdminToken(token)
    new = "f" * 32
    for text in ("short", new):
        fresh = tmp_path / "fresh"
        fresh.write_text(text)
        fresh.replace(token)
        assert read.accepts(f"Bearer {TOKEN}") == (text == "short")
    token.unlink()
    assert read.accepts(f"bearer {new}")


@pytest.mark.parametrize(
    "text", ["", "0123456789abcde", "0123456789abcdef\nsecond", "0123456789 abcdef", "0123456789abcdéf"]
)
def test_an_invalid_token_file_is_refused(text: str, tmp_path: Path) -> None:
    file = tmp_path / "token"
    file.write_text(text)
    with pytest.raises(TokenError, match="at least 16 printable ASCII characters without spaces"):
        AdminToken(file)


READ_TOKEN = "fedcba9876543210"


async def test_a_read_token_reads_everything_and_changes_nothing(
    tmp_path: Path, token: Path, caplog: pytest.LogCaptureFixture
) -> None:
    read = tmp_path / "read.token"
    read.write_text(READ_TOKEN)
    read.chmod(0o600)
    async with over_tcp(tmp_path, token, read_token_file=read) as url, aiohttp.ClientSession() as session:
        for given, allowed in ((TOKEN, True), (READ_TOKEN, False)):
            headers = {"Authorization": f"Bearer {given}"}
            for path in ("/v1/status", "/metrics", "/v1/explain?of=a.test", "/v1/test", "/"):
                assert await ask(url + path, headers=headers) == 200, path
            for verb in ("drain", "maintenance", "undrain", "stop", "test"):
                async with session.post(f"{url}/v1/{verb}", json={"name": "web-1"}, headers=headers) as answer:
                    assert answer.status == (200 if allowed else 403), verb
                    assert allowed or "[admin] token_file" in (await answer.json())["error"]
            async with session.request("DELETE", f"{url}/v1/status", headers=headers) as answer:
                assert answer.status == (405 if allowed else 403)
        rotated = "a" * 32
        read.write_text(rotated)
        assert await ask(f"{url}/v1/status", headers={"Authorization": f"Bearer {READ_TOKEN}"}) == 401
        assert await ask(f"{url}/v1/status", headers={"Authorization": f"Bearer {rotated}"}) == 200
    assert "its Host, Origin or token does not allow it" in caplog.text
    assert READ_TOKEN not in caplog.text


async def test_with_a_read_token_alone_nothing_is_changed_over_tcp(tmp_path: Path, token: Path) -> None:
    async with over_tcp(tmp_path, None, read_token_file=token) as url, aiohttp.ClientSession() as session:
        assert await ask(f"{url}/v1/status", headers=WITH_TOKEN) == 200
        async with session.post(f"{url}/v1/drain", json={"name": "web-1"}, headers=WITH_TOKEN) as answer:
            assert answer.status == 403


async def test_a_token_in_both_files_is_the_operators_and_reported(
    tmp_path: Path, token: Path, caplog: pytest.LogCaptureFixture
) -> None:
    same = tmp_path / "same"
    same.write_text(TOKEN)
    same.chmod(0o600)
    async with (
        over_tcp(tmp_path, token, read_token_file=same) as url,
        aiohttp.ClientSession() as session,
        session.post(f"{url}/v1/drain", json={"name": "web-1"}, headers=WITH_TOKEN) as answer,
    ):
        assert answer.status == 200
    assert "have the same token, so it may do everything; write another one" in caplog.text


async def test_a_token_in_the_url_is_not_accepted_and_not_logged(
    tmp_path: Path, token: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    async with over_tcp(tmp_path, token) as url:
        for query in (f"?token={TOKEN}", f"?access_token={TOKEN}"):
            assert await ask(f"{url}/v1/status{query}") == 401
        assert await ask(url.replace("://", f"://user:{TOKEN}@") + "/v1/status") == 401
    assert TOKEN not in caplog.text


def test_a_world_readable_token_file_is_reported(token: Path, caplog: pytest.LogCaptureFixture) -> None:
    token.chmod(0o644)
    AdminToken(token)
    assert "can be read by every user of this host; run `chmod 640" in caplog.text


async def test_a_client_certificate_is_accepted(tmp_path: Path, token: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    ca = authority(tmp_path)
    cert, key = signed(ca, "server", "/CN=worker-1", "IP:127.0.0.1", "serverAuth")
    mine = signed(ca, "client", "/CN=prometheus", "DNS:prometheus", "clientAuth")
    trusting, certified = (ssl.create_default_context(cafile=str(ca)) for _ in range(2))
    certified.load_cert_chain(*mine)
    async with over_tcp(tmp_path, token, cert=cert, key=key, client_ca=ca) as url:
        assert await ask(f"{url}/v1/status", ssl=certified) == 200
        assert await ask(f"{url}/v1/status", ssl=trusting) == 401
        assert await ask(f"{url}/v1/status", ssl=trusting, headers=WITH_TOKEN) == 200
        async with aiohttp.ClientSession() as session:
            await session.post(f"{url}/v1/drain", json={"name": "web-1"}, ssl=certified)
        assert 'audit: drain "web-1" by "prometheus" at 127.0.0.1 requested' in caplog.text
    async with over_tcp(tmp_path, None, cert=cert, key=key, client_ca=ca) as url:
        assert await ask(f"{url}/v1/status", ssl=certified) == 200
        with pytest.raises(aiohttp.ClientError):
            await ask(f"{url}/v1/status", ssl=trusting)
    stranger = tmp_path / "strangers"
    stranger.mkdir()
    certified.load_cert_chain(*signed(authority(stranger), "client", "/CN=prometheus", "DNS:x", "clientAuth"))
    async with over_tcp(tmp_path, token, cert=cert, key=key, client_ca=ca) as url:
        with pytest.raises(aiohttp.ClientError):
            await ask(f"{url}/v1/status", ssl=certified)


@pytest.mark.parametrize("kind", ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x"])
@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({}, 200),
        ({"User-Agent": "curl/8.5.0", "Accept": "*/*"}, 200),
        ({"Referer": "http://evil.test/"}, 400),
        ({"Cookie": "a=b"}, 400),
        ({"Origin": "http://localhost"}, 400),
        ({"Sec-Fetch-Site": "none"}, 400),
        ({"Accept-Language": "en"}, 400),
        ({"User-Agent": "Mozilla/5.0 (X11; Linux x86_64)"}, 400),
    ],
)
async def test_a_form_of_a_browser_is_refused_and_that_of_curl_is_not(
    headers: dict[str, str], status: int, kind: str, tmp_path: Path
) -> None:
    sent = {**headers, "Content-Type": kind}
    async with (
        serving(socket_of(tmp_path)),
        client(tmp_path) as session,
        session.post("/v1/drain", data=b'{"name":"web-1"}', headers=sent) as answer,
    ):
        assert answer.status == status


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({}, 200),
        ({"Origin": "http://localhost"}, 200),
        ({"Origin": "http://evil.test"}, 403),
        ({"Origin": "null"}, 403),
        ({"Origin": "http://localhost:8080"}, 403),
        ({"Sec-Fetch-Site": "cross-site"}, 403),
        ({"Sec-Fetch-Site": "same-site"}, 403),
        ({"Sec-Fetch-Site": "same-origin", "Origin": "http://localhost"}, 200),
        ({"Host": "evil.test"}, 403),
        ({"Host": "evil.test:9780", "Origin": "http://evil.test:9780"}, 403),
        ({"Host": "127.0.0.1:9780", "Origin": "http://127.0.0.1:9780"}, 200),
        ({"Host": "[::1]:9780"}, 200),
        ({"Host": "vipmesh"}, 200),
    ],
)
async def test_cross_site_requests_are_refused(headers: dict[str, str], status: int, tmp_path: Path) -> None:
    async with serving(socket_of(tmp_path)), client(tmp_path) as session:
        async with session.post("/v1/drain", json={"name": "web-1"}, headers=headers) as answer:
            assert answer.status == status
        host = headers.get("Host", "localhost")
        async with session.get("/v1/status", headers={"Host": host}) as answer:
            assert answer.status == (403 if "evil" in host else 200), "it could read what it has a name for"


async def test_each_write_is_logged(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    async with serving(socket_of(tmp_path)), client(tmp_path) as session:
        for body in (
            b'{"name": "web-1"}',
            b'{"name": "no\\nsuch"}',
            b"nothing",
            b'{"x":' + b"[" * 3000,
            b'{"name":"\xff"}',
        ):
            await session.post("/v1/stop", data=body)
    who = f"uid {os.getuid()} (pid {os.getpid()})"
    lines = [record.getMessage() for record in caplog.records if record.getMessage().startswith("audit:")]
    assert lines[0] == f'audit: stop "web-1" by {who} requested'
    assert lines[1].startswith(f'audit: stop "web-1" by {who} done after 0.0 s: "demo/web-1"')
    assert lines[2] == f'audit: stop "no\\nsuch" by {who} requested'
    assert lines[3].startswith(f'audit: stop "no\\nsuch" by {who} refused: ')
    assert [line.partition(" the request is invalid: ")[0] for line in lines[4:]] == [
        f"audit: stop by {who} refused:"
    ] * 3
    assert not any("\n" in line for line in lines), "nobody writes lines of his own"


def test_client_input_is_logged_as_one_short_line() -> None:
    assert quote_untrusted("a\x1b[2Jb\r\n\u202e") == '"a\\u001b[2Jb\\r\\n\\u202e"'
    assert len(quote_untrusted("x" * 10_000)) < 210


async def test_a_certificate_of_a_worker_may_only_read(tmp_path: Path, token: Path) -> None:
    now, certs = datetime.now(UTC), tmp_path / "certs"
    holders = [CertificateHolder(name, is_worker=name.startswith("w")) for name in ("w1", "w2", "alice")]
    make_certificates(certs, [(each, ["127.0.0.1"] if each.is_worker else ()) for each in holders], now, 90)

    async def write(url: str, name: str, **headers: str) -> int:
        tls = ssl.create_default_context(cafile=str(certs / "ca.pem"))
        tls.load_cert_chain(certs / f"{name}.pem")
        assert await ask(f"{url}/v1/status", ssl=tls) == 200
        async with (
            aiohttp.ClientSession() as session,
            session.post(f"{url}/v1/drain", json={"name": "web-1"}, ssl=tls, headers=headers) as answer,
        ):
            return answer.status

    async with over_tcp(tmp_path, token, cert=certs / "w1.pem", client_ca=certs / "ca.pem") as url:
        assert await write(url, "alice") == 200
        assert await write(url, "w2") == 403
        assert await write(url, "w1") == 403, "nor that of the worker that is asked"
        assert await write(url, "w2", **WITH_TOKEN) == 200, "a worker's host may have the operator's token"
