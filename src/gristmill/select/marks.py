"""Marks on Parquet shards: by which rules and from which outside files a shard was made.

A step that resumes keeps the shards that bear the mark of its own rules and makes the others again. The identity of a step does
not suffice: a file outside the store may be exchanged while the step runs, and be put back.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from gristmill.store.fingerprint import fingerprint

KEY = b"made by"


def marked(schema: pa.Schema, rules: Any) -> pa.Schema:
    """The schema with the fingerprint of `rules` in its metadata."""
    return schema.with_metadata({KEY: fingerprint(rules).encode()})


def is_made_by(path: Path, schema: pa.Schema) -> bool:
    """Whether the shard is there and bears the mark of the schema."""
    if not path.is_file():
        return False
    found: bytes | None = (pq.read_schema(path).metadata or {}).get(KEY)
    return found is not None and found == schema.metadata[KEY]
