"""Bulkheads: an unexpected exception in one check, connection, record, event or request ends that one thing alone.

Every handler of input runs in the bulkhead of its part. What raises there is counted, logged with its traceback once,
and reported as a problem while it lasts. A part that ends all the same is started again with back-off, and the daemon
is degraded, not dead. `CancelledError`, `SystemExit` and `KeyboardInterrupt` are not errors, and pass.
"""

import asyncio
import logging
import random
import threading
import time
from collections import Counter, OrderedDict
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from functools import wraps
from types import TracebackType
from typing import Any, ParamSpec, TypeVar

from mesh.model.codes import Code
from mesh.model.errors import leaf_exceptions
from mesh.model.part import DaemonPart
from mesh.model.problem import Problem, Severity
from mesh.util.backoff import Backoff
from mesh.util.logging.rate_limit import LogRateLimit

P = ParamSpec("P")
T = TypeVar("T")

log = logging.getLogger("vipmesh")

FIRST_PAUSE, LONGEST_PAUSE = 0.1, 30.0
"""Seconds before a part that ended is started again, doubled from the first to the longest."""
STABLE = 60.0
"""Seconds after which a part that was started again counts as well: its next pause is the first one again."""
LASTS = 300.0
"""Seconds for which an error is a problem unless the same thing succeeds before."""
TRACEBACK_INTERVAL = 600.0
"""Seconds between two tracebacks of one kind of error."""
MAX_PROBLEMS = 32
"""The most problems that are kept; beyond it the oldest one is forgotten, and the counter has it all the same."""
_SHOWN = 200
"""The most characters of an error in a problem."""


@dataclass(frozen=True, slots=True)
class InternalError:
    """The last error of one thing."""

    code: Code
    text: str
    """The exception in words, on one line."""
    at: float
    """When it was raised, in seconds of the clock of `InternalErrors`."""
    lasts: float
    """Seconds for which it is a problem."""


class InternalErrors:
    """Counts and reports what bulkheads have caught. Any thread may call its methods."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        """`clock` is monotonic, in seconds."""
        self._clock = clock
        self._lock = threading.Lock()
        self._counts: Counter[DaemonPart] = Counter()
        self._last: OrderedDict[tuple[DaemonPart, str], InternalError] = OrderedDict()
        """The last error by part and subject, the oldest first."""
        self._tracebacks = LogRateLimit(burst=1, rate=1 / TRACEBACK_INTERVAL)

    def caught(self, part: DaemonPart, subject: str, error: Exception) -> None:
        """Report an exception that ended one handler. `subject` says what it was about: `probe of shop/web/1`."""
        self._report((part, subject), error, Code.INTERNAL_ERROR, LASTS, "only this is affected")

    def part_ended(self, part: DaemonPart, subject: str, error: Exception, pause: float) -> None:
        """Report an exception that ended a part, which is started again after `pause` seconds."""
        self._report((part, subject), error, Code.PART_ENDED, STABLE + pause, f"it is started again in {pause:.1f} s")

    def succeeded(self, part: DaemonPart, subject: str) -> None:
        """Note that what failed before has succeeded: it is no problem any more."""
        if self._last:
            with self._lock:
                self._last.pop((part, subject), None)

    def forget(self) -> None:
        """Forget all problems, for tests; the counts stay."""
        with self._lock:
            self._last.clear()

    def counts(self) -> Mapping[DaemonPart, int]:
        """Return how many exceptions were caught since the start, by part."""
        with self._lock:
            return {part: self._counts[part] for part in DaemonPart}

    def problems(self) -> tuple[Problem, ...]:
        """Return what is a problem now, ordered by part and subject."""
        now = self._clock()
        with self._lock:
            found = sorted((key, error) for key, error in self._last.items() if now < error.at + error.lasts)
        return tuple(
            Problem(
                error.code,
                Severity.ERROR,
                f"{part}, {subject}",
                error.text,
                "look for the traceback in the log and report it; everything else goes on",
            )
            for (part, subject), error in found
        )

    def _report(self, about: tuple[DaemonPart, str], error: Exception, code: Code, lasts: float, follows: str) -> None:
        part, subject = about
        subject, text, now = _in_words(subject), _in_words(describe_error(error)), self._clock()
        with self._lock:
            self._counts[part] += 1
            self._last.pop((part, subject), None)
            self._last[part, subject] = InternalError(code, text, now, lasts)
            if len(self._last) > MAX_PROBLEMS:
                self._last.popitem(last=False)
            missed = self._tracebacks.left_out((part, *_kind(error)), now)
        if missed is not None:
            more = f" ({missed} more of this kind since the last traceback)" if missed else ""
            log.error("%s, %s: %s; %s%s", part, subject, text, follows, more, exc_info=error, extra=code.extra)


INTERNAL_ERRORS = InternalErrors()
"""The errors of this process, as `logging` has the loggers of a process: any part may have one at any time."""


class Bulkhead:
    """Keeps the exceptions of one part's handlers from ending more than the handler."""

    def __init__(self, part: DaemonPart, errors: InternalErrors = INTERNAL_ERRORS) -> None:
        """`errors` collects what is caught."""
        self.part = part
        self._errors = errors

    def contain(self, subject: str) -> "Containment":
        """Return a context that ends its body at an exception, and nothing else: `with bulkhead.contain("pass"): ...`.

        A body that succeeds ends the problem that an earlier one with the same subject has left.
        """
        return Containment(self, subject)

    async def run(self, subject: str, work: Callable[P, Awaitable[T]], *args: P.args, **kwargs: P.kwargs) -> T | None:
        """Await `work(*args, **kwargs)` and return its result; None if it raised an exception.

        It takes a function and not a coroutine: a task that is cancelled before its first step would never await that.
        """
        with self.contain(subject):
            return await work(*args, **kwargs)
        return None

    async def keep_running(self, subject: str, run: Callable[[], Awaitable[None]]) -> None:
        """Await `run()` until it returns, and start it again with back-off if it raises an exception.

        `run` must be able to begin again after it has raised at any point.
        """
        backoff = Backoff(FIRST_PAUSE, LONGEST_PAUSE, jitter=0.5, random=random.random)
        clock = asyncio.get_running_loop().time
        while True:
            began = clock()
            try:
                await run()
            except Exception as error:  # noqa: BLE001 -- this is what a bulkhead is for
                if clock() - began >= STABLE:
                    backoff.reset()
                pause = backoff.next_pause()
                self._errors.part_ended(self.part, subject, error, pause)
            else:
                return
            await asyncio.sleep(pause)

    def callback(self, function: Callable[P, object], subject: str | None = None) -> Callable[P, None]:
        """Return a function that calls `function` in this bulkhead, for callbacks of the event loop.

        `subject` is the name of the function if it is None.
        """
        about = subject or _name(function)

        def contained(*args: P.args, **kwargs: P.kwargs) -> None:
            with self.contain(about):
                function(*args, **kwargs)

        return contained

    def method(self, function: Callable[P, None]) -> Callable[P, None]:
        """Decorate a method that the event loop calls, such as `data_received` of a protocol."""
        return wraps(function)(self.callback(function))

    def caught(self, subject: str, error: Exception) -> None:
        """Report an exception that the caller has caught itself, since it has to do something about it."""
        self._errors.caught(self.part, subject, error)

    def succeeded(self, subject: str) -> None:
        """Note that what failed before has succeeded."""
        self._errors.succeeded(self.part, subject)


