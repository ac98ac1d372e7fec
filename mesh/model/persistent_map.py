"""Re-exports the persistent map of the name server, of which views and plans are made too.

All code of mesh imports the data structure from here; it is documented in `meshdns.persistent_map`.
"""

from meshdns.persistent_map import PersistentMap, changed_keys

__all__ = ["PersistentMap", "changed_keys"]
