"""Probes every endpoint at its interval and tracks the health of each.

The prober is a thin shell around the timer wheel (when), the admission queue (how many at a time) and the state machine
(what the results mean). One task sleeps from slot to slot and starts the checks that are due. Plain checks run in a
batch; any other check has a task of its own while it runs. So ten thousand endpoints cost little, and no endpoint waits
for another.

A process that was suspended, or got no CPU time for a second, finds all timeouts expired at once. A failure across such
a gap says nothing about the endpoint, and the check is repeated.

An exception in one check ends that check alone, as a failure: the endpoint has answered something that no check
expects. What this worker lacks (file descriptors, memory, ports to connect from) is no verdict.
"""

import asyncio
import logging
import math
from collections.abc import Callable, Coroutine, Mapping
from dataclasses import replace
from functools import partial
from typing import Protocol

from mesh.health.admission import AdmissionQueue
from mesh.health.checks import CheckFunction, network_checks
from mesh.health.checks.batch import CheckBatch, PlainCheck, is_plain
from mesh.health.checks.http import request_template
from mesh.health.checks.http_body import MAX_BODY_BYTES
from mesh.health.checks.tcp import ResourceLackError
from mesh.health.history import CheckHistory
from mesh.health.state_machine import (
    HealthState,
    HealthTransition,
    Verdict,
    resume_health,
    suspend_health,
)
from mesh.health.stats import ProbeStats
from mesh.health.targets import CheckFlight, ProberCounters, ProbeTarget, TargetHealth, TargetState
from mesh.health.timer_wheel import SLOT_SECONDS, TimerWheel, first_due, next_due, slot_end
from mesh.model.codes import Code
from mesh.model.errors import CodedText
from mesh.model.part import DaemonPart
from mesh.model.probe import Probe, ProbeKind
from mesh.model.service import Address, EndpointKey, Health
from mesh.model.table import RealKey
from mesh.util.bulkhead import Bulkhead, describe_error

log = logging.getLogger(__name__)
bulkhead = Bulkhead(DaemonPart.PROBES)

MAX_IN_FLIGHT = 1024
"""Checks that run at the same time, each with a socket."""
MAX_LATENESS = 1.0
"""Seconds by which this process may wake late. Beyond that it was suspended or starved."""
MAX_REASON = 80
"""The most characters of an exception in the reason of a verdict."""
LACK_LASTS = 15.0
"""Seconds for which a lack of resources is reported after the last check that it kept from being run."""
MAX_PASSIVE_FACTOR = 5
"""Upper limit of the factor by which an endpoint is probed more often because traffic to it is refused."""


class CommandChecker(Protocol):
    """Checks that run through a container engine."""

    def __call__(self, id: str, probe: Probe, /) -> Coroutine[None, None, Verdict | None]:
        """Run the check of an endpoint, given by its ID, like a `CheckFunction`.

        Return None if the engine could not run it, which says nothing about the endpoint.
        """
        ...


