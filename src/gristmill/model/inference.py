"""The network as it writes: the same Llama with its weights laid out for few operations per new token.

A small model spends its time on calls, not on arithmetic: one token of a six-layer model is 500 operations of a few
microseconds through `Llama`, and a fifth of them here. What differs from `transformer.py`:

- A norm's weight is multiplied into the matrix that follows it, and one matrix does the work of q, k and v, one that of gate
  and up; the residual sum is part of the product that writes to it.
- Queries and keys pair neighbouring dimensions instead of halves, so that a rotation is one complex product. The rows of their
  matrices are reordered to match, which leaves every score as it was.
- Keys and values lie in one preallocated tensor per sequence, and the angles of all positions in one table.

Several sequences of any lengths go through together: their new tokens lie flat, one row each, and only attention looks at one
sequence at a time. So a prompt can be read in pieces while other sequences write.

Shape letters: B sequences, N new tokens of all of them, L new tokens of one, S tokens in a cache, D hidden size, H query heads,
G key/value heads, K head dimension, C numbers that are seen in another shape elsewhere, F feed-forward size, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from gristmill.errors import DataError
from gristmill.model.attention import cached_attention
from gristmill.model.config import LlamaConfig
from gristmill.model.rope import rotary_angles
from gristmill.model.transformer import DecoderLayer, Llama


class KeyValueCache:
    """Keys and values of one sequence, float32; `length` says how many tokens are in it. Lower it to take tokens back."""

    def __init__(self, *, layers: int, kv_heads: int, max_tokens: int, head_dim: int, device: torch.device) -> None:
        shape = (layers, 2, kv_heads, max_tokens, head_dim)
        self.layers = torch.empty(shape, device=device).unbind()
        self.keys = [layer[0] for layer in self.layers]
        self.values = [layer[1] for layer in self.layers]
        self.max_tokens = max_tokens
        self.length = 0

    def append(self, layer: int, new_2GLK: Tensor) -> tuple[Tensor, Tensor]:
        """Store what one layer says of the next tokens; all its keys and values up to them, each (G, S, K)."""
        new = new_2GLK.shape[2]
        self.layers[layer].narrow(2, self.length, new).copy_(new_2GLK)
        end = self.length + new
        return self.keys[layer].narrow(1, 0, end), self.values[layer].narrow(1, 0, end)


class InferenceModel:
    """A Llama as its weights are now, in float32. Embedding and head are shared with it where they are float32.

    For one thread at a time: the buffers of a pass are kept for the next one of the same shape.
    """

    @torch.inference_mode()
    def __init__(self, model: Llama) -> None:
        config = self.config = model.config
        self.embedding_VD = model.model.embed_tokens.weight.detach().float()
        self._head_DV = self.embedding_VD.t() if config.tie_word_embeddings else _transposed(model.output_weight_VD)
        self._norm_D = model.model.norm.weight.float() * config.hidden_size**0.5
        self._layers = [_layer(layer) for layer in model.model.layers]
        self._eps = torch.tensor((config.hidden_size * config.rms_norm_eps) ** 0.5, device=self.embedding_VD.device)
        positions = torch.arange(config.max_position_embeddings, device=self.embedding_VD.device)
        self._turns = torch.complex(*rotary_angles(positions, head_dim=config.head_dim, theta=config.rope_theta))
        self._pass = _Pass(config, (1,), self.embedding_VD.device)

    def empty_cache(self, max_tokens: int) -> KeyValueCache:
        """Room for the tokens of one sequence, its prompt included."""
        return KeyValueCache(
            layers=self.config.num_hidden_layers,
            kv_heads=self.config.num_key_value_heads,
            max_tokens=max_tokens,
            head_dim=self.config.head_dim,
            device=self.embedding_VD.device,
        )

    @torch.inference_mode()
    def advance(self, caches: Sequence[KeyValueCache], pieces: Sequence[Sequence[int]]) -> Tensor:
        """Scores of the token after each piece, (B, V) float32. Piece i continues the sequence of cache i, which then holds it.

        Raises DataError where a piece is empty or does not fit its cache or the model's context.
        """
        for cache, piece in zip(caches, pieces):
            self._check(cache, len(piece))
        lengths, device = tuple(map(len, pieces)), self.embedding_VD.device
        if self._pass.lengths != lengths:
            self._pass = _Pass(self.config, lengths, device)
        room = self._pass
        turns = [self._turns.narrow(0, cache.length, length) for cache, length in zip(caches, lengths)]
        turns_N1C = turns[0] if len(turns) == 1 else torch.cat(turns)
        tokens_N = torch.tensor([token for piece in pieces for token in piece], device=device)
        x_ND = functional.embedding(tokens_N, self.embedding_VD)
        for index, layer in enumerate(self._layers):
            torch.mm(self._unit(x_ND), layer.queries_keys_values, out=room.qkv_NC)
            room.pairs_NHC.mul_(turns_N1C)
            parts = [
                cached_attention(q_LHK, *cache.append(index, new_2GLK))
                for cache, q_LHK, new_2GLK in zip(caches, room.queries, room.keys_values)
            ]
            attended_NHK = parts[0] if len(parts) == 1 else torch.cat(parts)
            x_ND = torch.addmm(x_ND, attended_NHK.view(len(tokens_N), -1), layer.output)
            torch.mm(self._unit(x_ND), layer.gate_up, out=room.gate_up_NF)
            x_ND = torch.addmm(x_ND, functional.silu(room.gate_NF, inplace=True).mul_(room.up_NF), layer.down)
        for cache, length in zip(caches, lengths):
            cache.length += length
        if len(tokens_N) > len(pieces):
            x_ND = x_ND[torch.tensor(lengths, device=device).cumsum(0) - 1]
        logits_BV: Tensor = torch.mm(self._unit(x_ND).mul_(self._norm_D), self._head_DV)
        return logits_BV

    def _unit(self, x_ND: Tensor) -> Tensor:
        """x / sqrt(sum(x²) + D × eps): RMSNorm but for its weight and sqrt(D), which are in the next matrix."""
        unit_ND: Tensor = x_ND / torch.linalg.vector_norm(x_ND, dim=1, keepdim=True).hypot_(self._eps)
        return unit_ND

    def _check(self, cache: KeyValueCache, num_tokens: int) -> None:
        room = min(cache.max_tokens, self.config.max_position_embeddings) - cache.length
        if not 0 < num_tokens <= room:
            raise DataError(
                f"a piece of {num_tokens} tokens cannot follow the {cache.length} tokens of its sequence; "
                f"there is room for {room}."
            )


class _Pass:
    """The buffers of one pass over pieces of these lengths, and the views of them: making a view costs as much as a sum."""

    def __init__(self, config: LlamaConfig, lengths: tuple[int, ...], device: torch.device) -> None:
        self.lengths = lengths
        heads, groups, head_dim = config.num_attention_heads, config.num_key_value_heads, config.head_dim
        qkv_NHK = torch.empty(sum(lengths), heads + 2 * groups, head_dim, device=device)
        self.qkv_NC = qkv_NHK.flatten(1)
        self.pairs_NHC = torch.view_as_complex(qkv_NHK.view(*qkv_NHK.shape[:2], -1, 2))[:, : heads + groups]
        pieces = torch.split(qkv_NHK, list(lengths))
        self.queries = [piece[:, :heads] for piece in pieces]
        self.keys_values = [piece[:, heads:].view(-1, 2, groups, head_dim).permute(1, 2, 0, 3) for piece in pieces]
        self.gate_up_NF = torch.empty(sum(lengths), 2 * config.intermediate_size, device=device)
        self.gate_NF, self.up_NF = self.gate_up_NF.chunk(2, dim=1)


class _Layer(NamedTuple):
    """The matrices of one layer, as (inputs, outputs)."""

    queries_keys_values: Tensor
    output: Tensor
    gate_up: Tensor
    down: Tensor


def _layer(layer: nn.Module) -> _Layer:
    assert isinstance(layer, DecoderLayer)
    attention, mlp = layer.self_attn, layer.mlp
    queries, keys = (_neighbours(p.weight, attention.head_dim) for p in (attention.q_proj, attention.k_proj))
    return _Layer(
        queries_keys_values=_after_norm(layer.input_layernorm.weight, queries, keys, attention.v_proj.weight),
        output=_transposed(attention.o_proj.weight),
        gate_up=_after_norm(layer.post_attention_layernorm.weight, mlp.gate_proj.weight, mlp.up_proj.weight),
        down=_transposed(mlp.down_proj.weight),
    )


def _transposed(matrix: Tensor) -> Tensor:
    return matrix.detach().float().t()


def _after_norm(norm_D: Tensor, *matrices: Tensor) -> Tensor:
    """Matrices (outputs, D) as one (D, outputs) that takes what `_unit` returns."""
    scaled_OD: Tensor = torch.cat(matrices).float() * (norm_D.float() * norm_D.shape[0] ** 0.5)
    return scaled_OD.t()


def _neighbours(matrix: Tensor, head_dim: int) -> Tensor:
    """Rows of each head from halves (0, K/2), (1, K/2 + 1), … to neighbours (0, 1), (2, 3), …"""
    return matrix.view(-1, 2, head_dim // 2, matrix.shape[1]).transpose(1, 2).reshape(matrix.shape)
