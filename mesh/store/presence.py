"""Where the daemons of the workers answer one another: what their own records say. Pure."""

import re
from collections.abc import Mapping
from ipaddress import ip_address
from urllib.parse import unquote

import msgspec

from mesh.model import RealKey


class _Daemon(msgspec.Struct, frozen=True):
    listens: str | None = None


def presences(records: Mapping[str, bytes]) -> Mapping[str, RealKey]:
    """Worker -> where it answers; without those that say nothing of it, as older versions do."""
    found = {}
    for key, value in records.items():
        if key.endswith("/daemon") and (place := _place(value)) is not None:
            match key.split("/"):
                case ["workers", worker, "daemon"]:
                    found[unquote(worker)] = place
    return found


def _place(value: bytes) -> RealKey | None:
    """None as well for what cannot be read: nobody is asked there, and nothing else follows from it."""
    try:
        listens = msgspec.json.decode(value, type=_Daemon).listens
    except msgspec.MsgspecError:
        return None
    match = re.fullmatch(r"\[([0-9a-f:]+)\]:([0-9]{1,5})|([0-9.]+):([0-9]{1,5})", listens or "")
    if match is None:
        return None
    try:
        address = str(ip_address(match[1] or match[3]))
    except ValueError:
        return None
    port = int(match[2] or match[4])
    return RealKey(address, port) if 1 <= port <= 65535 else None
