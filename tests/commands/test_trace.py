"""The documents of a step are those that training reads, and the steps of a document all that read it."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable
from io import StringIO
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from rich.console import Console

from gristmill.commands.trace import Order, trace_document, trace_step
from gristmill.errors import ArtifactError, DataError, RecipeError
from gristmill.graph.share import Share
from gristmill.tokens.tokenizer import Tokenizer
from gristmill.train.outputs import Pretrained

ALONE = Share(rank=0, size=1)


def printed(command: Callable[..., None], *given: Any, **options: Any) -> str:
    console = Console(file=StringIO(), width=200)
    command(*given, console=console, **options)
    return console.file.getvalue()  # type: ignore[attr-defined, no-any-return]


def parts_of(run: Path, step: int, share: Share = ALONE) -> list[dict[str, Any]]:
    lines = printed(trace_step, run, step, share=share, as_json=True, whole=False)
    return [json.loads(line) for line in lines.splitlines()]


def the_run(project: Path) -> Path:
    return next(path for path in (project / "runs").iterdir() if (path / "pretrain").exists())


def test_the_text_of_a_step_is_what_its_batch_decodes_to(done_project: Path) -> None:
    run = the_run(done_project)
    order = Order.of(run)
    tokenizer = Tokenizer.load(run / "tokenizer")
    eos = tokenizer.decode([tokenizer.eos_id])
    for step in (1, 2, order.course.num_steps):
        parts = parts_of(run, step)
        batch = order.stream.batch(step - 1, order.recipe.pretrain.global_batch_tokens)
        assert sum(part["end"] - part["first"] + 1 for part in parts) == batch.num_tokens
        assert "".join(part["text"] for part in parts) == tokenizer.decode(batch.tokens_N.tolist())
        shares = [parts_of(run, step, Share(rank=rank, size=2)) for rank in range(2)]
        assert [*shares[0], *shares[1]] == parts
    whole = {path.parent.name: pq.read_table(path).to_pylist() for path in run.glob("select/*/train-*.parquet")}
    texts = {(source, row["id"]): row for source, rows in whole.items() for row in rows}
    for part in parts:
        row = texts[part["source"], part["document"]]
        assert part["text"].removesuffix(eos).strip("\ufffd") in row["text"]
        assert (part["origin"], part["url"]) == (row["origin"], row["url"])


def test_all_steps_together_are_what_training_counted_and_each_document_names_its_steps(done_project: Path) -> None:
    run = the_run(done_project)
    steps = range(1, Order.of(run).course.num_steps + 1)
    read = Counter[str]()
    of_document: dict[tuple[str, str], list[tuple[int, int, int]]] = {}
    for step in steps:
        for part in parts_of(run, step):
            read[part["source"]] += part["end"] - part["first"] + 1
            of_document.setdefault((part["source"], part["document"]), []).append((step, part["first"], part["end"]))
    assert read == Pretrained(run / "pretrain").counts.tokens_by_source
    for source, name in sorted(of_document)[:: max(1, len(of_document) // 20)]:
        lines = printed(trace_document, run, name, as_json=True).splitlines()
        found = [(row["step"], row["first"], row["end"]) for row in map(json.loads, lines) if row["source"] == source]
        assert found == of_document[source, name]


def test_a_screen_shows_the_beginning_of_each_text_or_all_of_it(done_project: Path) -> None:
    run = the_run(done_project)
    part = max(parts_of(run, 1), key=lambda one: len(one["text"]))
    for whole in (False, True):
        shown = printed(trace_step, run, 1, share=ALONE, as_json=False, whole=whole)
        assert shown.startswith("step 1 of ")
        assert f"{part['source']}  {part['document']}" in shown
        assert (part["text"] in shown) == whole
    shown = printed(trace_document, run, part["document"], as_json=False)
    lines = printed(trace_document, run, part["document"], as_json=True).splitlines()
    readings = [row for row in map(json.loads, lines) if row["source"] == part["source"]]
    read = sum(one["end"] - one["first"] + 1 for one in readings)
    steps = len({one["step"] for one in readings})
    assert (
        f"{part['tokens']:,} tokens, read {read / part['tokens']:.2f} times: {read:,} tokens in {steps} step" in shown
    )
    assert f"{part['first']:,} to {part['end']:,}" in shown


def test_what_cannot_be_is_refused(done_project: Path) -> None:
    run = the_run(done_project)
    last = Order.of(run).course.num_steps
    for step in (0, last + 1):
        with pytest.raises(RecipeError, match=f"pretraining has steps 1 to {last:,}"):
            parts_of(run, step)
    with pytest.raises(RecipeError, match="which 7 ranks cannot share equally"):
        parts_of(run, 1, Share(rank=0, size=7))
    with pytest.raises(DataError, match=r"no training document of .* has the id 'nobody'"):
        trace_document(run, "nobody", console=Console(file=StringIO()), as_json=False)
    with pytest.raises(RecipeError, match=f"Did you mean '{run.name}'"):
        Order.of(run.with_name(f"{run.name}x"))
    (run / "tokenize").rename(run / "elsewhere")
    with pytest.raises(ArtifactError, match="has no tokens"):
        Order.of(run)


def test_documents_that_were_selected_anew_are_not_taken_for_those_that_were_tokenized(done_project: Path) -> None:
    run = the_run(done_project)
    part = parts_of(run, 1)[0]
    path = next((run / "select").resolve().glob(f"{part['source']}/train-*.parquet"))
    table = pq.read_table(path)
    path.chmod(0o644)
    pq.write_table(table.take(np.arange(len(table) - 1)), path)
    with pytest.raises(DataError, match=r"training documents and tokens of .*: select was remade since"):
        parts_of(run, 1)
