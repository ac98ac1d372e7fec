"""Parsers for the values of the probe labels: from text to a value, or a refusal that says what to write instead.

They are as strict as those in `mesh.config.labels.values`.
"""

import re

from mesh.config.labels.values import (
    SCHEME_PORTS,
    LabelRefusedError,
    escape_unprintable,
    parse_number,
    parse_port,
    quote_value,
    split_url,
)
from mesh.model.codes import Code
from mesh.model.probe import ProbeKind, validate_host

PROBE_METHODS = ("GET", "HEAD", "OPTIONS", "POST")
"""HTTP methods that a probe may use. POST has an empty body."""

_COMMAND_MAX = 4000
_PATH_MAX = 2048
_HEADER_MAX = 4096
_BODY_MAX = 1024
_DATAGRAM_MAX = 1232  # fits into one packet on any path: RFC 8200, section 5, less the headers

_STATUS = re.compile(r"([1-5][0-9]{2})(?:-([1-5][0-9]{2}))?", re.ASCII)
_TOKEN = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]{1,64}", re.ASCII)
"""The name of a header: RFC 9110, section 5.6.2."""
_ESCAPE = re.compile(rb"\\(x[0-9A-Fa-f]{2}|.|$)", re.DOTALL)
_ESCAPES = {b"n": b"\n", b"r": b"\r", b"t": b"\t", b"0": b"\0", b"\\": b"\\"}
_TAKEN = {
    "host": "write probe.host",
    "user-agent": "remove it: it distinguishes probes from clients in the endpoint's log",
    "connection": "remove it: every check has its own connection",
    "content-length": "remove it: a probe sends no body",
    "transfer-encoding": "remove it: a probe sends no body",
    "accept-encoding": "remove it: the body is compared as it comes",
}
"""Headers that users cannot set -> what to do instead."""


def parse_statuses(text: str) -> tuple[tuple[int, int], ...]:
    """Parse inclusive ranges of HTTP status codes, in the order written: `200-399,404`."""
    ranges = []
    for part in text.split(","):
        match = _STATUS.fullmatch(part.strip())
        low, high = (int(match[1]), int(match[2] or match[1])) if match else (1, 0)
        if low > high:
            remedy = "write codes or ranges from 100 to 599, such as 200-399,404"
            raise LabelRefusedError(
                Code.PROBE_UNUSABLE, f"{quote_value(part.strip())} is not a range of HTTP statuses", remedy
            )
        ranges.append((low, high))
    return tuple(dict.fromkeys(ranges))


def parse_probe_url(text: str) -> tuple[ProbeKind, int, str]:
    """Parse `scheme://container[:port][/path]` and return the kind, the port and the path.

    The schemes are `http`, `https`, `tcp`, `udp`, `grpc` and `grpcs`. Only the first two have a default port. Only they
    and gRPC have a path, which for gRPC is the name of the service.
    """
    example = "write one such as http://container:80/health or tcp://container:80"
    url = split_url(text)
    if url.scheme not in set(ProbeKind) - {ProbeKind.COMMAND}:
        raise LabelRefusedError(Code.PROBE_UNUSABLE, f"{quote_value(text)} is not the URL of a probe", example)
    kind, path = ProbeKind(url.scheme), url.path
    if url.host.lower() != "container":
        reason = f"the host is {quote_value(url.host)}, but each endpoint is probed at its own address"
        raise LabelRefusedError(
            Code.PROBE_UNUSABLE, reason, "write container as the host: it stands for the endpoint's address"
        )
    if url.port is None and kind not in SCHEME_PORTS:
        raise LabelRefusedError(
            Code.PROBE_UNUSABLE,
            f"{quote_value(text)} has no port",
            f"write one such as {kind}://container:{_EXAMPLES[kind]}",
        )
    asked = parse_port(url.port) if url.port is not None else SCHEME_PORTS[kind]
    if kind in (ProbeKind.TCP, ProbeKind.UDP):
        if path:
            does = "only connects" if kind is ProbeKind.TCP else "has none"
            raise LabelRefusedError(
                Code.PROBE_UNUSABLE,
                f"{quote_value(text)} has a path, and {kind}:// {does}",
                f"write {kind}://container:{asked}",
            )
        return kind, asked, "/"
    if "#" in path or not all("!" <= c <= "~" for c in path) or len(path) > _PATH_MAX:
        remedy = f"write ASCII, percent-encode the rest, no #, at most {_PATH_MAX} characters"
        raise LabelRefusedError(Code.PROBE_UNUSABLE, f"{quote_value(path)} is not the path of a request", remedy)
    return kind, asked, path if path.startswith("/") else f"/{path}"


