"""What a list of codes is."""

from typing import TypeAlias

Table: TypeAlias = dict[str, tuple[str, tuple[str, ...]]]
"""Code -> what it is about, and the words of its messages; `{}` stands for anything."""
