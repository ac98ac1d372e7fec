"""Reads `ports` of a service as the labels that publish them. Pure."""

import re
from collections.abc import Mapping

from mesh.config.labels.parse import label_key, port_label
from mesh.config.labels.values import quote_value
from mesh.model.service import PortPublication, Transport
from mesh.platform.stacks.values import PlainValue, StackKeys, StackValueError, parse_text

_SHORT = re.compile(
    r"(?:(?P<address>\[[0-9A-Fa-f:.]+\]|[0-9.]+):(?=[0-9-]*:))?"
    r"(?:(?P<published>[0-9]+(?:-[0-9]+)?)?:)?(?P<target>[0-9]+(?:-[0-9]+)?)(?:/(?P<protocol>[a-z]+))?",
    re.ASCII,
)
_MOST_PORTS = 1000
_LAST_PORT = 65535
_ANY_ADDRESS = frozenset({"", "0.0.0.0", "[::]", "::"})


def read_ports(keys: StackKeys, labels: Mapping[str, str]) -> dict[str, str]:
    """Return the labels `mesh.routing.publish.port_*` that `ports` stands for, beside those that are there."""
    found: dict[str, str] = {}
    value = keys.get("ports")
    items = value if isinstance(value, list) else [] if value is None else [value]
    for number, item in enumerate(items):
        path = f"ports[{number}]"
        try:
            address, published, target, transport = _port(item)
            pairs = _pairs(published, target)
        except StackValueError as error:
            keys.refuse(path, error.reason, error.remedy)
            continue
        if address not in _ANY_ADDRESS:
            name = port_label(PortPublication, pairs[0][1], transport)
            reason = f"it is for {address} alone, and a published port is open on all addresses, so it is not published"
            keys.warn(path, reason, f"add the label {name} if that is meant")
            continue
        for outside, inside in pairs:
            name = port_label(PortPublication, inside, transport)
            key = label_key(labels, name)
            before = found.setdefault(f"mesh.{name}", outside) if key is None else labels[key]
            if key is not None and outside == "auto":
                continue
            if before != outside:
                reason = f"container port {inside} is already published at {quote_value(before)}"
                keys.warn(path, reason, "give each container port one published port")
    return found


def _port(item: PlainValue) -> tuple[str, str, str, Transport]:
    if isinstance(item, dict):
        address, published, target, protocol = (
            parse_text(item.get(key) or "") for key in ("host_ip", "published", "target", "protocol")
        )
    else:
        match = _SHORT.fullmatch(parse_text(item))
        if match is None:
            raise StackValueError(f"{quote_value(parse_text(item))} is no port", "write PUBLISHED:CONTAINER, in quotes")
        address, published, target, protocol = (
            match[name] or "" for name in ("address", "published", "target", "protocol")
        )
    if protocol not in ("", *Transport):
        raise StackValueError(f"{quote_value(protocol)} is no transport", "write tcp, udp or sctp")
    return address, published, target, Transport(protocol) if protocol else Transport.TCP


def _pairs(published: str, target: str) -> list[tuple[str, int]]:
    inside = _range(target)
    if not published or published == "0":
        return [("auto", port) for port in inside]
    outside = _range(published)
    if len(outside) == len(inside):
        return [(str(port), below) for port, below in zip(outside, inside, strict=True)]
    if len(inside) == 1:  # any of a range: the mesh has one of its own
        return [("auto", inside[0])]
    raise StackValueError("the two ranges differ in length", "write as many published ports as container ports")


def _range(text: str) -> range:
    first, _, last = text.partition("-")
    low = int(first) if first.isdecimal() and len(first) < 6 else 0
    high = int(last) if last.isdecimal() and len(last) < 6 else low
    if not 1 <= low <= high <= _LAST_PORT or high - low >= _MOST_PORTS:
        raise StackValueError(f"{quote_value(text)} is no port", "write a number from 1 to 65535, or FIRST-LAST")
    return range(low, high + 1)
