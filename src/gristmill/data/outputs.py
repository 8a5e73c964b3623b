"""What fetch leaves, for one source."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from gristmill.graph.outputs import File, Outputs
from gristmill.store.durable import read_json


class Fetched(Outputs):
    """The files of a source as they came, and where they came from."""

    files = File("files", covers=("files/*",))
    origins = File("origins.json", notes=True)
    index = File("index.jsonl", notes=True)  # of Common Crawl: what was chosen of each page of its index
    records = File(
        "records.jsonl", notes=True
    )  # of Common Crawl: where each record came from and lies, or why it failed
    blobs = File("blobs.jsonl", notes=True)  # of Software Heritage: which ids failed why

    @property
    def facts(self) -> Mapping[str, Any]:
        """commit, licence; and of each file by name: url, bytes, sha256, validator."""
        return dict(read_json(self.origins))
