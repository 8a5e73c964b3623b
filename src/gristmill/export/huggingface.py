"""The released folder: a stock Hugging Face checkpoint, and the check that it computes the same as the trained model.

    config.json  generation_config.json  model.safetensors  tokenizer.json  tokenizer_config.json  chat_template.jinja

Three models are compared on fixed prompts: the model as trained, the folder read back by gristmill, and the folder read by
stock transformers, where that is installed. Storing in bfloat16 rounds the weights; the effect on the logits is measured
separately.

Two programs add in different orders, so equal models differ in the last digits, and where two tokens have nearly the same logit
each program may choose a different one: a tie. Greedy texts are therefore compared token by token after the same prefix, ours.
"""

from __future__ import annotations

import importlib
import importlib.metadata
import importlib.util
from collections.abc import Sequence
from copy import deepcopy
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from torch import Tensor

from gristmill.errors import ArtifactError
from gristmill.export.outputs import CheckedWith, NotChecked, Parity
from gristmill.export.probes import greedy_text, logits_of, prompts_of
from gristmill.model.transformer import Llama
from gristmill.model.weights import load_model, save_model
from gristmill.store.durable import write_json
from gristmill.tokens.tokenizer import Tokenizer

LOGIT_TOLERANCE = 1e-4
TRANSFORMERS = "transformers>=5.23,<6"


def export_model(source: Path, folder: Path, *, dtype: str, is_chat: bool) -> Llama:
    """Write the model of `source` into `folder` with weights in `dtype` ("float32", "bfloat16"); return it as trained.

    A chat model's answers end with <|im_end|>, so that becomes its end token and generation stops there (or at the end of
    text). Raises ArtifactError when `source` is not a whole model folder.
    """
    model = load_model(source)
    tokenizer = Tokenizer.load(source)
    released = deepcopy(model).to(getattr(torch, dtype))
    end_id = tokenizer.im_end_id if is_chat else tokenizer.eos_id
    released.config = replace(
        released.config, bos_token_id=tokenizer.eos_id, eos_token_id=end_id, pad_token_id=tokenizer.pad_id
    )
    save_model(folder, released, source)
    write_json(
        folder / "generation_config.json",
        {
            "bos_token_id": tokenizer.eos_id,
            "do_sample": False,
            "eos_token_id": [end_id, tokenizer.eos_id] if is_chat else end_id,
            "pad_token_id": tokenizer.pad_id,
        },
    )
    return model


def check_parity(trained: Llama, folder: Path, *, is_chat: bool) -> Parity:
    """Logits and greedy text of the exported folder against the model as trained.

    Raises ArtifactError when the folder read back differs at all from the stored weights, or transformers' logits differ by
    more than 1e-4 of the largest logit, or it takes another greedy token that is no tie within that tolerance.
    """
    tokenizer = Tokenizer.load(folder)
    exported = load_model(folder)
    prompts = prompts_of(tokenizer, exported.config.max_position_embeddings, is_chat=is_chat)
    rounded = deepcopy(trained).to(_stored_dtype(folder)).float()
    rounded.config = exported.config
    read_back = _largest_difference(logits_of(rounded, prompts), logits_of(exported, prompts))
    if read_back != 0.0:
        raise ArtifactError(
            f"{folder}: read back, its logits differ by {read_back:.3g} from the model that was "
            "stored. The files were damaged while they were written; run the export again."
        )
    return Parity(
        prompts=tuple(tokenizer.decode(ids) for ids in prompts),
        logit_positions=sum(map(len, prompts)),
        stored_dtype=str(_stored_dtype(folder)).removeprefix("torch."),
        max_logit_change_by_rounding=_largest_difference(logits_of(trained, prompts), logits_of(rounded, prompts)),
        max_logit_difference_read_back=read_back,
        transformers=_transformers_parity(exported, folder, prompts),
    )


def _transformers_parity(exported: Llama, folder: Path, prompts: Sequence[Sequence[int]]) -> CheckedWith | NotChecked:
    if importlib.util.find_spec("transformers") is None:
        return NotChecked(
            checked=False,
            why="not checked: transformers is not installed",
            command=f'pip install "{TRANSFORMERS}", then make the export step again',
        )
    transformers: Any = importlib.import_module("transformers")
    transformers.utils.logging.disable_progress_bar()
    theirs = transformers.AutoModelForCausalLM.from_pretrained(str(folder), dtype=torch.float32, local_files_only=True)
    texts = [greedy_text(exported, prompt) for prompt in prompts]
    read = [[*prompt, *text[:-1]] for prompt, text in zip(prompts, texts, strict=True)]
    ours = logits_of(exported, read)
    with torch.inference_mode():
        expected = [theirs(torch.tensor([ids])).logits[0] for ids in read]
    largest = max(float(logits.abs().max()) for logits in ours)
    difference, tolerance = _largest_difference(ours, expected), LOGIT_TOLERANCE * max(1.0, largest)
    greedy = [
        compare_greedy(text, a[-len(text) :], b[-len(text) :], tolerance)
        for text, a, b in zip(texts, ours, expected, strict=True)
    ]
    found = CheckedWith(
        checked=True,
        version=importlib.metadata.version("transformers"),
        max_logit_difference=difference,
        largest_logit=largest,
        tolerance=tolerance,
        greedy_tokens_compared=tuple(len(text) for text in texts),
        greedy_tokens_equal=tuple(prompt.equal for prompt in greedy),
        greedy_tokens_tied=tuple(prompt.tied for prompt in greedy),
    )
    if difference > tolerance or any(prompt.other for prompt in greedy):
        raise ArtifactError(
            f"{folder}: transformers {found.version} gives different results: logits differ by {difference:.3g} (allowed "
            f"{tolerance:.3g}), and {sum(prompt.other for prompt in greedy)} of {sum(map(len, texts))} greedy tokens differ "
            "without being tied. Please report this."
        )
    return found


@dataclass(frozen=True, kw_only=True)
class Greedy:
    """Positions of one text where both programs take the same token, where the two tokens are tied, and where neither holds."""

    equal: int
    tied: int
    other: int


def compare_greedy(text: Sequence[int], ours_LV: Tensor, theirs_LV: Tensor, tolerance: float) -> Greedy:
    """Our greedy text against what the other program takes after the same beginnings.

    Two tokens are tied where their logits, in either program, differ by no more than the tolerance. Logits that agree within
    the tolerance can disagree on nothing but ties.
    """
    mine_L1, chosen_L1 = torch.tensor(text)[:, None], theirs_LV.argmax(1, keepdim=True)
    is_equal = mine_L1 == chosen_L1
    gaps = [(logits.gather(1, mine_L1) - logits.gather(1, chosen_L1)).abs() for logits in (ours_LV, theirs_LV)]
    is_tied = ~is_equal & (torch.minimum(*gaps) <= tolerance)
    equal, tied = int(is_equal.sum()), int(is_tied.sum())
    return Greedy(equal=equal, tied=tied, other=len(text) - equal - tied)


def _largest_difference(a: Sequence[Tensor], b: Sequence[Tensor]) -> float:
    return max(float((x.double() - y.double()).abs().max()) for x, y in zip(a, b, strict=True))


def _stored_dtype(folder: Path) -> torch.dtype:
    with safe_open(folder / "model.safetensors", framework="pt") as file:
        dtype: torch.dtype = file.get_tensor(next(iter(file.keys()))).dtype
    return dtype
