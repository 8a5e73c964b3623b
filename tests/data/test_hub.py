"""The listing of a data set, by the Hub's real client against a server that answers as the Hub does."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import urlsplit

import pytest

from gristmill.data.hub import matches

COMMIT = "c" * 40
FILES = [
    {"type": "file", "path": "README.md", "size": 9, "oid": "a" * 40},
    {"type": "directory", "path": "data", "oid": "a" * 40},
    {"type": "file", "path": "data/b.parquet", "size": 20, "oid": "a" * 40,
     "lfs": {"oid": "b" * 64, "size": 20, "pointerSize": 130}},
    {"type": "file", "path": "data/a.parquet", "size": 10, "oid": "a" * 40},
]  # fmt: skip
LIST = """
import sys
from gristmill.data.hub import list_dataset
try:
    found = list_dataset("ada/texts", "main", [sys.argv[1]], timeout_seconds=5)
except Exception as error:
    sys.exit(f"{type(error).__name__}: {error}")
print(found.commit, found.licence)
for file in found.files:
    print(file.name, file.num_bytes, file.sha256, file.url)
"""


class Hub(ThreadingHTTPServer):
    """Knows one data set. status: of every answer."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.asked: list[str] = []
        self.status = 200

    @property
    def address(self) -> str:
        """Where it listens."""
        return f"http://127.0.0.1:{self.server_address[1]}"


class _Handler(BaseHTTPRequestHandler):
    server: Hub

    def do_GET(self) -> None:
        path = urlsplit(self.path).path
        self.server.asked.append(path)
        answers: dict[str, Any] = {
            "/api/datasets/ada/texts/revision/main": {
                "id": "ada/texts", "sha": COMMIT, "siblings": [], "cardData": {"license": "cc-by-4.0"},
            },
            f"/api/datasets/ada/texts/tree/{COMMIT}": FILES,
        }  # fmt: skip
        content = json.dumps(answers.get(path, {})).encode()
        self.send_response(self.server.status if path in answers else 404)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_: Any) -> None:
        """Quiet."""


@pytest.fixture
def hub() -> Iterator[Hub]:
    server = Hub()
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server
    server.shutdown()
    server.server_close()


def listed(address: str, pattern: str = "data/*.parquet", **setting: str) -> subprocess.CompletedProcess[str]:
    """In a process of its own: the client reads its endpoint when it is imported."""
    with tempfile.TemporaryDirectory() as home:
        environment = {**os.environ, "HF_HUB_OFFLINE": "0", "HF_ENDPOINT": address, "HF_HOME": home, **setting}
        return subprocess.run(
            [sys.executable, "-c", LIST, pattern], env=environment, capture_output=True, text=True, check=False
        )


def test_a_branch_is_resolved_to_its_commit_and_its_files_have_size_hash_and_address(hub: Hub) -> None:
    done = listed(hub.address)
    assert done.stderr == ""
    place = f"{hub.address}/datasets/ada/texts/resolve/{COMMIT}/data"
    assert done.stdout.splitlines() == [
        f"{COMMIT} cc-by-4.0",
        f"data/a.parquet 10 None {place}/a.parquet",
        f"data/b.parquet 20 {'b' * 64} {place}/b.parquet",
    ]
    assert all(path.startswith("/api/datasets/ada/texts/") for path in hub.asked), "nothing else is asked for"


def test_a_pattern_that_names_nothing_is_told_what_there_is(hub: Hub) -> None:
    words = listed(hub.address, "train/*").stderr
    assert words.startswith(
        f"DataError: ada/texts at {COMMIT} has no file that ['train/*'] names; it has README.md, data/a.parquet"
    )


@pytest.mark.parametrize("status", [429, 503, 401, 404])
def test_a_hub_that_is_busy_may_be_asked_later_and_one_that_refuses_may_not(hub: Hub, status: int) -> None:
    hub.status = status
    error, _, words = listed(hub.address).stderr.partition(": ")
    assert error == ("UnreachableError" if status in (429, 503) else "DataError")
    assert "ada/texts" in words


def test_a_hub_that_nobody_can_reach_may_be_asked_later() -> None:
    assert listed("http://127.0.0.1:9").stderr.startswith("UnreachableError: the Hub does not answer for ada/texts: ")
    assert "HF_HUB_OFFLINE is set" in listed("http://127.0.0.1:9", HF_HUB_OFFLINE="1").stderr


def test_wildcards_stay_within_a_folder_and_two_stars_do_not() -> None:
    assert [matches("data/en/a.parquet", pattern) for pattern in ("*.parquet", "data/*", "data/*/*.parquet")] == [
        False,
        False,
        True,
    ]
    assert all(matches("data/en/a.parquet", pattern) for pattern in ("**/*.parquet", "**", "data/**/a.parquet"))
