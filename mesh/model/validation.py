"""The gate: values from outside pass it before they become services, endpoints, probes or claims. Pure.

Labels, records of the store, the saved view and answers of an engine are checked by the same functions, once, where
they come in. What has passed lets plan, diff, zone, probes and every data plane run without an exception. Each function
returns its value unchanged, or raises `ValueError` with the reason in words.
"""

import re
from collections.abc import Iterable
from functools import lru_cache
from ipaddress import IPv4Address, ip_address

from mesh.model.probe import Probe, ProbeKind, validate_host
from mesh.model.release_rollout import MAX_ROLLOUT_TEXT, ReleaseRollout
from mesh.model.release_rules import MAX_STEP_SECONDS, MAX_STEPS
from mesh.model.release_shares import MAX_SHARED_RELEASES, WHOLE, ReleaseShares
from mesh.model.service import MAX_SLOW_START, Address, Endpoint, EndpointKey, Name, ReleaseRules, Service

MAX_TEXT = 512
"""The most characters of an ID, an owner, the name of a worker or a container."""
MAX_RUN = 64
"""The most characters of a run."""
MAX_ROUTES = 1024
"""The most routes, published ports or mapped ports of one service or endpoint."""
MAX_HEADERS = 256
"""The most additional headers of a probe."""
MAX_STATUS_RANGES = 1024
"""The most ranges of HTTP statuses of a probe."""
MIN_SECONDS, MAX_SECONDS = 0.01, 86_400.0
"""The shortest and the longest interval or timeout of a probe: below is a busy loop, above is no longer a probe."""
MAX_STICKY_SECONDS = 31 * 86_400
"""The longest client affinity: what ipvsadm(8) accepts."""
MAX_WEIGHT = 65_535
"""The largest weight: what ipvsadm(8) takes."""
MAX_COUNT = 1000
"""The most checks in a row that a threshold asks for."""
MAX_PATH, MAX_COMMAND, MAX_HEADER_VALUE, MAX_BODY_TEXT = 2048, 4000, 4096, 1024
"""The most characters of a probe's path, command, header value and expected body."""
MAX_DATAGRAM = 1232
"""The most bytes of a probe's datagram: what fits into one packet on any path (RFC 8200, section 5, less headers)."""

_BROADCAST = IPv4Address("255.255.255.255")
_DNS_LABEL = re.compile(r"[a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9_])?", re.ASCII)
_TOKEN = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]{1,64}", re.ASCII)
_METHOD = re.compile(r"GET|HEAD|OPTIONS|POST")


def validate_service(service: Service) -> Service:
    """Return the service. Raises ValueError."""
    validate_text(service.owner, "an owner")
    validate_name(service.name)
    if max(len(service.routes), len(service.publishes)) > MAX_ROUTES:
        raise ValueError(f"it has more than {MAX_ROUTES} routes or published ports")
    for route in service.routes:
        validate_name(route.name)
        validate_port(route.listen_port)
        validate_port(route.container_port)
    for publish in service.publishes:
        validate_port(publish.container_port)
        if publish.port is not None:
            validate_port(publish.port)
    if service.fixed_vip is not None:
        validate_address(service.fixed_vip)
    validate_number(service.persistence, 0, MAX_STICKY_SECONDS, "seconds of client affinity")
    if service.probe is not None:
        validate_probe(service.probe)
        if service.probe.port is None and not service.declared:
            raise ValueError("it has a probe without a port, and neither a route nor a published port")
    return service


def validate_endpoint(endpoint: Endpoint, key: EndpointKey) -> Endpoint:
    """Return the endpoint. Raises ValueError, also if its key is not `key`."""
    if endpoint.key != key:
        raise ValueError("it is about another endpoint or worker than its key")
    for text, what in ((endpoint.id, "an ID"), (endpoint.owner, "an owner"), (endpoint.worker, "a worker")):
        validate_text(text, what)
    for optional, what in ((endpoint.name, "the name of a container"), (endpoint.release, "a release")):
        if optional is not None:
            validate_text(optional, what)
    validate_address(endpoint.address)
    if endpoint.port is not None:
        validate_port(endpoint.port)
    if len(endpoint.host_ports) > MAX_ROUTES:
        raise ValueError(f"it has more than {MAX_ROUTES} mapped ports")
    for mapped in endpoint.host_ports:
        validate_port(mapped.container_port)
        validate_port(mapped.port)
    validate_number(endpoint.weight, 0, MAX_WEIGHT, "a weight")
    if endpoint.asked_weight is not None:
        validate_number(endpoint.asked_weight, 0, MAX_WEIGHT, "a weight")
    _validate_process(endpoint)
    for threshold in (endpoint.max_connections, endpoint.min_connections):
        validate_number(threshold, 0, (1 << 32) - 1, "connections")
    validate_number(endpoint.slow_start, 0, MAX_SLOW_START, "seconds of slow start")
    return endpoint


