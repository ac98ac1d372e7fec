"""Parsers for label values: from text to a value, or a refusal that says what to write instead.

People type these values into compose files by hand, far from where they take effect. So nothing is guessed: a value has
exactly one of the forms in the label reference, or it is refused with a reason and a remedy. Numbers are matched by a
pattern before they are converted, because `int()` also accepts `1_0`, `+5` and digits of other scripts.
"""

import re
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address
from typing import NamedTuple, TypeAlias

from mesh.model.codes import Code
from mesh.model.errors import MeshError
from mesh.model.service import (
    MAX_SLOW_START,
    Address,
    Forwarding,
    Name,
    PortPublication,
    Route,
    Scheduler,
    SchedulerFlag,
    Transport,
)

Pool: TypeAlias = IPv4Network | IPv6Network
"""The network that VIPs are assigned from."""

DEFAULT_STICKY_SECONDS = 300
"""Seconds of client affinity for `true`: ipvsadm(8), option -p."""

MAX_NAMES = 1024
"""The most routing names of a container, with their ports: more of them are an attack or a mistake."""

_STICKY_MAX = 31 * 86400  # the longest timeout that ipvsadm accepts
_SECONDS_MIN, _SECONDS_MAX = 0.01, 86400.0  # below: a busy loop; above: no longer a probe
_RELEASE_MAX = 64
_SHOWN_MAX = 60

_PORT = re.compile(r"[1-9][0-9]{0,4}", re.ASCII)
_COUNT = re.compile(r"[0-9]{1,9}", re.ASCII)
_SECONDS = re.compile(r"[0-9]{1,6}(\.[0-9]{1,9})?", re.ASCII)
_DNS_LABEL = re.compile(r"[a-z0-9_]([a-z0-9_-]*[a-z0-9_])?", re.ASCII)
_RELEASE = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*", re.ASCII)
SCHEME_PORTS = {"http": 80, "https": 443}


class LabelRefusedError(MeshError):
    """A value that is refused. `reason` says why, `remedy` what to write instead."""

    def __init__(self, code: Code, reason: str, remedy: str) -> None:
        super().__init__(code, f"{reason}; {remedy}")
        self.reason = reason
        self.remedy = remedy


def quote_value(text: str) -> str:
    """Return the text in quotes for a message of one line: control characters escaped, cut after 60 characters."""
    return f'"{escape_unprintable(text)}"'


def escape_unprintable(text: str, longest: int = _SHOWN_MAX) -> str:
    """Return the text for a message of one line: control characters escaped, cut after `longest` characters."""
    kept = "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text[:longest])
    return kept if len(text) <= longest else f"{kept}..."


def parse_dns_name(text: str, domain: Name) -> Name:
    """Parse a routing name: RFC 1123 section 2.1 and `_`, in lower case. A name without a dot gets the domain."""
    if not text.isascii():
        raise LabelRefusedError(
            Code.NOT_A_DNS_NAME,
            f"the name {quote_value(text)} is not ASCII",
            "write its IDNA form, which begins with xn--",
        )
    if "*" in text:
        raise LabelRefusedError(
            Code.NOT_A_DNS_NAME,
            f"the name {quote_value(text)} is a wildcard",
            "write every name in full, separated by ;",
        )
    name = text.lower().removesuffix(".")
    if "." not in name:
        if name.isdigit():
            remedy = "write a name; to publish a port use routing.publish.port_<container port>"
            raise LabelRefusedError(Code.NOT_A_DNS_NAME, f"{quote_value(text)} is a number, not a name", remedy)
        if text.endswith("."):
            raise LabelRefusedError(
                Code.NOT_A_DNS_NAME,
                f"the name {quote_value(text)} has no domain",
                f"write {escape_unprintable(name)}.{domain}",
            )
        name = f"{name}.{domain}"
    for label in name.split("."):
        _check_dns_label(label, text)
    if name.rpartition(".")[2].isdigit():
        raise LabelRefusedError(
            Code.NOT_A_DNS_NAME,
            f"{quote_value(text)} is an address, not a name",
            "write a name; a fixed VIP goes to routing.vip",
        )
    if len(name) > 253:
        raise LabelRefusedError(
            Code.NOT_A_DNS_NAME, f"the name {quote_value(text)} has {len(name)} characters", "write at most 253"
        )
    return name


def _check_dns_label(label: str, text: str) -> None:
    if not label:
        raise LabelRefusedError(
            Code.NOT_A_DNS_NAME,
            f"the name {quote_value(text)} has an empty part",
            "write a name such as restserver.local",
        )
    if len(label) > 63:
        reason = f"the part {quote_value(label)} of the name has {len(label)} characters"
        raise LabelRefusedError(Code.NOT_A_DNS_NAME, reason, "write at most 63 between two dots")
    if not _DNS_LABEL.fullmatch(label):
        remedy = "write letters, digits and hyphens, with no hyphen at either end of a part"
        raise LabelRefusedError(Code.NOT_A_DNS_NAME, f"{quote_value(text)} is not a DNS name", remedy)


