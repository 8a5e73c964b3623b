"""The steps tokenizer and tokenize: sampled as asked, measured on unseen text, resumable, held against the epoch cap."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

from gristmill.context import context_of
from gristmill.data.document import Document, write_documents
from gristmill.errors import ArtifactError, DataError, Interrupted, RecipeError
from gristmill.graph.machine import Machine
from gristmill.graph.step import StepContext
from gristmill.recipe.schema.recipe import Recipe
from gristmill.tokens import encoder, tokenize, train_tokenizer
from gristmill.tokens.shards import TokenShard
from gristmill.tokens.tokenizer import Tokenizer

WORDS = ["mill", "wheel", "river", "stone", "grain", "flour", "sieve", "sack", "miller", "water", "turns", "grinds"]
RECIPE: dict[str, Any] = {
    "schema_version": 1,
    "name": "small",
    "seed": 1,
    "sources": {
        name: {"read": {"format": "text", "paths": ["x"]}, "license": "public domain"} for name in ("web", "code")
    },
    "tokenizer": {"vocab_size": 300},
    "model": {
        "hidden_size": 8,
        "intermediate_size": 16,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "num_key_value_heads": 1,
        "initializer_range": 0.1,
        "max_position_embeddings": 16,
    },
    "pretrain": {
        "stages": [{"name": "one", "tokens": 320, "seq_len": 16, "mixture": {"web": 0.5, "code": 0.5}}],
        "global_batch_tokens": 32,
        "warmup_tokens": 32,
        "decay_tokens": 32,
        "optimizer": {"peak_lr": 0.001},
        "watch": {"every_tokens": 320},
        "checkpoint_every_tokens": 320,
    },
    "evaluate": {},
    "export": {},
}

MakeContext = Callable[..., StepContext]


def text_of(number: int, words: int) -> str:
    rng = np.random.default_rng(number)
    return " ".join(rng.choice(WORDS, size=words).tolist())


def write(path: Path, texts: list[str]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    write_documents(
        path,
        [
            Document(id=f"{path.parent.name}-{k}", source="s", text=text, license="x", origin="f#0", bytes_in=1)
            for k, text in enumerate(texts)
        ],
    )


@pytest.fixture
def select(tmp_path: Path) -> Path:
    """A select artefact: web in two files, code in one, a validation split for each."""
    folder = tmp_path / "select"
    write(folder / "web" / "train-00000.parquet", [text_of(k, 20) for k in range(10)])
    write(folder / "web" / "train-00001.parquet", [text_of(k, 30) for k in range(10, 15)])
    write(folder / "code" / "train-00000.parquet", [text_of(k, 50) for k in range(20, 24)])
    write(folder / "web" / "validation-00000.parquet", [text_of(99, 20)])
    write(folder / "code" / "validation-00000.parquet", [])
    return folder


@pytest.fixture
def context(tmp_path: Path, select: Path) -> MakeContext:
    said: list[str] = []

    def make(name: str, *, stop: Callable[[], bool] = lambda: False, **changes: Any) -> StepContext:
        out = tmp_path / name
        out.mkdir(exist_ok=True)
        return context_of(
            Recipe.model_validate({**RECIPE, **changes}),
            "tokenize" if name in ("tokenize", "whole") else "tokenizer",
            folders={"select": select, "tokenizer": tmp_path / "tokenizer"},
            recipe_dir=tmp_path,
            out=out,
            machine=Machine(processes=1),
            say=said.append,
            should_stop=stop,
        )

    make.said = said  # type: ignore[attr-defined]
    return make


def test_the_tokenizer_step_reports_bytes_per_token_on_validation_text(context: MakeContext, tmp_path: Path) -> None:
    report = train_tokenizer.run(context("tokenizer"))
    assert report == json.loads((tmp_path / "tokenizer" / "report.json").read_text())
    assert report["vocab_size"] == 300
    assert report["sample"]["web"] == {
        "documents": 15,
        "bytes": sum(len(text_of(k, 20 if k < 10 else 30)) for k in range(15)),
        "budget_bytes": report["sample"]["web"]["bytes"],
    }
    web = report["validation"]["web"]
    tokenizer = Tokenizer.load(tmp_path / "tokenizer")
    assert web["documents"] == 1
    assert web["bytes"] == len(text_of(99, 20))
    assert web["tokens"] == len(tokenizer.encode(text_of(99, 20)))
    assert web["bytes_per_token"] == web["bytes"] / web["tokens"]
    assert report["validation"]["code"] == {"documents": 0, "tokens": 0, "bytes": 0, "bytes_per_token": None}


def test_the_tokenizer_step_is_deterministic(context: MakeContext, tmp_path: Path) -> None:
    section = {"vocab_size": 300, "mixture": {"web": 0.5, "code": 0.5}, "max_bytes": 1500}
    train_tokenizer.run(context("tokenizer", tokenizer=section))
    train_tokenizer.run(context("again", tokenizer=section))
    for name in ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja", "report.json"):
        assert (tmp_path / "tokenizer" / name).read_bytes() == (tmp_path / "again" / name).read_bytes()


def test_a_late_source_neither_feeds_the_tokenizer_nor_measures_it(
    context: MakeContext, select: Path, tmp_path: Path
) -> None:
    train_tokenizer.run(context("tokenizer"))
    write(select / "late" / "train-00000.parquet", ["zymurgy quixotic jackdaws"] * 50)
    write(select / "late" / "validation-00000.parquet", ["zymurgy quixotic jackdaws"])
    late = {"read": {"format": "text", "paths": ["x"]}, "license": "public domain", "late": True}
    train_tokenizer.run(context("again", sources={"late": late, **RECIPE["sources"]}))
    for name in ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja", "report.json"):
        assert (tmp_path / "tokenizer" / name).read_bytes() == (tmp_path / "again" / name).read_bytes()


def test_the_sample_keeps_to_each_sources_budget(context: MakeContext) -> None:
    section = {"vocab_size": 300, "mixture": {"web": 0.25, "code": 0.75}, "max_bytes": 1000}
    sample = train_tokenizer.run(context("tokenizer", tokenizer=section))["sample"]
    assert sample["web"]["budget_bytes"] == 250
    assert 120 < sample["web"]["bytes"] <= 250
    assert 450 < sample["code"]["bytes"] <= 750


def test_a_source_too_small_for_its_share_is_said(context: MakeContext) -> None:
    section = {"vocab_size": 300, "mixture": {"web": 0.1, "code": 0.9}, "max_bytes": 10_000}
    train_tokenizer.run(context("tokenizer", tokenizer=section))
    assert any(line.startswith("tokenizer: code has") for line in context.said)  # type: ignore[attr-defined]


def test_sampling_takes_one_document_at_least_and_none_for_nothing() -> None:
    sizes = np.array([50, 60, 70])
    assert train_tokenizer.sample_documents(sizes, 10, 1, "web").sum() == 1
    assert train_tokenizer.sample_documents(sizes, 0, 1, "web").sum() == 0
    assert train_tokenizer.sample_documents(sizes, 180, 1, "web").all()
    with pytest.raises(DataError, match="nothing to learn from"):
        train_tokenizer.byte_budgets({"web": 0}, {}, 100)


def test_shards_hold_every_document_in_order(context: MakeContext, select: Path, tmp_path: Path) -> None:
    train_tokenizer.run(context("tokenizer"))
    counts = tokenize.run(context("tokenize"))
    tokenizer = Tokenizer.load(tmp_path / "tokenizer")
    for source in ("web", "code"):
        for split in ("train", "validation"):
            files = sorted((select / source).glob(f"{split}-*.parquet"))
            texts = [text for file in files for text in pq.read_table(file).column("text").to_pylist()]
            shard = TokenShard(tmp_path / "tokenize" / source / split)
            shard.verify()
            documents = [shard.document(number) for number in range(shard.num_documents)]
            assert [tokenizer.decode(document[:-1]) for document in documents] == texts
            assert counts[source][split] == {
                "documents": len(texts),
                "tokens": shard.num_tokens,
                "bytes": sum(len(text.encode()) for text in texts),
            }


def test_a_stopped_run_keeps_finished_shards_and_ends_the_same(context: MakeContext, tmp_path: Path) -> None:
    train_tokenizer.run(context("tokenizer"))
    whole = tokenize.run(context("whole"))
    answers = iter([False, False, True])  # one batch a split: web/train, web/validation, then code/train is stopped
    with pytest.raises(Interrupted, match="code/train"):
        tokenize.run(context("tokenize", stop=lambda: next(answers)))
    finished = tmp_path / "tokenize" / "web" / "train.bin"
    written = finished.stat().st_mtime_ns
    assert not (tmp_path / "tokenize" / "code" / "train.json").exists()
    assert tokenize.run(context("tokenize")) == whole
    assert finished.stat().st_mtime_ns == written
    for path in sorted((tmp_path / "whole").rglob("*.*")):
        assert path.read_bytes() == (tmp_path / "tokenize" / path.relative_to(tmp_path / "whole")).read_bytes()


def test_a_finished_shard_that_was_damaged_is_made_again(context: MakeContext, tmp_path: Path) -> None:
    train_tokenizer.run(context("tokenizer"))
    tokenize.run(context("tokenize"))
    path = tmp_path / "tokenize" / "web" / "train.bin"
    good = path.read_bytes()
    path.write_bytes(bytes([good[0] ^ 1]) + good[1:])
    tokenize.run(context("tokenize"))
    assert path.read_bytes() == good


def test_batches_of_texts_change_nothing(select: Path) -> None:
    paths = sorted((select / "web").glob("train-*.parquet"))
    one = [text for texts, _ in tokenize.text_batches(paths) for text in texts]
    small = list(tokenize.text_batches(paths, batch_bytes=200))
    assert len(small) > 5
    assert [text for texts, _ in small for text in texts] == one
    assert [num_bytes for _, num_bytes in small] == [sum(map(len, texts)) for texts, _ in small]


def stages(tokens: int, mixture: Any) -> dict[str, Any]:
    return {**RECIPE["pretrain"], "stages": [{"name": "one", "tokens": tokens, "seq_len": 16, "mixture": mixture}]}


def test_more_epochs_than_the_cap_are_refused_with_source_stage_and_numbers(context: MakeContext) -> None:
    train_tokenizer.run(context("tokenizer"))
    counts = tokenize.run(context("tokenize"))
    unique = counts["code"]["train"]["tokens"]
    tokens = -(-11 * unique // 32) * 32  # half of it from code: over five epochs
    with pytest.raises(RecipeError, match=rf"stages\[one\]: code would be read 5\.\d+ times(?s:.*){unique} unique"):
        tokenize.run(context("tokenize", pretrain=stages(tokens, {"web": 0.5, "code": 0.5})))


def test_the_cap_holds_for_long_documents_alone(context: MakeContext) -> None:
    train_tokenizer.run(context("tokenizer"))
    mixture = [{"source": "web", "weight": 0.9}, {"source": "code", "weight": 0.1, "min_document_tokens": 10_000}]
    with pytest.raises(RecipeError, match=r"code ≥ 10,000 tokens, which has none"):
        tokenize.run(context("tokenize", pretrain=stages(320, mixture)))


def test_a_source_that_select_left_out_is_an_error(context: MakeContext, select: Path) -> None:
    train_tokenizer.run(context("tokenizer"))
    (select / "code" / "validation-00000.parquet").unlink()
    with pytest.raises(ArtifactError, match=r"has no validation-\*\.parquet"):
        tokenize.run(context("tokenize"))


class WrongFromTheSecondBatch:
    """An encoder that becomes wrong."""

    cache_len = calls = 0

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer

    def encode_batch_flat(self, texts: list[str]) -> tuple[bytes, bytes]:
        self.calls += 1
        rows = [ids[::-1] if self.calls > 2 else ids for ids in self._tokenizer.encode_batch(texts)]
        offsets = np.cumsum([0, *map(len, rows)]).astype("<u8")
        return np.concatenate([np.array(ids, dtype="<u4") for ids in rows]).tobytes(), offsets.tobytes()


def test_an_encoder_that_becomes_wrong_leaves_nothing_of_it(
    context: MakeContext, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    train_tokenizer.run(context("tokenizer"))
    monkeypatch.setattr(encoder, "_load", lambda _: None)
    whole = tokenize.run(context("whole"))
    monkeypatch.setattr(encoder, "_load", WrongFromTheSecondBatch)
    assert tokenize.run(context("tokenize")) == whole
    assert any("does otherwise than tokenizers" in line for line in context.said)  # type: ignore[attr-defined]
    for path in (tmp_path / "whole").rglob("*.*"):
        assert path.read_bytes() == (tmp_path / "tokenize" / path.relative_to(tmp_path / "whole")).read_bytes()