class Containment:
    """One body that runs in a bulkhead."""

    __slots__ = ("_bulkhead", "_subject", "failed")

    def __init__(self, bulkhead: Bulkhead, subject: str) -> None:
        self._bulkhead = bulkhead
        self._subject = subject
        self.failed = False
        """Whether the body has raised an exception."""

    def __enter__(self) -> "Containment":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool:
        if error is None:
            self._bulkhead.succeeded(self._subject)
            return False
        if not isinstance(error, Exception):
            return False
        self.failed = True
        self._bulkhead.caught(self._subject, error)
        return True


def contain_event_loop(loop: asyncio.AbstractEventLoop, errors: InternalErrors = INTERNAL_ERRORS) -> None:
    """Report what raises in callbacks and tasks that have no bulkhead: those of libraries."""

    def report(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        error = context.get("exception")
        # The event loop reports a lack of descriptors in this way, too, which is no error of the program.
        if isinstance(error, Exception) and not isinstance(error, OSError):
            errors.caught(DaemonPart.DAEMON, str(context.get("message", "a callback")), error)
        else:
            loop.default_exception_handler(context)

    loop.set_exception_handler(report)


def describe_error(error: BaseException) -> str:
    """Return `ValueError: message`, or the type alone if there is no message; of a group, its first exception."""
    if isinstance(error, BaseExceptionGroup):
        return describe_error(next(leaf_exceptions(error)))
    text = str(error)
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


def _kind(error: BaseException) -> tuple[str, str, int]:
    """Return the type of an exception and the place where it was raised."""
    if isinstance(error, BaseExceptionGroup):
        return _kind(next(leaf_exceptions(error)))
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    where = ("", 0) if trace is None else (trace.tb_frame.f_code.co_filename, trace.tb_lineno)
    return type(error).__qualname__, *where


def _name(function: Callable[..., object]) -> str:
    return getattr(function, "__qualname__", type(function).__name__)


def _in_words(text: str) -> str:
    """Return text for one line: control characters escaped, cut."""
    kept = "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text[:_SHOWN])
    return kept if len(text) <= _SHOWN else f"{kept}..."
