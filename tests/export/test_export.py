"""The step takes the recipe's last model and leaves the folder with its proof beside it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from gristmill.context import context_of
from gristmill.export import export
from gristmill.graph.machine import Machine
from gristmill.model.config import LlamaConfig
from gristmill.model.transformer import Llama
from gristmill.model.weights import init_weights, load_model, save_model
from gristmill.pipeline import steps_of
from gristmill.recipe.schema.recipe import Recipe
from gristmill.store.durable import read_json
from gristmill.tokens.tokenizer import Tokenizer, train_tokenizer


@pytest.mark.parametrize(("last", "is_chat"), [("pretrain", False), ("dpo", True)])
def test_last_model_is_exported_with_parity_beside_it(
    small: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, last: str, is_chat: bool
) -> None:
    if not is_chat:
        for section in ("sft", "pairs", "dpo"):
            del small[section]
    recipe = Recipe.model_validate({**small, "export": {"dtype": "bfloat16"}})
    tokenizer = Tokenizer(train_tokenizer(["The cat sat on the mat."] * 4, 280))
    config: dict[str, Any] = {"vocab_size": 280, "hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1}
    config |= {"num_attention_heads": 2, "num_key_value_heads": 1, "head_dim": 8, "max_position_embeddings": 64}
    model = init_weights(Llama(LlamaConfig(**config)), 1)
    folders = {step.name: tmp_path / step.name for step in steps_of(recipe)}
    tokenizer.save(folders["tokenizer"])
    save_model(folders[last] / "model", model, folders["tokenizer"])
    out = tmp_path / "out"
    out.mkdir()
    lines: list[str] = []
    ctx = context_of(
        recipe,
        "export",
        folders=folders,
        recipe_dir=tmp_path,
        out=out,
        machine=Machine(threads=1, device="cpu"),
        say=lines.append,
    )
    # the card needs the records of a whole run; the lifecycle tests have them
    monkeypatch.setattr(export, "model_card", lambda _facts: "# the card\n")
    counts = export.run(ctx)
    assert (out / "model" / "README.md").read_text() == "# the card\n"
    assert (counts["from"], counts["is_chat"], counts["dtype"]) == (last, is_chat, "bfloat16")
    assert counts["parameters"] == sum(parameter.numel() for parameter in load_model(out / "model").parameters())
    parity = read_json(out / "parity.json")
    assert parity["max_logit_difference_read_back"] == 0.0
    assert parity["transformers"]["checked"] == counts["parity_checked_with_transformers"]
    assert ("agrees" if parity["transformers"]["checked"] else "not checked") in lines[0]
