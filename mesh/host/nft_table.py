"""Keeps an nftables table of ours as it must be: loads it if it differs, and says what was changed outside vipmesh."""

from collections.abc import Sequence
from enum import Enum

from mesh.util import nft


class TableChange(Enum):
    """What `OwnedTable.ensure` found."""

    NONE = "none"
    """The table was as it must be, or was replaced by new values of ours."""
    MADE = "made"
    """There was no table."""
    REPAIRED = "repaired"
    """The table had been changed outside vipmesh."""


class OwnedTable:
    """One table, which a script replaces as a whole. All methods raise `NftError`."""

    def __init__(self, family: str, name: str) -> None:
        self.family = family
        self.name = name
        self._script = ""
        """The script that was loaded last; empty if none was."""
        self._left: str | None = None
        """The listing of the table after the script was loaded; None if it was not."""

    async def ensure(self, script: str) -> TableChange:
        """Load the script unless the table is what it has made before."""
        there = await nft.list_table(self.family, self.name)
        # nft prints a table differently from how it was written, so listings are compared with listings.
        if there is not None and there == self._left and script == self._script:
            return TableChange.NONE
        await nft.load_script(script)
        # With new values, what differs may be ours: nft lists an interface that is gone by its number.
        changed_outside = self._script == script and self._left not in (None, there)
        self._left, self._script = await nft.list_table(self.family, self.name), script
        if there is None:
            return TableChange.MADE
        return TableChange.REPAIRED if changed_outside else TableChange.NONE

    async def remove(self) -> bool:
        """Delete the table; returns whether there was one."""
        self._left, self._script = None, ""
        return await nft.delete_table(self.family, self.name)


async def remove_table(name: str) -> Sequence[str]:
    """Delete a table in both address families; returns the families in which it existed. Raises `NftError`."""
    return [family for family in ("ip", "ip6") if await nft.delete_table(family, name)]