def parse_port(text: str) -> int:
    """Parse a port number, 1..65535."""
    if not _PORT.fullmatch(text) or int(text) > 65535:
        raise LabelRefusedError(Code.LABEL_PORT, f"{quote_value(text)} is not a port", "write a number from 1 to 65535")
    return int(text)


def parse_routing_names(text: str, container_port: int, transport: Transport, domain: Name) -> tuple[Route, ...]:
    """Parse `name[;name...]`, each `[scheme://]name[:listen port]`, in the order written, repetitions included."""
    if text.count(";") >= MAX_NAMES:
        reason = f"it lists more than {MAX_NAMES} names"
        raise LabelRefusedError(Code.VALUE_OUT_OF_RANGE, reason, f"write at most {MAX_NAMES}")
    parts = [part for part in (part.strip() for part in text.split(";")) if part]
    if not parts:
        raise LabelRefusedError(Code.NOT_A_DNS_NAME, "no name is given", f"write one, such as restserver.{domain}")
    return tuple(_route(part, container_port, transport, domain) for part in parts)


def _route(text: str, container_port: int, transport: Transport, domain: Name) -> Route:
    url = split_url(text)
    if url.scheme not in ("", "http", "https", *Transport):
        remedy = "write the name alone or with http://, https://, tcp://, udp:// or sctp://"
        raise LabelRefusedError(
            Code.NAME_WITH_PATH_OR_SCHEME, f"the scheme {quote_value(url.scheme + '://')} is not known", remedy
        )
    if url.path:
        reason = f"{quote_value(text)} has a path, but the mesh routes connections, not requests"
        raise LabelRefusedError(
            Code.NAME_WITH_PATH_OR_SCHEME, reason, f"write {escape_unprintable(text.removesuffix(url.path))}"
        )
    meant = Transport(url.scheme) if url.scheme in ("udp", "sctp") else Transport.TCP
    if url.scheme and meant is not transport:
        label = f"routing.port_{container_port}" + ("" if meant is Transport.TCP else f"/{meant}")
        raise LabelRefusedError(
            Code.NAME_WITH_PATH_OR_SCHEME,
            f"{url.scheme}:// does not fit a label for {transport}",
            f"put the name under {label}",
        )
    name = parse_dns_name(url.host, domain)
    listen = parse_port(url.port) if url.port is not None else SCHEME_PORTS.get(url.scheme, container_port)
    return Route(name, listen, transport, container_port)


class UrlParts(NamedTuple):
    """The parts of a URL as they are written."""

    scheme: str
    """In lower case; empty if there is none."""
    host: str
    port: str | None
    """None if there is none."""
    path: str
    """The rest, from the first of `/?#` on."""


def split_url(text: str) -> UrlParts:
    """Split a URL without checking its parts. `urlsplit` would raise, strip and guess."""
    scheme, mark, rest = text.partition("://")
    if not mark:
        scheme, rest = "", text
    end = next((at for at, character in enumerate(rest) if character in "/?#"), len(rest))
    host, colon, number = rest[:end].partition(":")
    return UrlParts(scheme.lower(), host, number if colon else None, rest[end:])


def parse_vip(text: str, pool: Pool | None) -> Address:
    """Parse an address of the pool, in canonical form. Without a pool, any address of a host is accepted."""
    try:
        address: IPv4Address | IPv6Address = ip_address(text)
    except ValueError:
        example = str(pool[7]) if pool is not None and pool.num_addresses > 8 else "10.112.0.7"
        raise LabelRefusedError(
            Code.FIXED_VIP_UNUSABLE, f"{quote_value(text)} is not an address", f"write one such as {example}"
        ) from None
    if address.is_unspecified or address.is_multicast or "%" in text:
        raise LabelRefusedError(
            Code.FIXED_VIP_UNUSABLE,
            f"{quote_value(text)} cannot be a VIP",
            "write the plain unicast address of one host",
        )
    if pool is not None and address not in pool:
        raise LabelRefusedError(
            Code.FIXED_VIP_UNUSABLE, f"{address} is outside the VIP pool {pool}", f"write an address in {pool}"
        )
    return str(address)


def parse_publish(text: str, container_port: int, transport: Transport) -> PortPublication:
    """Parse a published port: a number or `auto`."""
    if text.lower() == "auto":
        return PortPublication(container_port, transport, None)
    try:
        return PortPublication(container_port, transport, parse_port(text))
    except LabelRefusedError as refused:
        raise LabelRefusedError(refused.code, refused.reason, "write auto or a number from 1 to 65535") from None


