"""Held-out documents that are one draw: those of one text, and copies of one another."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pytest

from gristmill.ablate.draws import held_out_draws
from gristmill.data.write import write_table
from gristmill.errors import ArtifactError
from gristmill.recipe.schema.formats import ReadJsonl
from gristmill.select.outputs import Selected
from gristmill.tokens.shards import ShardWriter, TokenShard

READ = ReadJsonl(format="jsonl", paths=["."], passage_chars=1000)


def held_out(folder: Path, rows: list[tuple[str, int]], lengths: list[int]) -> tuple[Selected, TokenShard]:
    """(origin, cluster) of documents in two files, and shards of so many tokens each."""
    (folder / "novel").mkdir()
    half = len(rows) // 2
    for number, part in enumerate((rows[:half], rows[half:])):
        columns = {
            "id": [f"{origin}#{place}" for place, (origin, _) in enumerate(part)],
            "origin": [origin for origin, _ in part],
            "cluster": [cluster for _, cluster in part],
        }
        write_table(folder / "novel" / f"validation-{number:05d}.parquet", pa.table(columns))
    with ShardWriter(folder / "v", tokenizer_sha256="0" * 64, vocab_size=300, eos_id=0) as writer:
        for length in lengths:
            writer.add([7] * length, num_bytes=length)
    return Selected(folder, source="novel"), TokenShard(folder / "v")


def test_passages_of_a_line_and_copies_of_each_other_are_one_draw_and_so_is_what_either_joins(tmp_path: Path) -> None:
    rows = [("a#0", 1), ("a#0", 2), ("a#9", 3), ("a#20", 4), ("b#0", 2), ("b#5", 5)]
    found = held_out_draws(*held_out(tmp_path, rows, [3] * 6), READ).tolist()
    assert [found.index(draw) for draw in found] == [0, 0, 2, 3, 0, 5]


def test_documents_without_tokens_are_measured_by_nobody_and_left_out(tmp_path: Path) -> None:
    rows = [("a#0", 1), ("a#5", 2), ("a#5", 3), ("a#9", 4)]
    found = held_out_draws(*held_out(tmp_path, rows, [3, 3, 3, 0]), READ).tolist()
    assert [found.index(draw) for draw in found] == [0, 1, 1]


def test_documents_that_are_not_those_of_the_tokens_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match=r"has 2 held-out documents in .* and tokens of 3 in"):
        held_out_draws(*held_out(tmp_path, [("a#0", 1), ("a#5", 2)], [3] * 3), READ)
