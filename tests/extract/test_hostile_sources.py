"""A source with a hostile file in it: the step ends well, what is sound is kept, and the ledger adds up."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from rich.console import Console

from gristmill.commands.inspect_files import inspect_files
from gristmill.data.document import count_rows, read_documents
from gristmill.extract import extract
from gristmill.extract.outputs import Extracted
from gristmill.recipe.schema.formats import READERS
from hostile.books import book, chapter, zipped
from hostile.hostile import Hostile
from hostile.office import paragraph, word
from hostile.pages import sound as sound_pdf
from hostile.sets import SETS

HERE = Path(__file__).parent
SCALE = 0.01
SMALLER = {"parquet_nulls": 0.001}  # each of its rows is a rejected document
SOUND = "The miller walked down to the river, where the great wheel had stood still since autumn."


@pytest.fixture
def context(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(str(HERE))
    import run_extract

    return run_extract.context


def write_sound(folder: Path, made: Hostile) -> Path:
    """A file of the format of a set with one document, under the keys of the set."""
    row = {made.keys.get("text_field", made.keys.get("text_column", "text")): SOUND}
    if id_key := made.keys.get("id_field", made.keys.get("id_column")):
        row[id_key] = "sound"
    page = f"<html><body><article><p>{SOUND} {SOUND}</p><p>{SOUND}</p></article></body></html>"
    body = f"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\n\r\n{page}"
    record = (
        f"WARC/1.0\r\nWARC-Type: response\r\nWARC-Record-ID: <urn:sound>\r\nContent-Type: application/http\r\n"
        f"Content-Length: {len(body)}\r\n\r\n{body}\r\n\r\n"
    )
    names: dict[str, tuple[str, str | bytes]] = {
        "jsonl": ("sound.jsonl", json.dumps(row) + "\n"),
        "json": ("sound.json", json.dumps([row])),
        "csv": ("sound.csv", ",".join(row) + "\n" + ",".join(f'"{value}"' for value in row.values()) + "\n"),
        "text": ("sound.txt", SOUND),
        "subtitles": ("sound.srt", f"1\n00:00:01,000 --> 00:00:02,000\n{SOUND}\n"),
        "man": ("sound.1", f".TH X 1\n.SH NAME\n{SOUND}\n"),
        "mbox": ("sound.eml", f"From: a@example.org\n\n{SOUND}\n"),
        "html": ("sound.html", page),
        "code": ("sound.py", f"# {SOUND}\n"),
        "warc": ("sound.warc", record),
        "parquet": ("sound.parquet", ""),
        "epub": ("sound.epub", zipped(book(1, **{"OEBPS/c0.xhtml": chapter(0, SOUND)}))),
        "docx": ("sound.docx", word(paragraph(SOUND))),
        "pdf": ("sound.pdf", sound_pdf(SOUND)),
        "archive": ("sound.zip", zipped({"a/sound.txt": SOUND})),
    }
    name, content = names[made.kind]
    path = folder / name
    if made.kind == "parquet":
        pq.write_table(pa.table({key: [value] for key, value in row.items()}), path)
    elif isinstance(content, bytes):
        path.write_bytes(content)
    else:
        path.write_text(content, newline="")
    return path


@pytest.mark.parametrize("name", SETS)
def test_a_hostile_file_costs_itself_and_not_its_source(name: str, tmp_path: Path, context: Any) -> None:
    (tmp_path / "data").mkdir()
    made = SETS[name](tmp_path / "data", SMALLER.get(name, SCALE))
    sound = write_sound(tmp_path, made)
    source: dict[str, Any] = {
        "read": {"format": made.kind, **made.keys, "paths": [str(made.path), str(sound)]},
        "max_failed": 1.0,
    }
    if READERS[made.kind].holds_html:
        source["main_text"] = {"extractor": "resiliparse"}
    out = tmp_path / "out"
    extract.run(context(tmp_path, out, source))
    left = Extracted(out)
    left.ledger.check()
    counts = left.ledger.source("web")
    assert counts.total("kept").documents == sum(map(count_rows, left.documents))
    assert any(SOUND in document.text for path in left.documents for document in read_documents(path))
    for kind in ("dropped", "failed"):
        for reason, count in counts.reasons(kind).items():
            assert count.documents == made.reasons.get(reason, count.documents), reason


@pytest.mark.timeout(600)
@pytest.mark.parametrize("scale", [0.2 * SCALE, pytest.param(SCALE, marks=pytest.mark.slow)])
def test_all_hostile_files_together_are_inspected(scale: float, tmp_path: Path) -> None:
    kinds = set()
    for name, maker in SETS.items():
        (tmp_path / name).mkdir()
        made = maker(tmp_path / name, min(scale, SMALLER.get(name, scale)))
        kinds.add(made.kind)
        write_sound(tmp_path / name, made)
    shown = io.StringIO()
    inspect_files(tmp_path, samples=1, console=Console(file=shown, width=200))
    listed = [line.split()[0] for line in shown.getvalue().splitlines() if line.strip()]
    assert kinds <= set(listed)
