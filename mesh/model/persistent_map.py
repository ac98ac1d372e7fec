"""The persistent map of the name server, which the views and plans are made of too.

The one door through which mesh uses the data structure: see `meshdns.persistent_map`.
"""

from meshdns.persistent_map import PersistentMap, changed_keys

__all__ = ["PersistentMap", "changed_keys"]
