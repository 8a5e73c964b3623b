"""Prompts come from the text: the word that lines begin with most often, and the first short questions."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from gristmill.draft.prompts import first_questions, opening_of


@pytest.mark.parametrize(
    ("texts", "opening"),
    [
        (["Il mulino era vecchio.\nLa ruota\nIl mugnaio dormiva.", "Il grano, Il pane, Il sale"], "Il "),
        (["- a list\n- of two\n# and a title", "Él dijo\nÉl vino"], "Él "),
        (["हिन्दी में\nहिन्दी का"], "हिन्दी "),
        (["磨坊很旧。\n磨坊很旧。"], ""),
        (["One line", "Another line"], ""),
        ([], ""),
    ],
)
def test_the_opening_is_the_word_that_lines_begin_with(tmp_path: Path, texts: list[str], opening: str) -> None:
    shard = tmp_path / "documents-00000.parquet"
    pq.write_table(pa.table({"text": pa.array(texts, pa.string())}), shard)
    assert opening_of([shard]) == opening


def test_the_first_short_questions_are_asked_once_each() -> None:
    said = ["Chi sei?", "x" * 200, "Chi sei?", "due\nrighe", "Dove vivi?", "Che ore sono?"]
    rows = [{"messages": [{"role": "system", "content": "s"}, {"role": "user", "content": text}]} for text in said]
    assert first_questions([*rows, {"messages": [{"role": "assistant", "content": "a"}]}]) == ("Chi sei?", "Dove vivi?")
