"""An answer as it lies in a batch: padded to one size, its length behind it.

A batch of answers of one size is one `bytes.join` and one copy, their lengths and IDs are one strided copy each, and
so the interpreter does nothing per datagram but the look-up. What is too long for that is kept unpadded, and is put
into the batch by hand.
"""

BLOCK_SIZE = 192
"""Octets: room for nearly all answers with one record, and for those that there is none."""
LENGTH_SIZE = 8
"""Octets of the length at the end, as the kernel wants it (size_t)."""


def encode_block(said: bytes) -> bytes:
    """An answer as a block; longer than `BLOCK_SIZE` if it has to be."""
    return said.ljust(BLOCK_SIZE - LENGTH_SIZE, b"\0") + len(said).to_bytes(LENGTH_SIZE, "little")


def decode_block(whole: bytes) -> bytes:
    """The answer in a block."""
    return whole[: int.from_bytes(whole[-LENGTH_SIZE:], "little")]
