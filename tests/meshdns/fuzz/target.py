"""Invariants for any bytes: nothing raises, cached answers equal computed ones, sizes and IDs are right.

As a program it is a coverage-guided fuzzer (libFuzzer by atheris): `python -m tests.meshdns.fuzz.target CORPUS
-max_total_time=60`. New inputs that reach new code are added to the corpus, which is kept.
"""

import sys

from meshdns.authoritative import ForwardQuery, answer_query, failure_response, parse_query
from meshdns.packet_cache import ZoneResponder
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


def check(packet: bytes) -> None:
    """Raises AssertionError, or whatever else should never be raised."""
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

    atheris.instrument_all()
    atheris.Setup(sys.argv, check)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
