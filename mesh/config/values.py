"""Parsers for the values of settings: from TOML or an environment variable to a typed value.

Each parser accepts both notations, because each setting is an environment variable too: a number may be given as its
digits, a list as text with commas. A parser raises `ValueError` that says only what is wrong. The place of the value
and what to write instead depend on the setting; `mesh.config.settings`, which has the table of settings, adds both.
"""

import ipaddress
import re
from collections.abc import Callable, Iterable, Mapping
from enum import StrEnum
from pathlib import Path
from types import MappingProxyType
from typing import TypeAlias, TypeVar
from urllib.parse import urlsplit

from mesh.config import etcd_url

Network: TypeAlias = ipaddress.IPv4Network | ipaddress.IPv6Network

Choice = TypeVar("Choice", bound=StrEnum)


def parse_text(raw: object) -> str:
    """Parse non-empty text, without the white space around it."""
    if not isinstance(raw, str) or not raw.strip():
        raise ValueError(f"{raw!r} is not a text")
    return raw.strip()


def parse_host_name(raw: object) -> str:
    """Parse the name of a worker."""
    written = parse_text(raw)
    if not re.fullmatch(r"[A-Za-z0-9]([A-Za-z0-9._-]{0,61}[A-Za-z0-9])?", written):
        raise ValueError(f"{written!r} is not a host name")
    return written


def parse_domain_name(raw: object) -> str:
    """Parse a domain; the result is in lower case, without a final dot."""
    name = parse_text(raw).lower().rstrip(".")
    if len(name) > 200 or not all(re.fullmatch(r"[a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9_])?", p) for p in name.split(".")):
        raise ValueError(f"{name!r} is not a domain name")
    return name


def parse_domain_names(raw: object) -> tuple[str, ...]:
    """Parse domain names, as `parse_domain_name`; repetitions are left out."""
    return tuple(dict.fromkeys(parse_domain_name(item) for item in _items(raw)))


DEFAULT_NAME_DOMAINS = ("local", "internal", "test", "lan", "home.arpa")
"""The domains in which labels may claim names unless the operator says otherwise: they are not of the public DNS (RFC
6762, RFC 9476 and ICANN's resolution of 2024 on `internal`, RFC 6761, RFC 8375)."""


def parse_name_domains(raw: object) -> tuple[str, ...]:
    """Parse domains in which names may be claimed; repetitions are left out.

    A domain of one label is a whole top level of the DNS, so only those of the default are accepted.
    """
    domains = tuple(dict.fromkeys(parse_domain_name(item) for item in _items(raw)))
    for domain in domains:
        if "." not in domain and domain not in DEFAULT_NAME_DOMAINS:
            raise ValueError(f"{domain!r} is a whole top-level domain")
        if any(f".{domain}".endswith(f".{reverse}") for reverse in ("in-addr.arpa", "ip6.arpa")):
            raise ValueError(f"{domain!r} is a reverse zone")
    return domains


def parse_address(raw: object) -> str:
    """Parse an address; the result is in canonical form."""
    return str(ipaddress.ip_address(parse_text(raw)))


def parse_vip_pool(raw: object) -> Network:
    """Parse a network that is large enough for VIPs."""
    pool = ipaddress.ip_network(parse_text(raw))
    if pool.num_addresses < 8:
        raise ValueError(f"{pool} has room for no more than {max(0, pool.num_addresses - 3)} VIPs")
    return pool


def parse_label_constraints(raw: object) -> tuple[str, ...]:
    """Parse labels that are required: `KEY` or `KEY=VALUE` each."""
    constraints = tuple(parse_text(item) for item in _items(raw))
    for constraint in constraints:
        key, _, value = constraint.partition("=")
        if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._/-]{0,254}", key) or len(value) > 1024 or not value.isprintable():
            raise ValueError(f"{constraint!r} is not a label; write KEY or KEY=VALUE")
    return constraints


def parse_switch(raw: object) -> bool:
    """Parse `true` or `false`, also as text."""
    if isinstance(raw, bool):
        return raw
    if isinstance(raw, str) and raw.strip().lower() in ("true", "false"):
        return raw.strip().lower() == "true"
    raise ValueError(f"{raw!r} is neither true nor false")


def parse_networks(raw: object) -> tuple[Network, ...]:
    """Parse networks of any size; a single host is one too."""
    return tuple(ipaddress.ip_network(item) for item in _items(raw))


