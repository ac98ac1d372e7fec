"""The process of `vipmesh ship`: makes its parts from the settings, and runs them until it is told to stop."""

import asyncio
import logging
import os
import signal
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from pathlib import Path

from mesh.config.settings import Settings
from mesh.host.rlimits import raise_file_limit
from mesh.model.codes import Code
from mesh.model.part import DaemonPart
from mesh.platform.logs.container_logs import ContainerLogs
from mesh.platform.logs.counters import LogCounters, render_counters
from mesh.platform.logs.file_positions import LogFilePositions
from mesh.platform.logs.file_watch import KernelFileWatch
from mesh.platform.logs.json_file import LogPosition
from mesh.platform.logs.positions import DamagedPositionsError, PositionFile
from mesh.platform.logs.reading.reader import ServiceLogReader
from mesh.platform.logs.refused_documents import RefusedDocumentFile
from mesh.platform.logs.ship_server import ShipServer
from mesh.platform.logs.shipper import LogShipper, ShipperFiles
from mesh.platform.logs.sinks.configured import ShipSettingsError, open_sink
from mesh.platform.logs.targets import LogTarget
from mesh.sources.docker.identity import LabelRules, label_constraint
from mesh.store.file_lock import acquire_lock
from mesh.util.bulkhead import Bulkhead, contain_event_loop
from mesh.util.offload import shorten_thread_switches

log = logging.getLogger("vipmesh")
bulkhead = Bulkhead(DaemonPart.LOGS)

METRICS_INTERVAL = 5.0
"""Seconds between two versions of the file of metrics."""


async def run_ship(settings: Settings) -> None:
    """Collect logs until SIGTERM or SIGINT. Raises `ShipSettingsError`, and `StoreError` if another process does so."""
    shorten_thread_switches()  # the threads that read for people let those that ship go on
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
        counters = LogCounters()
        sink = open_sink(settings, counters)
        saved = PositionFile(state / "positions.json")
        positions = _load_positions(saved)
    except OSError as error:  # an `ssl.SSLError` of a file of authorities, too
        raise ShipSettingsError(f"[ship]: {error}; name a file or directory that can be used") from error
    raise_file_limit()
    files = ShipperFiles(saved, RefusedDocumentFile(state / "refused.jsonl"), LogFilePositions(saved.files))
    watch = KernelFileWatch()
    shipper = LogShipper(sink, files, positions, counters, watch=watch)
    required = tuple(map(label_constraint, settings.source_docker_require))
    rules = LabelRules(settings.source_docker_image_labels, required)
    reader = ServiceLogReader(settings.node_name)

    def take(targets: Sequence[LogTarget]) -> None:
        reader.update(targets)
        shipper.update(targets)

    engine = ContainerLogs(url, rules, settings.node_name, take)
    metrics = MetricsFile(state / "metrics.prom", counters)
    server = ShipServer(reader, lambda: shipper.state(engine.waits()), lambda: render_counters(counters))
    await _listen(server, settings)
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
        await server.close()
        reader.close()
        shipper.close()
        watch.close()
        await sink.close()
        os.close(lock)


async def _listen(server: ShipServer, settings: Settings) -> None:
    """Listen on the socket, and for scrapes. Lines are collected also if that fails."""
    group = settings.ship_socket_group
    listens: list[tuple[str, Callable[[], Awaitable[None]]]] = [
        (str(settings.ship_socket), partial(server.listen, settings.ship_socket, group))
    ]
    if settings.ship_metrics is not None:
        listens.append((settings.ship_metrics, partial(server.listen_for_scrapes, settings.ship_metrics)))
    for where, listen in listens:
        try:
            await listen()
        except OSError as error:
            log.error(
                "[ship]: it cannot listen on %s: %s; name a path or an address that it may use",
                where,
                error.strerror or error,
                extra=Code.SHIP_SOCKET.extra,
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
