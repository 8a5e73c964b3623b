"""Signatures: a print for each document, row by row, that depends on its text, the bands and the seed only."""

from __future__ import annotations

import dataclasses
import unicodedata
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import xxhash
from hypothesis import given, settings
from hypothesis import strategies as st

from gristmill.data.document import Document, write_documents
from gristmill.errors import DataError, Interrupted
from gristmill.graph.machine import Machine
from gristmill.graph.step import StepContext, Watching
from gristmill.select import corpus as corpus_module
from gristmill.select import signatures
from gristmill.select.corpus import PrintedShard, batches_of_texts, corpus_of
from gristmill.select.exact import exact_hash
from gristmill.select.sets import ngram_set, text_sets
from gristmill.select.signatures import Bands, PrintShard, exact_column, keys_column, print_texts
from gristmill.select.words import WIDENING
from gristmill.store.fingerprint import derive_seed

BANDS = Bands(num_bands=14, rows_per_band=8, ngram=5)
TEXTS = [
    "",
    "one two",
    "Été " * 40,
    "漢字かな" * 10,
    *(" ".join(f"w{n % (k + 3)}" for n in range(60)) for k in range(20)),
]


def write(folder: Path, texts: list[str], number: int = 0) -> Path:
    path = folder / f"documents-{number:05d}.parquet"
    rows = [
        Document(id=f"d{d}", source="web", text=text, origin="file#0", bytes_in=2 * d) for d, text in enumerate(texts)
    ]
    write_documents(path, rows)
    return path


def prints(folder: Path, texts: list[str], *, seed: int = 7) -> pa.Table:
    function = PrintShard(out=folder, bands=BANDS, seed=seed)
    path = write(folder, texts)
    assert function(path) == len(texts)
    return pq.read_table(function.target(path))


def test_a_print_says_what_the_text_is_row_by_row(tmp_path: Path) -> None:
    table = prints(tmp_path, TEXTS)
    assert table["id"].to_pylist() == [f"d{d}" for d in range(len(TEXTS))]
    assert table["bytes_in"].to_pylist() == [2 * d for d in range(len(TEXTS))]
    assert table["num_bytes"].to_pylist() == [len(text.encode()) for text in TEXTS]
    assert table["text_hash"].to_pylist() == [xxhash.xxh3_64_intdigest(text.encode()) for text in TEXTS]
    plain = [" ".join(text.lower().split()).encode() for text in TEXTS]
    assert table["exact"].to_pylist() == [xxhash.xxh3_128_digest(text) for text in plain]
    found = print_texts([text.encode() for text in TEXTS], bands=BANDS, seed=7)
    assert table["num_ngrams"].to_pylist() == found.num_ngrams_D.tolist()
    assert np.array_equal(keys_column(table["keys"], num_bands=14), found.keys_DB)
    assert np.array_equal(exact_column(table["exact"]), found.exact_D2)


@pytest.mark.parametrize(("rows", "size"), [(1, 10**6), (3, 10**6), (1024, 100)])
def test_batches_leave_no_mark_on_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, rows: int, size: int
) -> None:
    prints(tmp_path, TEXTS)
    whole = (tmp_path / "prints-00000.parquet").read_bytes()
    (tmp_path / "other").mkdir()
    monkeypatch.setattr(corpus_module, "BATCH_ROWS", rows)
    monkeypatch.setattr(signatures, "BATCH_BYTES", size)
    prints(tmp_path / "other", TEXTS)
    assert (tmp_path / "other" / "prints-00000.parquet").read_bytes() == whole


