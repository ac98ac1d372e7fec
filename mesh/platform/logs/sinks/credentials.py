"""What a store of logs is shown: credentials from files, which are read before each request.

So new credentials need no restart, and none is in the settings or in a URL.
"""

import base64
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from mesh.platform.logs.sinks import LogSinkError
from mesh.util.regular_file import read_regular_file

_MAX_SECRET = 64 * 1024
_HEADER = re.compile(r"([A-Za-z0-9!#$%&'*+.^_`|~-]+):[ \t]*(.*)", re.ASCII)
"""RFC 9110, section 5.1: a name of token characters, a colon, a value."""
_OURS = frozenset({"content-length", "content-type", "host", "transfer-encoding", "connection", "content-encoding"})
"""Headers that a file may not set, because they describe the request."""


@dataclass(frozen=True, slots=True)
class LogStoreCredentials:
    """The files of credentials. At most one of password, token and API key is set."""

    user: str | None = None
    password_file: Path | None = None
    """The password of `user`: RFC 7617."""
    token_file: Path | None = None
    """A bearer token: RFC 6750."""
    api_key_file: Path | None = None
    """An API key as Elasticsearch writes it: `Authorization: ApiKey ...`."""
    header_file: Path | None = None
    """Lines `Name: value`: headers that are sent as they are."""

    def headers(self) -> dict[str, str]:
        """Read the files and return the headers of a request. Raises `LogSinkError`."""
        found = {} if self.header_file is None else read_headers(self.header_file)
        if self.api_key_file is not None:
            found["Authorization"] = f"ApiKey {read_secret(self.api_key_file)}"
        elif self.token_file is not None:
            found["Authorization"] = f"Bearer {read_secret(self.token_file)}"
        elif self.user is not None and self.password_file is not None:
            pair = f"{self.user}:{read_secret(self.password_file)}".encode()
            found["Authorization"] = f"Basic {base64.b64encode(pair).decode()}"
        return found


def read_secret(path: Path, read: Callable[[Path, int], bytes] = read_regular_file) -> str:
    """Return the content of a file of credentials without the white space around it. Raises `LogSinkError`."""
    text = _read(path, read)
    if not text or not text.isprintable():
        raise LogSinkError(f"{path} has no credentials on one line", "write them into it")
    return text


def read_headers(path: Path, read: Callable[[Path, int], bytes] = read_regular_file) -> dict[str, str]:
    """Return the headers in a file, one `Name: value` on each line. Raises `LogSinkError`, which shows no value."""
    found = {}
    for number, line in enumerate(_read(path, read).splitlines(), start=1):
        match = _HEADER.fullmatch(line.strip())
        if match is None or not match[2].isprintable() or match[1].lower() in _OURS:
            raise LogSinkError(f"{path}, line {number}: it is not a header that may be set", "write `Name: value`")
        found[match[1]] = match[2]
    return found


def _read(path: Path, read: Callable[[Path, int], bytes]) -> str:
    try:
        return read(path, _MAX_SECRET).decode().strip()
    except OSError as error:
        raise LogSinkError(f"{path} cannot be read: {error}", "name a file with the credentials") from error
    except UnicodeDecodeError as error:  # its text would show a part of the secret
        raise LogSinkError(f"{path} is no text in UTF-8", "name a file with the credentials") from error
