"""Finds out which admin API the command line asks, and with which credentials.

Each of address, token, CA, certificate and key is taken from the first place that has it: the option, the environment
variable, the context. A context is a table of a file, for workers that are asked often. Without any of them, it is the
worker whose settings are on this host.
"""

import argparse
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from mesh.model.errors import CodedText, SettingsError
from mesh.util.regular_file import read_regular_file

CLIENT_VARIABLES = {
    "admin": "VIPMESH_ADMIN",
    "token_file": "VIPMESH_TOKEN_FILE",
    "ca": "VIPMESH_CA",
    "cert": "VIPMESH_CERT",
    "key": "VIPMESH_KEY",
    "context": "VIPMESH_CONTEXT",
    "context_file": "VIPMESH_CONTEXT_FILE",
}
"""By the option that they stand for; `context_file` has none."""
MAX_TOKEN_FILE_BYTES = 64 << 10
"""The most bytes of a file with a token."""
_KEYS = ("admin", "token_file", "ca", "cert", "key")
_FORMS = "write unix:///PATH, https://HOST:PORT or HOST:PORT"


@dataclass(frozen=True, slots=True)
class AdminAddress:
    """Where an admin API is."""

    socket_path: str | None = None
    """The path of its unix socket; None over TCP."""
    host: str = ""
    """Its name or address; empty for a unix socket."""
    port: int = 0
    tls: bool = False


@dataclass(frozen=True, slots=True)
class AdminAccess:
    """Where an admin API is, and how this client authenticates. A file is None if there is none."""

    written: str
    """The address as it was written, for messages."""
    address: AdminAddress
    token_file: Path | None = None
    ca: Path | None = None
    """Who signed the certificate of the worker; None for who this host trusts."""
    cert: Path | None = None
    key: Path | None = None
    """The key of `cert`; None if it is in the same file."""
    own_cert: Path | None = None
    """The certificate of the worker of this host, which must be the one that it shows; None for another worker."""
    worker: str | None = None
    """The worker that its certificate must name, whatever its address is; None for a certificate of its address."""


def find_access(options: argparse.Namespace, environment: Mapping[str, str]) -> AdminAccess:
    """Return which admin API the options, the environment or a context name. Raises `SettingsError`."""
    given = _given(options, environment)
    written = given["admin"]
    token, ca, cert, private = (None if given[name] is None else Path(str(given[name])) for name in _KEYS[1:])
    own_cert = None
    if written is None:
        settings = _settings(options)
        written = str(settings.admin_listen)
        token, own_cert = token or settings.admin_token_file, settings.admin_cert
    address = parse_admin_address(str(written), tls=own_cert is not None)
    if address.socket_path is None and token is None and cert is None:
        token = _settings(options).admin_token_file
    # A verb that asks other workers, too, sends it to those.
    if getattr(options, "cert", None) is not None and not address.tls and not getattr(options, "elsewhere", False):
        raise _refused("--cert", f"{written} has no TLS, so no certificate is sent; write https://HOST:PORT")
    return AdminAccess(str(written), address, token, ca, cert, private, own_cert if address.tls else None)


def find_access_to(
    worker: str, published: str, options: argparse.Namespace, environment: Mapping[str, str]
) -> AdminAccess | None:
    """Return how this client asks another worker with credentials of its own; None if it has none.

    `published` is the address that the worker has published, so its certificate must name the worker. The credentials
    in the settings of this host are those of its own worker, and go nowhere else. Raises `SettingsError`.
    """
    given = _given(options, environment)
    token, ca, cert, private = (None if given[name] is None else Path(str(given[name])) for name in _KEYS[1:])
    if token is None and cert is None:
        return None
    if ca is None and given["admin"] is None:
        ca = _settings(options).admin_client_ca  # who signs for this cluster
    address = parse_admin_address(published, tls=True)
    if not address.tls:
        raise _refused(f"worker {worker}", f"its admin API at {published} has no TLS; set [admin] cert there")
    return AdminAccess(published, address, token, ca, cert, private, worker=worker)


def _given(options: argparse.Namespace, environment: Mapping[str, str]) -> dict[str, Any]:
    """Return what the options, the environment or a context have of each key. Raises `SettingsError`."""
    given = {key: getattr(options, key, None) or environment.get(CLIENT_VARIABLES[key]) or None for key in _KEYS}
    for key, value in _context(options, environment, given["admin"] is not None).items():
        given[key] = given[key] or value
    return given