def number_parser(low: int, high: int) -> Callable[[object], int]:
    """Return a parser for whole numbers from `low` to `high`. It refuses `true`, which is an `int` in Python."""

    def parse(raw: object) -> int:
        if isinstance(raw, str) and re.fullmatch(r"-?[0-9]{1,9}", raw.strip()):
            raw = int(raw)
        if not isinstance(raw, int) or isinstance(raw, bool) or not low <= raw <= high:
            raise ValueError(f"{raw!r} is not a number from {low} to {high}")
        return raw

    return parse


_UNITS: Mapping[str, int] = MappingProxyType({"": 1, "s": 1, "m": 60, "h": 3600, "d": 86_400})


def seconds_parser(low: int, high: int) -> Callable[[object], int]:
    """Return a parser for times from `low` to `high` seconds: a number of seconds, or text such as `10m`, `12h` or
    `30d`.
    """
    parse_number = number_parser(low, high)

    def parse(raw: object) -> int:
        if not isinstance(raw, str):
            return parse_number(raw)
        match = re.fullmatch(r"([0-9]{1,9})\s*([smhd]?)", raw.strip())
        seconds = int(match[1]) * _UNITS[match[2]] if match else -1
        if not low <= seconds <= high:
            raise ValueError(f"{raw!r} is not a time from {low} to {high} seconds")
        return seconds

    return parse


def parse_port_range(raw: object) -> range:
    """Parse `30000-32767`; both ends are included."""
    match = re.fullmatch(r"\s*([0-9]{1,5})\s*-\s*([0-9]{1,5})\s*", parse_text(raw))
    if not match:
        raise ValueError(f"{raw!r} is not a range of ports")
    low, high = int(match[1]), int(match[2])
    if not 1 <= low <= high <= 65535:
        raise ValueError(f"{raw!r} is not an ascending range within 1 to 65535")
    return range(low, high + 1)


def word_parser(kind: type[Choice], called: str) -> Callable[[object], Choice]:
    """Return a parser for the words of `kind`. A refusal calls them `called`."""

    def parse(raw: object) -> Choice:
        written = parse_text(raw)
        if written not in list(kind):
            raise ValueError(f"{written!r} is not {called}")
        return kind(written)

    return parse


def _items(raw: object) -> list[str]:
    if isinstance(raw, str):
        return [item.strip() for item in raw.split(",") if item.strip()]
    if not isinstance(raw, list | tuple):
        raise ValueError(f"{raw!r} is not a list")
    return [parse_text(item) for item in raw]


def parse_socket_address(text: str, default_port: int | None = None) -> tuple[str, int]:
    """Parse `127.0.0.1:53` or `[::1]:53`; the port may be missing if there is a default. Raises `ValueError`."""
    match = re.fullmatch(r"\[([0-9A-Fa-f:.%]+)\](?::([0-9]{1,5}))?|([0-9.]+)(?::([0-9]{1,5}))?|([0-9A-Fa-f:]+)", text)
    if not match:
        raise ValueError(f"{text!r} is not ADDRESS:PORT")
    host = str(ipaddress.ip_address(match[1] or match[3] or match[5]))
    port = match[2] or match[4]
    if port is None and default_port is None:
        raise ValueError(f"{text!r} has no port")
    number = int(port) if port is not None else default_port
    if number is None or not 0 <= number <= 65535:
        raise ValueError(f"{text!r} has a port above 65535")
    return host, number


def parse_url_host(url: str) -> str:
    """Return the host of a URL such as `http://h1:2379` or `http://[::1]:2379`; empty if it has none."""
    return urlsplit(url).hostname or ""