def parse_scheduler(text: str) -> Scheduler:
    """Parse the short name of an IPVS scheduler."""
    try:
        return Scheduler(text.lower())
    except ValueError:
        known = " ".join(Scheduler)
        raise LabelRefusedError(
            Code.SCHEDULER_OR_FLAGS, f"{quote_value(text)} is not a scheduler", f"write one of {known}"
        ) from None


def parse_scheduler_flags(text: str) -> frozenset[SchedulerFlag]:
    """Parse flags of the hashing schedulers, separated by commas."""
    words = [word.strip().lower() for word in text.split(",") if word.strip()]
    unknown = next((word for word in words if word not in list(SchedulerFlag)), None)
    if unknown is not None or not words:
        raise LabelRefusedError(
            Code.SCHEDULER_OR_FLAGS,
            f"{quote_value(unknown or text)} is not a flag of a scheduler",
            "write fallback, port or both",
        )
    return frozenset(map(SchedulerFlag, words))


def parse_forwarding(text: str) -> Forwarding:
    """Parse a forwarding method."""
    try:
        return Forwarding(text.lower())
    except ValueError:
        raise LabelRefusedError(
            Code.FORWARDING_METHOD,
            f"{quote_value(text)} is not a forwarding method",
            f"write {' or '.join(Forwarding)}",
        ) from None


def parse_slow_start(text: str) -> int:
    """Parse seconds over which a weight grows, 1..900."""
    return parse_number(text, 1, MAX_SLOW_START)


def parse_connection_limit(text: str) -> int:
    """Parse a number of connections, 0..1000000."""
    return parse_number(text, 0, 1_000_000)


def parse_session_sticky(text: str) -> int:
    """Parse seconds of client affinity; `true` is 300, `false` is 0."""
    match text.lower():
        case "true":
            return DEFAULT_STICKY_SECONDS
        case "false":
            return 0
        case _ if _COUNT.fullmatch(text) and int(text) <= _STICKY_MAX:
            return int(text)
    raise LabelRefusedError(
        Code.VALUE_OUT_OF_RANGE,
        f"{quote_value(text)} is not a time",
        f"write true, false or whole seconds up to {_STICKY_MAX}",
    )


def parse_weight(text: str) -> int:
    """Parse the weight of an endpoint, 0..1000."""
    return parse_number(text, 0, 1000)


def parse_count(text: str) -> int:
    """Parse a number of checks in a row, 1..1000."""
    return parse_number(text, 1, 1000)


def parse_number(text: str, low: int, high: int) -> int:
    """Parse a whole number from `low` to `high`, both included."""
    if not _COUNT.fullmatch(text) or not low <= int(text) <= high:
        raise LabelRefusedError(
            Code.VALUE_OUT_OF_RANGE,
            f"{quote_value(text)} is out of range",
            f"write a whole number from {low} to {high}",
        )
    return int(text)


def parse_flag(text: str) -> bool:
    """Parse `true` or `false`."""
    if text.lower() not in ("true", "false"):
        raise LabelRefusedError(
            Code.VALUE_OUT_OF_RANGE, f"{quote_value(text)} is neither true nor false", "write true or false"
        )
    return text.lower() == "true"


def parse_strategy(text: str) -> str:
    """Parse how a new release takes the place of the old one: `rolling`, `replace`, or one by shares."""
    if text not in ("rolling", "replace", "canary", "progressive", "blue-green"):
        raise LabelRefusedError(
            Code.VALUE_OUT_OF_RANGE,
            f"{quote_value(text)} is no strategy of a release",
            "write rolling, replace, canary, progressive or blue-green",
        )
    return text


def parse_release(text: str) -> str:
    """Parse the name of a release. It is shown in metrics and on the command line, so few characters are allowed."""
    if len(text) > _RELEASE_MAX or not _RELEASE.fullmatch(text):
        remedy = f"write up to {_RELEASE_MAX} letters, digits, dots, hyphens or underscores, such as v2"
        raise LabelRefusedError(Code.RELEASE_NAME, f"{quote_value(text)} is not the name of a release", remedy)
    return text


def parse_delay(text: str) -> float:
    """Parse seconds from 0 on; fractions are allowed."""
    return _seconds(text, 0.0)


def parse_seconds(text: str) -> float:
    """Parse seconds above 0; fractions are allowed."""
    return _seconds(text, _SECONDS_MIN)


def _seconds(text: str, low: float) -> float:
    if not _SECONDS.fullmatch(text) or not low <= float(text) <= _SECONDS_MAX:
        remedy = f"write the number alone, from {low:g} to {_SECONDS_MAX:g}, such as 2 or 0.5"
        raise LabelRefusedError(Code.VALUE_OUT_OF_RANGE, f"{quote_value(text)} is not a time in seconds", remedy)
    return float(text)
