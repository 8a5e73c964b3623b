"""The Llama transformer in plain PyTorch, with Hugging Face parameter names and config keys.

    tokens ─→ embedding ─→ [ norm → attention → + ─→ norm → SwiGLU → + ] × layers ─→ norm ─→ x_ND ─→ (head) logits

A batch is flat: N tokens of several documents in a row, with their positions and the documents' lengths, so there is no
padding and no mask. The head is apart from `hidden`, because training never needs all logits at once (train/loss.py).
Token by token the same network runs in inference.py.

Shape letters: N tokens, D hidden size, H query heads, G key/value heads, K head dimension, F feed-forward size,
V vocabulary.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from gristmill.errors import ArtifactError, DataError
from gristmill.model.attention import Documents, document_attention
from gristmill.model.norm import RMSNorm
from gristmill.model.rope import rotary_angles, rotate

VERSION = 1  # of the network: this file, attention, rope, norm, and the first weights; rises when the meaning changes

# Keys of a Hugging Face config that change what the model computes, with the only values that this file implements.
_REQUIRED_VALUES: dict[str, tuple[Any, ...]] = {
    "model_type": ("llama",),
    "hidden_act": ("silu", "swish"),
    "attention_bias": (False,),
    "mlp_bias": (False,),
    "rope_interleaved": (False,),
    "rope_scaling": (None,),
    "quantization_config": (None,),
}


@dataclass(frozen=True, kw_only=True)
class LlamaConfig:
    """The shape of a Llama, under the keys of its Hugging Face config.json. Absent `head_dim` is hidden_size / heads."""

    vocab_size: int
    hidden_size: int
    intermediate_size: int
    num_hidden_layers: int
    num_attention_heads: int
    num_key_value_heads: int
    head_dim: int
    max_position_embeddings: int
    rope_theta: float = 10_000.0
    rms_norm_eps: float = 1e-5
    initializer_range: float = 0.02
    tie_word_embeddings: bool = True
    bos_token_id: int | None = None
    eos_token_id: int | list[int] | None = None
    pad_token_id: int | None = None

    def __post_init__(self) -> None:
        if self.num_attention_heads % self.num_key_value_heads:
            raise ArtifactError(
                f"num_attention_heads is {self.num_attention_heads}, num_key_value_heads is {self.num_key_value_heads}: "
                "the first must be a multiple of the second. Change one of them."
            )
        if self.head_dim % 2:
            raise ArtifactError(f"head_dim is {self.head_dim}; rotary positions need an even number.")

    @classmethod
    def from_dict(cls, config: dict[str, Any], *, where: str = "config.json") -> LlamaConfig:
        """Read a Hugging Face config; keys that only steer other software are passed over.

        Raises ArtifactError if a needed key is missing or a key asks for arithmetic that this file does not do.
        """
        for key, allowed in _REQUIRED_VALUES.items():
            if key in config and config[key] not in allowed:
                raise ArtifactError(
                    f'{where}: "{key}" is {config[key]!r}; only {" or ".join(map(repr, allowed))} is supported. '
                    "Use a plain Llama checkpoint."
                )
        given = {field.name: config[field.name] for field in fields(cls) if config.get(field.name) is not None}
        given.update(_rope_theta(config, where))
        heads = given.get("num_attention_heads")
        if heads:
            given.setdefault("num_key_value_heads", heads)
            given.setdefault("head_dim", given.get("hidden_size", 0) // heads)
        given.setdefault("tie_word_embeddings", False)  # Hugging Face's default where a config leaves it out
        given.setdefault("rms_norm_eps", 1e-6)  # likewise
        missing = [field.name for field in fields(cls) if field.name not in given and _is_required(field.name)]
        if missing:
            raise ArtifactError(f"{where} lacks {', '.join(missing)}; it is not the config of a Llama model.")
        return cls(**given)

    def ends_at(self, token_id: int) -> bool:
        """True when the token is an end token; of a chat model that is the end of a turn, of a base model the end of a text."""
        end = self.eos_token_id
        return token_id in (end if isinstance(end, list) else [end])

    def to_dict(self) -> dict[str, Any]:
        """The content of config.json, as stock transformers reads it (both its old and its new key for the rope base)."""
        return {
            "architectures": ["LlamaForCausalLM"],
            "model_type": "llama",
            "hidden_act": "silu",
            "attention_bias": False,
            "mlp_bias": False,
            "rope_parameters": {"rope_type": "default", "rope_theta": self.rope_theta},
            "use_cache": True,
            **asdict(self),
        }


def _is_required(name: str) -> bool:
    return name in (
        "vocab_size",
        "hidden_size",
        "intermediate_size",
        "num_hidden_layers",
        "num_attention_heads",
        "max_position_embeddings",
    )


def _rope_theta(config: dict[str, Any], where: str) -> dict[str, float]:
    """The rope base from `rope_theta` or from the newer `rope_parameters`; refuses scaled ropes and contradictions."""
    parameters = config.get("rope_parameters") or {}
    if parameters.get("rope_type", "default") != "default":
        raise ArtifactError(
            f'{where}: "rope_parameters" asks for rope_type {parameters["rope_type"]!r}; only "default" is supported.'
        )
    found = {float(theta) for theta in (config.get("rope_theta"), parameters.get("rope_theta")) if theta is not None}
    if len(found) > 1:
        raise ArtifactError(f"{where}: rope_theta and rope_parameters.rope_theta differ ({sorted(found)}). Keep one.")
    return {"rope_theta": found.pop()} if found else {}


class Projection(nn.Linear):
    """A matrix without bias, its weights unset: torch's own first weights would be thrown away, and on its meta device they
    take more than a second."""

    def __init__(self, size_in: int, size_out: int) -> None:
        super().__init__(size_in, size_out, bias=False)

    def reset_parameters(self) -> None:
        """Leaves them unset."""


class Embedding(nn.Embedding):
    """Its weights unset, as those of a projection."""

    def reset_parameters(self) -> None:
        """Leaves them unset."""


class Attention(nn.Module):
    """Grouped-query self-attention with rotary positions."""

    def __init__(self, config: LlamaConfig) -> None:
        super().__init__()
        hidden, self.head_dim = config.hidden_size, config.head_dim
        queries, keys = config.num_attention_heads * self.head_dim, config.num_key_value_heads * self.head_dim
        self.q_proj = Projection(hidden, queries)
        self.k_proj = Projection(hidden, keys)
        self.v_proj = Projection(hidden, keys)
        self.o_proj = Projection(queries, hidden)

    def forward(self, x_ND: Tensor, rotary: tuple[Tensor, Tensor], documents: Documents) -> Tensor:
        q_NHK = rotate(self.q_proj(x_ND).unflatten(-1, (-1, self.head_dim)), *rotary)
        k_NGK = rotate(self.k_proj(x_ND).unflatten(-1, (-1, self.head_dim)), *rotary)
        v_NGK = self.v_proj(x_ND).unflatten(-1, (-1, self.head_dim))
        out_NHK = document_attention(q_NHK, k_NGK, v_NGK, documents)
        projected: Tensor = self.o_proj(out_NHK.flatten(1))
        return projected


class FeedForward(nn.Module):
    """SwiGLU: down(silu(gate(x)) × up(x)). Source: Shazeer 2020 (arXiv 2002.05202)."""

    def __init__(self, config: LlamaConfig) -> None:
        super().__init__()
        self.gate_proj = Projection(config.hidden_size, config.intermediate_size)
        self.up_proj = Projection(config.hidden_size, config.intermediate_size)
        self.down_proj = Projection(config.intermediate_size, config.hidden_size)

    def forward(self, x_ND: Tensor) -> Tensor:
        gated_NF = functional.silu(self.gate_proj(x_ND)) * self.up_proj(x_ND)
        projected: Tensor = self.down_proj(gated_NF)
        return projected


class DecoderLayer(nn.Module):
    def __init__(self, config: LlamaConfig) -> None:
        super().__init__()
        self.self_attn = Attention(config)
        self.mlp = FeedForward(config)
        self.input_layernorm = RMSNorm(config.hidden_size, config.rms_norm_eps)
        self.post_attention_layernorm = RMSNorm(config.hidden_size, config.rms_norm_eps)

    def forward(self, x_ND: Tensor, rotary: tuple[Tensor, Tensor], documents: Documents) -> Tensor:
        x_ND = x_ND + self.self_attn(self.input_layernorm(x_ND), rotary, documents)
        out_ND: Tensor = x_ND + self.mlp(self.post_attention_layernorm(x_ND))
        return out_ND


class Decoder(nn.Module):
    """Everything but the head; the parameter prefix "model." of a Hugging Face checkpoint."""

    def __init__(self, config: LlamaConfig) -> None:
        super().__init__()
        self.embed_tokens = Embedding(config.vocab_size, config.hidden_size)
        self.layers = nn.ModuleList(DecoderLayer(config) for _ in range(config.num_hidden_layers))
        self.norm = RMSNorm(config.hidden_size, config.rms_norm_eps)


class Llama(nn.Module):
    """A Llama language model. Weights are unset until `weights.init_weights` or `weights.load_model`."""

    def __init__(self, config: LlamaConfig) -> None:
        super().__init__()
        self.config = config
        self.model = Decoder(config)
        if not config.tie_word_embeddings:
            self.lm_head = Projection(config.hidden_size, config.vocab_size)

    @property
    def device(self) -> torch.device:
        return self.model.embed_tokens.weight.device

    @property
    def output_weight_VD(self) -> Tensor:
        """The head's matrix: the embedding itself where the two are tied."""
        if self.config.tie_word_embeddings:
            return self.model.embed_tokens.weight
        return self.lm_head.weight

    def hidden(self, tokens_N: Tensor, positions_N: Tensor, document_lengths: list[int]) -> Tensor:
        """Hidden states after the final norm, (N, D).

        tokens_N and positions_N are int64 on the model's device; positions restart at 0 in each document.
        Raises DataError if a document is longer than max_position_embeddings or the lengths do not add up to N.
        """
        self._check(tokens_N.shape[0], document_lengths)
        documents = Documents.of(document_lengths, tokens_N.device)
        rotary = rotary_angles(positions_N, head_dim=self.config.head_dim, theta=self.config.rope_theta)
        x_ND = self.model.embed_tokens(tokens_N)
        for layer in self.model.layers:
            x_ND = layer(x_ND, rotary, documents)
        normed: Tensor = self.model.norm(x_ND)
        return normed

    forward = hidden

    def logits(self, x_ND: Tensor) -> Tensor:
        """Scores of every token of the vocabulary, (N, V), from what `hidden` returned."""
        return functional.linear(x_ND, self.output_weight_VD)

    def set_rope_theta(self, theta: float, max_position_embeddings: int) -> None:
        """Change the rope base and the longest allowed document, as a context extension does; no weight changes."""
        self.config = replace(self.config, rope_theta=theta, max_position_embeddings=max_position_embeddings)

    def _check(self, num_tokens: int, document_lengths: list[int]) -> None:
        if sum(document_lengths) != num_tokens:
            raise DataError(
                f"document lengths add up to {sum(document_lengths)}, but the batch has {num_tokens} tokens."
            )
        longest, limit = max(document_lengths, default=0), self.config.max_position_embeddings
        if longest > limit:
            raise DataError(
                f"a document of {longest} tokens does not fit the model's context of {limit} tokens "
                "(max_position_embeddings). Cut it, or extend the context."
            )
