"""`vipmesh run`, `demo` and `teardown`: the verbs that do their work in this process and log it."""

import argparse
import logging
import os
import sys
from collections.abc import Coroutine
from typing import Any

import uvloop

from mesh.api.http.server import AdminApiError
from mesh.cli import demo as demonstration
from mesh.cli.documents import TeardownDocument
from mesh.cli.output import print_json, printable, report_failure
from mesh.cli.settings import load_settings
from mesh.config.settings import Settings
from mesh.daemon.cleanup import teardown as take_away
from mesh.daemon.service import DaemonService
from mesh.daemon.wiring import StartError
from mesh.dataplane import DataPlaneError
from mesh.model.errors import CodedText, leaf_exceptions
from mesh.store import StoreError
from mesh.util.logging.handler import log_to, shape_log


def run(options: argparse.Namespace) -> int:
    """Run `vipmesh run`: the daemon, until it is stopped. Exit status 1 if it cannot start."""
    log_to(sys.stderr.fileno(), verbose=options.verbose)

    def read() -> Settings:
        known = load_settings(options.config)
        shape_log(known.log_format, [known.store_password] if known.store_password else [])
        return known

    async def work() -> None:
        await DaemonService(read, dict(os.environ)).run()

    return _until_done(options, work())


def demo(options: argparse.Namespace) -> int:
    """Run `vipmesh demo`. The demo prints to standard output; of the daemon's log it shows errors only."""
    log_to(sys.stderr.fileno(), verbose=options.verbose)
    if not options.verbose:
        logging.getLogger().setLevel(logging.ERROR)
    return _until_done(options, demonstration.run_demo(options.file, os.environ))


def teardown(options: argparse.Namespace) -> int:
    """Run `vipmesh teardown`. Exit status 1 if something could not be removed, or if a daemon runs."""
    log_to(sys.stderr.fileno(), verbose=options.verbose)
    known = load_settings(options.config)
    done: list[TeardownDocument] = []
    refused: list[CodedText] = []

    async def work() -> None:
        removed, failures = await take_away(known)
        refused.extend(failures)
        done.append(TeardownDocument(tuple(removed), tuple(map(str, failures)), known.store_url))

    status = _until_done(options, work())
    for found in done:
        if options.json:
            print_json(found)
        else:
            print(
                *map(printable, found.removed), f"{len(found.removed)} removed; claims stay in {found.claims}", sep="\n"
            )
            report_failure(options, refused)
        status = 1 if found.failed else status
    return status


def _until_done(options: argparse.Namespace, work: Coroutine[Any, Any, None]) -> int:
    """Run the work to its end, report its errors, and return the exit status."""
    status = 0
    try:
        uvloop.run(work)
    except* (StartError, DataPlaneError, StoreError, AdminApiError) as group:
        status = report_failure(options, (line for error in leaf_exceptions(group) for line in error.lines))
    return status
