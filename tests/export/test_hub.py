"""A push makes a private repository and commits the files, over HTTP, to a Hub that a test plays. The real one is not asked."""

from __future__ import annotations

import base64
import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from gristmill.errors import RecipeError
from gristmill.export.hub import push


class Hub(ThreadingHTTPServer):
    """What `create_repo`, `repo_info` and `upload_folder` ask, for files that need no large-file storage."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.repositories: dict[str, bool] = {}  # name → private
        self.files: dict[str, bytes] = {}
        self.asked: list[str] = []


class _Handler(BaseHTTPRequestHandler):
    server: Hub

    def do_POST(self) -> None:
        length = self.headers.get("Content-Length")
        body = self.rfile.read(int(length)) if length else self._chunks()
        if self.path == "/api/repos/create":
            wanted = json.loads(body)
            name = f"{wanted['organization']}/{wanted['name']}"
            private = wanted.get("private", wanted.get("visibility") == "private")
            self.server.repositories.setdefault(name, bool(private))
            self._say({"url": f"https://huggingface.co/{name}"})
        elif self.path.endswith("/preupload/main"):
            files = json.loads(body)["files"]
            self._say(
                {"files": [{"path": file["path"], "uploadMode": "regular", "shouldIgnore": False} for file in files]}
            )
        elif self.path.endswith("/commit/main"):
            for line in map(json.loads, body.splitlines()):
                if line["key"] == "file":
                    self.server.files[line["value"]["path"]] = base64.b64decode(line["value"]["content"])
            self._say(
                {"success": True, "commitOid": "0" * 40, "commitUrl": "https://huggingface.co/ada/quickstart/commit/0"}
            )
        else:
            self._say({}, 404)

    def do_GET(self) -> None:
        self.server.asked.append(self.path)
        name = self.path.removeprefix("/api/models/").partition("/revision")[0].partition("?")[0]
        if name in self.server.repositories:
            self._say({"id": name, "sha": "0" * 40, "private": self.server.repositories[name], "siblings": []})
        else:
            self._say({}, 404)

    def _chunks(self) -> bytes:
        found = b""
        while size := int(self.rfile.readline(), 16):
            found += self.rfile.read(size)
            self.rfile.readline()
        self.rfile.readline()
        return found

    def _say(self, answer: Any, status: int = 200) -> None:
        content = json.dumps(answer).encode()
        self.send_response(status)
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


SEND = """
import sys
from pathlib import Path
from gristmill.export.hub import push
print(push({"": Path(sys.argv[1]), "gguf": Path(sys.argv[2])}, "ada/quickstart", public="--public" in sys.argv))
"""


@pytest.fixture
def folders(tmp_path: Path) -> tuple[Path, Path]:
    for place in ("model", "gguf"):
        (tmp_path / place).mkdir()
        (tmp_path / place / f"{place}.bin").write_bytes(place.encode() * 100)
    return tmp_path / "model", tmp_path / "gguf"


def send(hub: Hub, folders: tuple[Path, Path], *options: str, offline: str = "0") -> subprocess.CompletedProcess[str]:
    """In a process of its own: the package reads its endpoint and whether it may go out when it is imported."""
    host, port = hub.server_address[:2]
    setting = {"HF_ENDPOINT": f"http://{host!s}:{port}", "HF_TOKEN": "hf_of_a_test", "HF_HUB_OFFLINE": offline}
    return subprocess.run(
        [sys.executable, "-c", SEND, *map(str, folders), *options],
        env={**os.environ, **setting, "HF_HUB_DISABLE_XET": "1", "HF_HUB_DISABLE_PROGRESS_BARS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )


def test_push_makes_a_private_repository_of_the_folders(folders: tuple[Path, Path], hub: Hub) -> None:
    done = send(hub, folders)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip().endswith("/ada/quickstart")
    assert hub.repositories == {"ada/quickstart": True}
    assert all(path.startswith("/api/models/ada/quickstart") for path in hub.asked), "nothing else is asked for"
    sent = {name: content for name, content in hub.files.items() if name != ".gitattributes"}
    assert sent == {"model.bin": b"model" * 100, "gguf/gguf.bin": b"gguf" * 100}


def test_a_repository_that_is_public_takes_nothing_unless_that_is_asked_for(
    folders: tuple[Path, Path], hub: Hub
) -> None:
    hub.repositories["ada/quickstart"] = False
    done = send(hub, folders)
    assert "RecipeError" in done.stderr
    assert "is public; nothing was uploaded. Add --public" in done.stderr
    assert not hub.files
    assert send(hub, folders, "--public").returncode == 0
    assert "model.bin" in hub.files


@pytest.mark.parametrize("name", ["quickstart", "a/b/c", "a b/c", "/x"])
def test_a_name_without_an_owner_is_refused(source: Path, name: str) -> None:
    with pytest.raises(RecipeError, match=r"expected OWNER/NAME"):
        push({"": source}, name, public=False)


def test_a_hub_that_cannot_be_reached_is_an_error_in_words(folders: tuple[Path, Path], hub: Hub) -> None:
    done = send(hub, folders, offline="1")
    assert "ArtifactError: ada/quickstart: the upload to the Hugging Face Hub failed: " in done.stderr
    assert "offline" in done.stderr
    assert not hub.repositories
