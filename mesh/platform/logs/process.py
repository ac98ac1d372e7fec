"""The process of `vipmesh ship`: makes its parts from the settings, and runs them until it is told to stop."""

import asyncio
import logging
import os
import signal
from pathlib import Path

from mesh.config.settings import Settings
from mesh.host.rlimits import raise_file_limit
from mesh.model.codes import Code
from mesh.model.errors import MeshError
from mesh.model.part import DaemonPart
from mesh.platform.logs.container_logs import ContainerLogs
from mesh.platform.logs.counters import LogCounters, render_counters
from mesh.platform.logs.file_positions import LogFilePositions
from mesh.platform.logs.json_file import LogPosition
from mesh.platform.logs.positions import DamagedPositionsError, PositionFile
from mesh.platform.logs.refused_documents import RefusedDocumentFile
from mesh.platform.logs.shipper import LogShipper, ShipperFiles
from mesh.platform.logs.sinks import LogSink, LogSinkError
from mesh.platform.logs.sinks.elasticsearch import ElasticsearchSink, ElasticsearchTarget, read_secret
from mesh.platform.logs.sinks.json_lines import JsonLinesSink
from mesh.sources.docker.identity import LabelRules, label_constraint
from mesh.store.file_lock import acquire_lock
from mesh.util.bulkhead import Bulkhead, contain_event_loop

log = logging.getLogger("vipmesh")
bulkhead = Bulkhead(DaemonPart.LOGS)

METRICS_INTERVAL = 5.0
"""Seconds between two versions of the file of metrics."""


class ShipSettingsError(MeshError):
    """The process cannot start with these settings."""

    def __init__(self, message: str) -> None:
        super().__init__(Code.LOG_SHIP_SETTINGS, message)


async def run_ship(settings: Settings) -> None:
    """Collect logs until SIGTERM or SIGINT. Raises `ShipSettingsError`, and `StoreError` if another process does so."""
    stopped = asyncio.Event()
    loop = asyncio.get_running_loop()
    contain_event_loop(loop)
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopped.set)
    url = settings.source_docker_socket
    if url is None:
        raise ShipSettingsError("[source.docker] socket: logs are those of its containers; set it")
    state = settings.ship_state
    try:
        lock = acquire_lock(state / "positions.json", "stop it, or set another [ship] state")
        sink = open_sink(settings)
        counters = LogCounters()
        saved = PositionFile(state / "positions.json")
        positions = _load_positions(saved)
    except OSError as error:  # an `ssl.SSLError` of a file of authorities, too
        raise ShipSettingsError(f"[ship]: {error}; name a file or directory that can be used") from error
    raise_file_limit()
    files = ShipperFiles(saved, RefusedDocumentFile(state / "refused.jsonl"), LogFilePositions(saved.files))
    shipper = LogShipper(sink, files, positions, counters)
    required = tuple(map(label_constraint, settings.source_docker_require))
    rules = LabelRules(settings.source_docker_image_labels, required)
    engine = ContainerLogs(url, rules, settings.node_name, shipper.update)
    metrics = MetricsFile(state / "metrics.prom", counters)
    log.info("collecting logs of %s", url)
    try:
        async with asyncio.TaskGroup() as group:
            parts = [
                group.create_task(bulkhead.keep_running("containers", engine.run), name="containers"),
                group.create_task(bulkhead.keep_running("rotation", shipper.keep_following), name="rotation"),
                group.create_task(bulkhead.keep_running("delivery", shipper.run), name="delivery"),
                group.create_task(bulkhead.keep_running("metrics", metrics.keep_writing), name="metrics"),
            ]
            await stopped.wait()
            for part in parts:
                part.cancel()
    finally:
        shipper.close()
        await sink.close()
        os.close(lock)


def open_sink(settings: Settings) -> LogSink:
    """Return the store of logs that the settings name. Raises `ShipSettingsError` and `OSError`."""
    if bool(settings.ship_elasticsearch) == (settings.ship_directory is not None):
        raise ShipSettingsError("[ship]: it says in no place or in two where lines go; set elasticsearch or directory")
    if settings.ship_directory is not None:
        return JsonLinesSink(settings.ship_directory)
    if (settings.ship_user is None) != (settings.ship_password_file is None):
        raise ShipSettingsError("[ship] user: a user and a file with the password belong together; set both or none")
    try:
        for file in (settings.ship_password_file, settings.ship_api_key_file):
            if file is not None:
                read_secret(file)
    except LogSinkError as error:
        raise ShipSettingsError(f"[ship]: {error}") from error
    return ElasticsearchSink(
        ElasticsearchTarget(
            settings.ship_elasticsearch,
            settings.ship_index,
            settings.ship_user,
            settings.ship_password_file,
            settings.ship_api_key_file,
            settings.ship_ca,
        )
    )


class MetricsFile:
    """Writes the counters into a file again and again, for the textfile collector of node_exporter."""

    def __init__(self, path: Path, counters: LogCounters) -> None:
        self._path = path
        self._counters = counters

    async def keep_writing(self) -> None:
        """Write until the task is cancelled. A full disk is no reason to stop."""
        while True:
            try:
                self.write()
            except OSError as error:
                log.debug("the metrics cannot be written: %s", error)
            await asyncio.sleep(METRICS_INTERVAL)

    def write(self) -> None:
        """Replace the file. Raises `OSError`."""
        beside = self._path.with_name(f"{self._path.name}.new")
        beside.write_text(render_counters(self._counters))
        beside.replace(self._path)


def _load_positions(file: PositionFile) -> dict[str, LogPosition]:
    try:
        return file.load()
    except DamagedPositionsError as error:
        log.error(
            "[ship] state: positions.json is damaged and was set aside, so every log is read from its beginning: %s; "
            "documents that Elasticsearch has are not stored twice",
            error,
            extra=Code.LOG_POSITIONS.extra,
        )
        return {}
