"""A small web for the tests of fetching: a real server on this machine, which gives files in ranges and fails as it is told.

cut: half of the body. stall: half of it, then silence until `resume` is set; `stalled` says that it is so far. trickle: a byte now
and then. refuse: 403. leave: all of it, and then it hangs up without a word.
"""

from __future__ import annotations

import contextlib
import http.server
import re
import threading
from collections.abc import Callable, Iterator
from typing import Any
from urllib.parse import parse_qs, urlsplit

Answer = bytes | tuple[int, bytes]
Faults = list[str]
FAULTS = ("cut", "busy", "wait", "close")


class Web(http.server.ThreadingHTTPServer):
    """files: path → bytes, in ranges. pages: path → what answers a query. lines: of an index. Each request takes the next fault of `faults`."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.files: dict[str, bytes] = {}
        self.pages: dict[str, Callable[[dict[str, list[str]]], Answer]] = {}
        self.faults: Faults = []
        self.lines: list[dict[str, Any]] = []
        self.headers: dict[str, str] = {}
        self.asked: list[tuple[str, str]] = []
        self.agents: set[str] = set()
        self.connections = 0
        self.stalled = threading.Event()
        self.resume = threading.Event()

    @property
    def address(self) -> str:
        """Where it listens."""
        return f"http://127.0.0.1:{self.server_address[1]}"


class _Handler(http.server.BaseHTTPRequestHandler):
    server: Web
    protocol_version = "HTTP/1.1"

    def setup(self) -> None:
        super().setup()
        self.server.connections += 1

    def do_GET(self) -> None:
        self.fault = fault = self.server.faults.pop(0) if self.server.faults else ""
        parts = urlsplit(self.path)
        span = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", ""))
        self.server.asked.append((self.path, self.headers.get("Range", "")))
        self.server.agents.add(self.headers.get("User-Agent", ""))
        if fault == "busy":
            return self._send(503, b"")
        if fault == "wait":
            return self._send(429, b"", {"Retry-After": "0"})
        if fault == "refuse":
            return self._send(403, b"")
        if fault == "close":
            self.close_connection = True
            return None
        if parts.path in self.server.pages:
            answer = self.server.pages[parts.path](parse_qs(parts.query))
            status, body = answer if isinstance(answer, tuple) else (200, answer)
            return self._send(status, body)
        body = self.server.files.get(parts.path, b"")
        if parts.path not in self.server.files:
            return self._send(404, b"")
        if span is None or fault == "ignores ranges":
            return self._send(200, body)
        first, last = int(span[1]), min(int(span[2] or len(body)), len(body) - 1)
        if first > last:
            return self._send(416, b"")
        told = {"Content-Range": f"bytes {first}-{last}/{len(body)}"}
        return self._send(206, body[first : last + 1], told)

    def do_HEAD(self) -> None:
        body = self.server.files.get(urlsplit(self.path).path)
        self.server.asked.append((self.path, "HEAD"))
        self.send_response(404 if body is None else 200)
        self.send_header("Content-Length", str(len(body or b"")))
        self.end_headers()

    def _send(self, status: int, body: bytes, headers: dict[str, str] | None = None) -> None:
        self.send_response(status)
        for name, value in {**self.server.headers, **(headers or {}), "Content-Length": str(len(body))}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.fault == "trickle":
            self._trickle(body)
            return
        half = self.fault in ("cut", "stall")
        with contextlib.suppress(OSError):
            self.wfile.write(body[: len(body) // 2] if half else body)
        if self.fault == "stall":
            self.server.stalled.set()
            self.server.resume.wait(30)
        self.close_connection = self.close_connection or half or self.fault == "leave"

    def _trickle(self, body: bytes) -> None:
        self.close_connection = True
        with contextlib.suppress(OSError):
            for place in range(len(body)):
                self.wfile.write(body[place : place + 1])
                if self.server.resume.wait(0.05):
                    return

    def log_message(self, *_: Any) -> None:
        """Quiet."""


@contextlib.contextmanager
def served() -> Iterator[Web]:
    """A server that listens until the block ends."""
    with Web() as web:
        thread = threading.Thread(target=web.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
        thread.start()
        try:
            yield web
        finally:
            web.shutdown()
            thread.join()
