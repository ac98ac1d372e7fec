"""Daemons in network namespaces, forked from one process that has imported the program already.

An import takes longer than all the rest of a start, most of all in a virtual machine that emulates its processor. What
runs is `vipmesh run` in a process of its own.

Run as a program, this module reads one line for each daemon, `NAMESPACE CONFIG LOG` with tabs between, and answers with
its PID. It ends with its input.
"""

import ctypes
import os
import select
import signal
import subprocess
import sys
from importlib import import_module
from pathlib import Path
from typing import NoReturn

from mesh.cli.main import main

_CLONE_NEWNET = 0x40000000  # linux/sched.h
_PR_SET_PDEATHSIG = 1  # linux/prctl.h


class ForkedDaemon:
    """A daemon that runs until it is ended."""

    def __init__(self, pid: int, log: Path) -> None:
        self._pid_fd = os.pidfd_open(pid)
        self._log = log

    def output(self) -> str:
        """Everything that it has logged."""
        return self._log.read_text()

    def end(self) -> None:
        """End it with SIGTERM, with SIGKILL after 30 s; returns when it has ended."""
        try:
            for number in (signal.SIGTERM, signal.SIGKILL):
                signal.pidfd_send_signal(self._pid_fd, number)
                if select.select([self._pid_fd], [], [], 30)[0]:
                    break
        except ProcessLookupError:
            pass  # it has ended by itself
        finally:
            os.close(self._pid_fd)


class DaemonStarter:
    """The process that daemons are forked from."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.system.hosts.daemons"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            bufsize=1,
        )

    def start(self, namespace: str, config: Path) -> ForkedDaemon:
        """Start a daemon in the network namespace of a path; its log is beside its settings."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        log = config.with_suffix(".log")
        self._process.stdin.write(f"{namespace}\t{config}\t{log}\n")
        return ForkedDaemon(int(self._process.stdout.readline()), log)

    def close(self) -> None:
        """End the process, and daemons that still run."""
        self._process.communicate()


def _serve() -> None:
    import_module("mesh.cli.run")
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody waits for the daemons
    for line in sys.stdin:
        namespace, config, log = line.rstrip("\n").split("\t")
        pid = os.fork()
        if pid == 0:
            _run(namespace, config, log)
        sys.stdout.write(f"{pid}\n")
        sys.stdout.flush()


def _run(namespace: str, config: str, log: str) -> NoReturn:
    """Become a daemon, which ends with the process that it was forked from."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    libc = ctypes.CDLL(None, use_errno=True)
    libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    file = os.open(namespace, os.O_RDONLY)
    if libc.setns(file, _CLONE_NEWNET):
        raise OSError(ctypes.get_errno(), f"setns {namespace}")
    os.close(file)
    null, written = os.open(os.devnull, os.O_RDWR), os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    for number, target in enumerate((null, written, written)):
        os.dup2(target, number)
    status = 1
    try:
        status = main(["run", "-c", config])
    finally:
        os._exit(status)


if __name__ == "__main__":
    _serve()