class Prober:
    """Probes endpoints and tracks the health of each.

    All methods are called in the event loop's thread; times are those of its clock.
    """

    # 19 attributes: the state of one scheduler that sleeps, is woken and begins checks. Half of them are the other
    # classes of this package (wheel, turns, batch, counts); what is left are the flags of its one sleeping place.

    def __init__(
        self,
        on_change: Callable[[], None],
        checks: Mapping[ProbeKind, CheckFunction] | None = None,
        max_in_flight: int = MAX_IN_FLIGHT,
        commands: CommandChecker | None = None,
        body_bytes: int = MAX_BODY_BYTES,
    ) -> None:
        """`checks` replaces the network checks. `commands` runs `ProbeKind.COMMAND`; None: these are not judged.
        `body_bytes`: in how much of the body of an answer a text is looked for.
        """
        self._on_change = on_change
        self._checks = network_checks(body_bytes) if checks is None else checks
        self._in_volleys = checks is None
        self._commands = commands
        self._turns: AdmissionQueue[TargetState] = AdmissionQueue(max_in_flight)
        self._wheel: TimerWheel[EndpointKey] = TimerWheel()
        self._watched: dict[EndpointKey, TargetState] = {}
        self._at: dict[Address, list[TargetState]] | None = None
        """Targets by address; None: to be built when it is needed."""
        self._volley: CheckBatch | None = None
        self._waiter: asyncio.Future[None] | None = None
        self._awake = False
        self._asleep_until = math.inf
        self._resumed = -math.inf
        """When the last gap ended."""
        self._changed = False
        self._stands: TargetHealth | None = None
        """A cache; None: to be computed again."""
        self._flying = 0
        self._figures = ProbeStats()
        self._lack: tuple[str, float] | None = None
        """What this worker lacked last, and when; None: nothing."""
        self.stats = ProberCounters()

    def watch(self, targets: Mapping[EndpointKey, ProbeTarget]) -> None:
        """Make these targets the complete set. Repeating the call with the same set changes nothing.

        A known target keeps its state and its rhythm, even if its probe changes. A target with another address, port or
        run counts as new. A target that is no longer in the set is dropped, and its running check is cancelled.
        """
        now = asyncio.get_running_loop().time()
        for key in self._watched.keys() - targets.keys():
            self._drop(self._watched[key])
        for key, target in targets.items():
            known = self._watched.get(key)
            try:
                if known is not None and known.target.is_same_process(target):
                    self._revise(known, target, now)
                else:
                    if known is not None:
                        self._drop(known)
                    self._add(key, target, now)
            except Exception as error:  # noqa: BLE001 -- this target is not probed, and the others are
                bulkhead.caught(f"target {key[1]}", error)
        self._at = self._stands = None
        self._rouse()

    def health(self) -> Mapping[EndpointKey, Health]:
        """Return the health of every target; the same object as before if nothing has changed."""
        return self._standing().health

    def held_back(self) -> frozenset[EndpointKey]:
        """Return the targets that answer but still count as unhealthy, because they failed too often."""
        return self._standing().held_back

    def failing(self) -> frozenset[EndpointKey]:
        """Return the targets that failed their last check, whatever their health is."""
        return self._standing().failing

    @property
    def lack(self) -> CodedText | None:
        """What this worker lacks to probe; None if it can."""
        if self._lack is None or asyncio.get_running_loop().time() - self._lack[1] > LACK_LASTS:
            return None
        return _lack_text(self._lack[0])

    def history(self, key: EndpointKey) -> tuple[Verdict, ...]:
        """Return the last verdicts on a target, oldest first; empty if there are none or the target is not watched."""
        watched = self._watched.get(key)
        return watched.history.verdicts() if watched is not None else ()

    def histories(self) -> Mapping[EndpointKey, CheckHistory]:
        """Return the histories of all targets. They are updated while the prober runs."""
        return {key: watched.history for key, watched in self._watched.items()}

    def suspect(self, address: Address, port: int) -> None:
        """Probe the endpoint sooner, because traffic to it was refused.

        The call alone takes nothing out of traffic, and a flood of refusals probes an endpoint no more than
        `MAX_PASSIVE_FACTOR` times as often. An address that is not watched is ignored.
        """
        now = asyncio.get_running_loop().time()
        if self._at is None:
            self._at = {}
            for watched in self._watched.values():
                self._at.setdefault(watched.target.address, []).append(watched)
        there = self._at.get(address, [])
        exact = [watched for watched in there if watched.target.port == port]
        # A probe may use another port than the traffic: then all targets at the address are probed.
        for watched in exact or there:
            if watched.key in self._wheel and now - watched.begun >= watched.interval / MAX_PASSIVE_FACTOR:
                watched.due = now
                self._wheel.add(watched.key, now)
                self._rouse()

    def _standing(self) -> TargetHealth:
        if self._stands is None:
            self._stands = TargetHealth.of(self._watched)
        return self._stands

    def figures(self) -> ProbeStats:
        """Return statistics of the checks so far, and the numbers of running and waiting checks."""
        self._figures.in_flight, self._figures.waiting = self._flying, len(self._turns)
        return self._figures.copy()

    async def run(self) -> None:
        """Probe until cancelled; call it once.

        `on_change` is called after health has changed, once for all changes that came together.
        """
        await bulkhead.keep_running("prober", self._run)

    async def _run(self) -> None:
        loop = asyncio.get_running_loop()
        volley = self._volley = CheckBatch()
        loop.add_reader(volley.fileno(), self._wake)
        self._resume(loop.time())
        try:
            async with asyncio.TaskGroup() as group:
                while True:
                    now = loop.time()
                    if now - self._asleep_until > MAX_LATENESS:
                        self._resumed = now
                    volley.look()
                    volley.expire()
                    self._begin_due(group, now)
                    if self._changed:
                        self._changed = False
                        self._on_change()
                    await self._sleep(loop)
        finally:
            loop.remove_reader(volley.fileno())
            volley.close()
            self._volley = None

    def _resume(self, now: float) -> None:
        """Make every target due again that a run that ended by an exception has left behind."""
        for watched in self._watched.values():
            if watched.flight is not None and isinstance(watched.flight.work, PlainCheck):
                self._land(watched, watched.flight)  # its batch is gone
            if not (watched.state.aside or watched.queued or watched.key in self._wheel or watched.flight):
                with bulkhead.contain("a target"):
                    self._expect(watched, now + watched.interval)

    def _add(self, key: EndpointKey, target: ProbeTarget, now: float) -> None:
        state = HealthState(target.begins, begun=now)
        watched = self._watched[key] = TargetState(key, target, state)
        if target.aside:
            watched.state = suspend_health(state)
        else:
            self._expect(watched, first_due(key[1], now, target.probe.initial_delay, target.probe.interval))

    def _revise(self, watched: TargetState, target: ProbeTarget, now: float) -> None:
        before, watched.target = watched.target, target
        if target.run is None and before.run is not None:
            watched.target = target = replace(target, run=before.run)  # it may be told again, and differ then
        if target.aside != watched.state.aside:
            self._halt(watched)
            if target.aside:
                watched.state = suspend_health(watched.state)
            else:
                watched.state, watched.failed = resume_health(now), False
                self._expect(watched, now)
        elif target.probe is not before.probe and target.probe != before.probe:
            watched.request = None
            if watched.key in self._wheel:
                self._expect(watched, min(watched.due, now + watched.interval))

    def _drop(self, watched: TargetState) -> None:
        del self._watched[watched.key]
        self._halt(watched)

    def _halt(self, watched: TargetState) -> None:
        """Stop probing the target."""
        self._wheel.remove(watched.key)
        watched.queued = False
        flight = watched.flight
        match flight.work if flight is not None else None:
            case asyncio.Task() as task:
                task.cancel()  # it lands when it has ended
            case PlainCheck() as check if self._volley is not None and flight is not None:
                self._volley.cancel(check)
                self._land(watched, flight)

    def _expect(self, watched: TargetState, due: float) -> None:
        watched.due = due
        self._wheel.add(watched.key, due)
        if due < self._asleep_until:
            self._rouse()

    def _begin_due(self, group: asyncio.TaskGroup, now: float) -> None:
        for key in self._wheel.due(now):
            watched = self._watched[key]
            watched.queued = True
            self._turns.wait(watched, slow=watched.slow)
        while (turn := self._turns.next()) is not None:
            watched, slow = turn
            # Targets are not removed from the queue: an item that was dropped or halted since gives its place back.
            if not watched.queued or self._watched.get(watched.key) is not watched:
                self._turns.leave(slow=slow)
                continue
            watched.queued = False
            if watched.flight is not None:  # a cancelled check is still ending: no endpoint has two at a time
                self._turns.leave(slow=slow)
                self._expect(watched, now + SLOT_SECONDS)
                continue
            if watched.target.probe.kind is ProbeKind.COMMAND:
                self._turns.leave(slow=slow)  # it may wait for long, and holds no socket
                flight = watched.flight = CheckFlight(None)
            else:
                flight = watched.flight = CheckFlight(slow)
            self._flying += 1
            try:
                self._begin(group, watched, flight, now)
            except Exception as error:  # noqa: BLE001 -- the check ends alone
                self._end(watched, flight, self._failed(watched, error))

    def _begin(self, group: asyncio.TaskGroup, watched: TargetState, flight: CheckFlight, now: float) -> None:
        target = watched.target
        self.stats.began(now - slot_end(watched.due))
        watched.begun, watched.asked = now, target
        if self._in_volleys and self._volley is not None and is_plain(target.probe):
            request = b""
            if target.probe.kind is ProbeKind.HTTP:
                template = watched.request = watched.request or request_template(target.probe)
                request = template.request(target.address, target.port)
            shot = PlainCheck(target.probe, request, partial(self._end, watched, flight))
            flight.work = shot
            self._volley.begin(shot, target.address, target.port)
        else:
            check = bulkhead.run("a check", self._ask, watched, flight, target)
            task = flight.work = group.create_task(check, name=f"probe {watched.name}")
            # A callback, not a `finally` in the task: one that is cancelled before its first step runs nothing.
            task.add_done_callback(bulkhead.callback(lambda _: self._land(watched, flight), "end of a probe"))

    async def _ask(self, watched: TargetState, flight: CheckFlight, target: ProbeTarget) -> None:
        try:
            verdict = await self._verdict(watched, target)
        except ResourceLackError as lack:
            verdict = self._lacks(lack)
        except Exception as error:  # noqa: BLE001 -- the check ends alone
            verdict = self._failed(watched, error)
        else:
            bulkhead.succeeded(f"probe of {watched.name}")
        task = asyncio.current_task()
        if task is None or not task.cancelling():  # a cancelled check must not count, even if it still got its answer
            self._end(watched, flight, verdict)

    async def _verdict(self, watched: TargetState, target: ProbeTarget) -> Verdict | None:
        probe = target.probe
        if probe.withheld_headers:
            return None  # the labels, which have the values, are not read yet, or are not this worker's
        if probe.kind is not ProbeKind.COMMAND:
            return await self._checks[probe.kind](target.address, target.port, probe)
        return await self._commands(watched.key[1], probe) if self._commands is not None else None

    def _failed(self, watched: TargetState, error: Exception) -> Verdict | None:
        """Return the verdict on an endpoint whose check has raised an exception; None for a lack of memory."""
        bulkhead.caught(f"probe of {watched.name}", error)
        if isinstance(error, MemoryError):
            return self._lacks(ResourceLackError("out of memory"))
        spent = asyncio.get_running_loop().time() - watched.begun
        return Verdict(False, f"the check failed: {describe_error(error)[:MAX_REASON]}", max(0.0, spent))

    def _lacks(self, error: ResourceLackError) -> Verdict | None:
        """Report what this worker lacks. Return the verdict: there is none then."""
        if self.lack is None:
            log.error("probes: %s", _lack_text(str(error)), extra=Code.WORKER_LACKS_RESOURCES.extra)
        self._lack = str(error), asyncio.get_running_loop().time()
        return None

    def _end(self, watched: TargetState, flight: CheckFlight, verdict: Verdict | ResourceLackError | None) -> None:
        """End a check with its verdict, if there is one. What an exception leaves undone is left to the next check."""
        if isinstance(verdict, ResourceLackError):
            verdict = self._lacks(verdict)
        self._land(watched, flight)
        if self._watched.get(watched.key) is not watched:
            return  # it was dropped meanwhile, and the key may belong to another target by now
        try:
            self._conclude(watched, verdict)
        except Exception as error:  # noqa: BLE001 -- the verdict is lost alone
            bulkhead.caught(f"verdict on {watched.name}", error)
            self._expect(watched, asyncio.get_running_loop().time() + max(MAX_LATENESS, watched.interval))

    def _land(self, watched: TargetState, flight: CheckFlight) -> None:
        """Give back the place of a check, once; a check that has ended may have been replaced already."""
        if flight.landed:
            return
        flight.landed = True
        flight.work = None  # the check refers to its flight: without this, only the garbage collector would free both
        if watched.flight is flight:
            watched.flight = None
        self._flying -= 1
        if flight.slow is not None:
            self._turns.leave(slow=flight.slow)
        if self._turns:
            self._rouse()

    def _conclude(self, watched: TargetState, verdict: Verdict | None) -> None:
        now = asyncio.get_running_loop().time()
        probe = watched.target.probe
        due = next_due(watched.due, watched.interval, now)
        if verdict is not None and not verdict.ok and self._is_across_a_gap(watched, now):
            due = now  # the endpoint may have answered in time: repeat the check
        elif verdict is not None and watched.asks_the_same:
            # A verdict on a probe that has changed since is ignored.
            self.stats.ended(verdict.ok)
            self._figures.verdicts[probe.kind, verdict.ok] += 1
            self._figures.seconds.observe(verdict.duration)
            changed, events = watched.observe(verdict, now)
            if changed:
                self._stands = None
            for event in events:
                level = logging.WARNING if watched.state.health is Health.UNHEALTHY else logging.INFO
                fields = {"endpoint": watched.name, "health": watched.state.health, "reason": verdict.reason}
                place = RealKey(*watched.target.place)
                log.log(level, "probe: %s %s %s", watched.name, place, event, extra={"fields": fields})
                self._changed |= isinstance(event, HealthTransition)
                due = min(due, now + watched.interval)
            if events:
                self._rouse()
        self._expect(watched, due)

    def _is_across_a_gap(self, watched: TargetState, now: float) -> bool:
        return watched.begun < self._resumed or now - self._asleep_until > MAX_LATENESS

    async def _sleep(self, loop: asyncio.AbstractEventLoop) -> None:
        """Wait until a slot is due, a batched check reaches its deadline, or `_rouse` is called."""
        until = self._wheel.next_due() or math.inf
        if self._volley is not None and (deadline := self._volley.next_deadline()) is not None:
            until = min(until, slot_end(deadline))
        if self._flying:
            until = min(until, loop.time() + MAX_LATENESS)  # a sleep without end could not detect a gap
        self._asleep_until = until
        if not self._awake:
            self._waiter = loop.create_future()
            timer = loop.call_at(until, self._wake) if until < math.inf else None
            try:
                await self._waiter
            finally:
                self._waiter = None
                if timer is not None:
                    timer.cancel()
        self._awake = False

    @bulkhead.method
    def _wake(self) -> None:
        self._rouse()

    def _rouse(self) -> None:
        self._awake = True
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)


def _lack_text(resource: str) -> CodedText:
    text = (
        f"this worker cannot probe some endpoints: {resource}; their last health stays; "
        "see `ss -s`, and LimitNOFILE of the unit"
    )
    return CodedText(text, Code.WORKER_LACKS_RESOURCES)
