"""The codes of the name server's messages, which `docs/errors.md` of vipmesh explains.

The name server stands alone and imports nothing of vipmesh, so its codes are here a second time; a test compares them.
"""

from collections.abc import Mapping
from enum import Enum, unique
from types import MappingProxyType

from typing_extensions import override


@unique
class LogCode(Enum):
    """Names the subject of a message of the name server."""

    CANNOT_LISTEN = "VM601"
    UPSTREAM_UNREACHABLE = "VM602"
    UPSTREAM_LOOP = "VM603"
    RESOLV_CONF = "VM604"
    UPSTREAM_FORGERY = "VM606"
    UPSTREAM_REBINDING = "VM607"
    INTERNAL_ERROR = "VM751"

    @override
    def __str__(self) -> str:
        return str(self.value)

    @property
    def extra(self) -> Mapping[str, "LogCode"]:
        """The argument `extra` of a logging call, which gives the record the attribute `code`."""
        return MappingProxyType({"code": self})
