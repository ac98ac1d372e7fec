"""A client of the admin API of a running daemon, over its unix socket or TCP."""

import argparse
import os
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple
from urllib.parse import quote

from mesh.cli.access import AdminAccess, find_access, read_token
from mesh.cli.socket_request import get_over_socket
from mesh.model.errors import MeshError

if TYPE_CHECKING:
    import http.client
    import ssl

REQUEST_TIMEOUT = 5.0
"""Seconds that a response may take."""
STREAM_TIMEOUT = 40.0
"""Seconds of silence after which the daemon counts as gone; it sends at least a comment every 15 s."""
MAX_RESPONSE_BYTES = 256 << 20
"""The most bytes of a response."""
MAX_REASON = 1000
"""The most characters of an error that a response explains."""
MAX_LINE_BYTES = 1 << 20
"""The most bytes of a line of a response, and of the response to an action."""
_JSON = "application/json"
_LINES = "application/x-ndjson"


class DaemonUnreachableError(MeshError):
    """No daemon answers, or its response is unusable. The text ends with the remedy."""


class Reply(NamedTuple):
    """A response of the daemon."""

    body: str
    """The body as text."""
    headers: Mapping[str, str]
    """The headers; their names are in lower case."""


class AdminClient:
    """Sends requests to the daemon that the options, the environment, a context or the settings name."""

    def __init__(self, options: argparse.Namespace, access: AdminAccess | None = None) -> None:
        """`access` replaces what the options name; None for that. Raises `SettingsError`."""
        self._access = find_access(options, os.environ) if access is None else access
        self.listen = self._access.written
        """The address, for messages."""
        self._headers = self._proof()
        self._tls = self._tls_context() if self._access.address.tls else None

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
        if given is None and (reply := self._ask_socket(path, timeout, accept)) is not None:
            return reply
        import http.client

        try:
            return self._ask(path, given, timeout, accept)
        except (OSError, http.client.HTTPException, ValueError) as error:
            raise self._failure(error) from error

    def _ask_socket(self, path: str, timeout: float, accept: str) -> Reply | None:
        """Return the response to a GET over a unix socket; None if it needs the whole of HTTP."""
        socket_path = self._access.address.socket_path
        if socket_path is None:
            return None
        try:
            found = get_over_socket(socket_path, path, accept, timeout, MAX_RESPONSE_BYTES)
            return None if found is None else Reply(found.body.decode(), found.headers)
        except (OSError, ValueError) as error:
            raise self._failure(error) from error

    def _ask(self, path: str, given: Mapping[str, str] | None, timeout: float, accept: str) -> Reply:
        import http.client
        import json

        connection = self._connection(timeout)
        method, body = ("GET", None) if given is None else ("POST", json.dumps(given))
        try:
            connection.request(method, path, body, {"Accept": accept, **self._headers})
            answer = connection.getresponse()
            if answer.status not in (http.client.OK, http.client.CONFLICT):
                raise _refusal(self.listen, answer)
            received = answer.read(MAX_RESPONSE_BYTES + 1)
            if len(received) > MAX_RESPONSE_BYTES:
                raise http.client.HTTPException(f"the response has more than {MAX_RESPONSE_BYTES} bytes")
            if accept == _JSON and answer.headers.get_content_type() != _JSON:
                raise http.client.HTTPException("the response is not that of vipmesh")
            return Reply(received.decode(), {name.lower(): text for name, text in answer.headers.items()})
        finally:
            connection.close()

    def act(
        self, path: str, given: Mapping[str, Any], timeout: float, told: Callable[[int | None], None]
    ) -> tuple[Mapping[str, Any], str | None]:
        """Return the response to a POST of `given`, and its code, which a refusal has.

        `told` is called with the number of connections left while an endpoint drains, None if they are not counted.
        `timeout` is in seconds. Raises `DaemonUnreachableError`.
        """
        import http.client
        import json

        connection = self._connection(timeout)
        try:
            headers = {"Accept": f"{_LINES}, {_JSON}", "Content-Type": _JSON, **self._headers}
            connection.request("POST", path, json.dumps(given), headers)
            answer = connection.getresponse()
            if answer.status not in (http.client.OK, http.client.CONFLICT):
                raise _refusal(self.listen, answer)
            if answer.headers.get_content_type() == _JSON:
                return json.loads(answer.read(MAX_LINE_BYTES)), answer.headers.get("Vipmesh-Code")
            while line := answer.readline(MAX_LINE_BYTES):
                document = json.loads(line)
                if "connections" not in document:
                    return document, document.get("code")
                told(document["connections"])
            raise http.client.HTTPException("the response is not complete")
        except (OSError, http.client.HTTPException, ValueError, TypeError) as error:
            raise self._failure(error) from error
        finally:
            connection.close()

    def follow(self, path: str) -> Iterator[tuple[str, Mapping[str, Any]]]:
        """Yield name and data of each server-sent event.

        Raises `DaemonUnreachableError`, also when the daemon ends the stream.
        """
        import http.client
        import json

        connection = self._connection(STREAM_TIMEOUT)
        name, data = "", ""
        try:
            connection.request("GET", path, None, {"Accept": "text/event-stream", **self._headers})
            answer = connection.getresponse()
            if answer.status != http.client.OK:
                raise _refusal(self.listen, answer)
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
        except (OSError, http.client.HTTPException, ValueError) as error:
            raise self._failure(error) from error
        finally:
            connection.close()

    def _connection(self, timeout: float) -> "http.client.HTTPConnection":
        import http.client

        from mesh.cli.connections import UnixHttpConnection, WorkerHttpsConnection

        address = self._access.address
        if address.socket_path is not None:
            return UnixHttpConnection(address.socket_path, timeout)
        if self._tls is not None and self._access.worker is not None:
            return WorkerHttpsConnection(address.host, address.port, timeout, self._tls, self._access.worker)
        if self._tls is not None:
            return http.client.HTTPSConnection(address.host, address.port, timeout=timeout, context=self._tls)
        return http.client.HTTPConnection(address.host, address.port, timeout=timeout)

    def _failure(self, error: Exception) -> DaemonUnreachableError:
        """Return what a failed request means, and what to do about it."""
        import http.client
        import ssl

        from mesh.model.codes import Code

        if isinstance(error, ssl.SSLError):
            return DaemonUnreachableError(Code.ADMIN_TLS, _tls_failure(self._access, error))
        address = self._access.address
        if isinstance(error, http.client.BadStatusLine | ConnectionResetError) and address.socket_path is None:
            return DaemonUnreachableError(Code.ADMIN_TLS, _cut_off(self._access))
        if isinstance(error, PermissionError) and address.socket_path is not None:
            text = f"no daemon answers on {self.listen}: this user may not open it; use sudo, or join its group"
            return DaemonUnreachableError(Code.DAEMON_UNREACHABLE, text)
        return DaemonUnreachableError(
            Code.DAEMON_UNREACHABLE,
            f"no daemon answers on {self.listen}: {error}; start it with `vipmesh run`, "
            f"or name its [admin] listen with --admin",
        )

    def _proof(self) -> Mapping[str, str]:
        """Return the headers that authenticate over TCP: a token, if there is one."""
        if self._access.address.socket_path is not None or self._access.token_file is None:
            return {}
        return {"Authorization": f"Bearer {read_token(self._access.token_file)}"}

    def _tls_context(self) -> "ssl.SSLContext":
        """Return the TLS context. Raises `SettingsError`."""
        import ssl

        access = self._access
        try:
            tls = ssl.create_default_context(cafile=None if access.ca is None else str(access.ca))
            if access.own_cert is not None and access.ca is None:
                # Whichever name it has, this one certificate is the worker's of this host.
                tls.load_verify_locations(access.own_cert)
                tls.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
                tls.check_hostname = False
            if access.cert is not None:
                tls.load_cert_chain(
                    access.cert, access.key, password=""
                )  # an encrypted key is refused, not asked about
        except OSError as error:  # SSLError is one
            from mesh.model.codes import Code
            from mesh.model.errors import CodedText, SettingsError

            files = ", ".join(str(file) for file in (access.ca or access.own_cert, access.cert, access.key) if file)
            text = f"{error.strerror or error} in one of {files}; name PEM files without a password"
            raise SettingsError([CodedText(text, Code.ADMIN_ACCESS)]) from error
        return tls


