"""Invariants for any bytes, as a query and as an upstream's reply.

Nothing raises, cached answers equal computed ones, sizes and IDs are right, and no address gets through that upstreams
must not answer with.

As a program it is a coverage-guided fuzzer (libFuzzer by atheris): `python -m tests.meshdns.fuzz.target CORPUS
-max_total_time=60`. New inputs that reach new code are added to the corpus, which is kept.
"""

import sys
from ipaddress import ip_network
from types import FunctionType

from meshdns.authoritative import ForwardQuery, answer_query, failure_response, parse_query
from meshdns.message import build_upstream_query, cache_key, parse_reply, settle_reply, write_response
from meshdns.packet_cache import ZoneResponder
from meshdns.rebinding import AnswerFilter
from meshdns.service_records import DnsEndpoint, DnsPort, DnsService
from meshdns.zone import ZoneBuilder

ZONE = ZoneBuilder(["mesh.internal", "112.10.in-addr.arpa"]).update(
    {
        "web.mesh.internal": DnsService(
            ("10.112.0.7",),
            (DnsEndpoint("a", "10.2.0.1", True),),
            (DnsPort(80, "tcp"),),
            ("state=serving",),
            canonical=True,
        ),
        "x.local": DnsService(("10.112.0.8",)),
        "big.mesh.internal": DnsService(("10.112.0.9",), about=tuple("x" * 250 for _ in range(6))),
    }
)[0]
UDP, TCP = ZoneResponder(ZONE, room=64, odd=16), ZoneResponder(ZONE, tcp=True, room=64, odd=16)


REFUSE = AnswerFilter([ip_network("10.112.0.0/16")])


def check(packet: bytes) -> None:
    """Raises AssertionError, or whatever else should never be raised."""
    check_query(packet)
    check_reply(packet)


def check_reply(packet: bytes) -> None:
    """Take a packet for the reply to the question that it repeats."""
    asked = parse_query(packet[:2] + b"\1\0\0\1\0\0\0\0\0\0" + _question(packet))
    if asked is None or ZONE.lookup(asked.name, asked.type) is not None:
        return
    key = cache_key(asked)
    noise = bytes(range(256))[-len(key) + 1 :]
    assert build_upstream_query(key, noise=noise).lower() == build_upstream_query(key).lower()
    reply = parse_reply(packet, key[1:], REFUSE)
    if reply is None:
        return
    settled, elapsed = settle_reply(reply, asked.type, ZONE, 1)
    for tcp in (False, True):
        said = write_response(asked, settled, elapsed, tcp=tcp)
        assert said[:2] == packet[:2]
        assert len(said) <= (65535 if tcp else 512)
        again = parse_reply(said, key[1:], REFUSE)
        assert again is not None or settled.rcode
        if again is not None and not reply.aliases:
            assert not again.blocked


def _question(packet: bytes) -> bytes:
    """The bytes of the first question, or whatever is in its place."""
    end = packet.find(b"\0", 12) + 1
    return packet[12 : end + 4] if end else packet[12:]


def check_query(packet: bytes) -> None:
    """Take a packet for a client's query."""
    for answers, tcp in ((UDP, False), (TCP, True)):
        said = answer_query(packet, ZONE, tcp=tcp)
        assert answers.ask(packet) == said
        assert answers.ask(packet) == said
        if isinstance(said, ForwardQuery):
            assert said.packet == packet
            query = parse_query(packet)
            assert query is not None
            said = failure_response(packet, 2)  # type: ignore[arg-type]
        if said is None:
            assert len(packet) < 12 or packet[2] & 0x80
        else:
            assert said[:2] == packet[:2]
            assert said[2] & 0x80
            assert 12 <= len(said) <= (65535 if tcp else 1232)


def main() -> None:
    """Fuzz until libFuzzer's options say that it is enough."""
    import atheris

    # Not all functions of the program, as that takes longer than the search.
    for name in [name for name in sys.modules if name.startswith("meshdns.")]:
        module = sys.modules[name]
        for part in (module, *(each for each in vars(module).values() if isinstance(each, type))):
            for each in vars(part).values():
                if isinstance(each, FunctionType) and each.__module__ == name:
                    atheris.instrument_func(each)
    atheris.Setup(sys.argv, check)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
