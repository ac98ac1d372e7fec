"""Requests that no honest client sends; each must get a 4xx with a reason, before and after authentication."""

_HOST = b"Host: localhost\r\n"
_TARGETS = (
    b"/\xff", b"*", b"?x", b"a:b", b"http://[::1/", b"http:///v1/status", b"http://a:99999999/", b"/ x", b"/\x00",
    b"http://evil.test/v1/status", b"http://localhost/v1/status", b"/v1/explain?of=\xff", b"/" + b"a" * 9000,
    b"/%ff%fe", b"/%00", b"//[", b"/%zz", b"/a%2fb", b"/;;;=?#[", b"/{file}",
    b"/page/", b"/page/%2e%2e/%ff", b"/page/..%2f..%2fetc%2fpasswd", b"/v1/explain", b"/v1/test?of=",
)  # fmt: skip
_HOSTS = (
    b"", b" ", b"[", b"@", b"a b", b"::1", b"\xff", b"a:b", b"user@localhost", b"evil.test",
    b"localhost, evil", b"a" * 2000,
)  # fmt: skip
_HEADERS = (
    _HOST, b"X\x00: a\r\n", b" folded\r\n", b"X: a\r\n b\r\n", b"X: \x00\r\n", b"no name\r\n", b": a\r\n",
    b"X: " + b"a" * 9000 + b"\r\n", b"".join(b"X%d: a\r\n" % n for n in range(200)),
    b"Content-Length: -1\r\n", b"Content-Length: 99999999999999999999999\r\n",
    b"Content-Length: 1\r\nContent-Length: 2\r\n",
    b"Content-Length: 1\r\nTransfer-Encoding: chunked\r\n", b"Transfer-Encoding: x\r\n", b'Cookie: \x01="\r\n',
    b"Authorization: Bearer \xff\xfe\r\n", b"Authorization: \r\n",
)  # fmt: skip
_BODIES = (
    b"Origin: http://[\r\nContent-Length: 0\r\n\r\n",
    b"Origin: \xff\r\nContent-Length: 0\r\n\r\n",
    b"Origin: null\r\nContent-Length: 0\r\n\r\n",
    b"Sec-Fetch-Site: \xff\r\nContent-Length: 0\r\n\r\n",
    b"Content-Length: 0\r\n\r\n",
    b'Cookie: a\r\nContent-Type: text/plain\r\nContent-Length: 16\r\n\r\n{"name":"web-1"}',
    b'Cookie: a\r\nContent-Type: application/x-www-form-urlencoded\r\nContent-Length: 16\r\n\r\n{"name":"web-1"}',
    b'Cookie: a\r\nContent-Type: multipart/form-data; boundary=x\r\nContent-Length: 16\r\n\r\n{"name":"web-1"}',
    b"Content-Type: application/json; charset=nosuch\r\nContent-Length: 2\r\n\r\n{}",
    b"Content-Encoding: gzip\r\nContent-Length: 3\r\n\r\nabc",
    b"Content-Encoding: br\r\nContent-Length: 3\r\n\r\nabc",
    b"Content-Length: 2\r\n\r\n\xff\xfe",
    b"Content-Length: 100000\r\n\r\n" + b"x" * 100_000,
    b"Expect: nonsense\r\nContent-Length: 2\r\n\r\n{}",
    b"Transfer-Encoding: chunked\r\n\r\nzz\r\n",
    b"Transfer-Encoding: chunked\r\n\r\nffffffffffffffffffff\r\n",
    b"Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
)

HOSTILE_REQUESTS: tuple[bytes, ...] = (
    *(b"GET %s HTTP/1.1\r\n%s\r\n" % (target, _HOST) for target in _TARGETS),
    *(b"GET /v1/status HTTP/1.1\r\nHost: %s\r\n\r\n" % host for host in _HOSTS),
    *(b"GET /v1/nothing HTTP/1.1\r\n%s%s\r\n" % (_HOST, header) for header in _HEADERS),
    *(b"POST /v1/drain HTTP/1.1\r\n%s%s" % (_HOST, body) for body in _BODIES),
    b"GET\r\n\r\n",
    b"G\x00T / HTTP/1.1\r\n\r\n",
    b"get / HTTP/1.1\r\n\r\n",
    b"GET / HTTP/1.1\r\n\r\n",
    b"GET / HTTP/9.9\r\n\r\n",
    b"GET / HTTP/1.1 x\r\n\r\n",
    b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    b"OPTIONS * HTTP/1.1\r\n%s\r\n" % _HOST,
    b"CONNECT a:1 HTTP/1.1\r\n%s\r\n" % _HOST,
    b"CONNECT [ HTTP/1.1\r\n%s\r\n" % _HOST,
    b"TRACE /v1/status HTTP/1.1\r\n%s\r\n" % _HOST,
    b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
)
"""Raw requests, as bytes of a connection."""
