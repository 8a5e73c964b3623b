"""STEP start: the released model that pretraining continues from, checked and kept as an artefact like any model made here.

Reads the folder of `pretrain.init_from`; writes model/: the weights as float32, bit for bit where they were, a config.json with the
recipe's context and special tokens, and the tokenizer's files; and origin.json: the folder's name, and the licence that its card states.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from gristmill.errors import DataError
from gristmill.graph.step import StepContext
from gristmill.model.released import check_released, stated_licence
from gristmill.model.weights import load_model, save_model
from gristmill.recipe.schema.training import ModelSection
from gristmill.store.durable import write_json
from gristmill.train.outputs import ReleasedOrigin

VERSION = 2


def run(ctx: StepContext) -> dict[str, Any]:
    """Checks the folder against the recipe and takes its model over. Returns its size."""
    section: ModelSection = ctx.config["model"]
    folder = next(iter(ctx.files["released model"].files)).parent
    tokenizer = check_released(folder, model=section, vocab_size=ctx.config["vocab_size"])
    model = load_model(folder)
    if broken := [name for name, weight in model.state_dict().items() if not weight.isfinite().all()]:
        raise DataError(
            f"{folder}: {broken[0]} holds values that are no finite numbers (so do {len(broken) - 1:,} other tensors), so no loss would be one.\n"
            "  Fetch the model again, or name another one in pretrain.init_from."
        )
    model.config = replace(
        model.config,
        max_position_embeddings=section.max_position_embeddings,
        bos_token_id=tokenizer.eos_id,
        eos_token_id=tokenizer.eos_id,
        pad_token_id=tokenizer.pad_id,
    )
    tokenizer.save(ctx.out / "model")
    save_model(ctx.out / "model", model, None)
    origin = ReleasedOrigin(name=folder.resolve().name, licence=stated_licence(folder))
    write_json(ctx.out / "origin.json", origin.to_json())
    return {
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
        "vocab_size": tokenizer.vocab_size,
    }
