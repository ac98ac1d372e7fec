"""Parses `etcd://h1:2379,h2:2379,[fd00::3]:2379/vipmesh` into the members of a cluster and the prefix of the keys.

`etcds://` means TLS. The default port is 2379, the default prefix `vipmesh`. User and password are separate settings,
because a URL is shown in logs.
"""

import ipaddress
import re
from dataclasses import dataclass

EXAMPLE_URL = '"etcd://host1:2379,host2:2379,host3:2379/vipmesh", or etcds:// for TLS'

_PORT = 2379


@dataclass(frozen=True, slots=True)
class EtcdUrl:
    """The members of an etcd cluster and the prefix of the keys. Any member may be asked."""

    members: tuple[str, ...]
    """The client URL of each member: `http://h1:2379`."""
    prefix: str
    """With a slash at both ends: `/vipmesh/`."""

    @property
    def tls(self) -> bool:
        """Whether the members are reached over TLS."""
        return self.members[0].startswith("https:")


def parse_etcd_url(text: str) -> EtcdUrl:
    """Parse the URL. Raises `ValueError` that says what is wrong."""
    if "@" in text:
        raise ValueError("the URL has a user, but is shown in logs; set [store] user and [store] password instead")
    match = re.fullmatch(r"(etcds?)://([^/?#]*)/?([^?#]*)", text)
    if not match:
        raise ValueError(f"{text!r} is not the URL of an etcd cluster")
    scheme = "https" if match[1] == "etcds" else "http"
    members = tuple(dict.fromkeys(f"{scheme}://{_member(part.strip())}" for part in match[2].split(",")))
    prefix = match[3].strip("/") or "vipmesh"
    if not re.fullmatch(r"[A-Za-z0-9._/-]+", prefix):
        raise ValueError(f"{prefix!r} has characters that are not letters, digits or any of . _ / -")
    return EtcdUrl(members, f"/{prefix}/")


def _member(text: str) -> str:
    match = re.fullmatch(r"(?:\[([0-9A-Fa-f:.]+)\]|([A-Za-z0-9._-]+))(?::([0-9]{1,5}))?", text)
    if not match:
        raise ValueError(f"{text!r} is not HOST:PORT")
    port = int(match[3] or _PORT)
    if not 1 <= port <= 65535:
        raise ValueError(f"{text!r} has no port from 1 to 65535")
    host = f"[{ipaddress.IPv6Address(match[1])}]" if match[1] else match[2]
    return f"{host}:{port}"


def rollouts_prefix(prefix: str) -> str:
    """Return the prefix of evidence of rollouts beside that of a cluster's keys: `/vipmesh.rollouts/`."""
    return f"{prefix.rstrip('/')}.rollouts/"


def usage_prefix(prefix: str) -> str:
    """Return the prefix of usage records beside that of a cluster's keys: `/vipmesh.usage/` for `/vipmesh/`."""
    return f"{prefix.rstrip('/')}.usage/"