def _validate_rules(rules: ReleaseRules) -> None:
    """Check how a release takes the place of another one."""
    if not 0 < len(rules.steps) <= MAX_STEPS:
        raise ValueError(f"a rollout has 1 to {MAX_STEPS} steps")
    for step in rules.steps:
        validate_number(step.points, 0, WHOLE, "hundredths of a per cent")
        validate_number(step.seconds, 0, MAX_STEP_SECONDS, "seconds of a step")
    validate_number(rules.deadline, 1, MAX_STEP_SECONDS, "seconds of a deadline")
    if rules.max_failures is not None and not 0 <= rules.max_failures <= 100:
        raise ValueError("failures are 0 to 100 per cent")
    if rules.min_connections is not None:
        validate_number(rules.min_connections, 0, 1_000_000, "connections")
    if not set(rules.checks) <= {"release.check.cmd", "release.check.url"}:
        raise ValueError("it names a check that does not exist")


def validate_rollout(rollout: ReleaseRollout) -> ReleaseRollout:
    """Return how far a rollout is. Raises ValueError."""
    validate_text(rollout.owner, "an owner")
    for text, what in (
        (rollout.new, "a release"),
        (rollout.old or "", "a release"),
        (rollout.actor, "a worker"),
        (rollout.reason, "a reason"),
    ):
        if text:
            validate_text(text, what)
    if rollout.new == rollout.old or len(rollout.reason) > MAX_ROLLOUT_TEXT:
        raise ValueError("it goes from a release to the same, or its reason is too long")
    if rollout.is_running and rollout.old is None:
        raise ValueError("it runs without an old release")
    validate_number(rollout.points, 0, WHOLE, "hundredths of a per cent")
    validate_number(rollout.beat, 0, 1 << 53, "a count")
    validate_number(rollout.steps, 0, MAX_STEPS, "steps")
    validate_number(rollout.step, 0, MAX_STEPS, "the index of a step")
    for seconds in (rollout.elapsed, rollout.undecided, rollout.absent):
        if not 0 <= seconds < 1e12:
            raise ValueError("a time is less than 0 or too long")
    return rollout


def validate_shares(shares: ReleaseShares) -> ReleaseShares:
    """Return the shares of releases. Raises ValueError."""
    validate_text(shares.owner, "an owner")
    if max(len(shares.given), len(shares.among)) > MAX_SHARED_RELEASES:
        raise ValueError(f"it has more than {MAX_SHARED_RELEASES} releases")
    for release, points in shares.given.items():
        validate_text(release, "a release")
        validate_number(points, 0, WHOLE, "hundredths of a per cent")
    for release in filter(None, shares.among):
        validate_text(release, "a release")
    if shares.by:
        validate_text(shares.by, "who gave it")
    if sum(shares.given.values()) > WHOLE:
        raise ValueError("the shares are more than 100 per cent")
    return shares


def _validate_process(endpoint: Endpoint) -> None:
    """Check the run of an endpoint, its own declaration and the rules of its release."""
    if endpoint.run is not None:
        validate_run(endpoint.run)
    if endpoint.declared is not None:
        validate_service(endpoint.declared)
        if endpoint.declared.owner != endpoint.owner:
            raise ValueError("it declares another service than its own")
    if endpoint.release_rules is not None:
        _validate_rules(endpoint.release_rules)


def validate_place(id: str, owner: str, name: str | None, address: Address, ports: tuple[int | None, ...]) -> None:
    """Check who and where an instance is. `ports` are all ports where it is reached; None is the container port.

    Its labels are checked when they are parsed. Raises ValueError.
    """
    for text, what in ((id, "an ID"), (owner, "an owner"), (name or id, "the name of a container")):
        validate_text(text, what)
    validate_address(address)
    if len(ports) > 2 * MAX_ROUTES:
        raise ValueError(f"it has more than {MAX_ROUTES} mapped ports")
    for port in ports:
        if port is not None:
            validate_port(port)


def validate_probe(probe: Probe) -> Probe:
    """Return the probe. Raises ValueError; the reason repeats no header, which may be a password."""
    if probe.port is not None:
        validate_port(probe.port)
    _validate_times(probe)
    validate_number(probe.healthy_threshold, 1, MAX_COUNT, "checks in a row")
    validate_number(probe.unhealthy_threshold, 1, MAX_COUNT, "checks in a row")
    if probe.floor is not None:
        validate_number(probe.floor, 0, 100, "per cent")
    _validate_request(probe)
    if not 1 <= len(probe.expect_status) <= MAX_STATUS_RANGES:
        raise ValueError(f"a probe expects from 1 to {MAX_STATUS_RANGES} ranges of HTTP statuses")
    for low, high in probe.expect_status:
        if not 100 <= low <= high <= 599:
            raise ValueError(f"{low}-{high} is not a range of HTTP statuses")
    if probe.kind is ProbeKind.COMMAND and not probe.command:
        raise ValueError("a probe by command has no command")
    if len(probe.command) > MAX_COMMAND or "\0" in probe.command:
        raise ValueError(f"a command has more than {MAX_COMMAND} characters, or a zero byte")
    if probe.kind is ProbeKind.UDP and not probe.send:
        raise ValueError("a probe over UDP has nothing to send")
    if max(len(probe.send), len(probe.expect_reply)) > MAX_DATAGRAM:
        raise ValueError(f"a datagram has more than {MAX_DATAGRAM} bytes")
    return probe


