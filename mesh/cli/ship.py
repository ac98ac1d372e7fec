"""`vipmesh ship`: collects the logs of this worker's containers, in a process of its own."""

import argparse
import sys

import uvloop

from mesh.cli.output import report_failure
from mesh.cli.settings import load_settings
from mesh.model.errors import leaf_exceptions
from mesh.platform.logs.process import run_ship
from mesh.platform.logs.sinks.configured import ShipSettingsError
from mesh.store import StoreError
from mesh.util.logging.handler import log_to, shape_log


def ship(options: argparse.Namespace) -> int:
    """Run `vipmesh ship` until it is stopped. Exit status 1 if it cannot start."""
    log_to(sys.stderr.fileno(), verbose=options.verbose)
    settings = load_settings(options.config)
    shape_log(settings.log_format, [])
    status = 0
    try:
        uvloop.run(run_ship(settings))
    except* (ShipSettingsError, StoreError) as group:
        status = report_failure(options, (line for error in leaf_exceptions(group) for line in error.lines))
    return status
