"""How stores are reached: failover, credentials, TLS, pauses, and which settings go together."""

import asyncio
import ssl
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from aiohttp import web

from mesh.config.settings import parse_settings
from mesh.model.errors import SettingsError
from mesh.platform.logs.counters import LogCounters, render_counters
from mesh.platform.logs.sinks import LogSink, LogSinkError
from mesh.platform.logs.sinks.configured import ShipSettingsError, open_sink
from mesh.platform.logs.sinks.credentials import LogStoreCredentials
from mesh.platform.logs.sinks.elasticsearch import ElasticsearchSink
from mesh.platform.logs.sinks.http_client import LONGEST_PAUSE, LogStoreAccess, open_tls, parse_pause, printable
from mesh.platform.logs.sinks.json_lines import JsonLinesSink
from mesh.platform.logs.sinks.loki import LokiSink
from mesh.platform.logs.sinks.otlp import OtlpSink
from tests.platform.logs.loki_server import ANSWERS, LokiServer
from tests.platform.logs.otlp_server import OtlpServer
from tests.platform.logs.sinks import documents

DATA = Path(__file__).parents[2] / "data"
NOW = datetime(2026, 12, 1, 12, tzinfo=UTC)


@pytest.mark.parametrize(
    ("value", "pause"),
    [
        (None, 0.0),
        ("7", 7.0),
        (" 0 ", 0.0),
        ("99999999999999999999", LONGEST_PAUSE),
        ("-1", 0.0),
        ("soon", 0.0),
        ("٣", 0.0),
        ("Tue, 01 Dec 2026 12:00:30 GMT", 30.0),
        ("Tue, 01 Dec 2026 11:00:00 GMT", 0.0),
        ("Tue, 01 Dec 9999 11:00:00 GMT", LONGEST_PAUSE),
    ],
)
def test_retry_after_is_a_number_or_a_date_and_bounded(value: str | None, pause: float) -> None:
    assert parse_pause(value, NOW) == pause


def test_a_text_of_a_store_is_shown_on_one_line_and_bounded() -> None:
    assert printable("a\n\x1b[31mb\u2028c") == "a \\x1b[31mb c"
    assert len(printable("x" * 10000)) == 500


async def test_the_endpoint_that_answered_last_is_asked_first(loki: tuple[LokiServer, str]) -> None:
    server, url = loki
    sink = LokiSink(LogStoreAccess(("http://127.0.0.1:1", url)))
    for text in "ab":
        assert not await sink.deliver(documents(text))
    assert server.pushes == 2
    server.next = [ANSWERS["starting"]]
    with pytest.raises(LogSinkError, match=r"status 500 at least 1 live.*; http://127.0.0.1:1: "):
        await sink.deliver(documents("c"))
    assert not await sink.deliver(documents("c"))
    await sink.close()


@pytest.mark.parametrize(
    ("credentials", "header", "sent"),
    [
        (LogStoreCredentials(user="me", password_file=Path("secret")), "Authorization", "Basic bWU6czNjcmV0"),
        (LogStoreCredentials(token_file=Path("secret")), "Authorization", "Bearer s3cret"),
        (LogStoreCredentials(api_key_file=Path("secret")), "Authorization", "ApiKey s3cret"),
        (LogStoreCredentials(header_file=Path("headers")), "X-Key", "a b"),
    ],
)
def test_each_kind_of_credentials_is_read_from_its_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, credentials: LogStoreCredentials, header: str, sent: str
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("secret").write_text("s3cret\n")
    Path("headers").write_text("X-Key: a b\nX-Other:c\n")
    assert credentials.headers()[header] == sent


@pytest.mark.parametrize("line", ["no header", "Host: x", "Content-Type: y", "X-A: b\x01s3cret", ": s3cret"])
def test_a_file_of_headers_that_cannot_be_sent_is_refused_without_its_values(tmp_path: Path, line: str) -> None:
    (tmp_path / "headers").write_text(f"X-Fine: 1\n{line}\n")
    with pytest.raises(LogSinkError, match="line 2: it is not a header") as caught:
        LogStoreCredentials(header_file=tmp_path / "headers").headers()
    assert "s3cret" not in str(caught.value)


@pytest.mark.parametrize("content", [b"", b"two\nlines", b"\xff\xfes3cret"])
def test_a_file_that_is_no_secret_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "token").write_bytes(content)
    with pytest.raises(LogSinkError, match="token") as caught:
        LogStoreCredentials(token_file=tmp_path / "token").headers()
    assert "s3cret" not in str(caught.value)
    assert "xfe" not in str(caught.value)


async def _serve_tls(server: OtlpServer, tls: ssl.SSLContext) -> tuple[web.AppRunner, str]:
    application = web.Application()
    application.router.add_post("/v1/logs", server.export)
    runner = web.AppRunner(application)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0, ssl_context=tls).start()
    return runner, f"https://127.0.0.1:{runner.addresses[0][1]}"


async def _openssl(directory: Path, *arguments: str) -> None:
    process = await asyncio.create_subprocess_exec(
        "openssl", *arguments, cwd=directory, stderr=asyncio.subprocess.DEVNULL
    )
    assert await process.wait() == 0


async def _make_certificate(directory: Path, name: str) -> tuple[Path, Path]:
    subject = ("-subj", f"/CN={name}", "-addext", "subjectAltName=IP:127.0.0.1", "-days", "30", "-nodes")
    files = ("-keyout", f"{name}.key", "-out", f"{name}.pem")
    await _openssl(directory, "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", *subject, *files)
    return directory / f"{name}.pem", directory / f"{name}.key"


