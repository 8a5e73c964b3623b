"""Conversations of a person: all of every format are found, and what cannot be used is counted by reason."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from gristmill.draft.conversations import write_conversations
from gristmill.store.jsonl import read_jsonl


def talk(number: int) -> list[dict[str, str]]:
    return [{"role": "user", "content": f"Hi {number}?"}, {"role": "assistant", "content": f"Hello {number}."}]


def test_all_conversations_of_every_format_are_found_and_the_others_counted(tmp_path: Path) -> None:
    rows = [{"messages": talk(number)} for number in range(60)]
    pq.write_table(pa.Table.from_pylist(rows[:30]), tmp_path / "a.parquet", row_group_size=10)
    (tmp_path / "b.json").write_text(json.dumps(rows[30:40])[:-1] + ', {"messages": broken', encoding="utf-8")
    torn = {"messages": [*talk(0), {"role": "user", "content": "\ud800"}]}
    lines = [*rows[40:50], {"text": "none"}, torn]
    (tmp_path / "c.jsonl").write_text("".join(json.dumps(row) + "\n" for row in lines) + "broken\n[1]\n", "utf-8")
    (tmp_path / "d.jsonl.gz").write_bytes(gzip.compress("\n".join(map(json.dumps, rows[50:])).encode()))
    files = sorted(tmp_path.iterdir())
    (tmp_path / "new").mkdir()
    plan = write_conversations(tmp_path / "new", files)
    written = [row["messages"] for row in read_jsonl(tmp_path / "new" / "conversations.jsonl")]
    assert written == [row["messages"] for row in rows]
    assert plan.left_out == {"no messages with role and content": 2, "bad_json": 3}


def test_lines_of_a_file_that_is_called_json_are_read_to_its_end(tmp_path: Path) -> None:
    filler = "a" * 1_000_000
    rows = [{"messages": talk(number), "note": filler} for number in range(22)]
    (tmp_path / "a.json").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    assert write_conversations(tmp_path, [tmp_path / "a.json"]).conversations == len(rows)
