"""One HTTP request for the bytes of a file: redirects followed by hand, within what the recipe asked for.

A redirect may lead to another public host, never to another scheme than http and https, from https to http, or to a private
address: a recipe is handed on, and must not make this machine read what only this machine can reach. A host that the recipe
itself names may be private. Credentials stay with the host that they are for. Bodies are taken as they are sent, never unpacked.
"""

from __future__ import annotations

import contextlib
import http.client
import ipaddress
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from types import TracebackType
from urllib.parse import SplitResult, urljoin, urlsplit
from urllib.request import getproxies, proxy_bypass

from gristmill.errors import DataError

MAX_REDIRECTS = 10
REDIRECTS = (301, 302, 303, 307, 308)
CREDENTIALS = ("authorization", "cookie")
DEFAULT_PORTS = {"http": 80, "https": 443}
CHUNK_BYTES = 256_000
SLOWEST = 100  # bytes a second, over a whole time limit: slower is a server that keeps the line busy and sends nothing

CONNECT_SECONDS = 15.0  # a host that does not even accept is asked again later
POLL_SECONDS = 0.2

Place = tuple[str, str, int]  # scheme, host, port
Key = tuple[Place, bool]  # and whether it may be private


@dataclass(frozen=True, kw_only=True)
class Answer:
    """The head of an answer, and its body to be read."""

    url: str
    status: int
    headers: Mapping[str, str]
    body: http.client.HTTPResponse

    def chunks(self, *, timeout_seconds: float) -> Iterator[bytes]:
        """The body as it comes. Raises TimeoutError once it has been slower than SLOWEST for timeout_seconds."""
        since, arrived = time.monotonic(), 0
        while chunk := self.body.read1(CHUNK_BYTES):
            yield chunk
            arrived += len(chunk)
            if (passed := time.monotonic() - since) > timeout_seconds:
                if arrived < SLOWEST * passed:
                    raise TimeoutError(f"{arrived:,} bytes in {passed:.0f} s")
                since, arrived = time.monotonic(), 0


class Connections:
    """The connections of a step: those that wait for the next request to their place, and those at work, which may be shut from outside."""

    def __init__(self) -> None:
        self._idle: list[tuple[Key, http.client.HTTPConnection]] = []
        self._busy: set[http.client.HTTPConnection] = set()

    def __enter__(self) -> Connections:
        return self

    def __exit__(self, _kind: type | None, _error: BaseException | None, _trace: TracebackType | None) -> None:
        while self._idle:
            self._idle.pop()[1].close()

    def take(self, key: Key) -> http.client.HTTPConnection | None:
        """An open connection to the place; the caller has it for itself."""
        while self._idle:
            found, connection = self._idle.pop()
            if found == key:
                self._busy.add(connection)
                return connection
            connection.close()
        return None

    def work(self, connection: http.client.HTTPConnection) -> None:
        """A new connection is at work."""
        self._busy.add(connection)

    def leave(self, key: Key, connection: http.client.HTTPConnection, *, is_sound: bool) -> None:
        """The work is done: a sound connection waits for the next request, another is closed."""
        self._busy.discard(connection)
        if is_sound:
            self._idle.append((key, connection))
        else:
            connection.close()

    def shut(self) -> None:
        """Ends what is at work: whoever waits for bytes is told at once that there are none."""
        for connection in [*self._busy]:
            if (sock := connection.sock) is not None:
                with contextlib.suppress(OSError):
                    socket.socket.shutdown(sock, socket.SHUT_RDWR)  # of TCP, under TLS too: another thread is reading

    @contextlib.contextmanager
    def shut_when(self, should_stop: Callable[[], bool]) -> Iterator[None]:
        """Within the block, connections are shut soon after `should_stop()`, so that a silent server delays no one."""
        is_over = threading.Event()

        def watch() -> None:
            while not is_over.wait(POLL_SECONDS):
                if should_stop():
                    self.shut()

        watcher = threading.Thread(target=watch, daemon=True)
        watcher.start()
        try:
            yield
        finally:
            is_over.set()
            watcher.join()


