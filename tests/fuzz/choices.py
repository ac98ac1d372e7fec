"""Makes structured input from bytes: the same bytes always make the same input.

A fuzzer changes bytes and sees which code they reach. Each decision takes a few bytes from the front; when they are
used up, each decision has its first outcome, so that short inputs are simple ones.
"""

import json
from collections.abc import Sequence
from typing import Any, TypeVar

T = TypeVar("T")

TEXTS = (
    "web.test",
    "",
    ".",
    "..",
    "a..b",
    "a" * 64 + ".test",
    "Web.Test.",
    "-",
    "*.test",
    "bücher.test",
    "xn--a",
    "\x00",
    "\r\nX: y",
    "\x1b[2J",
    "a/b",
    "%",
    "%ff%00",
    "10.0.0.1",
    "::1",
    "::ffff:127.0.0.1",
    "fe80::1%eth0",
    "0x7f.1",
    "[::1",
    "[::1]:80",
    "http://container:80/",
    "https://container:443/a?b#c",
    "tcp://container:80",
    "udp://container:53",
    "grpc://container:50051/a.B",
    "cmd://container",
    "auto",
    "80",
    "65536",
    "-1",
    "1e308",
    "9" * 400,
    "٣",
    "nan",
    "inf",
    "true",
    "1s",
    "${A}",
    "${A:-${B}}",
    "$$",
    "a,b;c d",
    "\u2028",
    "\ud800",
    "😀",
    "2026-11-30T11:59:16.358097495Z",
    "container:" + "f" * 64,
    "service_healthy",
)
NUMBERS = (0, 1, -1, 80, 65_535, 65_536, 1 << 31, 1 << 32, 1 << 63, 1 << 64, 10**30, 0.0, -0.5, 1e-9, 1e308, 0.5)
BUDGET = 1 << 18
"""The most characters that repetitions may make of one input."""


class ByteChoices:
    """Takes decisions from the front of some bytes."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0
        self._budget = BUDGET

    def is_used_up(self) -> bool:
        """Whether every further decision has its first outcome."""
        return self._at >= len(self._data)

    def number(self, below: int) -> int:
        """Return a number from 0 to `below` - 1, which must be 1 at least."""
        size = max(1, ((below - 1).bit_length() + 7) // 8)
        return int.from_bytes(self._take(size), "little") % below

    def flag(self) -> bool:
        """Return whether something is so; False without bytes."""
        return self.number(2) == 1

    def pick(self, options: Sequence[T]) -> T:
        """Return one of the options, which are one at least."""
        return options[self.number(len(options))]

    def raw(self) -> bytes:
        """Return up to 255 bytes as they are."""
        return self._take(self.number(256))

    def rest(self) -> bytes:
        """Return all bytes that are left."""
        return self._take(len(self._data) - self._at)

    def pieces(self, data: bytes) -> list[bytes]:
        """Return the bytes in pieces of one size, as they may arrive: as one piece without bytes."""
        size = self.pick((len(data), 1, 2, 7, 100, 4096)) or 1
        size = max(size, len(data) // 4096)
        return [data[at : at + size] for at in range(0, len(data), size)]

    def text(self) -> str:
        """Return text: a known difficult one, any characters, or one of them many times."""
        match self.number(8):
            case 0 | 1 | 2 | 3:
                return self.pick(TEXTS)
            case 4 | 5:
                return self.raw().decode("utf-8", "replace")
            case 6:
                return self.pick(TEXTS) + self.raw().decode("latin-1") + self.pick(TEXTS)
            case _:
                return "".join(self._repeated([self.pick(TEXTS) or "x"], BUDGET))

    def json(self, depth: int = 3) -> Any:
        """Return a JSON value of up to `depth` levels."""
        match self.number(10 if depth else 7):
            case 0 | 1 | 2:
                return self.text()
            case 3 | 4:
                return self.pick(NUMBERS)
            case 5:
                return None
            case 6:
                return self.flag()
            case 7:
                return [self.json(depth - 1) for _ in range(self.number(4))]
            case 8:
                return {self.text(): self.json(depth - 1) for _ in range(self.number(4))}
            case _:
                return self._repeated([self.json(depth - 1)], 5000)

    def edited(self, value: Any) -> Any:
        """Return a JSON value with up to four of its parts replaced, removed or repeated."""
        for _ in range(self.number(5)):
            places = places_in(value)
            if not places:
                break
            value = self._changed(value, self.pick(places))
        return value

    def encoded(self, value: Any) -> bytes:
        """Return an edited JSON value as bytes, which seldom are no JSON."""
        body = json.dumps(self.edited(value)).encode()
        match self.number(8):
            case 6:
                at = self.number(len(body) + 1)
                return body[:at] + self.raw() + body[at + self.number(64) :]
            case 7:
                return b"".join(self._repeated([self.raw()], 2000))
            case _:
                return body

    def _changed(self, value: Any, at: tuple[Any, ...]) -> Any:
        if not at:
            return self.json()
        copy = dict(value) if isinstance(value, dict) else list(value)
        if len(at) > 1:
            copy[at[0]] = self._changed(copy[at[0]], at[1:])
            return copy
        match self.number(6):
            case 4:
                del copy[at[0]]
            case 5 if isinstance(copy, list):
                copy += self._repeated([copy[at[0]]], 300)
            case 5 if isinstance(copy, dict):
                copy[self.text()] = copy[at[0]]
            case _:
                copy[at[0]] = self.json()
        return copy

    def _repeated(self, unit: list[T], most: int) -> list[T]:
        """Return a list with one item as often as is chosen: once at least, `most` times at most."""
        size = len(unit[0]) if isinstance(unit[0], str | bytes) else len(json.dumps(unit[0]))
        times = min(1 + self.number(most), max(1, self._budget // (size + 1)))
        self._budget -= times * size
        return unit * times

    def _take(self, size: int) -> bytes:
        found = self._data[self._at : self._at + size]
        self._at += size
        return found


def places_in(value: Any, at: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Return the path of each part of a JSON value, up to a few hundred."""
    found = [at] if at else []
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, each in items:
        if len(found) > 300:
            break
        found += places_in(each, (*at, key))
    return found
