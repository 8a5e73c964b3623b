"""A released model that training continues from: what its folder says of itself, held against the recipe. Without torch.

config.json    the keys of the recipe's `model` section, and the size of the vocabulary
tokenizer.json a byte-level tokenizer with the special tokens of SmolLM2, as large as the vocabulary
*.safetensors  the weights, whose shapes are checked when they are loaded (weights.py)
README.md      the model card, if there is one: the licence is stated in its front matter
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import yaml

from gristmill.errors import ArtifactError, RecipeError
from gristmill.model.config import CONFIG, FILES, TOKENIZER, LlamaConfig
from gristmill.recipe.schema.training import ModelSection
from gristmill.store.durable import read_json
from gristmill.tokens.tokenizer import Tokenizer

FREE = ("initializer_range", "max_position_embeddings")  # of no weight that is there: the recipe's count
FLOAT32 = 1e-6  # converters write numbers that went through 32 bits, such as 9.999999747378752e-06
CARD = "README.md"
CARD_BYTES = 100_000  # of it that are read; front matter comes first
PROBE = "1 + 23 = 24\n\tÜber naïve 数学 \N{SLIGHTLY SMILING FACE}"


def read_released_config(folder: Path) -> LlamaConfig:
    """Raises ArtifactError where it is no config of a plain Llama."""
    return LlamaConfig.from_dict(read_json(folder / CONFIG), where=str(folder / CONFIG))


def stated_licence(folder: Path) -> str | None:
    """The licence in the front matter of the model card, as the Hugging Face Hub has it: `license`, and of "other" also its name and its
    link. None where no licence is stated that could be read: no card, no front matter, none that is YAML."""
    card = folder / CARD
    if not card.is_file():
        return None
    with card.open("rb") as file:
        head, *parts = file.read(CARD_BYTES).decode("utf-8", errors="replace").split("---", maxsplit=2)
    if head.strip("\ufeff \n") or len(parts) < 2:
        return None
    try:
        facts: Any = yaml.safe_load(parts[0])
    except yaml.YAMLError:
        return None
    stated = [facts.get(key) for key in ("license", "license_name", "license_link")] if isinstance(facts, dict) else []
    return ", ".join(words for words in stated if isinstance(words, str) and words) or None


def check_released(folder: Path, *, model: ModelSection, vocab_size: int) -> Tokenizer:
    """The tokenizer of a released model whose shape is that of a recipe.

    Raises RecipeError with both values where the recipe asks for another shape, or where the tokenizer does not fit the model or
    cannot be used; ArtifactError where a file is missing or the model is no plain Llama.
    """
    for name in FILES:
        if not any(folder.glob(name)):
            raise ArtifactError(
                f"{folder} has no {name}. A released model is a folder with {', '.join(FILES)}, as transformers saves it."
            )
    config = read_released_config(folder)
    head_dim = model.hidden_size // model.num_attention_heads
    asked = {name: getattr(model, name) for name in ModelSection.model_fields if name not in FREE}
    found = {name: getattr(config, name) for name in asked}
    pairs = [(f"model.{name}", asked[name], found[name]) for name in asked]
    pairs += [("the head size", head_dim, config.head_dim), ("tokenizer.vocab_size", vocab_size, config.vocab_size)]
    different = [
        f"{name} is {wanted}, the released model has {is_now}"
        for name, wanted, is_now in pairs
        if not math.isclose(wanted, is_now, rel_tol=FLOAT32)
    ]
    if different:
        raise RecipeError(
            f"The recipe's model is not the one in {folder}, which pretrain.init_from names:\n  "
            + "\n  ".join(different)
            + "\n  Take over the released model's values, or remove pretrain.init_from to begin with new weights."
        )
    return _check_tokenizer(folder, config.vocab_size)


def _check_tokenizer(folder: Path, vocab_size: int) -> Tokenizer:
    try:
        tokenizer = Tokenizer.load(folder)
    except ArtifactError as error:
        raise RecipeError(f"The tokenizer in {folder} cannot be used: {error}") from error
    if tokenizer.vocab_size != vocab_size:
        raise RecipeError(
            f"{folder / TOKENIZER} has {tokenizer.vocab_size:,} entries, but the model beside it has {vocab_size:,}: "
            "it is not this model's tokenizer. Use the files that were released together."
        )
    ids = tokenizer.encode(PROBE)
    if tokenizer.decode(ids) != PROBE or tokenizer.num_bytes(ids) != len(PROBE.encode()):
        raise RecipeError(
            f"{folder / TOKENIZER} does not give a text back byte for byte: {PROBE!r} becomes {tokenizer.decode(ids)!r}. "
            "Only byte-level tokenizers without a normalizer are supported, such as SmolLM2's."
        )
    return tokenizer
