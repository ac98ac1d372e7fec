"""The prober on uvloop, as in production: real sockets, real time, a short interval."""

import asyncio
import gc
from dataclasses import replace
from typing import Any

import uvloop
from typing_extensions import override

from mesh.health.checks.batch import PlainCheck
from mesh.health.checks.http import check_http
from mesh.health.checks.tcp import check_tcp
from mesh.health.prober import Prober
from mesh.health.targets import CheckFlight, ProbeTarget
from mesh.model.probe import Probe, ProbeKind
from mesh.model.service import Health
from tests.health.checks.endpoints import TIME_WAIT, closes, endpoint, hangs, says, socket_states, until
from tests.health.checks.test_tls import trusting

HTTP = Probe(ProbeKind.HTTP, None, timeout=0.2, interval=0.2)
TCP = Probe(ProbeKind.TCP, None, timeout=0.2, interval=0.2)
WEB, PORT, NOBODY = ("w1", "web"), ("w1", "port"), ("w1", "nobody")


async def rise_and_fall() -> None:
    answers = {"script": says(b"HTTP/1.1 200 OK\r\n\r\n")}

    def answer(transport: asyncio.Transport) -> None:
        answers["script"](transport)

    async with (
        endpoint(answer) as (port, requests, open_ones),
        asyncio.TaskGroup() as group,
    ):
        changes: list[Health] = []
        prober = Prober(lambda: changes.append(prober.health()[WEB]))
        targets = {
            WEB: ProbeTarget(HTTP, "127.0.0.1", port),
            PORT: ProbeTarget(TCP, "127.0.0.1", port),
            NOBODY: ProbeTarget(TCP, "127.0.0.1", 1),
        }
        prober.watch(targets)
        task = group.create_task(prober.run())
        expected = {WEB: Health.HEALTHY, PORT: Health.HEALTHY, NOBODY: Health.STARTING}
        await until(lambda: prober.health() == expected and len(prober.history(NOBODY)) >= 2)
        assert prober.history(NOBODY)[-1].reason == "refused"
        answers["script"] = hangs
        await until(lambda: prober.health()[WEB] is Health.UNHEALTHY)
        assert prober.history(WEB)[-1].reason == "no answer in 0.2 s"
        answers["script"] = closes
        await until(lambda: prober.history(WEB)[-1].reason == "closed before an answer")
        answers["script"] = says(b"HTTP/1.1 200 OK\r\n\r\n")
        await until(lambda: prober.health() == expected and changes[-1] is Health.HEALTHY)
        task.cancel()
        await until(lambda: not open_ones)
        assert requests
    assert TIME_WAIT not in socket_states(port)


async def tls() -> None:
    answers = says(b"HTTP/1.1 200 OK\r\n\r\n")
    for script, timeout, reason in ((answers, 5, "status 200"), (hangs, 0.2, "no answer in 0.2 s")):
        async with endpoint(script, tls=True) as (port, _, open_ones):
            verdict = await check_http("127.0.0.1", port, replace(HTTP, timeout=timeout), tls=trusting())
            assert verdict.reason == reason
        assert not open_ones
        assert TIME_WAIT not in socket_states(port)
    async with endpoint(hangs) as (port, _, open_ones):
        verdict = await check_http("127.0.0.1", port, HTTP, tls=trusting())
        assert verdict.reason == "no answer in 0.2 s"
        await until(lambda: not open_ones)
    assert TIME_WAIT not in socket_states(port)


def test_an_endpoint_becomes_healthy_and_unhealthy() -> None:
    uvloop.run(rise_and_fall())
    gc.collect()  # what was left open would be warned of now, and a warning is an error


def test_tls() -> None:
    uvloop.run(tls())
    gc.collect()


class Unresolving(uvloop.Loop):
    """Names are waited for: the threads that would resolve them have enough to do."""

    @override
    async def getaddrinfo(self, *_: Any, **__: Any) -> Any:
        await asyncio.sleep(10)


def test_an_address_does_not_wait_for_names_to_be_resolved() -> None:
    async def check() -> None:
        async with endpoint(says(b"HTTP/1.1 200 OK\r\n\r\n")) as (port, _, open_ones):
            assert (await check_tcp("127.0.0.1", port, TCP)).reason == "connected"
            assert (await check_http("127.0.0.1", port, HTTP)).reason == "status 200"
            await until(lambda: not open_ones)

    with asyncio.Runner(loop_factory=Unresolving) as runner:
        runner.run(check())


def checks_in_memory() -> int:
    return sum(isinstance(each, PlainCheck | CheckFlight) for each in gc.get_objects())


async def test_a_check_leaves_no_garbage_in_cycles() -> None:
    """Ten thousand endpoints would leave megabytes until the garbage collector runs."""
    async with endpoint(says(b"HTTP/1.1 200 OK\r\n\r\n")) as (port, _, _):
        prober = Prober(lambda: None)
        prober.watch({WEB: ProbeTarget(replace(HTTP, interval=0.1), "127.0.0.1", port)})
        gc.collect()
        before = checks_in_memory()
        gc.disable()
        try:
            async with asyncio.TaskGroup() as tasks:
                running = tasks.create_task(prober.run())
                await until(lambda: prober.figures().verdicts[ProbeKind.HTTP, True] >= 5)
                left = checks_in_memory() - before  # those of tests before are kept by their own errors
                running.cancel()
        finally:
            gc.enable()
    assert left <= 2, "a running check and its flight at most"
