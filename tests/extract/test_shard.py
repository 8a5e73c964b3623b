"""A shard whose reader crashes: every byte and every row has a fate, and only what could not be read is lost."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from gristmill.data.document import read_documents
from gristmill.data.guard import run_guarded
from gristmill.data.ledger import Ledger
from gristmill.errors import DataError
from gristmill.extract.account import Taken, enter, join_shared
from gristmill.extract.curate import Settings
from gristmill.extract.outputs import Extracted
from gristmill.extract.shard import Shard
from gristmill.formats.format import Span
from gristmill.recipe.schema.formats import READERS
from gristmill.store.durable import read_json

HERE = Path(__file__).parent
WORDS = "the miller walked down to the river"


@pytest.fixture
def crashing_job(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(str(HERE))
    import crashing_formats

    return crashing_formats.CrashingJob


def settings_of(format: str) -> Settings:
    return Settings(
        source="s", read=READERS[format].model_validate({"format": format, "paths": ["x"]}), extractor=None,
        keep_maths=False, deadline_seconds=20.0, max_memory_mb=1024, max_failed=1.0, 
        min_language_scores=None, packs=(), off=frozenset(), limits={}, redact=frozenset(),
    )  # fmt: skip


def make(job: Any, format: str, spans: list[Span], out: Path, number: int = 0) -> dict[str, Any]:
    """The record of a shard that was made in a guarded child."""
    out.mkdir(exist_ok=True)
    shard = Shard(number=number, spans=tuple(spans), out=out)
    run_guarded(job(settings_of(format), shard), spool=out / "spool", deadline_seconds=20.0, max_memory_mb=1024)
    record: dict[str, Any] = read_json(shard.record_path)
    return record


def whole(path: Path) -> Span:
    return Span(path=path, name=path.name, size=path.stat().st_size)


def ledger_of(*records: dict[str, Any]) -> Any:
    ledger = Ledger()
    for record in records:
        ledger.merge(Ledger.from_json(record))
    for name, taken in join_shared(list(records)).items():
        enter(ledger, "s", name, taken)
    ledger.check()
    return ledger.source("s")


def kept(out: Path) -> list[str]:
    return [document.text for path in Extracted(out).documents for document in read_documents(path)]


def lines(*texts: str) -> bytes:
    return b"".join(json.dumps({"text": text}).encode() + b"\n" for text in texts)


TEXTS = [f"{n} {WORDS}" for n in range(8)]
BAD = [*TEXTS[:2], "crash one", TEXTS[2], "raise two", "crash three", *TEXTS[3:], "crash at the end"]


def test_lines_of_a_plain_file_that_cannot_be_read_cost_themselves(tmp_path: Path, crashing_job: Any) -> None:
    path = tmp_path / "x.jsonl"
    path.write_bytes(lines(*BAD))
    source = ledger_of(make(crashing_job, "jsonl", [whole(path)], tmp_path / "out"))
    assert kept(tmp_path / "out") == TEXTS
    assert source.came_in.num_bytes == path.stat().st_size
    crashes = source.reasons("failed")["killed:SIGSEGV"]
    assert (crashes.documents, crashes.num_bytes) == (3, len(lines("crash one", "crash three", "crash at the end")))
    raised = source.reasons("failed")["error:KeyError"]
    assert (raised.documents, raised.num_bytes) == (1, len(lines("raise two")))


CRASH_AT, NEXT_AT = len(lines(*BAD[:2])), len(lines(*BAD[:3]))


@pytest.mark.parametrize(
    "cut", [CRASH_AT - 1, CRASH_AT, CRASH_AT + 9, NEXT_AT], ids=["before it", "at it", "in it", "behind it"]
)
def test_a_line_that_cannot_be_read_and_reaches_over_the_end_of_its_span_is_counted_once(
    tmp_path: Path, crashing_job: Any, cut: int
) -> None:
    path, size = tmp_path / "x.jsonl", len(lines(*BAD))
    path.write_bytes(lines(*BAD))
    spans = [Span(path=path, name="x", start=a, end=b, size=b - a) for a, b in ((0, cut), (cut, size))]
    records = [make(crashing_job, "jsonl", [span], tmp_path / "out", number) for number, span in enumerate(spans)]
    source = ledger_of(*records)
    assert kept(tmp_path / "out") == TEXTS
    assert (source.came_in.num_bytes, source.total("failed").documents) == (size, 4)


def test_what_follows_an_unreadable_line_of_a_packed_file_is_lost_and_counted(
    tmp_path: Path, crashing_job: Any
) -> None:
    first, second = tmp_path / "x.jsonl.gz", tmp_path / "y.jsonl"
    first.write_bytes(gzip.compress(lines(*BAD)))
    second.write_bytes(lines("a last one"))
    source = ledger_of(make(crashing_job, "jsonl", [whole(first), whole(second)], tmp_path / "out"))
    assert kept(tmp_path / "out") == [*TEXTS[:2], "a last one"]
    assert source.came_in.num_bytes == len(lines(*BAD)) + second.stat().st_size
    lost = source.reasons("failed")["killed:SIGSEGV"]
    assert (lost.documents, lost.num_bytes) == (1, len(lines(*BAD)) - len(lines(*BAD[:2])))


def test_rows_behind_an_unreadable_one_are_lost_to_the_end_of_their_row_group(
    tmp_path: Path, crashing_job: Any
) -> None:
    path = tmp_path / "x.parquet"
    texts = [f"{n} {WORDS}" for n in range(30)]
    texts[13] = "crash here"
    pq.write_table(pa.table({"text": texts}), path, row_group_size=10)
    source = ledger_of(make(crashing_job, "parquet", [whole(path)], tmp_path / "out"))
    assert kept(tmp_path / "out") == [*texts[:13], *texts[20:]]
    assert source.reasons("failed")["killed:SIGSEGV"].documents == 7
    assert (source.came_in.documents, source.came_in.num_bytes) == (30, sum(map(len, texts)))


def test_what_needs_too_much_memory_at_once_is_read_again_row_by_row(tmp_path: Path, crashing_job: Any) -> None:
    path = tmp_path / "x.parquet"
    texts = [*TEXTS[:4], "crowd", *TEXTS[4:]]
    pq.write_table(pa.table({"text": texts}), path)
    make(crashing_job, "parquet", [whole(path)], tmp_path / "out")
    assert kept(tmp_path / "out") == texts


def test_a_file_that_grows_while_it_is_read_is_said_and_not_accounted(tmp_path: Path, crashing_job: Any) -> None:
    path = tmp_path / "x.jsonl"
    path.write_bytes(lines(*TEXTS, "grow now", "the last"))
    with pytest.raises(DataError, match=r"a file of source 's' changed while it was read; it is among x\.jsonl\."):
        make(crashing_job, "jsonl", [whole(path)], tmp_path / "out")
    assert not list((tmp_path / "out").glob("shard-*.json"))


def test_a_file_of_which_a_byte_has_no_fate_is_refused() -> None:
    taken = Taken.from_json([99, 1, 1, [100, None]])
    with pytest.raises(AssertionError, match=r"of x 99 bytes in 1 records .* holds 100 bytes"):
        enter(Ledger(), "s", "x", taken)
    enter(Ledger(), "s", "x", Taken.from_json([100, 1, 1, [100, None]]))
    with pytest.raises(AssertionError, match=r"holds 100 bytes in 2 records"):
        enter(Ledger(), "s", "x", Taken.from_json([100, 1, 1, [100, 2]]))
