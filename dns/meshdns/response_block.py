"""A response as it lies in a send buffer: padded to a fixed size, with its length at the end.

Responses of one size are put into a batch with one `bytes.join` and one copy, and their lengths and IDs with one
strided copy each, so that the interpreter does nothing per datagram except the look-up. A response that is too long for
the fixed size is kept unpadded and is put into the batch by itself.
"""

BLOCK_SIZE = 192
"""Bytes of a block: room for nearly all responses with one record, and for negative ones."""
LENGTH_SIZE = 8
"""Bytes of the length at the end, as the kernel expects it (size_t)."""


def encode_block(said: bytes) -> bytes:
    """Return a response as a block, which is longer than `BLOCK_SIZE` if the response does not fit."""
    return said.ljust(BLOCK_SIZE - LENGTH_SIZE, b"\0") + len(said).to_bytes(LENGTH_SIZE, "little")


def decode_block(whole: bytes) -> bytes:
    """Return the response in a block."""
    return whole[: int.from_bytes(whole[-LENGTH_SIZE:], "little")]