def is_loopback(host: str) -> bool:
    """Return whether a host is `localhost` or a loopback address, so that nothing leaves this machine."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def socket_addresses_parser(default_port: int) -> Callable[[object], tuple[tuple[str, int], ...]]:
    """Return a parser for lists of socket addresses, in the order written."""
    return lambda raw: tuple(parse_socket_address(item, default_port) for item in _items(raw))


def split_domains(raw: object) -> Iterable[tuple[str, list[str]]]:
    """Parse `corp.example=10.1.1.1,10.1.1.2,lab.example=10.2.2.2:5353` into each domain and the texts after it."""
    given: dict[str, list[str]] = {}
    domain = ""
    for item in _items(raw):
        before, equals, server = item.rpartition("=")
        domain = before.strip() if equals else domain
        if not domain:
            raise ValueError(f"{item!r} has no domain")
        given.setdefault(domain, []).extend([server.strip()] if server.strip() else [])
    return given.items()


def parse_domain_servers(domains: Iterable[tuple[str, object]]) -> Mapping[str, tuple[tuple[str, int], ...]]:
    """Parse domains and their name servers. A domain must occur only once."""
    given = {domain: _items(servers) for domain, servers in domains}
    found: dict[str, tuple[tuple[str, int], ...]] = {}
    for written, servers in given.items():
        domain = parse_domain_name(written)
        try:
            addresses = tuple(dict.fromkeys(parse_socket_address(server, 53) for server in servers))
        except ValueError as error:
            raise ValueError(f'"{domain}": {error}') from error
        if not addresses:
            raise ValueError(f'"{domain}" has no server')
        if domain in found:
            raise ValueError(f'"{domain}" is listed twice')
        found[domain] = addresses
    return MappingProxyType(found)


def parse_path(raw: object) -> Path:
    """Parse a path. The file system is not accessed."""
    return Path(parse_text(raw))


def parse_paths(raw: object) -> tuple[Path, ...]:
    """Parse paths, in the order written."""
    return tuple(Path(item) for item in _items(raw))


def parse_store_url(raw: object) -> str:
    """Check the URL of a store and return it as written: `sqlite:///PATH`, or a URL for `mesh.config.etcd_url`."""
    written = parse_text(raw)
    if re.match(r"etcds?:", written):
        etcd_url.parse_etcd_url(written)
    elif not re.match(r"sqlite:///.", written):
        raise ValueError(f"{written!r} is not the URL of a store")
    return written


def parse_resolver(raw: object) -> str:
    """Parse `auto`, `off` or an address."""
    written = parse_text(raw)
    return written if written in ("auto", "off") else parse_address(written)


def parse_engine(raw: object) -> str:
    """Parse `unix:///PATH` or `tcp://HOST:PORT`."""
    written = parse_text(raw)
    if not re.fullmatch(r"unix:///.+|tcp://[^/:\s]+:[0-9]{1,5}", written):
        raise ValueError(f"{written!r} is not the address of a container engine")
    return written


def parse_listen(raw: object) -> str:
    """Parse `unix:///PATH` or `ADDRESS:PORT`."""
    written = parse_text(raw)
    if written.startswith("unix://"):
        if not written.startswith("unix:///"):
            raise ValueError(f"{written!r} is not an absolute path")
        return written
    parse_socket_address(written)
    return written


def parse_tcp_address(raw: object) -> str:
    """Parse `ADDRESS:PORT`."""
    written = parse_text(raw)
    parse_socket_address(written)
    return written


def parse_reachable_address(raw: object) -> str:
    """Parse the `ADDRESS:PORT` where others connect to this worker."""
    written = parse_text(raw)
    host, port = parse_socket_address(written)
    if ipaddress.ip_address(host).is_unspecified or "%" in host or not port:
        raise ValueError(f"{written!r} is not an address and port that other workers can connect to")
    return written


def parse_peers(raw: object) -> str:
    """Parse `auto`, `off`, or the `ADDRESS:PORT` where other workers can ping this one."""
    written = parse_text(raw)
    if written not in ("auto", "off"):
        host, _ = parse_socket_address(written)
        if ipaddress.ip_address(host).is_unspecified:
            raise ValueError(f"{written!r} is not an address that other workers can connect to")
    return written


def parse_http_urls(raw: object) -> tuple[str, ...]:
    """Parse a list of `http://HOST:PORT` and `https://HOST:PORT`, with a path or without, without a password."""
    return tuple(map(_http_url, _items(raw)))


def _http_url(text: str) -> str:
    # What may hold a password or a key is not shown again.
    shown = "it" if set(text) & set("@?#") else repr(text)
    refusal = ValueError(f"{shown} is not an http:// or https:// URL without user, query and fragment")
    try:
        url = urlsplit(text)
        port = url.port
    except ValueError:
        raise refusal from None
    if url.scheme not in ("http", "https") or not url.hostname or port == 0 or not text.isprintable() or " " in text:
        raise refusal
    if "@" in url.netloc or url.query or url.fragment:
        raise ValueError("a URL has no user, no query and no fragment; credentials are in files")
    return text.rstrip("/")


def parse_index_prefix(raw: object) -> str:
    """Parse what the name of an index begins with: lower-case letters, digits, `-` and `_`."""
    text = parse_text(raw)
    if not re.fullmatch(r"[a-z0-9][a-z0-9_-]{0,62}", text, re.ASCII):
        raise ValueError(f"{text!r} is not up to 63 lower-case letters, digits, - and _")
    return text