async def test_certificates_are_verified_and_the_own_one_is_shown(tmp_path: Path) -> None:
    certificate, key = await _make_certificate(tmp_path, "server")
    mine, my_key = await _make_certificate(tmp_path, "client")
    tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    tls.load_cert_chain(certificate, key)
    tls.load_verify_locations(mine)
    tls.verify_mode = ssl.CERT_REQUIRED
    server = OtlpServer()
    runner, url = await _serve_tls(server, tls)

    def sink(access: LogStoreAccess) -> OtlpSink:
        return OtlpSink(access, lambda _count, _reason: None)

    refused: Sequence[LogSink] = [
        sink(LogStoreAccess((url,), certificate=mine, key=my_key)),  # nobody vouches for the server
        sink(LogStoreAccess((url,), ca=certificate)),  # the server asks for a certificate
        sink(LogStoreAccess((url.replace("127.0.0.1", "localhost"),), ca=certificate, certificate=mine, key=my_key)),
    ]
    for each in refused:
        with pytest.raises(LogSinkError):
            await each.deliver(documents("a"))
        await each.close()
    assert server.requests == 0
    good = sink(LogStoreAccess((url,), ca=certificate, certificate=mine, key=my_key))
    assert not await good.deliver(documents("a"))
    assert server.requests == 1
    await good.close()
    await runner.cleanup()


def test_files_of_tls_that_cannot_be_used_are_an_error_at_the_start(tmp_path: Path) -> None:
    (tmp_path / "ca.pem").write_text("no certificate")
    for access in (
        LogStoreAccess(("https://h",), ca=tmp_path / "ca.pem"),
        LogStoreAccess(("https://h",), certificate=tmp_path / "missing.pem"),
    ):
        with pytest.raises(OSError, match=r".+"):
            open_tls(access)


@pytest.mark.parametrize(
    "url",
    [
        "ftp://me:s3cret@h",
        "https://me:s3cret@h:99999",
        "https://s3cret@h",
        "https://h?key=s3cret",
        "gopher://h#s3cret",
        "https://h:bad?s3cret",
    ],
)
@pytest.mark.parametrize("key", ["elasticsearch", "loki", "otlp"])
def test_a_url_that_is_refused_does_not_show_a_secret(key: str, url: str) -> None:
    with pytest.raises(SettingsError) as caught:
        parse_settings(f'[ship]\n{key} = ["{url}"]', {}, hostname="w1", file="vipmesh.toml")
    text = "\n".join(map(str, caught.value.lines))
    assert f"[ship] {key}" in text
    assert "s3cret" not in text


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("", r"\[ship\] elasticsearch, loki, otlp or directory: it says in no place or in several"),
        ('loki = ["http://l"]\notlp = ["http://o"]', "set one of them"),
        ('loki = ["http://l"]\nuser = "me"', r"\[ship\] user: a user and a file"),
        ('loki = ["http://l"]\ntoken_file = "/a"\napi_key_file = "/b"', "only one can be sent"),
        ('loki = ["http://l"]\nkey = "/a"', "it belongs to a certificate"),
        ('otlp = ["http://l"]\nloki_tenant = "a"', "only Loki has tenants"),
        ('otlp = ["http://l"]\nlifecycle = "ilm"', "only Elasticsearch and OpenSearch"),
        ('otlp = ["http://l"]\ntoken_file = "/nowhere/token"', "/nowhere/token cannot be read"),
    ],
)
def test_settings_that_do_not_go_together_are_refused(text: str, told: str) -> None:
    settings = parse_settings(f"[ship]\n{text}", {}, hostname="w1", file="vipmesh.toml")
    with pytest.raises(ShipSettingsError, match=told):
        open_sink(settings, LogCounters())


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ('elasticsearch = ["http://e"]\nlifecycle = "ism"', ElasticsearchSink),
        ('loki = ["http://l"]\nloki_tenant = "a"', LokiSink),
        ('otlp = ["http://o/prefix/"]', OtlpSink),
        ('directory = "{tmp}/out"', JsonLinesSink),
    ],
)
async def test_the_settings_open_their_store(tmp_path: Path, text: str, kind: type[LogSink]) -> None:
    ship = text.replace("{tmp}", str(tmp_path))
    sink = open_sink(parse_settings(f"[ship]\n{ship}", {}, hostname="w1", file="vipmesh.toml"), LogCounters())
    assert type(sink) is kind
    await sink.close()


async def test_rejected_lines_are_counted_and_told(
    otlp: tuple[OtlpServer, str], caplog: pytest.LogCaptureFixture
) -> None:
    server, url = otlp
    counters = LogCounters()
    sink = open_sink(parse_settings(f'[ship]\notlp = ["{url}"]', {}, hostname="w1", file="vipmesh.toml"), counters)
    server.next = [{"status": 200, "body": {"partialSuccess": {"rejectedLogRecords": "2", "errorMessage": "why"}}}]
    await sink.deliver(documents("a", "b", "c"))
    assert "it rejects 2 lines and does not say which, rejected: why" in caplog.text
    assert "vipmesh_ship_rejected_total 2" in render_counters(counters)
    await sink.close()


def test_a_pause_that_a_date_asks_for_ends() -> None:
    later = (NOW + timedelta(seconds=5)).strftime("%a, %d %b %Y %H:%M:%S GMT")
    assert parse_pause(later, NOW) == 5.0
