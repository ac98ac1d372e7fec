"""`vipmesh test`: sends real packets to VIPs and published ports, and says where they are lost.

It asks the running daemon what there is, and sends by itself: as root it may enter the networks of containers, which
the daemon may not.
"""

import argparse
import asyncio
import time
from collections.abc import Sequence
from dataclasses import replace
from urllib.parse import quote

import msgspec

from mesh.api.connectivity.plan import ConnectivityPlan, PeerAddress
from mesh.api.connectivity.report import (
    ConnectivityReport,
    ConnectivityRow,
    UntestedClient,
    make_report,
    render_report,
)
from mesh.cli.client import AdminClient, DaemonUnreachableError
from mesh.cli.output import print_json, report_failure
from mesh.cli.settings import load_settings
from mesh.config.settings import Settings
from mesh.config.values import parse_socket_address
from mesh.daemon.connectivity import run_connectivity_test
from mesh.daemon.loss_finder import NFT_TOOLS
from mesh.daemon.request_clients import find_clients
from mesh.host.rlimits import raise_file_limit
from mesh.model.codes import Code
from mesh.model.errors import CodedText, MeshError

_PEER_PATIENCE = 60.0
"""Seconds that another worker has for its part of the test."""
_AGAIN = 0.5
"""Seconds between two tests with `--wait`."""


class NothingToTestError(MeshError):
    """There is no service to test. The text ends with the remedy."""


def test(options: argparse.Namespace) -> int:
    """Run `vipmesh test`. Exit status 1 if a request did not come back, or if no daemon answers.

    With `--wait` it tests again until every request comes back, or the time is over.
    """
    raise_file_limit()
    deadline = time.monotonic() + (options.wait or 0)
    while True:
        outcome = _test_once(options)
        works = isinstance(outcome, ConnectivityReport) and outcome.works
        if works or time.monotonic() >= deadline:
            break
        time.sleep(_AGAIN)
    if not isinstance(outcome, ConnectivityReport):
        return report_failure(options, outcome)
    if options.json:
        print_json(outcome)
    else:
        print(render_report(outcome))
    return 0 if works else 1


def _test_once(options: argparse.Namespace) -> ConnectivityReport | Sequence[CodedText]:
    """Return the report of one test, or why there is none."""
    try:
        plan = _read_plan(AdminClient(options), options.name)
    except (DaemonUnreachableError, NothingToTestError) as error:
        return error.lines
    return asyncio.run(_run(options, plan))


def _read_plan(daemon: AdminClient, name: str | None) -> ConnectivityPlan:
    """Return the daemon's plan. Raises `DaemonUnreachableError` and `NothingToTestError`."""
    path = "/v1/test" if name is None else f"/v1/test?of={quote(name, safe='')}"
    try:
        plan = msgspec.json.decode(daemon.ask(path).body, type=ConnectivityPlan)
    except msgspec.MsgspecError as error:
        text = f"the daemon on {daemon.listen} answers with another document ({error}); upgrade it"
        raise DaemonUnreachableError(Code.DAEMON_UNREACHABLE, text) from error
    if plan.targets:
        return plan
    what = "there are no services to test" if name is None else f"there is no service {name} to test"
    raise NothingToTestError(Code.NOTHING_TO_TEST, f"{what}; `vipmesh status` lists the services")


async def _run(options: argparse.Namespace, plan: ConnectivityPlan) -> ConnectivityReport:
    """Send from this host and its networks, and let the other workers send at the same time."""
    began = time.monotonic()
    clients, untested = await find_clients(plan)
    own, *others = await asyncio.gather(
        run_connectivity_test(plan, clients, untested, NFT_TOOLS),
        *(asyncio.to_thread(_ask_worker, options, peer) for peer in plan.workers),
    )
    rows = [*own.rows, *(row for found in others for row in found.rows)]
    missed = [*own.untested, *(client for found in others for client in found.untested)]
    return make_report(plan.worker, rows, missed, time.monotonic() - began, own.untraced)


def _ask_worker(options: argparse.Namespace, peer: PeerAddress) -> ConnectivityReport:
    """Return the report of another worker, with its name in each client; or one that says why it was not asked."""
    client = f"worker {peer.worker}"
    address = _admin_address(load_settings(options.config), peer)
    if isinstance(address, UntestedClient):
        return make_report(peer.worker, (), (address,), 0.0)
    given = {} if options.name is None else {"name": options.name}
    try:
        daemon = AdminClient(argparse.Namespace(**{**vars(options), "admin": address}))
        body = daemon.ask("/v1/test", given=given, timeout=_PEER_PATIENCE).body
        report = msgspec.json.decode(body, type=ConnectivityReport)
    except (DaemonUnreachableError, msgspec.MsgspecError) as error:
        missed = UntestedClient(client, f"not asked: {error}", f"run `vipmesh test` on {peer.worker}")
        return make_report(peer.worker, (), (missed,), 0.0)
    return replace(
        report,
        rows=tuple(_named(row, client) for row in report.rows),
        untested=tuple(replace(missed, client=f"{client}, {missed.client}") for missed in report.untested),
    )


def _named(row: ConnectivityRow, worker: str) -> ConnectivityRow:
    return replace(row, client=worker if row.client == "host" else f"{worker}, {row.client}")


def _admin_address(settings: Settings, peer: PeerAddress) -> str | UntestedClient:
    """Return where the admin API of another worker is: at this worker's own port of it; or why that is not known."""
    client, remedy = f"worker {peer.worker}", f"run `vipmesh test` on {peer.worker}"
    own = settings.admin_tcp or ("" if settings.admin_listen.startswith("unix:") else settings.admin_listen)
    if not own:
        return UntestedClient(client, "not asked: [admin] tcp is not set, so workers do not answer each other", remedy)
    if peer.address is None:
        return UntestedClient(client, "not asked: its address is not known, since it does not listen for peers", remedy)
    port = parse_socket_address(own)[1]
    return f"[{peer.address}]:{port}" if ":" in peer.address else f"{peer.address}:{port}"