@contextlib.contextmanager
def ask(
    url: str,
    headers: Mapping[str, str],
    *,
    timeout_seconds: float,
    method: str = "GET",
    connections: Connections | None = None,
) -> Iterator[Answer]:
    """A request, redirects followed. The connection is taken from `connections` and left to them; None: it is closed at the end.

    timeout_seconds: of connecting, and of each wait for bytes. Raises DataError for a redirect that is refused, OSError or
    HTTPException where the network fails.
    """
    first = host = _place(urlsplit(url))
    sent = dict(headers)
    with contextlib.ExitStack() as stack:
        connections = connections or stack.enter_context(Connections())
        for _ in range(MAX_REDIRECTS + 1):
            parts = urlsplit(url)
            host = _place(parts)
            if host != first:
                sent = {name: value for name, value in sent.items() if name.lower() not in CREDENTIALS}
            key = (host, host == first)
            target = f"{parts.path or '/'}{'?' + parts.query if parts.query else ''}"
            connection, response = _request(connections, key, parts, method, target, sent, timeout_seconds)
            is_sound = False
            try:
                found = {name.lower(): value for name, value in response.getheaders()}
                if response.status not in REDIRECTS:
                    yield Answer(url=url, status=response.status, headers=found, body=response)
                    is_sound = (response.isclosed() or response.length == 0) and not response.will_close
                    return
                url = _next(url, found.get("location"))
            finally:
                response.close()
                connections.leave(key, connection, is_sound=is_sound)
        raise DataError(f"{url}: more than {MAX_REDIRECTS} redirects, one after the other.")


def _request(
    connections: Connections,
    key: Key,
    parts: SplitResult,
    method: str,
    target: str,
    headers: Mapping[str, str],
    timeout_seconds: float,
) -> tuple[http.client.HTTPConnection, http.client.HTTPResponse]:
    """Sends the request by a waiting connection, or by a new one where none waits or the waiting one was closed by the other side."""
    for waiting in (connections.take(key), None):
        connection = waiting
        try:
            if connection is None:
                connection = _connect(parts, timeout_seconds=timeout_seconds, may_be_private=key[1])
                connections.work(connection)
            connection.request(method, target, headers=dict(headers))
            return connection, connection.getresponse()
        except BaseException as error:
            if connection is not None:
                connections.leave(key, connection, is_sound=False)
            if waiting is None or not isinstance(error, OSError | http.client.HTTPException):
                raise
    raise AssertionError("a new connection answers or raises")


def _place(parts: SplitResult) -> Place:
    try:
        port = parts.port or DEFAULT_PORTS.get(parts.scheme, 0)
    except ValueError:
        raise DataError(f"{parts.geturl()} names no port between 0 and 65535.") from None
    return parts.scheme, (parts.hostname or "").lower(), port


def _next(url: str, location: str | None) -> str:
    """Where a redirect leads, if it may lead there."""
    if not location:
        raise DataError(f"{url} answers with a redirect that leads nowhere.")
    there = urljoin(url, location)
    schemes = urlsplit(url).scheme, urlsplit(there).scheme
    if schemes[1] not in DEFAULT_PORTS or not urlsplit(there).hostname:
        raise DataError(f"{url} redirects to {there!r:.200}; only http:// and https:// are followed.")
    if schemes == ("https", "http"):
        raise DataError(f"{url} redirects to {there:.200}, without encryption; that is not followed.")
    return there


def _connect(parts: SplitResult, *, timeout_seconds: float, may_be_private: bool) -> http.client.HTTPConnection:
    scheme, host, port = _place(parts)
    proxy = None if proxy_bypass(host) else getproxies().get(scheme)
    through = None if proxy is None or scheme != "https" else urlsplit(proxy if "//" in proxy else f"//{proxy}")
    place = (host, port) if through is None else (through.hostname or "", through.port or 80)
    connection: http.client.HTTPConnection
    patience = min(CONNECT_SECONDS, timeout_seconds)
    if scheme == "https":
        context = ssl.create_default_context()
        connection = http.client.HTTPSConnection(*place, timeout=patience, context=context)
    else:
        connection = http.client.HTTPConnection(*place, timeout=patience)
    if through is not None:
        connection.set_tunnel(host, port)
    try:
        connection.connect()
        connection.sock.settimeout(timeout_seconds)
        # The address that is connected to, not one that was looked up before: names may change their address in between.
        if not may_be_private and through is None and _is_private(connection.sock.getpeername()[0]):
            raise DataError(
                f"{parts.geturl():.200} lies at {connection.sock.getpeername()[0]}, a private address that a redirect led to; "
                "it is not read.\n  If you mean it, name that host in the recipe."
            )
    except BaseException:
        connection.close()
        raise
    return connection


def _is_private(address: str) -> bool:
    found = ipaddress.ip_address(address.partition("%")[0])
    mapped = found.ipv4_mapped if isinstance(found, ipaddress.IPv6Address) else None
    return not (mapped or found).is_global
