"""Chooses the version of the engine's API that requests use. Pure.

An engine speaks the versions from its oldest to its newest one and refuses others with status 400. Docker 29 has
dropped those before 1.44; Podman 4 ends at 1.41. The newest version that both sides know is used, as Docker's own
client does. What an engine says of itself may be anything.
"""

import re
from typing import NamedTuple

from typing_extensions import override


class ApiVersion(NamedTuple):
    """A version of the engine's API: 1.41."""

    major: int
    minor: int

    @override
    def __str__(self) -> str:
        return f"{self.major}.{self.minor}"


OLDEST, NEWEST = ApiVersion(1, 41), ApiVersion(1, 56)
"""The versions whose responses are known: Docker Engine API version history, of Docker 20.10 and of November 2026."""

_VERSION = re.compile(r"v?([0-9]{1,4})\.([0-9]{1,4})", re.ASCII)


class ApiRefusedError(ValueError):
    """No version of the API is known to both sides."""


def parse_api_version(text: object) -> ApiVersion | None:
    """Parse `1.41`; None for anything else."""
    match = _VERSION.fullmatch(text) if isinstance(text, str) else None
    return None if match is None else ApiVersion(int(match[1]), int(match[2]))


def choose_api_version(newest: ApiVersion, oldest: ApiVersion | None) -> ApiVersion:
    """Return the newest version that the engine and vipmesh know.

    `newest` and `oldest` are the engine's own limits; `oldest` is None if it does not tell. Raises `ApiRefusedError`.
    """
    chosen = min(newest, NEWEST)
    if chosen >= max(OLDEST, oldest or OLDEST):
        return chosen
    spoken = f"up to {newest}" if oldest is None else f"{oldest} to {newest}"
    which = "update the engine" if newest < OLDEST else "update vipmesh"
    raise ApiRefusedError(f"it speaks API {spoken}, and vipmesh {OLDEST} to {NEWEST}; {which}")
