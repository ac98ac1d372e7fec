"""What must not suffer, as a process: healthy endpoints, and a client that asks for own names: HTTP_PORT DNS_PORT.

Each line of standard input is a number of seconds; the answer is a line with the 99th percentile of the times of the
questions in these seconds, in microseconds, and how many were not answered in a second.
"""

import os
import socket
import struct
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from typing_extensions import override

NAMES = ("good0.bench.test", "good1.bench.test", "good2.bench.test")
PER_SECOND = 200
PATIENCE = 1.0


class Ready(BaseHTTPRequestHandler):
    """Answers each probe."""

    def do_GET(self) -> None:
        """Answer 200."""
        self.send_response(200)
        self.send_header("Content-Length", "0")
        self.end_headers()

    @override
    def log_message(self, format: str, *args: object) -> None:
        """Log nothing."""


def query(number: int) -> bytes:
    """An A question for one of the names; the ID is the number."""
    name = b"".join(bytes([len(label)]) + label.encode() for label in NAMES[number % len(NAMES)].split("."))
    return struct.pack("!HHHHHH", number & 0xFFFF, 0x0100, 1, 0, 0, 0) + name + b"\0\0\1\0\1"


def measure(port: int, seconds: float) -> tuple[float, int]:
    """Ask at a steady rate, one question at a time: the 99th percentile in seconds, and the lost ones."""
    times, lost = [], 0
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.connect(("127.0.0.1", port))
        sock.settimeout(PATIENCE)
        began = time.monotonic()
        for number in range(int(seconds * PER_SECOND)):
            asked = time.perf_counter()
            try:
                sock.send(query(number))
                while int.from_bytes(sock.recv(2000)[:2]) != number & 0xFFFF:
                    pass
                times.append(time.perf_counter() - asked)
            except OSError:
                lost += 1
                times.append(PATIENCE)
            if (rest := began + (number + 1) / PER_SECOND - time.monotonic()) > 0:
                time.sleep(rest)
            if time.monotonic() - began > seconds * 2:
                break
    return sorted(times)[int(len(times) * 0.99)], lost


def main() -> None:
    """Serve until standard input ends."""
    if os.geteuid() == 0:
        os.setpriority(os.PRIO_PROCESS, 0, -15)  # that the load takes the processor is not what is measured
    server = ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Ready)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    print("ready", flush=True)
    for line in sys.stdin:
        slowest, lost = measure(int(sys.argv[2]), float(line))
        print(f"{slowest * 1e6:.0f} {lost}", flush=True)


if __name__ == "__main__":
    main()
