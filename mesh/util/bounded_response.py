"""HTTP responses of other programs with a limit of their length, for aiohttp's client.

A response without end would fill the memory of the daemon within the time that the request may take.
"""

import aiohttp
from typing_extensions import override

MAX_RESPONSE_BYTES = 8 << 20
"""The most bytes of a response: a list of more than two thousand containers, or of ten thousand small records."""


class ResponseTooLargeError(aiohttp.ClientPayloadError):
    """A response has more than `MAX_RESPONSE_BYTES`."""

    def __init__(self) -> None:
        super().__init__(f"its response has more than {MAX_RESPONSE_BYTES >> 20} MiB")


class BoundedResponse(aiohttp.ClientResponse):
    """A response whose `read`, and with it `json` and `text`, refuses more than `MAX_RESPONSE_BYTES`.

    Whoever reads `content` in pieces bounds it himself.
    """

    @override
    async def read(self) -> bytes:
        """Return the whole body. Raises `ResponseTooLargeError`, and then the connection is closed."""
        if self._body is not None:
            return await super().read()
        received = bytearray()
        async for chunk in self.content.iter_any():
            received += chunk
            if len(received) > MAX_RESPONSE_BYTES:
                self.close()
                raise ResponseTooLargeError
        await super().read()  # nothing is left; it gives the connection back
        self._body = bytes(received)
        return self._body
