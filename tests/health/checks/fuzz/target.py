"""Invariants of the HTTP parser for any bytes: one outcome for pieces of any size, bounded reasons, no other exception.

As a program it is a coverage-guided fuzzer (libFuzzer by atheris): `python -m tests.health.checks.fuzz.target CORPUS
-max_total_time=60`.
"""

import sys
from types import FunctionType

from yarl import URL

from mesh.health.checks import http_body, http_response
from mesh.health.checks.http_body import RedirectRefusedError, same_endpoint_target
from mesh.health.checks.http_response import HttpResponse, NotHttpError, is_ordinary_head
from mesh.model.probe import Probe, ProbeKind

TEXT = b"ready"
ORIGIN = URL("http://192.0.2.7:8080")
PROBE = Probe(ProbeKind.HTTP, None, follow_redirects=True)


def outcome(sent: bytes, size: int) -> tuple[object, ...]:
    """What the parser says of a response that comes in pieces of `size` bytes, and then ends."""
    response = HttpResponse("GET", TEXT)
    try:
        for at in range(0, len(sent), max(1, size)):
            response.feed(sent[at : at + size])
        complete = response.close()
    except NotHttpError as error:
        # A line that is not complete yet is refused with less of it in the text: the text is no part of the outcome.
        check_reason(str(error))
        return ("refused", response.status)
    return (complete, response.status, response.location, response.found)


def check_reason(text: str) -> None:
    """Reasons are shown in a terminal and logged."""
    assert text.isprintable()
    assert len(text) < 250


def check(sent: bytes) -> None:
    """Raises AssertionError, or whatever else should never be raised."""
    whole = outcome(sent, len(sent))
    assert outcome(sent, 1) == whole
    assert outcome(sent, 5) == whole
    line_end = sent.find(b"\n") + 1
    if line_end and is_ordinary_head(sent, line_end):
        head = HttpResponse()
        head.feed(b"HTTP/1.1 200 OK\r\n" + sent[line_end:])  # ends with the head, as nothing is searched for
        assert head.head_ended
    location = sent[:300].decode("utf-8", "replace")
    try:
        target = same_endpoint_target(location, "/a/b?c", ORIGIN, PROBE)
    except RedirectRefusedError as error:
        check_reason(str(error))
    else:
        assert target.startswith("/")
        assert target.isascii()
        assert target.isprintable()
        assert " " not in target


def main() -> None:
    """Fuzz until libFuzzer's options say that it is enough."""
    import atheris

    # Not all functions of the program, as that takes longer than the search.
    for part in (http_response, http_response.HttpResponse, http_body):
        for each in vars(part).values():
            if isinstance(each, FunctionType):
                atheris.instrument_func(each)
    atheris.Setup(sys.argv, check)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
