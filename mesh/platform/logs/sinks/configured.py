"""Opens the store of logs that the settings name, and refuses settings that do not go together."""

import logging
from collections.abc import Iterator

from mesh.config.settings import LogLifecycle, Settings
from mesh.model.codes import Code
from mesh.model.errors import MeshError
from mesh.platform.logs.counters import LogCounters
from mesh.platform.logs.sinks import LogSink, LogSinkError
from mesh.platform.logs.sinks.credentials import LogStoreCredentials
from mesh.platform.logs.sinks.elasticsearch import ElasticsearchSink
from mesh.platform.logs.sinks.http_client import LogStoreAccess
from mesh.platform.logs.sinks.json_lines import JsonLinesSink
from mesh.platform.logs.sinks.loki import LokiSink
from mesh.platform.logs.sinks.otlp import OtlpSink

log = logging.getLogger("vipmesh")

_SINKS = "elasticsearch, loki, otlp or directory"


class ShipSettingsError(MeshError):
    """The process cannot start with these settings."""

    def __init__(self, message: str) -> None:
        super().__init__(Code.LOG_SHIP_SETTINGS, message)


def open_sink(settings: Settings, counters: LogCounters) -> LogSink:
    """Return the store of logs that the settings name. Raises `ShipSettingsError` and `OSError`."""
    for problem in sink_problems(settings):
        raise ShipSettingsError(f"[ship] {problem}")
    if settings.ship_directory is not None:
        return JsonLinesSink(settings.ship_directory)
    access = _access(settings)
    if settings.ship_elasticsearch:
        return ElasticsearchSink(access, settings.ship_index, settings.ship_lifecycle)
    if settings.ship_loki:
        return LokiSink(access, settings.ship_loki_tenant)

    def count(rejected: int, reason: str) -> None:
        counters.rejected += rejected
        log.error(
            "store of logs: it rejects %d lines and does not say which, %s; look at its own log",
            rejected,
            reason,
            extra=Code.LOG_LINES_REJECTED.extra,
        )

    return OtlpSink(access, count)


def sink_problems(settings: Settings) -> Iterator[str]:
    """Return what is wrong with the settings of the store, each as `key: reason; remedy`. Pure."""
    named = [bool(settings.ship_elasticsearch), bool(settings.ship_loki), bool(settings.ship_otlp)]
    if sum([*named, settings.ship_directory is not None]) != 1:
        yield f"{_SINKS}: it says in no place or in several where lines go; set one of them"
    if (settings.ship_user is None) != (settings.ship_password_file is None):
        yield "user: a user and a file with the password belong together; set both or none"
    files = (settings.ship_password_file, settings.ship_token_file, settings.ship_api_key_file)
    if sum(file is not None for file in files) > 1:
        yield "password_file, token_file and api_key_file: only one can be sent; set one of them"
    if settings.ship_key is not None and settings.ship_certificate is None:
        yield "key: it belongs to a certificate; set certificate, too"
    if settings.ship_loki_tenant is not None and not settings.ship_loki:
        yield "loki_tenant: only Loki has tenants; set loki, or leave it out"
    if settings.ship_lifecycle is not LogLifecycle.OFF and not settings.ship_elasticsearch:
        yield "lifecycle: only Elasticsearch and OpenSearch have one; set it to off, and let the store delete by itself"


def _access(settings: Settings) -> LogStoreAccess:
    credentials = LogStoreCredentials(
        settings.ship_user,
        settings.ship_password_file,
        settings.ship_token_file,
        settings.ship_api_key_file,
        settings.ship_header_file,
    )
    try:
        credentials.headers()
    except LogSinkError as error:
        raise ShipSettingsError(f"[ship]: {error}") from error
    return LogStoreAccess(
        settings.ship_elasticsearch or settings.ship_loki or settings.ship_otlp,
        credentials,
        settings.ship_ca,
        settings.ship_certificate,
        settings.ship_key,
    )
