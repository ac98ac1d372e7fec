"""The stable code of a message: `... the name web.local is held by shop/web; give it a name of its own [VM201]`.

A user looks it up in `docs/errors.md`; a program compares it, while the words get better.

The code is found by words that the message always has, and not given at each place that raises or logs: there are three
hundred of those, and whoever adds one would have to look for a free number. Here one list says which are the same
matter, and `tests/model/test_codes.py` finds every message in the sources that no code fits, all words that fit none,
and every code that the docs do not explain. A code keeps its meaning for good; a number is never used again.
"""

import re
from functools import cache
from typing import NamedTuple

from mesh.model.codes import worker, written
from mesh.model.codes.table import Table

CODES: Table = written.CODES | worker.CODES
"""All of them."""


class _Words(NamedTuple):
    pattern: re.Pattern[str]
    weight: int
    """Characters that must be there."""
    code: str


def _compiled(words: str, code: str) -> _Words:
    parts = words.split("{}")
    return _Words(re.compile(".*?".join(map(re.escape, parts)), re.DOTALL), sum(map(len, parts)), code)


@cache
def _known() -> tuple[_Words, ...]:
    return tuple(_compiled(words, code) for code, (_, messages) in CODES.items() for words in messages)


def code_of(message: str, among: str = "VM") -> str | None:
    """The code; None: it is no message that we know.

    A message may carry another one, its cause. What stands first counts; of two at one place, the one that says more.
    `among`: the beginning of the codes that come into question.
    """
    best: tuple[int, int, str] | None = None
    for words in _known():
        if words.code.startswith(among) and (match := words.pattern.search(message)):
            found = (match.start(), -words.weight, words.code)
            best = found if best is None else min(best, found)
    return best[2] if best is not None else None


def coded(message: str, among: str = "VM", default: str | None = None) -> str:
    """The message with its code at the end, if it has one and does not show it already."""
    code = code_of(message, among) or default
    return message if code is None or message.endswith(f"[{code}]") else f"{message} [{code}]"
