"""Random upper and lower case in the names of queries to upstreams ("0x20").

Servers repeat a question as it was asked, so each letter of a name adds one bit that a forger has to guess beside the
ID and the port (draft-vixie-dnsext-dns0x20). Pure: the caller brings the randomness.
"""

_LETTERS = bytes(0x20 if 65 <= byte & 0xDF <= 90 and byte >= 65 else 0 for byte in range(256))
"""0x20 for a letter, else 0. The length of a label is at most 63, so no length is taken for a letter."""


def mix_case(question: bytes, noise: bytes) -> bytes:
    """Return a question (name, type and class) with the case of each letter of its name flipped at random.

    `noise` is random bytes, at least as many as the name has.
    """
    end = len(question) - 4
    name = question[:end]
    flips = int.from_bytes(name.translate(_LETTERS), "big") & int.from_bytes(noise[:end], "big")
    return (int.from_bytes(name, "big") ^ flips).to_bytes(end, "big") + question[end:]
