"""One HTTP request for the bytes of a file: redirects followed by hand, within what the recipe asked for.

A redirect may lead to another public host, never to another scheme than http and https, from https to http, or to a private
address: a recipe is handed on, and must not make this machine read what only this machine can reach. A host that the recipe
itself names may be private. Credentials stay with the host that they are for. Bodies are taken as they are sent, never unpacked.
"""

from __future__ import annotations

import contextlib
import http.client
import ipaddress
import ssl
import time
from collections.abc import Iterator, Mapping
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

Place = tuple[str, str, int]  # scheme, host, port


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


class Kept:
    """Connections that stay open from one request to the next, by place; for many small answers of one host."""

    def __init__(self) -> None:
        self._open: list[tuple[tuple[Place, bool], http.client.HTTPConnection]] = []

    def __enter__(self) -> Kept:
        return self

    def __exit__(self, _kind: type | None, _error: BaseException | None, _trace: TracebackType | None) -> None:
        while self._open:
            self._open.pop()[1].close()

    def take(self, key: tuple[Place, bool]) -> http.client.HTTPConnection | None:
        """An open connection to the place; the caller has it for itself."""
        while self._open:
            found, connection = self._open.pop()
            if found == key:
                return connection
            connection.close()
        return None

    def keep(self, key: tuple[Place, bool], connection: http.client.HTTPConnection) -> None:
        """Gives a connection back for the next request."""
        self._open.append((key, connection))


@contextlib.contextmanager
def ask(
    url: str, headers: Mapping[str, str], *, timeout_seconds: float, method: str = "GET", kept: Kept | None = None
) -> Iterator[Answer]:
    """A request, redirects followed; closes the connection at the end, unless `kept` takes it.

    timeout_seconds: of connecting, and of each wait for bytes. Raises DataError for a redirect that is refused, OSError or
    HTTPException where the network fails.
    """
    first = host = _place(urlsplit(url))
    sent = dict(headers)
    for _ in range(MAX_REDIRECTS + 1):
        parts = urlsplit(url)
        host = _place(parts)
        if host != first:
            sent = {name: value for name, value in sent.items() if name.lower() not in CREDENTIALS}
        key = (host, host == first)
        connection = kept.take(key) if kept is not None else None
        target = f"{parts.path or '/'}{'?' + parts.query if parts.query else ''}"
        is_kept = False
        try:
            try:
                response = None if connection is None else _request(connection, method, target, sent)
            except (OSError, http.client.HTTPException):  # closed by the other side while it was kept
                response = None
            if connection is None or response is None:
                if connection is not None:
                    connection.close()
                connection = _connect(parts, timeout_seconds=timeout_seconds, may_be_private=host == first)
                response = _request(connection, method, target, sent)
            found = {name.lower(): value for name, value in response.getheaders()}
            if response.status not in REDIRECTS:
                yield Answer(url=url, status=response.status, headers=found, body=response)
                is_read = response.isclosed() or response.length == 0
                if kept is not None and is_read and not response.will_close:
                    response.close()
                    kept.keep(key, connection)
                    is_kept = True
                return
            url = _next(url, found.get("location"))
        finally:
            if connection is not None and not is_kept:
                connection.close()
    raise DataError(f"{url}: more than {MAX_REDIRECTS} redirects, one after the other.")


def _request(
    connection: http.client.HTTPConnection, method: str, target: str, headers: Mapping[str, str]
) -> http.client.HTTPResponse:
    connection.request(method, target, headers=dict(headers))
    return connection.getresponse()


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
    if scheme == "https":
        context = ssl.create_default_context()
        connection = http.client.HTTPSConnection(*place, timeout=timeout_seconds, context=context)
    else:
        connection = http.client.HTTPConnection(*place, timeout=timeout_seconds)
    if through is not None:
        connection.set_tunnel(host, port)
    try:
        connection.connect()
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
