"""Ends the handling of one packet, connection or timer at an unexpected exception, and nothing else.

The name server stands alone. What is caught goes to one function, which the program that runs it may set with
`report_to`; without it, it is logged. `CancelledError`, `SystemExit` and `KeyboardInterrupt` are not errors, and pass.
"""

import asyncio
import logging
from collections.abc import Callable, Coroutine
from types import TracebackType
from typing import Any, ParamSpec, TypeAlias

from meshdns.log_codes import LogCode

P = ParamSpec("P")

log = logging.getLogger("vipmesh")

FailureReport: TypeAlias = Callable[[str, Exception], None]
"""Called with what was handled, in a few words, and the exception; possibly in the name server's thread."""


def log_failure(subject: str, error: Exception) -> None:
    """Log an exception with its traceback: what is done unless `report_to` says otherwise."""
    log.error("dns: %s: %r", subject, error, exc_info=error, extra=LogCode.INTERNAL_ERROR.extra)


_report: list[FailureReport] = [log_failure]
"""The function that is called; there is always one."""


def report_to(report: FailureReport) -> None:
    """Call this function for every exception that is caught from now on, in all name servers of the process."""
    _report[0] = report


class QueryContainment:
    """A context that ends its body at an exception: `with contain("a query"): ...`."""

    __slots__ = ("_subject", "failed")

    def __init__(self, subject: str) -> None:
        self._subject = subject
        self.failed = False
        """Whether the body has raised an exception."""

    def __enter__(self) -> "QueryContainment":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool:
        if not isinstance(error, Exception):
            return False
        self.failed = True
        caught(self._subject, error)
        return True


def report_from_event_loop(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    """Report what raised in a callback without a bulkhead: the handler of `loop.set_exception_handler`."""
    error = context.get("exception")
    # A lack of descriptors comes in this way, too, and is no error of the program.
    if isinstance(error, Exception) and not isinstance(error, OSError):
        caught(str(context.get("message", "a callback")), error)
    else:
        loop.default_exception_handler(context)


def caught(subject: str, error: Exception) -> None:
    """Report an exception that the caller has caught itself."""
    _report[0](subject, error)


def contain(subject: str) -> QueryContainment:
    """Return a context that ends its body at an exception, and nothing else."""
    return QueryContainment(subject)


def callback(function: Callable[P, object], subject: str) -> Callable[P, None]:
    """Return a function for callbacks of the event loop, which calls `function` and ends alone if that raises."""

    def contained(*args: P.args, **kwargs: P.kwargs) -> None:
        with QueryContainment(subject):
            function(*args, **kwargs)

    return contained


async def run(subject: str, work: Callable[[], Coroutine[Any, Any, None]]) -> None:
    """Await `work()`, which ends alone if it raises. It is not begun if the task is cancelled before."""
    with QueryContainment(subject):
        await work()
