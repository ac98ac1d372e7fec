"""Which worker the command line asks, with which credentials, and what it says when that does not work."""

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from mesh.api.http.server import AdminListenConfig
from mesh.cli.access import AdminAddress, find_access, parse_admin_address, read_token
from mesh.cli.main import main
from mesh.cli.parser import build_parser
from mesh.model.errors import SettingsError
from tests.api.http.worker import TOKEN, serving
from tests.api.metrics.test_families import OBSERVED
from tests.store.etcd.certificates import authority, signed
from tests.system.e2e.programs import free_port

READ_TOKEN = "fedcba9876543210"


@pytest.fixture(autouse=True)
def _home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("XDG_CONFIG_HOME", raising=False)


@asynccontextmanager
async def worker(directory: Path, **files: Any) -> AsyncIterator[str]:
    """`127.0.0.1:PORT` of a worker with a token and a token that only reads."""
    for name, token in (("token", TOKEN), ("read", READ_TOKEN)):
        (directory / name).write_text(f"{token}\n")
        (directory / name).chmod(0o600)
    tcp = f"127.0.0.1:{free_port()}"
    files = {"token_file": directory / "token", "read_token_file": directory / "read", **files}
    async with serving(AdminListenConfig(f"unix://{directory}/admin.sock", tcp, **files)):
        yield tcp


async def vipmesh(capsys: pytest.CaptureFixture[str], *arguments: str | Path) -> tuple[int, str]:
    """Exit status and output of both streams."""
    status = await asyncio.to_thread(main, [str(each) for each in arguments])
    shown = capsys.readouterr()
    return status, shown.out + shown.err


def certificates(directory: Path) -> dict[str, Path]:
    ca = authority(directory)
    cert, key = signed(ca, "server", "/CN=worker-1", "IP:127.0.0.1", "serverAuth")
    return {"cert": cert, "key": key, "client_ca": ca}


def test_forms_of_an_address() -> None:
    assert parse_admin_address("unix:///run/a.sock") == AdminAddress("/run/a.sock")
    assert parse_admin_address("127.0.0.1:9780") == AdminAddress(None, "127.0.0.1", 9780)
    assert parse_admin_address("worker-1:9780", tls=True) == AdminAddress(None, "worker-1", 9780, tls=True)
    assert parse_admin_address("https://[::1]:9780/") == AdminAddress(None, "::1", 9780, tls=True)
    assert parse_admin_address("http://worker-1.example:80") == AdminAddress(None, "worker-1.example", 80)


@pytest.mark.parametrize(
    "written",
    [
        "",
        "x",
        "unix://relative",
        "unix://",
        "https://worker-1",
        "https://worker-1:0",
        "https://worker-1:99999",
        "https://worker-1:x",
        "https://[::1:9780",
        "https://:9780",
        "ftp://worker-1:9780",
        "https://user:secret@worker-1:9780",
        "https://worker-1:9780/v1/status",
        "https://worker-1:9780?token=x",
        "https://worker-1:9780#token=x",
        "https://wörker:9780",
        "https://a b:9780",
        "worker-1:9780\r\nX: y",
    ],
)
def test_what_is_no_address_is_refused_with_the_forms(written: str) -> None:
    with pytest.raises(SettingsError) as refused:
        parse_admin_address(written)
    assert "write unix:///PATH, https://HOST:PORT or HOST:PORT" in str(refused.value)


@pytest.mark.parametrize("text", ["", "two words", "two\nlines", "é" * 20, "a\x00b"])
def test_a_token_file_has_one_line(text: str, tmp_path: Path) -> None:
    (tmp_path / "t").write_text(text)
    with pytest.raises(SettingsError, match="one line of printable ASCII"):
        read_token(tmp_path / "t")


