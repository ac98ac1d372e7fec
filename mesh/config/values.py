"""The readers of the settings' values: what TOML or a variable holds -> a typed value, or what is wrong with it.

Each takes both notations, because each setting is an environment variable too: a number may come as its digits, a list
as a text with commas. A reader raises ValueError and says no more than what is wrong: where the value stands and what
to write instead differ from setting to setting, and `mesh.config.settings`, which has the table of them, adds both.
"""

import ipaddress
import re
from collections.abc import Callable, Iterable, Mapping
from enum import StrEnum
from pathlib import Path
from types import MappingProxyType
from typing import TypeAlias, TypeVar

from mesh.config import etcd_url
from mesh.model.service import Address

Network: TypeAlias = ipaddress.IPv4Network | ipaddress.IPv6Network

Choice = TypeVar("Choice", bound=StrEnum)


def parse_text(raw: object) -> str:
    """A text that says something; what is around it is cut off."""
    if not isinstance(raw, str) or not raw.strip():
        raise ValueError(f"{raw!r} is not a text")
    return raw.strip()


def parse_host_name(raw: object) -> str:
    """The name of a worker."""
    written = parse_text(raw)
    if not re.fullmatch(r"[A-Za-z0-9]([A-Za-z0-9._-]{0,61}[A-Za-z0-9])?", written):
        raise ValueError(f"{written!r} is not a host name")
    return written


def parse_domain_name(raw: object) -> str:
    """A domain in lower case, without the dot at its end."""
    name = parse_text(raw).lower().rstrip(".")
    if len(name) > 200 or not all(re.fullmatch(r"[a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9_])?", p) for p in name.split(".")):
        raise ValueError(f"{name!r} is not a domain name")
    return name


def parse_address(raw: object) -> Address:
    """An address in canonical form."""
    return str(ipaddress.ip_address(parse_text(raw)))


def parse_vip_pool(raw: object) -> Network:
    """A network that has room for VIPs."""
    pool = ipaddress.ip_network(parse_text(raw))
    if pool.num_addresses < 8:
        raise ValueError(f"{pool} has room for no more than {max(0, pool.num_addresses - 3)} VIPs")
    return pool


def parse_networks(raw: object) -> tuple[Network, ...]:
    """Networks of any size: a single host is one too."""
    return tuple(ipaddress.ip_network(item) for item in _items(raw))


def number_parser(low: int, high: int) -> Callable[[object], int]:
    """A whole number in the bounds. `true` is none, though it is an `int` to Python."""

    def parse(raw: object) -> int:
        if isinstance(raw, str) and re.fullmatch(r"-?[0-9]{1,9}", raw.strip()):
            raw = int(raw)
        if not isinstance(raw, int) or isinstance(raw, bool) or not low <= raw <= high:
            raise ValueError(f"{raw!r} is not a number from {low} to {high}")
        return raw

    return parse


def parse_port_range(raw: object) -> range:
    """`30000-32767`, both ends among them."""
    match = re.fullmatch(r"\s*([0-9]{1,5})\s*-\s*([0-9]{1,5})\s*", parse_text(raw))
    if not match:
        raise ValueError(f"{raw!r} is not a range of ports")
    low, high = int(match[1]), int(match[2])
    if not 1 <= low <= high <= 65535:
        raise ValueError(f"{raw!r} does not rise from 1 up to at most 65535")
    return range(low, high + 1)


def word_parser(kind: type[Choice], called: str) -> Callable[[object], Choice]:
    """A word of the kind, which a refusal calls `called`."""

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
    """`127.0.0.1:53`, `[::1]:53`, or without the port if there is a default. Raises ValueError."""
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


def socket_addresses_parser(default_port: int) -> Callable[[object], tuple[tuple[str, int], ...]]:
    """Those of `parse_socket_address`, in the order written."""
    return lambda raw: tuple(parse_socket_address(item, default_port) for item in _items(raw))


def split_domains(raw: object) -> Iterable[tuple[str, list[str]]]:
    """`corp.example=10.1.1.1,10.1.1.2,lab.example=10.2.2.2:5353`: each domain, and what stands after it."""
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
    """Each domain once, with the name servers that answer for it."""
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
            raise ValueError(f'"{domain}" stands there twice')
        found[domain] = addresses
    return MappingProxyType(found)


def parse_path(raw: object) -> Path:
    """A path; nothing is looked for there."""
    return Path(parse_text(raw))


def parse_paths(raw: object) -> tuple[Path, ...]:
    """Paths, in the order written."""
    return tuple(Path(item) for item in _items(raw))


def parse_store_url(raw: object) -> str:
    """Where a store is, as it is written: `sqlite:///PATH`, or what `mesh.config.etcd_url` takes."""
    written = parse_text(raw)
    if re.match(r"etcds?:", written):
        etcd_url.parse_etcd_url(written)
    elif not re.match(r"sqlite:///.", written):
        raise ValueError(f"{written!r} is not the URL of a store")
    return written


def parse_resolver(raw: object) -> str:
    """`auto`, `off`, or an address."""
    written = parse_text(raw)
    return written if written in ("auto", "off") else parse_address(written)


def parse_engine(raw: object) -> str:
    """`unix:///PATH` or `tcp://HOST:PORT`."""
    written = parse_text(raw)
    if not re.fullmatch(r"unix:///.+|tcp://[^/:\s]+:[0-9]{1,5}", written):
        raise ValueError(f"{written!r} is not the address of a container engine")
    return written


def parse_listen(raw: object) -> str:
    """`unix:///PATH` or `ADDRESS:PORT`."""
    written = parse_text(raw)
    if written.startswith("unix://"):
        if not written.startswith("unix:///"):
            raise ValueError(f"{written!r} is not an absolute path")
        return written
    parse_socket_address(written)
    return written


def parse_tcp_address(raw: object) -> str:
    """`ADDRESS:PORT`."""
    written = parse_text(raw)
    parse_socket_address(written)
    return written


def parse_peers(raw: object) -> str:
    """`auto`, `off`, or the `ADDRESS:PORT` where other workers can ask."""
    written = parse_text(raw)
    if written not in ("auto", "off"):
        host, _ = parse_socket_address(written)
        if ipaddress.ip_address(host).is_unspecified:
            raise ValueError(f"{written!r} is no address that other workers can ask")
    return written
