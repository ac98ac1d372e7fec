"""A client of the admin API of a running daemon, over its unix socket or TCP."""

import argparse
import http.client
import json
import socket
import ssl
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from mesh.model.errors import CodedText, MeshError, SettingsError

REQUEST_TIMEOUT = 5.0
"""Seconds that a response may take."""
STREAM_TIMEOUT = 40.0
"""Seconds of silence after which the daemon counts as gone; it sends at least a comment every 15 s."""
_JSON = "application/json"


class DaemonUnreachableError(MeshError):
    """No daemon answers, or its response is unusable. The text ends with the remedy."""


class Reply(NamedTuple):
    """A response of the daemon."""

    body: str
    """The body as text."""
    headers: http.client.HTTPMessage
    """The headers."""


class AdminClient:
    """Sends requests to the daemon that the options name: `--admin`, or `[admin] listen` of the settings."""

    def __init__(self, options: argparse.Namespace) -> None:
        """Raises `SettingsError`."""
        self._options = options
        self.listen: str = options.admin or self._settings_listen()
        """`unix:///PATH` or `HOST:PORT`."""
        self._over_tcp = not self.listen.startswith("unix://")
        self._headers = self._proof()
        self._tls = self._tls_context()

    def ask(
        self,
        path: str,
        *,
        given: Mapping[str, str] | None = None,
        timeout: float = REQUEST_TIMEOUT,
        accept: str = _JSON,
    ) -> Reply:
        """Return the response to a GET, or to a POST of `given`; status 409, a refusal, is a response, too.

        `timeout` is in seconds. Raises `DaemonUnreachableError`.
        """
        try:
            return self._ask(path, given, timeout, accept)
        except (OSError, http.client.HTTPException) as error:
            raise self._no_answer(error) from error

    def _ask(self, path: str, given: Mapping[str, str] | None, timeout: float, accept: str) -> Reply:
        connection = self._connection(timeout)
        method, body = ("GET", None) if given is None else ("POST", json.dumps(given))
        try:
            connection.request(method, path, body, {"Accept": accept, **self._headers})
            answer = connection.getresponse()
            if answer.status not in (http.client.OK, http.client.CONFLICT):
                raise http.client.HTTPException(f"status {answer.status}")
            return Reply(answer.read().decode(), answer.headers)
        finally:
            connection.close()

    def follow(self, path: str) -> Iterator[tuple[str, Mapping[str, Any]]]:
        """Yield name and data of each server-sent event.

        Raises `DaemonUnreachableError`, also when the daemon ends the stream.
        """
        connection = self._connection(STREAM_TIMEOUT)
        name, data = "", ""
        try:
            connection.request("GET", path, None, {"Accept": "text/event-stream", **self._headers})
            answer = connection.getresponse()
            if answer.status != http.client.OK:
                raise http.client.HTTPException(f"status {answer.status}")
            while line := answer.readline():
                what, _, text = line.decode().rstrip("\r\n").partition(": ")
                if what == "event":
                    name = text
                elif what == "data":
                    data += text
                elif not what and data:
                    yield name, json.loads(data)
                    name, data = "", ""
            raise http.client.HTTPException("the stream has ended")
        except (OSError, http.client.HTTPException) as error:
            raise self._no_answer(error) from error
        finally:
            connection.close()

    def _connection(self, timeout: float) -> http.client.HTTPConnection:
        if self.listen.startswith("unix://"):
            return _UnixHttpConnection(self.listen.removeprefix("unix://"), timeout)
        if self._tls is not None:
            return http.client.HTTPSConnection(self.listen, timeout=timeout, context=self._tls)
        return http.client.HTTPConnection(self.listen, timeout=timeout)

    def _no_answer(self, error: Exception) -> DaemonUnreachableError:
        from mesh.model.codes import Code

        if isinstance(error, ssl.SSLError):
            reason = getattr(error, "verify_message", "") or error.reason or str(error)
            return DaemonUnreachableError(
                Code.DAEMON_UNREACHABLE,
                f"the daemon on {self.listen} cannot be asked over TLS: {reason}; its certificate must name that "
                "address and be signed by [admin] client_ca, by an authority in [admin] cert or by one of this host",
            )
        return DaemonUnreachableError(
            Code.DAEMON_UNREACHABLE,
            f"no daemon answers on {self.listen}: {error}; start it with `vipmesh run`, "
            f"or name its [admin] listen with --admin",
        )

    def _settings_listen(self) -> str:
        from mesh.cli.settings import load_settings

        return load_settings(self._options.config).admin_listen

    def _proof(self) -> Mapping[str, str]:
        """Return the headers that authenticate over TCP: the token of the settings, if they have one."""
        if not self._over_tcp:
            return {}
        from mesh.cli.settings import load_settings

        file = load_settings(self._options.config).admin_token_file
        if file is None:
            return {}
        try:
            return {"Authorization": f"Bearer {file.read_text().strip()}"}
        except (OSError, UnicodeDecodeError) as error:
            from mesh.model.codes import Code

            problem = CodedText(f"[admin] token_file {file}: cannot be read: {error}", Code.SETTING_VALUE)
            raise SettingsError([problem]) from error

    def _tls_context(self) -> ssl.SSLContext | None:
        """Return the TLS context for TCP; None in the clear, as where the settings have no certificate.

        Workers share their settings, so that a daemon elsewhere is trusted by what this worker's own clients need: the
        CA of the settings, or the authorities in the file of the certificate.
        """
        if not self._over_tcp:
            return None
        from mesh.cli.settings import load_settings

        settings = load_settings(self._options.config)
        if settings.admin_cert is None:
            return None
        try:
            tls = ssl.create_default_context()
            tls.load_verify_locations(settings.admin_cert)
            if settings.admin_client_ca is not None:
                tls.load_verify_locations(settings.admin_client_ca)
                if settings.admin_token_file is None:
                    tls.load_cert_chain(settings.admin_cert, settings.admin_key)
        except OSError as error:  # SSLError is one
            from mesh.model.codes import Code

            text = f"[admin] cert, key, client_ca: cannot be read: {error.strerror or error}"
            raise SettingsError([CodedText(text, Code.SETTING_VALUE)]) from error
        return tls


class _UnixHttpConnection(http.client.HTTPConnection):
    """HTTP over a unix socket; the standard library supports only TCP."""

    def __init__(self, path: str, timeout: float) -> None:
        super().__init__("localhost", timeout=timeout)
        self._path = path

    def connect(self) -> None:
        """Connect to the path instead of a host."""
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self._path)
