"""STEP export: the recipe's last model as a stock Hugging Face folder and GGUF files, with the check of parity.

model/         config.json, generation_config.json, model.safetensors, tokenizer files, chat_template.jinja, README.md (the card)
gguf/          NAME-FORM.gguf for each form that the recipe names, and a Modelfile for Ollama
parity.json    logits and greedy text: as trained, read back, and read by transformers; by llama.cpp, where it is installed
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from gristmill.export.huggingface import check_parity, export_model
from gristmill.export.llama_cpp import export_gguf, words_of
from gristmill.graph.step import StepContext
from gristmill.recipe.schema.evaluation import Export as ExportSection
from gristmill.report.card import model_card
from gristmill.report.facts import Facts
from gristmill.store.durable import write_json
from gristmill.train.outputs import CHAT_STEPS
from gristmill.train.runtime import ThreadsByLoad

VERSION = 3


def run(ctx: StepContext) -> dict[str, Any]:
    """Writes the folder, then reads it again and compares."""
    ThreadsByLoad(ctx.machine)
    section: ExportSection = ctx.config["export"]
    name: str = ctx.config["model"]
    is_chat = name in CHAT_STEPS
    folder = ctx.out / "model"
    trained = export_model(ctx.inputs[name].model, folder, dtype=section.dtype, is_chat=is_chat)
    card = model_card(Facts.of(ctx))
    (folder / "README.md").write_text(card, encoding="utf-8")
    parity = check_parity(trained, folder, is_chat=is_chat)
    forms = (
        export_gguf(folder, ctx.out / "gguf", section.gguf, name=ctx.config["labels"]["name"]) if section.gguf else []
    )
    parity = replace(parity, gguf=tuple(file for file, _ in forms))
    write_json(ctx.out / "parity.json", parity.to_json())
    other = parity.transformers
    ctx.say(
        f"export: {name} in {section.dtype}; "
        + (f"transformers {other.version} agrees" if other.checked else f"{other.why} ({other.command})")
    )
    for file, _ in forms:
        ctx.say(f"export: {words_of(file)}")
    return {
        "from": name,
        "is_chat": is_chat,
        "dtype": section.dtype,
        "parameters": sum(parameter.numel() for parameter in trained.parameters()),
        "weight_bytes": (folder / "model.safetensors").stat().st_size,
        "parity_checked_with_transformers": other.checked,
        "llama_cpp": {file.form: speed.to_json() for file, speed in forms if speed is not None},
    }
