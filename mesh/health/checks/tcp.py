"""The TCP check: can a connection be made? Also the steps that all checks share: time limit and names of failures.

A prober makes thousands of short connections. Closed in the usual way, each would stay in TIME_WAIT for a minute and
occupy a port of the worker, so every connection is closed by a reset (socket(7), SO_LINGER with a time of 0).
"""

import asyncio
import os
import ssl
import time
from collections.abc import Coroutine

from mesh.health.state_machine import Verdict
from mesh.model.probe import Probe
from mesh.model.service import Address
from mesh.util.sockets import LACK_ERRNOS, LOCAL_ERRNOS, connect_socket


class ResourceLackError(Exception):
    """This worker lacks a resource that the check needs, which says nothing about the endpoint. The text says which."""


async def check_tcp(address: Address, port: int, probe: Probe) -> Verdict:
    """Succeed if the endpoint accepts a connection within `probe.timeout`. Nothing is sent."""
    return await await_verdict(_ask(address, port), probe.timeout)


async def _ask(address: Address, port: int) -> tuple[bool, str]:
    (await connect_socket(address, port)).close()
    return True, "connected"


async def await_verdict(question: Coroutine[None, None, tuple[bool, str]], limit: float) -> Verdict:
    """Await the (ok, reason) of `question` for at most `limit` seconds and return it as a verdict.

    A failure of the network results in a verdict too. Raises `ResourceLackError` if this worker could not ask. Any
    other exception is a bug and is raised.
    """
    begun = time.perf_counter()  # not the loop's clock, which counts whole milliseconds under uvloop
    try:
        async with asyncio.timeout(limit):
            ok, reason = await question
    except OSError as error:  # `TimeoutError` is one
        raise_lack(error)
        ok, reason = False, explain_error(error) or f"no answer in {limit:g} s"
    return Verdict(ok, reason, time.perf_counter() - begun)


def raise_lack(error: BaseException) -> None:
    """Raise `ResourceLackError` if the error is that of a resource which this worker lacks."""
    if isinstance(error, MemoryError):
        raise ResourceLackError("out of memory") from error
    if isinstance(error, OSError) and error.errno in LACK_ERRNOS and not isinstance(error, ssl.SSLError):
        raise ResourceLackError(os.strerror(error.errno).lower()) from error


def tls_server_name(address: Address, probe: Probe) -> str:
    """Return the name that the certificate must contain: `probe.host` without its port, or the address if empty."""
    if not probe.host:
        return address
    name, colon, _ = probe.host.rpartition(":")
    return (name if colon and not probe.host.endswith("]") else probe.host).strip("[]")


def explain_error(error: OSError) -> str:
    """Return why there is no answer, in a few words; empty for a plain timeout, whose length the caller knows."""
    match error:
        case ssl.SSLCertVerificationError():
            return f"certificate refused: {error.verify_message.rstrip('.')}"
        case ssl.SSLError():
            return f"TLS failed: {(error.reason or str(error)).replace('_', ' ').lower()}"
        case ConnectionRefusedError():
            return "refused"
        case ConnectionResetError() | ConnectionAbortedError() | BrokenPipeError():
            return "reset before an answer"
    if error.errno is None or error.errno <= 0:
        return str(error)
    words = os.strerror(error.errno).lower()
    return f"this worker cannot ask: {words}" if error.errno in LOCAL_ERRNOS else words
