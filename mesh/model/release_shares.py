"""The shares of new connections that an operator has given to the releases of a service. Pure."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

WHOLE = 10_000
"""All new connections of a service, in the unit of shares: hundredths of a per cent."""
MAX_SHARED_RELEASES = 16
"""The most releases of a service that have shares, or that are known when shares are given."""


@dataclass(frozen=True, slots=True)
class ReleaseShares:
    """The shares of the releases of one service, as they are in the store."""

    owner: str
    """The `Service.owner` that they are about."""
    given: Mapping[str, int] = field(default_factory=dict)
    """The share of each release that has one, in hundredths of a per cent. Their sum is `WHOLE` at most. The releases
    that are not in it share the rest.
    """
    among: tuple[str, ...] = ()
    """The releases that the service had when the shares were given, sorted; empty for endpoints without a release. The
    shares are in force while two of them are left.
    """
    by: str = ""
    """Who gave them, in words; empty if that is not known."""

    def are_in_force(self, releases: Iterable[str]) -> bool:
        """Return whether they count for a service that has endpoints of these releases."""
        return len(set(releases).intersection(self.among)) > 1


def share_text(points: float) -> str:
    """Return a share in words; `points` are hundredths of a per cent: `12.5 %`."""
    return f"{points / 100:.2f}".rstrip("0").rstrip(".") + " %"
