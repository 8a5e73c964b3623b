"""Sections of the results: what is measured, what is exported."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from gristmill.recipe.schema.section import Bytes, Length, Section


class Evaluate(Section):
    """What is measured at the end, for each model of the recipe."""

    packs: list[str] = Field(default=[], description="names from `packs`, scored at the end")
    validation_bytes: Bytes = Field(default=200_000, description="held-out text per source for bits per byte")
    window: Length | None = Field(
        default=None,
        description="longest input on held-out text; absent: the sequences of the last stage of pretraining",
    )
    xz_yardstick: bool = Field(
        default=True, description="bits per byte of xz that has read training text, 4 MB at most"
    )


GgufForm = Literal["f32", "f16", "q8_0", "q4_0"]


class Export(Section):
    """The stock model folder, and files for llama.cpp."""

    dtype: Literal["float32", "bfloat16"] = Field(default="bfloat16", description="of the weights in the folder")
    gguf: list[GgufForm] = Field(
        default=[], description="GGUF files, one per form; 8.5 bits per weight in q8_0, 4.5 in q4_0"
    )
