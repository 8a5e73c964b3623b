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

    @property
    def facts(self) -> Mapping[str, Any]:
        """commit, licence; and of each file by name: url, bytes, sha256, validator."""
        return dict(read_json(self.origins))
