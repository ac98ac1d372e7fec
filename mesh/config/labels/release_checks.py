"""The labels by which a new release is judged: its checks, and from where on it is bad."""

import re
from collections.abc import Mapping
from ipaddress import IPv4Address, IPv6Address, ip_address
from urllib.parse import urlsplit

from mesh.config.labels.probe_values import parse_probe_command
from mesh.config.labels.reader import LabelReader, label_key
from mesh.config.labels.values import LabelRefusedError, parse_number, quote_value
from mesh.model.codes import Code
from mesh.model.probe import validate_host
from mesh.model.release_checks import CheckUrl, ReleaseChecks

CHECK_COMMAND, CHECK_URL = "release.check.cmd", "release.check.url"
MAX_FAILURES, MIN_CONNECTIONS = "release.max_failures", "release.min_connections"
MOST_CONNECTIONS = 1_000_000

_URL_MAX = 2048
_PORTS = {"http": 80, "https": 443}
_PER_CENT = re.compile(r"([0-9]{1,3}(?:\.[0-9]{1,2})?) ?%?", re.ASCII)
_NUMBER = re.compile(r"0[xX][0-9A-Fa-f]{1,16}|0[0-7]{0,22}|[1-9][0-9]{0,9}", re.ASCII)
_EXAMPLE = "write one such as http://container:8080/check"


def parse_check_url(text: str) -> CheckUrl:
    """Parse `http://container:8080/check`, or `https://`. Hosts that can never be asked are refused here already."""
    rest = text.partition("://")[2]
    netloc = re.split(r"[/?#]", rest, maxsplit=1)[0]
    path = rest[len(netloc) :]
    scheme = text.partition("://")[0].lower()
    if scheme not in _PORTS or len(text) > _URL_MAX or "#" in path or not all("!" <= c <= "~" for c in path):
        raise LabelRefusedError(Code.RELEASE_CHECK, f"{quote_value(text)} is no URL of a check", _EXAMPLE)
    try:
        validate_host(netloc)
        parts = urlsplit(f"//{netloc}")
        host, port = (parts.hostname or "").removesuffix("."), parts.port or _PORTS[scheme]
    except ValueError:
        raise LabelRefusedError(Code.RELEASE_CHECK, f"{quote_value(netloc)} is no host", _EXAMPLE) from None
    if (reason := forbidden_host(host)) is not None:
        remedy = f"{_EXAMPLE}, where container stands for each instance"
        raise LabelRefusedError(Code.RELEASE_CHECK, f"{quote_value(netloc)} is {reason}", remedy)
    return CheckUrl(scheme == "https", host, port, path if path.startswith("/") else f"/{path}")


def forbidden_host(host: str) -> str | None:
    """Return why no check may ask a host, by what it says itself; None if its address is to be looked at."""
    if host == "localhost" or host.endswith(".localhost"):  # RFC 6761, section 6.3
        return "this host"
    address = written_address(host)
    return None if address is None else forbidden_address(address)


def written_address(host: str) -> IPv4Address | IPv6Address | None:
    """Return the address that a host is, in any spelling that getaddrinfo(3) knows; None for a name."""
    try:
        return ip_address(host)
    except ValueError:
        pass
    return _short_address(host)


def _short_address(host: str) -> IPv4Address | None:
    """Return the address of one to four numbers, decimal, octal or hexadecimal: `127.1`, `0x7f000001` (inet(3))."""
    parts = host.removesuffix(".").split(".")
    if len(parts) > 4 or not all(_NUMBER.fullmatch(part) for part in parts):
        return None
    numbers = [int(part, 16 if part[:2] in ("0x", "0X") else 8 if part[:1] == "0" else 10) for part in parts]
    *high, low = numbers
    if any(number > 255 for number in high) or low >= 256 ** (5 - len(numbers)):
        return None
    return IPv4Address(sum(number << 8 * (3 - at) for at, number in enumerate(high)) + low)


def plain_address(address: IPv4Address | IPv6Address) -> IPv4Address | IPv6Address:
    """Return the IPv4 address within an IPv6 one (RFC 4291, section 2.5.5; RFC 6052), else the address."""
    if isinstance(address, IPv6Address):
        if address.ipv4_mapped is not None:
            return address.ipv4_mapped
        high, low = int(address) >> 32, int(address) & 0xFFFF_FFFF
        if high == 0x64_FF9B << 64 or (high == 0 and low > 1):
            return IPv4Address(low)
    return address


def forbidden_address(address: IPv4Address | IPv6Address) -> str | None:
    """Return why no check may ask an address, whatever the settings permit; None if it may."""
    plain = plain_address(address)
    if plain.is_loopback or plain.is_unspecified:
        return "this host"
    if isinstance(plain, IPv4Address) and int(plain) >> 24 == 0:  # RFC 791: this network
        return "this host"
    if plain.is_link_local:
        return "a link-local address"
    if plain.is_multicast or int(plain) == 0xFFFF_FFFF:
        return "no single host"
    return None


def parse_max_failures(text: str) -> float:
    """Parse per cent from 0 to 100, with up to two decimals: `5`, `0.5%`."""
    match = _PER_CENT.fullmatch(text)
    if match is None or float(match[1]) > 100:
        raise LabelRefusedError(
            Code.VALUE_OUT_OF_RANGE, f"{quote_value(text)} is not a percentage", "write 0 to 100, such as 5%"
        )
    return float(match[1])


def parse_min_connections(text: str) -> int:
    """Parse a number of connections, 0 for none."""
    return parse_number(text, 0, MOST_CONNECTIONS)


def check_release_labels(sheet: LabelReader, commands: bool) -> None:
    """Report what is wrong with these labels. `commands`: whether commands can run inside the container."""
    command = sheet.take(CHECK_COMMAND, _parse_check_command, "")
    if command and sheet.has_port_labels and not commands:
        reason = "it is run by a container engine, but this endpoint has none"
        sheet.warn(Code.PROBE_COMMAND_WITHOUT_ENGINE, CHECK_COMMAND, reason, f"write a {CHECK_URL}")
    sheet.take(CHECK_URL, parse_check_url, None)


def read_release_checks(labels: Mapping[str, str]) -> ReleaseChecks:
    """Return the checks that the labels of a container declare; one that is refused counts as absent."""
    if label_key(labels, CHECK_COMMAND) is None and label_key(labels, CHECK_URL) is None:
        return ReleaseChecks()
    sheet = LabelReader(labels, "")
    return ReleaseChecks(
        sheet.take(CHECK_COMMAND, _parse_check_command, ""), sheet.take(CHECK_URL, parse_check_url, None)
    )


def read_judge_limits(labels: Mapping[str, str]) -> tuple[float | None, int | None]:
    """Return the per cent that may fail and the connections that must come; None for each that no label says."""
    sheet = LabelReader(labels, "")
    return sheet.take(MAX_FAILURES, parse_max_failures, None), sheet.take(MIN_CONNECTIONS, parse_min_connections, None)


def _parse_check_command(text: str) -> str:
    try:
        return parse_probe_command(text)
    except LabelRefusedError as refused:
        raise LabelRefusedError(Code.RELEASE_CHECK, refused.reason, refused.remedy) from None
