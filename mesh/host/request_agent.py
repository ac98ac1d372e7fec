"""The program of a short-lived container that sends requests: `python3 -m mesh.host.request_agent PATIENCE REQUESTS`.

`REQUESTS` is a JSON array of `ServiceRequest`s. It prints a JSON array of `RequestResult`s in the same order.
"""

import sys
from collections.abc import Sequence
from pathlib import Path

import msgspec

from mesh.host.namespaces import parse_nameservers
from mesh.host.requests import send_requests
from mesh.model.request import ServiceRequest


def main(arguments: Sequence[str]) -> int:
    """Send the requests of the command line and print their results. Returns the exit status."""
    patience, requests = float(arguments[0]), msgspec.json.decode(arguments[1], type=list[ServiceRequest])
    nameservers = parse_nameservers(Path("/etc/resolv.conf").read_text())
    results = send_requests(requests, nameservers, patience)
    sys.stdout.buffer.write(msgspec.json.encode(results))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
