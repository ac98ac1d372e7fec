"""What the verbs of stacks work with: the engine of this host, and the daemon that knows what serves."""

import argparse
import asyncio
import getpass
import os
import socket
import sys
import time
from collections.abc import Awaitable, Callable, Mapping
from typing import TYPE_CHECKING, Any, TypeVar

from mesh.cli.client import AdminClient
from mesh.cli.output import report_failure
from mesh.cli.settings import load_settings
from mesh.cli.status_document import decode_status
from mesh.config.settings import Settings
from mesh.model.codes import Code
from mesh.model.errors import CodedText, MeshError
from mesh.platform.fleet.errors import FleetNoQuorumError, FleetUnavailableError
from mesh.platform.fleet.protocol import Fleet, FleetState
from mesh.platform.fleet.refusals import first_sentence, has_no_leader
from mesh.platform.stacks.errors import StackRequestError
from mesh.platform.stacks.running import EndpointAnswer

if TYPE_CHECKING:
    from mesh.cli.remote_stacks import RemoteStacks
    from mesh.platform.stacks.applier import StackApplier

DEFAULT_ENGINE = "unix:///var/run/docker.sock"
"""The engine that is asked if `[source.docker] socket` is not set."""
DEFAULT_WAIT = 60.0
"""Seconds without progress after which a deploy gives up."""
_STATUS_TIMEOUT = 10.0
"""Seconds that the daemon has for its status: a worker that starts containers is busy."""
_INTERRUPTED = 130
"""The exit status of what SIGINT has ended: 128 and its number."""

T = TypeVar("T")
__all__ = ["StackRequestError"]


class AdminReadiness:
    """Asks the daemon that the options name for its status."""

    def __init__(self, options: argparse.Namespace) -> None:
        self._options = options

    async def answers(self) -> Mapping[str, EndpointAnswer]:
        """Return what is known of each endpoint, by the id of its task. Raises `MeshError`."""
        client = AdminClient(self._options)
        body = (await asyncio.to_thread(client.ask, "/v1/status", timeout=_STATUS_TIMEOUT)).body
        try:
            status = decode_status(body)
        except ValueError as error:
            raise MeshError(Code.DAEMON_UNREACHABLE, f"the answer of {client.listen} is no status: {error}") from error
        # Swarm names the container of a task SERVICE.SLOT.TASK.
        return {
            endpoint.name.rpartition(".")[2]: EndpointAnswer(
                endpoint.serving, endpoint.health, endpoint.last_probe or ""
            )
            for service in status.services
            for endpoint in service.endpoints
            if endpoint.name
        }


def run_stack_verb(options: argparse.Namespace, work: Callable[[Settings, Fleet], Awaitable[int]]) -> int:
    """Run a verb with the settings and the engine; report its errors. Exit status 130 if it is interrupted."""
    settings = load_settings(options.config)

    async def run() -> int:
        from mesh.platform.fleet.swarm import SwarmFleet

        return await work(settings, SwarmFleet(settings.source_docker_socket or DEFAULT_ENGINE))

    try:
        return asyncio.run(run())
    except MeshError as error:
        return report_failure(options, error.lines)
    except KeyboardInterrupt:
        text = "interrupted: what was done stays, and the same command goes on from there"
        report_failure(options, [CodedText(text, Code.STACK_INTERRUPTED)])
        return _INTERRUPTED


async def require_manager(fleet: Fleet) -> FleetState:
    """Return what the engine is to the fleet. Raises `MeshError` with the line to type if it cannot be asked."""
    state = await fleet.state()
    if not state.is_active:
        raise no_swarm(state)
    if not state.can_act and has_no_leader(state.reason):
        raise FleetNoQuorumError(first_sentence(state.reason))
    if not state.can_act:
        raise FleetUnavailableError(f"the engine cannot be asked for services: {state.reason}; ask a manager")
    return state


async def elsewhere(options: argparse.Namespace, refused: MeshError, ask: Callable[["RemoteStacks"], T]) -> T:
    """Return what daemons answer where the engine of this host has refused.

    Raises `MeshError`: `refused` if no daemon answers, or if no engine of the cluster is part of a swarm.
    """
    from mesh.cli.client import DaemonUnreachableError
    from mesh.cli.remote_stacks import RemoteStacks

    remote = RemoteStacks(options)
    try:
        return await asyncio.to_thread(ask, remote)
    except DaemonUnreachableError as error:
        raise refused from error
    except StackRequestError as error:
        # Without a leader, this engine knows more of why than those that are no manager.
        if error.code is Code.STACK_NO_MANAGER and refused.code in (Code.STACK_NO_SWARM, Code.FLEET_NO_QUORUM):
            raise refused from error
        raise


def no_swarm(state: FleetState) -> MeshError:
    """Return what to do about an engine that is part of no swarm."""
    if state.live_restore:
        return StackRequestError(
            Code.STACK_NO_SWARM,
            "the engine is part of no swarm and has live-restore set, with which no swarm starts; "
            "remove it from /etc/docker/daemon.json",
        )
    return StackRequestError(
        Code.STACK_NO_SWARM,
        "the engine is part of no swarm; make one of this engine alone with `vipmesh deploy --init FILE`, which types "
        "`docker swarm init --advertise-addr 127.0.0.1 --listen-addr 127.0.0.1:2377`",
    )


def told_lines(options: argparse.Namespace) -> Callable[[str], None]:
    """Return what prints each step, unless JSON is asked for."""

    def tell(line: str) -> None:
        from mesh.cli.output import printable

        print(printable(line), flush=True)

    return (lambda _: None) if options.json else tell


def stack_applier(fleet: Fleet, options: argparse.Namespace) -> "StackApplier":
    """Return what does the steps, and prints each unless JSON is asked for."""
    # What only lists does no steps: these imports take as long as all others of it.
    from mesh.platform.stacks.applier import DeployAuthor, StackApplier

    wait = DEFAULT_WAIT if options.wait is None else options.wait
    began = time.time()  # what one command deploys is one deploy
    author = DeployAuthor(_author(), lambda: began)
    return StackApplier(fleet, AdminReadiness(options), author, wait=wait, tell=told_lines(options))


def _author() -> str:
    """Return who types the command; behind sudo, who typed that."""
    try:
        user = os.environ.get("SUDO_USER") or getpass.getuser()
    except (OSError, KeyError):
        user = str(os.getuid())
    return f"{user}@{socket.gethostname()}"


def print_failures(failures: tuple[Any, ...]) -> None:
    """Print what did not become ready, and why, to standard error."""
    from mesh.cli.output import complain

    sys.stdout.flush()
    for failure in failures:
        complain(str(failure), str(Code.STACK_NOT_READY))