def path_of(options: argparse.Namespace, what: str) -> str:
    """Return the path of what is asked: below `/v1/`, of the worker that is named with `--worker` if one is."""
    worker = getattr(options, "worker", None)
    return f"/v1/{what}" if worker is None else f"/v1/workers/{quote(worker, safe='')}/{what}"


def _refusal(listen: str, answer: "http.client.HTTPResponse") -> DaemonUnreachableError:
    """Return what a response with an error says."""
    import http.client
    import json

    from mesh.model.codes import Code

    body = answer.read(MAX_REASON * 4)
    try:
        reason = str(json.loads(body)["error"])[:MAX_REASON]
    except (ValueError, LookupError, TypeError):
        reason = f"{answer.reason or 'no reason'}; is it the admin API of a vipmesh?"[:MAX_REASON]
    if answer.status == http.client.UNAUTHORIZED:
        text = f"{listen} does not accept the token, or got none; name the file with its token with --token-file"
        return DaemonUnreachableError(Code.ADMIN_UNAUTHORIZED, text)
    known = {str(code): code for code in Code}
    code = known.get(answer.headers.get("Vipmesh-Code", ""), Code.REQUEST_REFUSED)
    if code in (
        Code.CHANNEL_WITHOUT_CERTIFICATE,
        Code.CHANNEL_NO_ADDRESS,
        Code.CHANNEL_TLS,
        Code.CHANNEL_REFUSED,
        Code.CHANNEL_NO_ANSWER,
        Code.LOG_SERVICE_UNKNOWN,
    ):
        return DaemonUnreachableError(code, reason)  # it names what it is about
    return DaemonUnreachableError(code, f"{listen} refuses the request with status {answer.status}: {reason}")


