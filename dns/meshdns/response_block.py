"""An answer as it lies in a batch: padded to one size, its length behind it.

A batch of answers of one size is one `bytes.join` and one copy, their lengths and IDs are one strided copy each, and
so the interpreter does nothing per datagram but the look-up. What is too long for that is kept unpadded, and is put
into the batch by hand.
"""

SIZE = 192
"""Octets: room for nearly all answers with one record, and for those that there is none."""
LENGTH = 8
"""Octets of the length at the end, as the kernel wants it (size_t)."""


def block(said: bytes) -> bytes:
    """An answer as a block; longer than `SIZE` if it has to be."""
    return said.ljust(SIZE - LENGTH, b"\0") + len(said).to_bytes(LENGTH, "little")


def plain(whole: bytes) -> bytes:
    """The answer in a block."""
    return whole[: int.from_bytes(whole[-LENGTH:], "little")]