def test_the_option_wins_over_the_variable_and_that_over_the_context(tmp_path: Path) -> None:
    (tmp_path / "c.toml").write_text(
        'current = "a"\n[context.a]\nadmin = "https://a:1"\ntoken_file = "a.token"\nca = "/ca"\n'
        '[context.b]\nadmin = "https://b:1"\n'
    )
    named = {"VIPMESH_CONTEXT_FILE": str(tmp_path / "c.toml")}

    def found(*options: str, **variables: str) -> tuple[str, str | None, str | None]:
        """The address, the token file and the CA."""
        access = find_access(build_parser().parse_args(["status", *options]), {**named, **variables})
        token, ca = (None if file is None else str(file) for file in (access.token_file, access.ca))
        return access.written, token, ca

    assert found() == ("https://a:1", f"{tmp_path}/a.token", "/ca"), "paths are relative to the file"
    assert found("--context", "b", "--token-file", "/t") == ("https://b:1", "/t", None)
    assert found("--token-file", "/t", VIPMESH_CONTEXT="b") == ("https://b:1", "/t", None)
    assert found(VIPMESH_TOKEN_FILE="/v") == ("https://a:1", "/v", "/ca")
    assert found("--token-file", "/t", VIPMESH_TOKEN_FILE="/v") == ("https://a:1", "/t", "/ca")
    assert found(VIPMESH_ADMIN="https://v:1", VIPMESH_TOKEN_FILE="/v") == ("https://v:1", "/v", None)
    assert found("--admin", "https://o:1", "--token-file", "/t", VIPMESH_ADMIN="https://v:1")[0] == "https://o:1"
    assert found("--admin", "https://o:1", "--context", "a") == ("https://o:1", f"{tmp_path}/a.token", "/ca")


def test_the_token_of_the_current_context_goes_to_no_other_worker(tmp_path: Path) -> None:
    (tmp_path / "c.toml").write_text('current = "a"\n[context.a]\nadmin = "https://a:1"\ntoken_file = "/a"\n')
    (tmp_path / "empty.toml").write_text("")
    options = build_parser().parse_args(["status", "--admin", "https://o:1", "-c", str(tmp_path / "empty.toml")])
    access = find_access(options, {"VIPMESH_CONTEXT_FILE": str(tmp_path / "c.toml")})
    assert (access.written, access.token_file) == ("https://o:1", None)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("nonsense", "cannot be used"),
        ("current = 3", "other keys than current"),
        ("contexts = 3", "other keys than current"),
        ('current = "x"', "use one of these: none"),
        ('current = "a"\n[context.a]\ntoken_file = "t"', "must have admin"),
        ('current = "a"\n[context.a]\nadmin = 3', "must have admin"),
        ('current = "a"\n[context.a]\nadmin = "a:1"\npassword = "x"', "must have admin"),
        ('current = "a"\n[context]\na = 3', "must have admin"),
    ],
)
def test_a_broken_context_file_is_reported(text: str, words: str, tmp_path: Path) -> None:
    (tmp_path / "c.toml").write_text(text)
    with pytest.raises(SettingsError, match=words):
        find_access(build_parser().parse_args(["status"]), {"VIPMESH_CONTEXT_FILE": str(tmp_path / "c.toml")})


