"""What a step of pretraining reads, as text: which documents, which of their tokens, and what they say.

The order of training is known without training (tokens/stream.py), the tokens lie in shards, and the ids of the documents in what
`select` left, whose training documents have the numbers that the shard of their source has.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.compute as pc
import pyarrow.parquet as pq

from gristmill.data.document import open_parquet
from gristmill.tokens.shards import TokenShard
from gristmill.tokens.stages import Origin
from gristmill.tokens.tokenizer import Tokenizer


@dataclass(frozen=True, kw_only=True)
class Part:
    """Tokens first to end (counted from 1) of a document, in one sequence of one step. document: its id; None where that is not known."""

    step: int
    stage: str
    sequence: int
    source: str
    epoch: int
    document: str | None
    origin: str | None
    url: str | None
    first: int
    end: int
    tokens: int
    text: str


class Files:
    """Training documents of one source, numbered as in its shard."""

    def __init__(self, paths: Sequence[Path]) -> None:
        self.paths = paths
        self._ends = np.cumsum([pq.read_metadata(path).num_rows for path in paths], dtype=np.int64)

    def __len__(self) -> int:
        return int(self._ends[-1]) if len(self._ends) else 0

    def rows(self, numbers: Iterable[int]) -> dict[int, dict[str, Any]]:
        """id, origin and URL of some documents; only their row groups are read."""
        found: dict[int, dict[str, Any]] = {}
        wanted = np.unique(np.fromiter(numbers, dtype=np.int64))
        first = 0
        for path, end in zip(self.paths, self._ends.tolist(), strict=True):
            here = wanted[(wanted >= first) & (wanted < end)]
            with open_parquet(path) as file:
                for number in range(file.metadata.num_row_groups if len(here) else 0):
                    last = first + file.metadata.row_group(number).num_rows
                    inside = here[(here >= first) & (here < last)]
                    if len(inside):
                        table = file.read_row_group(number, columns=["id", "origin", "url"]).take(inside - first)
                        found |= dict(zip(inside.tolist(), table.to_pylist(), strict=True))
                    first = last
            first = end
        return found

    def numbers_of(self, name: str) -> list[int]:
        """The documents with an id."""
        found: list[int] = []
        first = 0
        for path in self.paths:
            with open_parquet(path) as file:
                for number in range(file.metadata.num_row_groups):
                    ids = file.read_row_group(number, columns=["id"]).column("id")
                    found += (first + np.flatnonzero(pc.equal(ids, name).to_numpy())).tolist()
                    first += len(ids)
        return found


def parts_of(
    origins: Sequence[Origin],
    *,
    step: int,
    stage: str,
    shards: Mapping[str, TokenShard],
    tokenizer: Tokenizer,
    files_of: Callable[[str], Files | None],
    max_characters: int | None = None,
) -> Iterator[Part]:
    """What the sequences of a step hold, in order.

    step: counted from 1. files_of: the documents of a source; None where they are not there, and then their ids are not known either.
    max_characters: of all texts together, of which every part has the same share; None for all of every text.
    """
    rows = {source: _rows(files_of(source), source, origins) for source in {origin.source for origin in origins}}
    count = sum(len(origin.parts) for origin in origins)
    share = None if max_characters is None else max_characters // max(1, count)
    unknown = {"id": None, "origin": None, "url": None}
    for origin in origins:
        for part in origin.parts:
            ids = shards[origin.source].document(part.document)
            row = rows[origin.source].get(part.document, unknown)
            end = part.end if share is None else min(part.end, part.first + share)
            yield Part(
                step=step,
                stage=stage,
                sequence=origin.sample,
                source=origin.source,
                epoch=origin.epoch + 1,
                document=row["id"],
                origin=row["origin"],
                url=row["url"],
                first=part.first + 1,
                end=part.end,
                tokens=len(ids),
                text=tokenizer.decode(ids[part.first : end].tolist())[:share],
            )


def _rows(files: Files | None, source: str, origins: Sequence[Origin]) -> dict[int, dict[str, Any]]:
    numbers = [part.document for origin in origins if origin.source == source for part in origin.parts]
    return {} if files is None else files.rows(numbers)