def _validate_times(probe: Probe) -> None:
    for seconds in (probe.timeout, probe.interval):
        validate_number(seconds, MIN_SECONDS, MAX_SECONDS, "seconds")
    for seconds in (probe.initial_delay, probe.startup):
        validate_number(seconds, 0, MAX_SECONDS, "seconds")
    if probe.startup_interval is not None:
        validate_number(probe.startup_interval, MIN_SECONDS, MAX_SECONDS, "seconds")


def _validate_request(probe: Probe) -> None:
    if not probe.path.startswith("/") or len(probe.path) > MAX_PATH or not _is_visible(probe.path):
        raise ValueError(f"the path of a probe is not of up to {MAX_PATH} visible ASCII characters after a slash")
    if not _METHOD.fullmatch(probe.method):
        raise ValueError("the method of a probe is none of GET, HEAD, OPTIONS, POST")
    if probe.host:
        validate_host(probe.host)
    if len(probe.headers) + len(probe.withheld_headers) > MAX_HEADERS:
        raise ValueError(f"a probe has more than {MAX_HEADERS} headers")
    for name, value in (*probe.headers, *((name, "") for name in probe.withheld_headers)):
        if not _TOKEN.fullmatch(name) or len(value) > MAX_HEADER_VALUE or not all(" " <= c <= "~" for c in value):
            raise ValueError("a header of a probe cannot be sent")
    if len(probe.expect_body) > MAX_BODY_TEXT:
        raise ValueError(f"the expected body has more than {MAX_BODY_TEXT} characters")
    _encode(probe.expect_body)


@lru_cache(16_384)
def validate_name(text: Name) -> Name:
    """Return the name: RFC 1123 section 2.1 and `_`, in lower case, without a trailing dot. Raises ValueError."""
    if len(text) > 253 or not all(_DNS_LABEL.fullmatch(label) for label in text.split(".")):
        raise ValueError("the name is not a DNS name in lower case")
    return text


@lru_cache(65_536)
def validate_address(text: Address) -> Address:
    """Return the address. It must be of one host; loopback is allowed, since the user-space proxy serves it. Raises
    ValueError.

    Only the canonical form is allowed: a kernel returns addresses in that form, and another would look like another
    server.
    """
    if len(text) > 64:
        raise ValueError("an address has more than 64 characters")
    address = ip_address(text)
    if address.is_unspecified or address.is_multicast or address == _BROADCAST or "%" in text:
        raise ValueError(f"{text} is not the address of one host")
    if str(address) != text:
        raise ValueError(f"{text} is written {address}")
    return text


def validate_port(number: int) -> int:
    """Return the port. Raises ValueError."""
    if not 1 <= number <= 65535:
        raise ValueError(f"{number} is not a port from 1 to 65535")
    return number


def validate_number(number: float, low: float, high: float, what: str) -> float:
    """Return the number. Raises ValueError unless it is from `low` to `high`; NaN is not."""
    if not low <= number <= high:
        raise ValueError(f"{number:g} {what} are out of range; {low:g} to {high:g} are allowed")
    return number


def validate_text(text: str, what: str) -> str:
    """Return the text: printable, of 1 to `MAX_TEXT` characters. Raises ValueError."""
    if not 0 < len(text) <= MAX_TEXT or not text.isprintable():
        raise ValueError(f"{what} is not of 1 to {MAX_TEXT} printable characters")
    _encode(text)
    return text


def validate_run(run: str) -> str:
    """Return the run of an endpoint: printable, of 1 to `MAX_RUN` characters. Raises ValueError."""
    validate_text(run, "a run")
    if len(run) > MAX_RUN:
        raise ValueError(f"a run has more than {MAX_RUN} characters")
    return run


def validate_texts(texts: Iterable[str], what: str) -> None:
    """Check several texts like `validate_text`."""
    for text in texts:
        validate_text(text, what)


def _encode(text: str) -> None:
    """Raise ValueError if the text cannot be written as UTF-8: JSON may have half of a surrogate pair."""
    text.encode()


def _is_visible(text: str) -> bool:
    return all("!" <= c <= "~" for c in text)
