"""A small pretraining, and edits of it as people make them, for the laws of course and prefix."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from typing import Any

from hypothesis import strategies as st
from pydantic import ValidationError

from gristmill.recipe.schema.training import Pretrain

Data = dict[str, Any]
T = 24  # tokens of a step: 6 sequences of 4, 3 of 8, 2 of 12
SEQ_LENS = (4, 8, 12)
SOURCES = ("web", "code", "book")
MIXTURES: tuple[Any, ...] = (
    {"web": 0.7, "code": 0.3},
    {"web": 0.6, "code": 0.4},
    {"code": 0.3, "web": 0.7},
    {"web": 1.0},
    {"web": 0.25, "code": 0.25, "book": 0.5},
    [
        {"source": "web", "weight": 0.5},
        {"source": "web", "weight": 0.125, "min_document_tokens": 8},
        {"source": "code", "weight": 0.375},
    ],
    [
        {"source": "web", "weight": 0.5},
        {"source": "web", "weight": 0.125, "min_document_tokens": 6},
        {"source": "code", "weight": 0.375},
    ],
)
WHY = "because the test says so"


def base() -> Data:
    """Three stages of 6, 5 and 4 steps; warm-up of two steps, decay in the last four."""
    return {
        "stages": [
            {"name": "one", "tokens": 6 * T, "seq_len": 4, "mixture": MIXTURES[0]},
            {"name": "two", "tokens": 5 * T, "seq_len": 4, "mixture": MIXTURES[1]},
            {"name": "three", "tokens": 4 * T, "seq_len": 8, "mixture": MIXTURES[4], "rope_theta": 50_000.0},
        ],
        "global_batch_tokens": T,
        "warmup_tokens": 2 * T,
        "decay_tokens": 4 * T,
        "optimizer": {"peak_lr": 4e-3},
        "watch": {"every_tokens": T},
        "checkpoint_every_tokens": T,
    }


def change(after_step: int, values: Mapping[str, Any]) -> Data:
    return {"after_step": after_step, "set": dict(values), "why": WHY}


def edited(data: Data, edit: Callable[[Data], None]) -> Data:
    """The data with one edit, or as it was where the edit makes no recipe of it."""
    changed = copy.deepcopy(data)
    try:
        edit(changed)
        Pretrain.model_validate(changed)
    except (ValidationError, IndexError):
        return data
    return changed


@st.composite
def edits(draw: st.DrawFn) -> Callable[[Data], None]:
    """One edit of a recipe."""
    stage, steps = draw(st.integers(0, 3)), draw(st.integers(1, 8))
    mixture, seq_len = draw(st.sampled_from(MIXTURES)), draw(st.sampled_from(SEQ_LENS))
    after_step = draw(st.integers(1, 16))

    def lengthen(data: Data) -> None:
        data["stages"][stage]["tokens"] += steps * T

    def shorten(data: Data) -> None:
        data["stages"][stage]["tokens"] -= steps * T

    def split(data: Data) -> None:
        first = data["stages"][stage]
        rest = first | {"name": f"{first['name']}-more", "tokens": first["tokens"] - steps * T}
        rest.pop("reshuffle", None)
        first["tokens"] = steps * T
        data["stages"].insert(stage + 1, rest)

    def merge(data: Data) -> None:
        data["stages"][stage]["tokens"] += data["stages"].pop(stage + 1)["tokens"]

    def drop_last(data: Data) -> None:
        data["stages"].pop()

    def rename(data: Data) -> None:
        data["stages"][stage]["name"] += "-renamed"

    def mix(data: Data) -> None:
        data["stages"][stage]["mixture"] = mixture

    def another_length(data: Data) -> None:
        data["stages"][stage]["seq_len"] = seq_len

    def another_base(data: Data) -> None:
        data["stages"][stage]["rope_theta"] = 10_000.0 * steps

    def reshuffle(data: Data) -> None:
        data["stages"][stage]["reshuffle"] = steps % 3

    def decay(data: Data) -> None:
        data |= {"decay_tokens": steps * T, "decay_shape": "one_minus_sqrt" if seq_len == 12 else "linear"}

    def late_stage(data: Data) -> None:
        data["stages"].append({"name": f"late{steps}", "tokens": steps * T, "seq_len": seq_len, "mixture": mixture})

    def warm_up(data: Data) -> None:
        data["warmup_tokens"] = steps * T // 2

    def peak(data: Data) -> None:
        data["optimizer"] = {"peak_lr": steps * 1e-3}

    def watch(data: Data) -> None:
        data |= {"watch": {"every_tokens": steps * T}, "checkpoint_every_tokens": steps, "max_epochs": 99.0}

    def intervene(data: Data) -> None:
        name = data["stages"][min(stage, len(data["stages"]) - 1)]["name"]
        values = {
            4: {"optimizer.peak_lr": steps * 1e-3},
            8: {"skip_steps": steps},
            12: {f"stages.{name}.mixture": mixture},
        }[seq_len]
        data["changes"] = sorted(
            [*data.get("changes", []), change(after_step, values)], key=lambda one: int(one["after_step"])
        )

    return draw(
        st.sampled_from(
            [
                lengthen, shorten, split, merge, drop_last, rename, mix, another_length, another_base, decay, late_stage,
                warm_up, peak, watch, intervene, intervene, reshuffle,
            ]
        )
    )  # fmt: skip


@st.composite
def recipes(draw: st.DrawFn, *, start: Data | None = None, min_edits: int = 0, max_edits: int = 4) -> Data:
    """The base, or `start`, after some edits."""
    data = base() if start is None else start
    for edit in draw(st.lists(edits(), min_size=min_edits, max_size=max_edits)):
        data = edited(data, edit)
    return data