def test_row_groups_are_cut_at_their_size(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = prints(tmp_path, TEXTS)
    (tmp_path / "other").mkdir()
    monkeypatch.setattr(signatures, "ROWS_PER_GROUP", 5)
    assert prints(tmp_path / "other", TEXTS).equals(whole)
    file = pq.ParquetFile(tmp_path / "other" / "prints-00000.parquet")
    assert [file.metadata.row_group(k).num_rows for k in range(file.num_row_groups)] == [5, 5, 5, 5, 4]


def test_the_same_text_composed_or_decomposed_has_the_same_print(tmp_path: Path) -> None:
    text = " ".join(f"été{n} élève{n} où{n} ça{n}" for n in range(30))
    both = [unicodedata.normalize(form, text) for form in ("NFC", "NFD")]
    assert both[0] != both[1]
    table = prints(tmp_path, both)
    for name in ("exact", "keys", "num_ngrams"):
        assert len(set(table[name].to_pylist())) == 1, name
    for name in ("text_hash", "num_bytes"):
        assert len(set(table[name].to_pylist())) == 2, name
    assert np.array_equal(*(ngram_set(each, 5) for each in both))


def test_the_exact_hash_reads_the_whole_text_and_the_signature_its_beginning(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = " ".join(f"word{n}" for n in range(2_000))
    assert exact_hash(text) != exact_hash(text + "x")
    monkeypatch.setattr(signatures, "MAX_SIGNED_CHARS", 10_000)
    table = prints(tmp_path, [text, text + " and more"])
    assert len(set(table["keys"].to_pylist())) == 1
    assert len(set(table["exact"].to_pylist())) == 2


def test_keys_depend_on_the_seed(tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    one, other = prints(tmp_path, TEXTS), prints(tmp_path / "other", TEXTS, seed=8)
    assert one.drop_columns("keys").equals(other.drop_columns("keys"))
    assert one["keys"].to_pylist()[4] != other["keys"].to_pylist()[4]


class Context(SimpleNamespace):
    """What the step is given."""


def context(folder: Path, shards: list[Path], **changes: object) -> StepContext:
    plain: dict[str, object] = {
        "name": "signatures/web",
        "identity": "",
        "config": {"seed": 11, "num_bands": 14, "rows_per_band": 8, "ngram": 5},
        "inputs": {"documents": SimpleNamespace(documents=shards)},
        "files": {},
        "watching": Watching(config={}, inputs={}, files={}),
        "out": folder,
        "machine": Machine(processes=1, threads=1),
        "run": None,
        "say": lambda _: None,
        "progress": lambda _: None,
        "should_stop": lambda: False,
    }
    return StepContext(**{**plain, **changes})


def test_the_step_resumes_with_the_shards_that_are_left_and_leaves_the_same_bytes(tmp_path: Path) -> None:
    shards = [write(tmp_path, TEXTS[k::3], k) for k in range(3)]
    for name in ("whole", "stopped"):
        (tmp_path / name).mkdir()
    assert signatures.run(context(tmp_path / "whole", shards)) == {"documents": len(TEXTS)}
    stops = iter([False, False, True])
    with pytest.raises(Interrupted):
        signatures.run(context(tmp_path / "stopped", shards, should_stop=lambda: next(stops)))
    done = tmp_path / "stopped" / "prints-00000.parquet"
    before = done.stat().st_mtime_ns
    assert [path.name for path in (tmp_path / "stopped").glob("*.parquet")] == [done.name]
    signatures.run(context(tmp_path / "stopped", shards, machine=Machine(processes=2, threads=1)))
    assert done.stat().st_mtime_ns == before
    for path in (tmp_path / "whole").iterdir():
        assert path.read_bytes() == (tmp_path / "stopped" / path.name).read_bytes()


@pytest.mark.parametrize("other", [{"seed": 12}, {"ngram": 4}, {"rows_per_band": 4}])
def test_shards_that_were_signed_otherwise_are_signed_again(tmp_path: Path, other: dict[str, int]) -> None:
    shards = [write(tmp_path, TEXTS[k::2], k) for k in range(2)]
    config = {"seed": 11, "num_bands": 14, "rows_per_band": 8, "ngram": 5}
    for name in ("whole", "stopped"):
        (tmp_path / name).mkdir()
    signatures.run(context(tmp_path / "whole", shards))
    stops = iter([False, True])
    with pytest.raises(Interrupted):
        signatures.run(
            context(tmp_path / "stopped", shards, config={**config, **other}, should_stop=lambda: next(stops))
        )
    assert (tmp_path / "stopped" / "prints-00000.parquet").is_file()
    signatures.run(context(tmp_path / "stopped", shards))
    files = sorted(path.name for path in (tmp_path / "stopped").iterdir())
    assert files == sorted(path.name for path in (tmp_path / "whole").iterdir())
    for name in files:
        assert (tmp_path / "whole" / name).read_bytes() == (tmp_path / "stopped" / name).read_bytes()


def test_all_sources_are_signed_with_the_one_seed_that_select_derived(tmp_path: Path) -> None:
    select = dataclasses.replace(context(tmp_path, []), name="select")
    assert signatures.signing_seed(11) == derive_seed(select.seed, "minhash")
    shard = write(tmp_path, TEXTS)
    signatures.run(context(tmp_path, [shard]))
    keys = keys_column(pq.read_table(tmp_path / "prints-00000.parquet")["keys"], num_bands=14)
    assert np.array_equal(
        keys,
        print_texts([text.encode() for text in TEXTS], bands=BANDS, seed=derive_seed(select.seed, "minhash")).keys_DB,
    )


def test_prints_of_other_documents_and_masks_of_another_length_are_refused(tmp_path: Path) -> None:
    prints(tmp_path, TEXTS)
    other = write(tmp_path, TEXTS[:3], 1)
    for name in ("turns", "scores"):
        np.save(tmp_path / f"{name}.npy", np.ones(3))
    shard = PrintedShard(documents=other, prints=tmp_path / "prints-00000.parquet", source="web", priority=0)
    files = {"turns": tmp_path / "turns.npy", "scores": tmp_path / "scores.npy"}
    with pytest.raises(DataError, match=r"24 rows.*has 3.*Remake the signatures of source 'web'"):
        corpus_of([shard], **files)
    whole = dataclasses.replace(shard, documents=write(tmp_path, TEXTS))
    with pytest.raises(DataError, match="3 entries for 24 documents"):
        corpus_of([whole], **files)


@given(
    st.lists(st.sampled_from(["ab", "cd", "ef", "é", "漢字", ".", "Σ", "\n"]), max_size=60),
    st.integers(1, 40),
    st.integers(1, 4),
)
@settings(max_examples=100, deadline=None)
def test_a_text_that_is_split_in_pieces_has_the_same_ngrams(words: list[str], size: int, n: int) -> None:
    text = " ".join(words)
    whole = ngram_set(text, n)
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr("gristmill.select.sets.BATCH_BYTES", size)
        patched.setattr(corpus_module, "BATCH_BYTES", size)
        assert np.array_equal(ngram_set(text, n), whole)
        for one, sets in zip((text, text[:20]), text_sets([text, text[:20]], n), strict=True):
            assert np.array_equal(sets.narrow, ngram_set(one, n))
            if len(sets.wide):
                assert np.array_equal(sets.wide, ngram_set(one, n * WIDENING))


def test_long_texts_are_read_a_few_at_a_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    texts = [str(np.random.default_rng(d).bytes(4_000)) for d in range(50)]
    path = write(tmp_path, texts)
    assert corpus_module.rows_per_batch(path) == 256
    monkeypatch.setattr(corpus_module, "BATCH_BYTES", 100_000)
    assert 5 < corpus_module.rows_per_batch(path) < 15
    monkeypatch.setattr(corpus_module, "BATCH_BYTES", 100)
    assert corpus_module.rows_per_batch(path) == 1


@given(st.lists(st.text("ab é", max_size=30), max_size=20), st.integers(1, 60), st.integers(1, 8), st.data())
@settings(max_examples=40, deadline=None)
def test_texts_are_read_in_bounded_batches_row_by_row(
    texts: list[str], size: int, rows: int, data: st.DataObject
) -> None:
    wanted = sorted(data.draw(st.sets(st.integers(0, len(texts) - 1)))) if texts else []
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(corpus_module, "BATCH_ROWS", rows)
        patched.setattr(corpus_module, "BATCH_BYTES", size)
        table = pa.table({"text": pa.array(texts, pa.string())})
        sink = pa.BufferOutputStream()
        pq.write_table(table, sink)
        batches = list(batches_of_texts(pa.BufferReader(sink.getvalue()), np.array(wanted, dtype=np.int64)))
    assert [row for numbers, _ in batches for row in numbers.tolist()] == wanted
    assert [text for _, mine in batches for text in mine] == [texts[row] for row in wanted]
    assert all(len(mine) == 1 or sum(len(text.encode()) for text in mine) <= size for _, mine in batches)


@given(st.lists(st.lists(st.integers(0, 6) | st.integers(2**40, 2**64 - 1), max_size=40), max_size=6))
@settings(max_examples=100, deadline=None)
def test_repetitive_texts_are_those_with_each_ngram_more_than_twice_on_average(texts: list[list[int]]) -> None:
    ngrams = np.array([gram for grams in texts for gram in grams], dtype=np.uint64)
    offsets = np.cumsum([0, *map(len, texts)])
    expected = [d for d, grams in enumerate(texts) if 2 * len(set(grams)) < len(grams)]
    assert signatures._repetitive(ngrams, offsets) == expected
