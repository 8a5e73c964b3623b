"""Which held-out documents are one draw: a text that was cut, and copies that stayed, say the same thing several times."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from gristmill.data.document import read_batches
from gristmill.data.texts import text_of
from gristmill.errors import ArtifactError
from gristmill.recipe.schema.formats import ReadFiles
from gristmill.select.components import components
from gristmill.select.outputs import Selected
from gristmill.select.sides import CLUSTER
from gristmill.select.words import Int64
from gristmill.tokens.shards import TokenShard


def held_out_draws(text: Selected, shard: TokenShard, read: ReadFiles) -> Int64:
    """(documents,) int64: a number for each held-out document of a source, equal for those that are one draw; in the order in which models are
    measured on them, which passes over documents without tokens.

    text: of the source, as it was selected; shard: its held-out tokens; read: how the source was read. Raises ArtifactError where they do
    not belong together.
    """
    texts, clusters = list[str](), list[int]()
    for path in text.validation:
        for batch in read_batches(path, columns=["id", "origin", CLUSTER.name]):
            rows = batch.to_pylist()
            texts += [text_of(row["id"], row["origin"], read) for row in rows]
            clusters += [row[CLUSTER.name] for row in rows]
    if len(texts) != shard.num_documents:
        raise ArtifactError(
            f"{text.source} has {len(texts):,} held-out documents in {text.folder} and tokens of {shard.num_documents:,} in {shard.path}, so "
            "which of them are of one text is not known.\n  `gristmill run` with the recipe and --until select makes what is missing."
        )
    if not texts:
        return np.zeros(0, dtype=np.int64)
    links = [
        [number, first] for alike in (_first_alike(texts), _first_alike(clusters)) for number, first in enumerate(alike)
    ]
    draw_D = components(len(texts), np.array(links, dtype=np.int64).reshape(-1, 2))
    return draw_D[shard.document_lengths() > 1]


def _first_alike(values: Sequence[object]) -> list[int]:
    """The place of the first value that is equal to each."""
    first: dict[object, int] = {}
    return [first.setdefault(value, place) for place, value in enumerate(values)]
