"""Runs commands inside containers by the engine's exec.

The engine has no timeout for them and cannot end them. So the command runs under a shell, in its own process group,
that first prints its process ID and, when the command is done, ends the processes left in the background. When the time
is over, or the call is cancelled, a second exec kills the group.

A command may contain a password. The command line of a process can be read by every user of the host, its environment
only by its own user and root (proc(5), /proc/pid/cmdline and /proc/pid/environ). So the command is passed in the
environment, from which the shell takes it before it runs it. The command lines of the programs that the command itself
starts cannot be hidden.
"""

import asyncio
import logging
from collections.abc import Mapping, Sequence
from types import MappingProxyType

import aiodocker
import msgspec
from aiodocker.execs import Exec

from mesh.model.codes import Code
from mesh.sources.docker.client import CLIENT_ERRORS, open_client, translate_surprises

log = logging.getLogger("vipmesh")

MAX_OUTPUT_BYTES = 4096
"""Bytes of the output that are kept; the rest is read and dropped."""
MAX_READ_BYTES = 1 << 20
"""Bytes of the output that are read. A command that writes more is killed: it is no check, and would keep the daemon
busy.
"""
_KILLED = 128 + 9
"""The exit status of a process that was killed, as a shell reports it."""
START_TIMEOUT = 10.0
"""Seconds that the engine has to start a command and to report its end. They do not count as the endpoint's time."""

_STDOUT = 1
_MOMENT = 0.02
_SHELL = "/bin/sh"
_VARIABLE = "VIPMESH_PROBE_CMD"
_RUN = (
    _SHELL,
    "-c",
    f"""echo $$; (set -- "${_VARIABLE}"; unset {_VARIABLE}; eval "shift; $1"); \
status=$?; trap "" TERM; kill -TERM "-$$" 2>/dev/null; exit $status""",
    "sh",
)
"""The command runs in a subshell, because it may call `exit`."""
_KILL = (_SHELL, "-c", 'kill -9 "-$1"', "sh")


class _ExecStatus(msgspec.Struct, frozen=True, rename="pascal"):
    """`GET /exec/{id}/json`."""

    exit_code: int | None = None


class DockerExec:
    """Runs commands in the containers of one engine. Endpoint IDs end in the container's ID."""

    def __init__(self, url: str) -> None:
        self._url = url

    async def run(self, endpoint: str, command: str, seconds: float) -> tuple[int, str] | None:
        """Run a command and return its exit status and the beginning of its output.

        Return None if the engine could not run it, because the engine does not answer or the container is not in a
        suitable state. Raises `TimeoutError` if it took longer than `seconds`; what is left of it is killed.
        """
        id = endpoint.rpartition("/")[2]
        try:
            async with open_client(self._url, START_TIMEOUT) as docker:
                return await _run(docker.containers.container(id), _RUN, seconds, {_VARIABLE: command})
        except _CommandTimeoutError as late:
            raise TimeoutError from late
        except CLIENT_ERRORS as error:
            log.debug("command in %s: %s", endpoint, error)
            return None


class _CommandTimeoutError(Exception):
    """The command took too long. Not a `TimeoutError`, which would mean that the engine did."""


async def _run(
    container: aiodocker.containers.DockerContainer,
    command: Sequence[str],
    seconds: float,
    environment: Mapping[str, str] = MappingProxyType({}),
    *,
    may_hang: bool = True,
) -> tuple[int, str] | None:
    async with asyncio.timeout(START_TIMEOUT):
        with translate_surprises():
            process = await container.exec(list(command), environment=dict(environment))
            stream = process.start(detach=False)
            await stream.__aenter__()
    number, output, read = b"", bytearray(), 0
    try:
        async with asyncio.timeout(seconds):
            while (message := await stream.read_out()) is not None:
                data = message.data
                read += len(data)
                if read > MAX_READ_BYTES:
                    break
                if message.stream == _STDOUT and not number.endswith(b"\n"):  # standard error may come before it
                    line, end, data = data.partition(b"\n")
                    number += (line + end)[: MAX_OUTPUT_BYTES - len(number)]
                output += data[: MAX_OUTPUT_BYTES - len(output)]
    except TimeoutError:
        if may_hang:
            await _end(container, number)
        raise _CommandTimeoutError from None
    except asyncio.CancelledError:
        if may_hang:
            await _end(container, number)
        raise
    finally:
        await stream.close()
    if read > MAX_READ_BYTES:
        if may_hang:
            await _end(container, number)
        return _KILLED, f"more than {MAX_READ_BYTES} bytes of output"
    async with asyncio.timeout(START_TIMEOUT):
        status = await _status(process)
    said = output if number.strip().isdigit() else number + output
    return status, bytes(said).decode(errors="replace")


async def _status(process: Exec) -> int:
    """Return the exit status. The engine knows it a moment after the end of the output."""
    while True:
        with translate_surprises():
            shown = await process.inspect()
        status = msgspec.convert(shown, _ExecStatus).exit_code
        if status is not None:
            return status
        await asyncio.sleep(_MOMENT)


async def _end(container: aiodocker.containers.DockerContainer, line: bytes) -> None:
    """Kill the process group of a command. `line` contains the group's ID."""
    number = line.strip().decode(errors="replace")
    if not number.isdecimal():
        log.warning(
            "a probe command in container %s did not start within its timeout and cannot be ended",
            container.id[:12],
            extra=Code.PROBE_COMMAND_STUCK.extra,
        )
        return
    try:
        await _run(container, (*_KILL, number), START_TIMEOUT, may_hang=False)
    except (*CLIENT_ERRORS, _CommandTimeoutError) as error:
        log.warning(
            "a probe command in container %s could not be ended: %s",
            container.id[:12],
            error,
            extra=Code.PROBE_COMMAND_STUCK.extra,
        )