_EXAMPLES = {ProbeKind.TCP: 80, ProbeKind.UDP: 53, ProbeKind.GRPC: 50051, ProbeKind.GRPCS: 50051}


def parse_probe_command(text: str) -> str:
    """Parse a command for a shell, of a length that the engine's API accepts."""
    if not text or "\0" in text or len(text) > _COMMAND_MAX:
        raise LabelRefusedError(
            Code.PROBE_UNUSABLE,
            f"{quote_value(text)} is not a command",
            f"write one of at most {_COMMAND_MAX} characters",
        )
    return text


def parse_method(text: str) -> str:
    """Parse an HTTP method that changes nothing, or POST without a body."""
    if text.upper() not in PROBE_METHODS:
        raise LabelRefusedError(
            Code.PROBE_REQUEST_OR_EXPECTATION,
            f"{quote_value(text)} is not a method of a probe",
            f"write one of {' '.join(PROBE_METHODS)}",
        )
    return text.upper()


def parse_host(text: str) -> str:
    """Parse the host name for requests: a name or an address, with an optional port."""
    try:
        return validate_host(text)
    except ValueError:
        raise LabelRefusedError(
            Code.PROBE_REQUEST_OR_EXPECTATION,
            f"{quote_value(text)} is not a host",
            "write a name such as shop.example, or NAME:PORT",
        ) from None


def parse_header_name(text: str) -> str:
    """Parse the name of a header that users may set."""
    if not _TOKEN.fullmatch(text):
        raise LabelRefusedError(
            Code.PROBE_REQUEST_OR_EXPECTATION,
            f"{quote_value(text)} is not the name of a header",
            "write letters, digits and hyphens",
        )
    if text.lower() in _TAKEN:
        raise LabelRefusedError(
            Code.PROBE_REQUEST_OR_EXPECTATION,
            f"the probe sets the header {escape_unprintable(text)} itself",
            _TAKEN[text.lower()],
        )
    return text


def parse_header_value(text: str) -> str:
    """Parse printable ASCII on one line. A refusal does not repeat the value, which may be a password."""
    if len(text) > _HEADER_MAX or not all(" " <= c <= "~" for c in text):
        remedy = f"write printable ASCII on one line, at most {_HEADER_MAX} characters"
        raise LabelRefusedError(Code.PROBE_REQUEST_OR_EXPECTATION, "the value cannot be sent in a header", remedy)
    return text


def parse_expected_body(text: str) -> str:
    """Parse text to search for in a response."""
    if not text or len(text) > _BODY_MAX:
        remedy = f"write from 1 to {_BODY_MAX} characters, or remove it"
        reason = f"{quote_value(text)} cannot be searched for"
        raise LabelRefusedError(Code.PROBE_REQUEST_OR_EXPECTATION, reason, remedy)
    return text


def parse_datagram(text: str) -> bytes:
    r"""Parse the content of a datagram: text in UTF-8, with `\n`, `\r`, `\t`, `\0`, `\\` and `\xHH` for bytes."""

    def unescape(match: re.Match[bytes]) -> bytes:
        code = match[1]
        if code[:1] == b"x" and len(code) == 3:
            return bytes.fromhex(code[1:].decode())
        if code not in _ESCAPES:
            escape = quote_value("\\" + code.decode(errors="replace"))
            raise LabelRefusedError(
                Code.PROBE_REQUEST_OR_EXPECTATION,
                f"{escape} is not an escape sequence",
                r"write \n \r \t \0 \\ or two digits such as \x1b",
            )
        return _ESCAPES[code]

    found = _ESCAPE.sub(unescape, text.encode(errors="surrogateescape"))
    if not 1 <= len(found) <= _DATAGRAM_MAX:
        raise LabelRefusedError(
            Code.PROBE_REQUEST_OR_EXPECTATION,
            f"a datagram of {len(found)} bytes cannot be sent",
            f"write from 1 to {_DATAGRAM_MAX} bytes",
        )
    return found


def parse_switch(text: str) -> bool:
    """Parse `true` or `false`."""
    if text.lower() not in ("true", "false"):
        raise LabelRefusedError(
            Code.PROBE_REQUEST_OR_EXPECTATION, f"{quote_value(text)} is neither true nor false", "write true or false"
        )
    return text.lower() == "true"


def parse_percentage(text: str) -> int:
    """Parse 0..100, with an optional percent sign."""
    return parse_number(text.removesuffix("%").rstrip(), 0, 100)
