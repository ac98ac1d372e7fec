"""The HTTP check that follows redirects, and searches the body.

A redirect is followed only to the same endpoint: another host is another endpoint, and must not decide the verdict on
this one. Requests and responses are those of `mesh.health.checks.http`.
"""

import ssl
from urllib.parse import urljoin

from yarl import URL

from mesh.health.checks.http import (
    ExchangeError,
    HttpExchange,
    build_request,
    judge_response,
    redirects_to,
    request_target,
)
from mesh.health.checks.http_response import MAX_BODY_BYTES, NotHttpError
from mesh.health.checks.tcp import await_verdict
from mesh.health.state_machine import Verdict
from mesh.model.probe import Probe
from mesh.model.service import Address
from mesh.model.table import RealKey

__all__ = ("MAX_BODY_BYTES", "MAX_REDIRECTS", "RedirectRefusedError", "check_http_body", "same_endpoint_target")

MAX_REDIRECTS = 5
"""Redirects in a row that are followed."""


class RedirectRefusedError(Exception):
    """A redirect that is not followed. The text says why."""


async def check_http_body(
    address: Address,
    port: int,
    probe: Probe,
    *,
    tls: ssl.SSLContext | None = None,
    body_bytes: int = MAX_BODY_BYTES,
) -> Verdict:
    """Like `check_http`, but search the first `body_bytes` of the body for `probe.expect_body`, and follow redirects if
    the probe says so.

    The body is compared as it is received; the request asks for no content encoding.
    """
    exchange = HttpExchange(address, port, probe, tls, body_bytes=body_bytes)
    return await await_verdict(_ask(exchange, address, port, probe), probe.timeout)


async def _ask(exchange: HttpExchange, address: Address, port: int, probe: Probe) -> tuple[bool, str]:
    origin = URL(f"{probe.kind}://{RealKey(address, port)}")
    target = request_target(probe.path)
    try:
        for _ in range(MAX_REDIRECTS + 1):
            response = await exchange.run(build_request(address, port, probe, target))
            location = redirects_to(response, probe)
            if location is None:
                return judge_response(response, probe)
            target = same_endpoint_target(location.decode("utf-8", "replace"), target, origin, probe)
    except (ExchangeError, NotHttpError, RedirectRefusedError) as error:
        return False, str(error)
    return False, f"more than {MAX_REDIRECTS} redirects"


def same_endpoint_target(location: str, target: str, origin: URL, probe: Probe) -> str:
    """Return the request target that a redirect leads to.

    Raises `RedirectRefusedError`, whose text shows no query because it may contain a password.
    """
    asked = URL(f"{probe.kind}://{probe.host}") if probe.host else origin
    try:
        to = URL(urljoin(f"{asked}{target}", location))
        same = (to.scheme, to.host) == (asked.scheme, asked.host) and to.port in (asked.port, origin.port)
        elsewhere = str(to.origin())[:60] if to.host else to.scheme[:60]
    except ValueError:
        raise RedirectRefusedError("the redirect leads to an invalid URL") from None
    if not elsewhere.isprintable():
        raise RedirectRefusedError("the redirect leads to an invalid URL")
    if not same:
        raise RedirectRefusedError(f"the redirect leads away, to {elsewhere}")
    return request_target(to.raw_path_qs)