_NO_TLS = frozenset({"WRONG_VERSION_NUMBER", "RECORD_LAYER_FAILURE", "HTTP_REQUEST", "PACKET_LENGTH_TOO_LONG"})
"""Reasons of OpenSSL for a server that does not speak TLS."""
_OTHER_NAME = frozenset({62, 64})
"""X509_V_ERR_HOSTNAME_MISMATCH and X509_V_ERR_IP_ADDRESS_MISMATCH: x509_vfy.h."""


def _cut_off(access: AdminAccess) -> str:
    """Return what it means that a worker ends a connection over TCP without an answer."""
    if not access.address.tls:
        remedy = "if it has TLS, [admin] cert, write https://HOST:PORT"
    # The alert that says so is lost if the connection is reset behind it.
    elif access.cert is None:
        remedy = "if it trusts only clients with a certificate, name one with --cert and --key"
    else:
        remedy = f"if it does not trust {access.cert}, use a certificate that its [admin] client_ca signed"
    return f"{access.written} ended the connection without an answer; {remedy}"


def _tls_failure(access: AdminAccess, error: "ssl.SSLError") -> str:
    """Return why there is no TLS with a worker, and what to do about it."""
    code, listen, reason = getattr(error, "verify_code", None), access.written, getattr(error, "reason", None)
    if reason is None:  # what `WorkerHttpsConnection` raises, too
        return f"{listen} is not the worker {access.worker}: {error}; give each worker a certificate of its own name"
    if code in _OTHER_NAME and access.worker is not None:
        return f"the certificate of {listen} does not name the worker {access.worker}; renew it with this name"
    if code in _OTHER_NAME:
        return f"the certificate of {listen} is for another name; use a name or an address that is in it"
    if code is not None:
        message = getattr(error, "verify_message", reason)
        return f"the certificate of {listen} is not trusted: {message}; name who signed it with --ca"
    if reason in _NO_TLS:
        return f"{listen} does not speak TLS; write http://{listen.partition('://')[2] or listen}"
    if "ALERT" in reason and access.cert is None:
        return f"{listen} refuses TLS without a certificate: {reason}; name one that it trusts with --cert and --key"
    if "ALERT" in reason:
        return f"{listen} refuses the certificate {access.cert}: {reason}; use one that its [admin] client_ca signed"
    return f"no TLS with {listen}: {reason}; look at its [admin] cert"