async def test_over_tcp_with_each_way_to_give_a_token(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    async with worker(tmp_path) as tcp:
        token = tmp_path / "token"
        assert (await vipmesh(capsys, "status", "--admin", tcp, "--token-file", token))[0] == 0
        assert (await vipmesh(capsys, "drain", "web-1", "--admin", f"http://{tcp}", "--token-file", token))[0] == 0
        (tmp_path / ".config" / "vipmesh").mkdir(parents=True)
        contexts = tmp_path / ".config" / "vipmesh" / "contexts.toml"
        contexts.write_text(f'current = "a"\n[context.a]\nadmin = "{tcp}"\ntoken_file = "~/token"\n')
        assert (await vipmesh(capsys, "status"))[0] == 0
        contexts.unlink()
        monkeypatch.setenv("VIPMESH_ADMIN", tcp)
        monkeypatch.setenv("VIPMESH_TOKEN_FILE", str(token))
        status, shown = await vipmesh(capsys, "status", "--json")
        assert (status, json.loads(shown)["worker"]) == (0, OBSERVED.facts.worker)


async def test_a_missing_wrong_or_weak_token_is_called_what_it_is(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    wrong = tmp_path / "wrong"
    wrong.write_text("x" * 20)
    async with worker(tmp_path) as tcp:
        for options in ((), ("--token-file", wrong)):
            status, shown = await vipmesh(capsys, "status", "--admin", tcp, *options)
            assert status == 1
            assert f"{tcp} does not accept the token, or got none; name the file" in shown
            assert "--token-file [VM661]" in shown
            assert "no daemon answers" not in shown
        status, shown = await vipmesh(capsys, "drain", "web-1", "--admin", tcp, "--token-file", tmp_path / "read")
        assert (status, "status 403: this token may only read" in shown) == (1, True)
        status, shown = await vipmesh(capsys, "status", "--admin", tcp, "--token-file", tmp_path / "none")
        assert (status, "cannot be read: No such file or directory" in shown, "[VM663]" in shown) == (1, True, True)
        status, shown = await vipmesh(capsys, "top", "--count", "1", "--admin", tcp)
        assert (status, "[VM661]" in shown) == (1, True)


async def test_a_host_that_the_worker_does_not_know_is_explained(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    async with worker(tmp_path) as tcp:
        port = tcp.rpartition(":")[2]
        monkeypatch.setattr("socket.create_connection", _to_loopback)
        admin = f"http://worker-1.example:{port}"
        status, shown = await vipmesh(capsys, "status", "--admin", admin, "--token-file", tmp_path / "token")
    assert status == 1
    assert "status 403: Host 'worker-1.example' is not a name of this worker" in shown
    assert "[admin] hosts" in shown


async def test_tls_with_a_token_and_with_a_certificate(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    files = certificates(tmp_path)
    ca = files["client_ca"]
    mine, my_key = signed(ca, "client", "/CN=me", "DNS:me", "clientAuth")
    async with worker(tmp_path, **files) as tcp:
        https = f"https://{tcp}"
        token = ("--token-file", tmp_path / "token")
        assert (await vipmesh(capsys, "status", "--admin", https, "--ca", ca, *token))[0] == 0
        certified = ("--admin", https, "--ca", ca, "--cert", mine, "--key", my_key)
        assert (await vipmesh(capsys, "drain", "web-1", *certified))[0] == 0
        for arguments, words, code in (
            (("--admin", https, *token), "is not trusted: ", "VM662"),
            (("--admin", https, "--ca", ca), "does not accept the token", "VM661"),
            (("--admin", tcp, *token), "if it has TLS, [admin] cert, write https://HOST:PORT", "VM662"),
            (("--admin", https, "--ca", tmp_path / "none"), "No such file or directory in one of", "VM663"),
            (("--admin", https, "--ca", ca, "--cert", ca), "in one of", "VM663"),
            (("--admin", tcp, "--cert", mine), "has no TLS, so no certificate is sent", "VM663"),
            (("--admin", https.replace("127.0.0.1", "localhost"), "--ca", ca, *token), "is for another name", "VM662"),
        ):
            status, shown = await vipmesh(capsys, "status", *arguments)
            assert (status, words in shown, f"[{code}]" in shown) == (1, True, True), shown
    async with worker(tmp_path, **files, token_file=None, read_token_file=None) as tcp:
        status, shown = await vipmesh(capsys, "status", "--admin", f"https://{tcp}", "--ca", ca)
        assert (status, "with --cert and --key [VM662]" in shown) == (1, True), shown
    async with worker(tmp_path) as tcp:
        status, shown = await vipmesh(capsys, "status", "--admin", f"https://{tcp}", "--ca", ca)
        assert (status, f"does not speak TLS; write http://{tcp} [VM662]" in shown) == (1, True), shown


async def test_the_worker_of_this_host_may_listen_with_tls_alone(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    files = certificates(tmp_path)
    async with worker(tmp_path, **files) as tcp:
        (tmp_path / "v.toml").write_text(
            f"[admin]\nlisten = '{tcp}'\ncert = '{files['cert']}'\nkey = '{files['key']}'\n"
            f"token_file = '{tmp_path}/token'\n"
        )
        status, shown = await vipmesh(capsys, "status", "-c", tmp_path / "v.toml")
        assert status == 0, shown


@pytest.mark.parametrize(
    "response",
    [
        b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nContent-Length: 5\r\n\r\nhello",
        b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 1\r\n\r\n\xff",
        b"HTTP/1.1 500 Oops\r\nContent-Length: 4\r\n\r\n\x1b[2J",
        b"HTTP/1.1 404 Not Found\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n[]",
        b"SSH-2.0-OpenSSH_9.6\r\n",
        b"",
    ],
)
async def test_another_server_is_no_traceback(response: bytes, capsys: pytest.CaptureFixture[str]) -> None:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(asyncio.IncompleteReadError):
            await reader.readuntil(b"\r\n\r\n")
        writer.write(response)
        writer.close()

    async with await asyncio.start_server(answer, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        for arguments in (("status", "--json"), ("explain", "web.test", "--json"), ("drain", "web-1"), ("test",)):
            status, shown = await vipmesh(capsys, *arguments, "--admin", f"127.0.0.1:{port}")
            assert status == 1
            assert f"127.0.0.1:{port}" in shown
            assert "\x1b" not in shown


def _to_loopback(address: tuple[str, int], *rest: Any, **more: Any) -> Any:
    import socket

    sock = socket.socket()
    sock.connect(("127.0.0.1", address[1]))
    return sock