def parse_admin_address(written: str, *, tls: bool = False) -> AdminAddress:
    """Parse `unix:///PATH`, `https://HOST:PORT`, `http://HOST:PORT`, or `HOST:PORT`, which has TLS as `tls` says.

    Raises `SettingsError`.
    """
    if written.startswith("unix://"):
        path = written.removeprefix("unix://")
        if not path.startswith("/") or "\0" in path:
            raise _refused("--admin", f"{written!r} has no absolute path; {_FORMS}")
        return AdminAddress(socket_path=path)
    try:
        parts = urlsplit(written if "://" in written else f"{'https' if tls else 'http'}://{written}")
        host, port = parts.hostname, parts.port
    except ValueError as error:
        raise _refused("--admin", f"{written!r}: {error}; {_FORMS}") from error
    if parts.scheme not in ("http", "https") or not host or not port or not re.fullmatch(r"[A-Za-z0-9._:%-]+", host):
        raise _refused("--admin", f"{written!r} is no address of an admin API; {_FORMS}")
    if parts.username is not None or parts.path not in ("", "/") or parts.query or parts.fragment:
        raise _refused("--admin", f"{written!r} has more than an address; {_FORMS}, and --token-file FILE for a token")
    return AdminAddress(host=host, port=port, tls=parts.scheme == "https")


def read_token(file: Path) -> str:
    """Return the token in a file. Raises `SettingsError`."""
    try:
        token = read_regular_file(file, MAX_TOKEN_FILE_BYTES).decode().strip()
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise _refused(
            f"the token file {file}", f"cannot be read: {reason}; name another one with --token-file"
        ) from error
    if not token or not token.isascii() or not token.isprintable() or " " in token:
        raise _refused(
            f"the token file {file}", "has not one line of printable ASCII characters; copy that of [admin] token_file"
        )
    return token


def _context(options: argparse.Namespace, environment: Mapping[str, str], addressed: bool) -> Mapping[str, str]:
    """Return the context that is asked for by name, or else the current one if nothing says which worker to ask.

    `addressed`: an option or a variable has the address. The token of the current context must not go there.
    """
    name = getattr(options, "context", None) or environment.get(CLIENT_VARIABLES["context"])
    if not name and (addressed or getattr(options, "config", None) is not None):
        return {}
    file = _context_file(environment)
    if file is None or (not name and not file.exists()):
        if name:
            raise _refused(f"--context {name}", "no home directory has a context file; set VIPMESH_CONTEXT_FILE")
        return {}
    contexts = _read_contexts(file)
    name = name or contexts.get("current")
    if name is None:
        return {}
    found = contexts.get("context", {}).get(name)
    if found is None:
        known = ", ".join(sorted(contexts.get("context", {}))) or "none"
        raise _refused(f"{file}: context {str(name)[:100]!r}", f"is not there; use one of these: {known}")
    folder = file.parent
    return {key: value if key == "admin" else str(folder / Path(value).expanduser()) for key, value in found.items()}


def _context_file(environment: Mapping[str, str]) -> Path | None:
    """Return where the contexts are, as the XDG Base Directory Specification has it; None without a home directory."""
    named = environment.get(CLIENT_VARIABLES["context_file"])
    if named:
        return Path(named)
    home = environment.get("HOME")
    folder = environment.get("XDG_CONFIG_HOME") or (f"{home}/.config" if home else None)
    return None if folder is None else Path(folder) / "vipmesh" / "contexts.toml"


def _read_contexts(file: Path) -> Mapping[str, Any]:
    import tomllib  # here alone: most commands read no contexts

    try:
        read = tomllib.loads(read_regular_file(file).decode())
    except (OSError, ValueError, RecursionError) as error:
        raise _refused(str(file), f"cannot be used: {error}; write TOML, see docs/cli.md") from error
    contexts = read.get("context", {})
    if (
        not isinstance(read.get("current", ""), str)
        or not isinstance(contexts, dict)
        or set(read) - {"current", "context"}
    ):
        raise _refused(str(file), 'has other keys than current and [context.NAME]; write current = "NAME"')
    for name, context in contexts.items():
        wrong = not isinstance(context, dict) or set(context) - set(_KEYS) or "admin" not in context
        if wrong or not all(isinstance(value, str) and value for value in context.values()):
            raise _refused(
                f"{file}: [context.{name}]", f"must have admin, and may have {', '.join(_KEYS[1:])}, all texts"
            )
    return read


def _settings(options: argparse.Namespace) -> Any:
    from mesh.cli.settings import load_settings

    return load_settings(getattr(options, "config", None))


def _refused(subject: str, text: str) -> SettingsError:
    from mesh.model.codes import Code

    return SettingsError([CodedText(f"{subject}: {text}", Code.ADMIN_ACCESS)])
