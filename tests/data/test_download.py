"""Downloads from a real server that cuts, lies, asks to wait and changes its mind: what comes out is the file, or a refusal."""

from __future__ import annotations

import contextlib
import hashlib
import http.server
import re
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gristmill.data import connection
from gristmill.data.download import Client, RefusedError, Wanted
from gristmill.data.patience import Patience, UnreachableError
from gristmill.errors import DataError

CONTENT = bytes(range(256)) * 40
SHA256 = hashlib.sha256(CONTENT).hexdigest()
QUICK = Patience(attempts=4, first_seconds=0.001, most_seconds=0.002, timeout_seconds=0.3)
FAULTS = ("cut", "busy", "wait", "ignores ranges", "close")


class Server(http.server.ThreadingHTTPServer):
    """Serves CONTENT; each request takes the next fault of the script."""

    script: list[tuple[str, int]]
    sent: list[int]
    etag = '"1"'
    lie = 0
    content = CONTENT
    location = ""
    tokens: list[str | None]
    daemon_threads = True


class Handler(http.server.BaseHTTPRequestHandler):
    server: Server

    def do_GET(self) -> None:
        sent = self.server.sent  # of the test that asked: one that leaves early does not wait for this thread
        self.server.tokens.append(self.headers.get("Authorization"))
        fault, place = self.server.script.pop(0) if self.server.script else ("", 0)
        if fault == "busy":
            return self._head(503, {"Content-Length": "0"})
        if fault == "wait":
            return self._head(429, {"Content-Length": "0", "Retry-After": "0"})
        if fault == "missing":
            return self._head(404, {"Content-Length": "0"})
        if fault == "redirect":
            return self._head(302, {"Content-Length": "0", "Location": self.server.location})
        if fault == "close":
            self.close_connection = True
            return None
        content, etag = self.server.content, self.server.etag
        asked = re.match(r"bytes=(\d+)-", self.headers.get("Range", ""))
        is_same = self.headers.get("If-Range", etag) == etag or fault == "ignores If-Range"
        start = int(asked[1]) if asked and is_same and fault != "ignores ranges" else 0
        start += 7 if start and fault == "another range" else 0
        headers = {"ETag": etag, "Content-Length": str(len(content) - start + self.server.lie)}
        if fault == "packed":
            headers["Content-Encoding"] = "gzip"
        if start:
            headers["Content-Range"] = f"bytes {start}-{len(content) - 1}/{len(content)}"
        self._head(206 if start else 200, headers)
        body = content[start:] if fault != "cut" else content[start : start + place]
        sent.append(len(body))
        if fault == "trickle":
            with contextlib.suppress(OSError):
                for place in range(20):
                    self.wfile.write(body[place : place + 1])
                    time.sleep(0.05)
            return None
        self.wfile.write(body)
        self.close_connection = True
        return None

    def _head(self, status: int, headers: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()

    def log_message(self, *_args: Any) -> None:
        pass


@pytest.fixture(scope="module")
def started() -> Iterator[Server]:
    with Server(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@pytest.fixture
def server(started: Server) -> Server:
    started.tokens = []
    started.script, started.sent, started.etag, started.content, started.lie = [], [], '"1"', CONTENT, 0
    return started


def fetch(server: Server, folder: Path, **keys: Any) -> bytes:
    wanted = Wanted(name="a.bin", url=f"http://127.0.0.1:{server.server_port}/a.bin", **{"sha256": SHA256, **keys})
    folder.mkdir(exist_ok=True)
    Client(patience=QUICK).fetch(wanted, folder / "a.bin", folder / "part")
    return (folder / "a.bin").read_bytes()


@given(
    script=st.lists(st.tuples(st.sampled_from(FAULTS), st.integers(1, len(CONTENT) - 1)), max_size=3),
    has_hash=st.booleans(),
)
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_failures_end_in_the_bytes_of_an_unbroken_fetch(
    server: Server, tmp_path_factory: pytest.TempPathFactory, script: list[tuple[str, int]], has_hash: bool
) -> None:
    server.script, server.sent = [*script], []
    assert fetch(server, tmp_path_factory.mktemp("x"), sha256=SHA256 if has_hash else None) == CONTENT
    if all(fault != "ignores ranges" for fault, _ in script):
        assert sum(server.sent) == len(CONTENT), "a byte was sent twice"


def test_a_later_start_asks_only_for_the_missing_bytes(server: Server, tmp_path: Path) -> None:
    server.script = [("cut", 1000), *[("close", 0)] * 4]
    with pytest.raises(UnreachableError, match="in a row") as caught:
        fetch(server, tmp_path)
    assert caught.value.exit_code == 75
    assert fetch(server, tmp_path) == CONTENT
    assert server.sent == [1000, len(CONTENT) - 1000]


def test_a_file_that_changed_between_two_ranges_is_begun_again(server: Server, tmp_path: Path) -> None:
    server.script = [("cut", 1000), *[("close", 0)] * 4]
    with pytest.raises(UnreachableError):
        fetch(server, tmp_path, sha256=None)
    server.etag, server.content = '"2"', CONTENT[::-1]
    assert fetch(server, tmp_path, sha256=None) == CONTENT[::-1]


@pytest.mark.parametrize("fault", ["ignores If-Range", "another range"])
def test_a_range_that_does_not_fit_the_part_is_not_appended(server: Server, tmp_path: Path, fault: str) -> None:
    server.script = [("cut", 1000), *[("close", 0)] * 4]
    with pytest.raises(UnreachableError):
        fetch(server, tmp_path, sha256=None)
    if fault == "ignores If-Range":
        server.etag, server.content = '"2"', CONTENT[::-1]
    server.script = [(fault, 0)]
    assert fetch(server, tmp_path, sha256=None) == server.content


@pytest.mark.parametrize(
    ("fault", "keys", "said"),
    [
        ("missing", {}, "answers 404"),
        ("packed", {}, "sent packed"),
        ("", {"sha256": "0" * 64}, "twice; expected 0000"),
        ("", {"num_bytes": 5}, "were announced"),
    ],
)
def test_a_wrong_answer_is_refused_in_words(
    server: Server, tmp_path: Path, fault: str, keys: dict[str, Any], said: str
) -> None:
    server.script = [(fault, 0)]
    with pytest.raises(DataError, match=said):
        fetch(server, tmp_path, **keys)
    assert not (tmp_path / "a.bin").exists()


def test_a_length_that_is_a_lie_gives_no_wrong_file(server: Server, tmp_path: Path) -> None:
    server.lie = 7
    assert fetch(server, tmp_path / "long") == CONTENT
    server.lie = -7
    with pytest.raises(DataError, match="twice; expected"):
        fetch(server, tmp_path / "short")
    assert not (tmp_path / "short" / "a.bin").exists()


def test_a_server_that_sends_a_byte_now_and_then_counts_as_cut(server: Server) -> None:
    server.script = [("trickle", 0)] * 4
    with pytest.raises(UnreachableError, match="bytes in"):
        Client(patience=QUICK).read(f"http://127.0.0.1:{server.server_port}/a.bin", max_bytes=10**6)


def test_a_small_answer_is_whole_bounded_and_of_the_span_that_was_asked_for(server: Server) -> None:
    client, url = Client(patience=QUICK), f"http://127.0.0.1:{server.server_port}/a.bin"
    server.script = [("busy", 0), ("cut", 100)]
    assert client.read(url, max_bytes=len(CONTENT)) == CONTENT
    with pytest.raises(RefusedError, match="more than 100 bytes"):
        client.read(url, max_bytes=100)
    server.script = [("another range", 0)]
    with pytest.raises(RefusedError, match="but others"):
        client.read(url, max_bytes=10**6, span=(10, len(CONTENT) - 1))


@pytest.mark.parametrize("location", ["file:///etc/passwd", "http://localhost:{port}/a.bin"])
def test_a_redirect_leads_neither_to_files_nor_to_private_addresses(
    server: Server, tmp_path: Path, location: str
) -> None:
    server.script, server.location = [("redirect", 0)], location.format(port=server.server_port)
    with pytest.raises(DataError, match=r"only http|a private address"):
        fetch(server, tmp_path)
    assert server.sent == []


@pytest.mark.parametrize(("host", "token"), [("127.0.0.1", "Bearer x"), ("localhost", None)])
def test_a_token_goes_to_the_host_that_it_is_for_and_is_not_handed_on(
    server: Server, monkeypatch: pytest.MonkeyPatch, host: str, token: str | None
) -> None:
    monkeypatch.setattr(connection, "_is_private", lambda address: False)
    back = f"http://{host}:{server.server_port}/b.bin"
    server.script, server.location = [("redirect", 0)], back
    client = Client(patience=QUICK, headers={"Authorization": "Bearer x"})
    assert client.read(f"http://127.0.0.1:{server.server_port}/a.bin", max_bytes=10**6) == CONTENT
    assert server.tokens == ["Bearer x", token]


def test_what_is_wrong_with_the_disk_is_said_at_once_and_not_laid_to_the_network(
    server: Server, tmp_path: Path
) -> None:
    wanted = Wanted(name="a.bin", url=f"http://127.0.0.1:{server.server_port}/a.bin", sha256=SHA256)
    with pytest.raises(FileNotFoundError, match="nowhere"):
        Client(patience=QUICK).fetch(wanted, tmp_path / "a.bin", tmp_path / "nowhere" / "part")
    assert len(server.tokens) == 1
