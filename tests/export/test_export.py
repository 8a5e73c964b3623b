"""The step takes the recipe's last model and leaves the folder with its proof beside it."""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

import pytest

from gristmill.export import export
from gristmill.graph.machine import Machine
from gristmill.graph.step import StepContext
from gristmill.model.transformer import Llama, LlamaConfig
from gristmill.model.weights import init_weights, load_model, save_model
from gristmill.recipe.schema.evaluation import Export
from gristmill.recipe.schema.recipe import Recipe
from gristmill.store.durable import read_json
from gristmill.tokens.tokenizer import Tokenizer, train_tokenizer


class OnlyExport:
    """The one section of a recipe that the step reads."""

    export = Export(dtype="bfloat16")


@pytest.mark.parametrize(("steps", "last", "is_chat"), [(["pretrain"], "pretrain", False), (["dpo"], "dpo", True)])
def test_last_model_is_exported_with_parity_beside_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, steps: list[str], last: str, is_chat: bool
) -> None:
    tokenizer = Tokenizer(train_tokenizer(["The cat sat on the mat."] * 4, 280))
    config: dict[str, Any] = {"vocab_size": 280, "hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1}
    config |= {"num_attention_heads": 2, "num_key_value_heads": 1, "head_dim": 8, "max_position_embeddings": 64}
    model = init_weights(Llama(LlamaConfig(**config)), 1)
    inputs = {"tokenizer": tmp_path / "tokenizer", **{name: tmp_path / name for name in steps}}
    tokenizer.save(inputs["tokenizer"])
    for name in steps:
        save_model(inputs[name] / "model", model, inputs["tokenizer"])
    out = tmp_path / "out"
    out.mkdir()
    lines: list[str] = []
    ctx = StepContext(
        recipe=cast(Recipe, OnlyExport()),
        recipe_dir=tmp_path,
        name="export",
        inputs=inputs,
        out=out,
        machine=Machine(threads=1, device="cpu"),
        seed=1,
        fingerprint="f",
        say=lines.append,
        should_stop=lambda: False,
    )
    monkeypatch.setattr(export, "Facts", lambda *_: None)  # the records of a whole run; the lifecycle tests have them
    monkeypatch.setattr(export, "model_card", lambda _facts: "# the card\n")
    counts = export.run(ctx)
    assert (out / "model" / "README.md").read_text() == "# the card\n"
    assert (counts["from"], counts["is_chat"], counts["dtype"]) == (last, is_chat, "bfloat16")
    assert counts["parameters"] == sum(parameter.numel() for parameter in load_model(out / "model").parameters())
    parity = read_json(out / "parity.json")
    assert parity["max_logit_difference_read_back"] == 0.0
    assert parity["transformers"]["checked"] == counts["parity_checked_with_transformers"]
    assert ("agrees" if parity["transformers"]["checked"] else "not checked") in lines[0]
