"""Asks every endpoint in its rhythm and knows the health of each.

A thin shell around the wheel (when) and the state machine (what it means). One task sleeps from slot to slot and
starts what is due; an endpoint has a task of its own only while it is asked, so that ten thousand of them cost little
and none waits for another. The checks in flight are bounded: sockets are, too, and a worker that starts with many
endpoints must not answer its own burst with timeouts. What is beyond the bound waits in order.
"""

import asyncio
import logging
import math
from collections import deque
from collections.abc import Callable, Coroutine, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Protocol

from mesh.model import Address, Health, Probe, ProbeKind, RealKey
from mesh.probes.checks import Check, network_checks
from mesh.probes.health import PRESUMED_HEALTHY, State, Transition, Verdict, observe
from mesh.probes.schedule import Wheel, first_due, following

log = logging.getLogger(__name__)


class Commands(Protocol):
    """The way of asking that goes through a container engine."""

    def __call__(self, key: str, probe: Probe, /) -> Coroutine[None, None, Verdict | None]:
        """As `Check`, of an endpoint by its id; None: it could not be asked, which says nothing about it."""
        ...


@dataclass(frozen=True, slots=True)
class Target:
    """An endpoint and how to ask it."""

    probe: Probe
    address: Address
    port: int
    presumed_healthy: bool = False
    """It was serving before this process came: it begins as healthy. Only looked at when the target is new."""


@dataclass(slots=True, eq=False)
class _Watched:
    """A target and where it stands. It is in the wheel, in the queue or in flight: always in exactly one of them."""

    key: str
    """The endpoint's id."""
    target: Target
    state: State
    due: float
    task: asyncio.Task[None] | None = None


class Prober:
    """All methods are called in the event loop's thread; times are those of its clock."""

    def __init__(
        self,
        on_change: Callable[[], None],
        checks: Mapping[ProbeKind, Check] | None = None,
        max_in_flight: int = 256,
        commands: Commands | None = None,
    ) -> None:
        """`commands` answers for `ProbeKind.COMMAND`; without it such targets stay as they are."""
        self._on_change = on_change
        self._checks = network_checks() if checks is None else checks
        self._commands = commands
        self._room = max_in_flight
        self._wheel = Wheel()
        self._watched: dict[str, _Watched] = {}
        self._queue: deque[_Watched] = deque()
        """Due, but there was no room. What was dropped meanwhile is passed over when its turn comes."""
        self._wake = asyncio.Event()
        self._asleep_until = math.inf
        self._changed = False

    def watch(self, targets: Mapping[str, Target]) -> None:
        """Make these, by endpoint id, the whole set; the same set again changes nothing.

        A target that is known keeps its state and its rhythm, also when its probe has changed; one with another
        address or port is a new one. What is no longer named is dropped, and a check of it that is in flight is ended.
        """
        now = asyncio.get_running_loop().time()
        for key in self._watched.keys() - targets.keys():
            self._drop(key)
        for key, target in targets.items():
            known = self._watched.get(key)
            if known is not None and _place(known.target) == _place(target):
                self._revise(known, target, now)
            else:
                self._drop(key)
                self._add(key, target, now)
        self._wake.set()

    def health(self) -> Mapping[str, Health]:
        """The health of every target as of now, by endpoint id."""
        return {key: watched.state.health for key, watched in self._watched.items()}

    def history(self, key: str) -> tuple[Verdict, ...]:
        """The last verdicts of a target, oldest first; empty if there is none yet or it is not watched."""
        watched = self._watched.get(key)
        return watched.state.history if watched is not None else ()

    async def run(self) -> None:
        """Ask until cancelled; to be run once.

        `on_change` is called after health has changed, once for all changes that came together.
        Raises an `ExceptionGroup` if a check or `on_change` has a mistake in it.
        """
        async with asyncio.TaskGroup() as group:
            while True:
                self._begin_due(group)
                await self._sleep()
                if self._changed:
                    self._changed = False
                    self._on_change()

    def _add(self, key: str, target: Target, now: float) -> None:
        state = PRESUMED_HEALTHY if target.presumed_healthy else State()
        due = first_due(key, now, target.probe.initial_delay, target.probe.interval)
        self._watched[key] = _Watched(key, target, state, due)
        self._wheel.add(key, due)

    def _revise(self, watched: _Watched, target: Target, now: float) -> None:
        shorter = target.probe.interval < watched.target.probe.interval
        watched.target = target
        if shorter and watched.key in self._wheel:
            watched.due = min(watched.due, now + target.probe.interval)
            self._wheel.add(watched.key, watched.due)

    def _drop(self, key: str) -> None:
        watched = self._watched.pop(key, None)
        self._wheel.remove(key)
        if watched is not None and watched.task is not None:
            watched.task.cancel()

    def _begin_due(self, group: asyncio.TaskGroup) -> None:
        now = asyncio.get_running_loop().time()
        self._queue.extend(self._watched[key] for key in self._wheel.due(now))
        while self._queue and self._room > 0:
            watched = self._queue.popleft()
            if self._watched.get(watched.key) is watched:
                self._room -= 1
                watched.task = group.create_task(self._ask(watched), name=f"probe {watched.key}")
                watched.task.add_done_callback(partial(self._ended, watched))

    def _ended(self, watched: _Watched, _: asyncio.Task[None]) -> None:
        """A callback, not a `finally` in the task: a task that is cancelled before its first step runs nothing."""
        watched.task = None
        self._room += 1
        if self._queue:
            self._wake.set()

    async def _sleep(self) -> None:
        """Until a slot is due or something has happened."""
        due = self._wheel.next_due()
        self._asleep_until = math.inf if due is None else due
        try:
            async with asyncio.timeout_at(due):
                await self._wake.wait()
        except TimeoutError:
            return
        self._wake.clear()

    async def _ask(self, watched: _Watched) -> None:
        asked = watched.target
        verdict = await self._question(watched.key, asked)
        now = asyncio.get_running_loop().time()
        if (
            verdict is not None and watched.target.probe == asked.probe
        ):  # otherwise it answers what is no longer the question
            watched.state, transition = observe(watched.state, verdict, asked.probe, now)
            if transition is not None:
                self._tell(watched, transition)
        watched.due = following(watched.due, watched.target.probe.interval, now)
        self._wheel.add(watched.key, watched.due)
        if watched.due < self._asleep_until:
            self._wake.set()

    async def _question(self, key: str, asked: Target) -> Verdict | None:
        if asked.probe.kind is not ProbeKind.COMMAND:
            return await self._checks[asked.probe.kind](asked.address, asked.port, asked.probe)
        return await self._commands(key, asked.probe) if self._commands is not None else None

    def _tell(self, watched: _Watched, transition: Transition) -> None:
        level = logging.INFO if transition.after is Health.HEALTHY else logging.WARNING
        log.log(level, "probe: %s %s %s", watched.key, RealKey(*_place(watched.target)), transition)
        self._changed = True
        self._wake.set()


def _place(target: Target) -> tuple[Address, int]:
    return target.address, target.port
