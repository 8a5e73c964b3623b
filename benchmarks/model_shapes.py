"""The models that benchmarks of training take, by their number of parameters with the head tied."""

from __future__ import annotations

from gristmill.model.config import LlamaConfig
from gristmill.recipe.schema.training import ModelSection

SHAPES = {  # hidden size, inner size, layers, heads, key-value heads, vocabulary
    "1.6M": (128, 352, 6, 4, 2, 4096),  # the quickstart's
    "5.8M": (224, 608, 8, 7, 7, 4096),
    "32M": (512, 1408, 8, 8, 4, 16_384),
    "135M": (576, 1536, 30, 9, 3, 49_152),  # SmolLM2-135M
}


def vocabulary_of(name: str) -> int:
    return SHAPES[name][-1]


def section_of(name: str, seq_len: int) -> ModelSection:
    """As a recipe would have it."""
    hidden, inner, layers, heads, kv_heads, _ = SHAPES[name]
    return ModelSection(
        hidden_size=hidden,
        intermediate_size=inner,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        num_key_value_heads=kv_heads,
        initializer_range=0.02,
        max_position_embeddings=seq_len,
    )


def config_of(name: str, seq_len: int) -> LlamaConfig:
    """As a model is made of it."""
    section = section_of(name, seq_len)
    return LlamaConfig(
        **section.model_dump(),
        vocab_size=vocabulary_of(name),
        head_dim=section.hidden_size // section.num_attention_heads,
    )
