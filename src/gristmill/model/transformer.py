"""The Llama transformer in plain PyTorch, with Hugging Face parameter names and config keys.

    tokens ─→ embedding ─→ [ norm → attention → + ─→ norm → SwiGLU → + ] × layers ─→ norm ─→ x_ND ─→ (head) logits

A batch is flat: N tokens of several documents in a row, with their positions and the documents' lengths, so there is no
padding and no mask. The head is apart from `hidden`, because training never needs all logits at once (train/loss.py).
Token by token the same network runs in inference.py.

Shape letters: N tokens, D hidden size, H query heads, G key/value heads, K head dimension, F feed-forward size,
V vocabulary.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

from gristmill.errors import DataError
from gristmill.model.attention import Documents, document_attention
from gristmill.model.config import LlamaConfig
from gristmill.model.norm import RMSNorm
from gristmill.model.rope import rotary_angles, rotate

VERSION = 1  # of the network: this file, attention, rope, norm, and the first weights; rises when the meaning changes


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
    """A Llama language model. Weights are unset until `weights.init_weights` or `weights.load_model`.

    recompute: of each layer only the input is kept for the backward pass, and its activations are computed twice.
    """

    recompute = False

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

        tokens_N and positions_N are int32 or int64 on the model's device; positions restart at 0 in each document.
        Raises DataError if a document is longer than max_position_embeddings or the lengths do not add up to N.
        """
        self._check(tokens_N.shape[0], document_lengths)
        documents = Documents.of(document_lengths, tokens_N.device)
        rotary = rotary_angles(positions_N, head_dim=self.config.head_dim, theta=self.config.rope_theta)
        x_ND = self.model.embed_tokens(tokens_N)
        for layer in self.model.layers:
            if self.recompute and torch.is_grad_enabled():
                x_ND = checkpoint(layer, x_ND, rotary, documents, use_reentrant=False, preserve_rng_state=False)
            else:
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
