"""Random upper and lower case in the names of queries to upstreams ("0x20").

Servers repeat a question as it was asked, so each letter of a name adds one bit that a forger has to guess beside the
ID and the port (draft-vixie-dnsext-dns0x20). Pure: the caller brings the randomness.
"""

from functools import lru_cache

_LETTERS = bytes(0x20 if 65 <= byte & 0xDF <= 90 and byte >= 65 else 0 for byte in range(256))
"""0x20 for a letter, else 0. The length of a label is at most 63, so no length is taken for a letter."""


def mix_case(question: bytes, noise: bytes) -> bytes:
    """Return a question (name, type and class) with the case of each letter of its name flipped at random.

    `noise` is random bytes, as many as the question has.
    """
    number, letters = _as_numbers(question)
    return (number ^ letters & int.from_bytes(noise, "big")).to_bytes(len(question), "big")


@lru_cache(4096)
def _as_numbers(question: bytes) -> tuple[int, int]:
    """Return a question as a number, and the number with only the bits that tell the case of its letters."""
    # Behind the name are type and class, 32 bits that stay as they are.
    letters = int.from_bytes(question[:-4].translate(_LETTERS), "big") << 32
    return int.from_bytes(question, "big"), letters
