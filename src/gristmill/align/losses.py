"""The loss of preference pairs, from the formula up to what the training loop calls. SFT needs no loss of its own: it is
train/loss.py's next-token loss on chat batches.

    PairBatch ─→ one flat batch: chosen, rejected, chosen, … ─→ summed log-probability of each answer ─→ dpo_loss ─→ LossOutput

Shape letters: N tokens, M tokens that count, D hidden size, V vocabulary, P pairs.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

from gristmill.model.transfer import on_device
from gristmill.model.transformer import Llama
from gristmill.tokens.batch import Batch
from gristmill.tokens.chat import EncodedChat, chat_batch
from gristmill.train.loss import LossOutput

LOGIT_ROWS = 1024
REPORTS = ("accuracy", "margin", "reward_chosen", "reward_rejected")  # of a preference loss


class ShapeError(ValueError):
    """Tensors that must have one shape do not: always a mistake in the calling code."""


@dataclass(frozen=True, kw_only=True, eq=False)
class PreferencePair:
    """One prompt answered twice, and what the frozen reference model thinks of both answers (nats, summed)."""

    id: str
    chosen: EncodedChat
    rejected: EncodedChat
    reference_chosen_logp: float
    reference_rejected_logp: float

    @property
    def num_tokens(self) -> int:
        """Tokens of both conversations in a batch."""
        return self.chosen.num_tokens + self.rejected.num_tokens


@dataclass(frozen=True, kw_only=True, eq=False)
class PairBatch:
    """A batch of the training loop whose unit is the pair; micro-batches never part a pair."""

    pairs: Sequence[PreferencePair]

    @property
    def num_tokens(self) -> int:
        return sum(pair.num_tokens for pair in self.pairs)

    @property
    def num_units(self) -> int:
        return len(self.pairs)

    def micro_batches(self, max_tokens: int) -> list[PairBatch]:
        """The same pairs in order, at most `max_tokens` tokens a piece; a longer pair is a batch of its own."""
        pieces: list[list[PreferencePair]] = []
        num_tokens = 0
        for pair in self.pairs:
            if not pieces or num_tokens + pair.num_tokens > max_tokens:
                pieces.append([])
                num_tokens = 0
            pieces[-1].append(pair)
            num_tokens += pair.num_tokens
        return [PairBatch(pairs=piece) for piece in pieces]


def dpo_loss(
    policy_chosen_logp: Tensor,
    policy_rejected_logp: Tensor,
    reference_chosen_logp: Tensor,
    reference_rejected_logp: Tensor,
    *,
    beta: float,
) -> tuple[Tensor, Tensor, Tensor]:
    """(loss, chosen reward, rejected reward) of direct preference optimisation, one value a pair.

    All are (P,) float32. Log-probabilities are in nats, summed over the tokens of the answer; beta is dimensionless and above 0.
    reward = beta × (policy − reference), without gradient; loss = −log sigmoid(chosen reward − rejected reward), which is ln 2
    where policy and reference agree. Raises ShapeError when the four shapes differ.
    Source: Rafailov et al. 2023 (arXiv 2305.18290), equation 7, without label smoothing.
    """
    shapes = {
        tuple(logp.shape)
        for logp in (policy_chosen_logp, policy_rejected_logp, reference_chosen_logp, reference_rejected_logp)
    }
    if len(shapes) != 1:
        raise ShapeError(f"the four log-probabilities have the shapes {sorted(shapes)}; they must be one")
    chosen = beta * (policy_chosen_logp - reference_chosen_logp)
    rejected = beta * (policy_rejected_logp - reference_rejected_logp)
    return -functional.logsigmoid(chosen - rejected), chosen.detach(), rejected.detach()


def response_logps(model: Llama, batch: Batch) -> Tensor:
    """The log-probability of what counts in each document, summed: (documents,) float32 nats, with gradient.

    Logits are made in pieces and recomputed in the backward pass, so that memory does not grow with tokens × vocabulary.
    """
    lengths = batch.document_lengths.tolist()
    counts_N = batch.loss_mask_N > 0
    rows_M = np.flatnonzero(counts_N)
    tokens_N, positions_N, targets_M, index_M = on_device(
        [batch.tokens_N, batch.positions_N, batch.targets_N[rows_M], rows_M], model.device
    )
    x_MD = model.hidden(tokens_N, positions_N, lengths).index_select(0, index_M)
    logp_M = torch.cat(
        [
            checkpoint(_target_logp, x, model.output_weight_VD, targets, use_reentrant=False, preserve_rng_state=False)
            for x, targets in zip(torch.split(x_MD, LOGIT_ROWS), torch.split(targets_M.long(), LOGIT_ROWS))
        ]
    )
    num_counting = np.add.reduceat(counts_N, np.cumsum(lengths) - lengths, dtype=np.int64).tolist()
    return torch.stack([part.sum() for part in torch.split(logp_M, num_counting)])


def _target_logp(x_MD: Tensor, weight_VD: Tensor, targets_M: Tensor) -> Tensor:
    logits_MV = functional.linear(x_MD, weight_VD).float()
    return -functional.cross_entropy(logits_MV, targets_M, reduction="none")


def pair_logps(model: Llama, pairs: Sequence[tuple[EncodedChat, EncodedChat]]) -> tuple[Tensor, Tensor]:
    """Log-probabilities of the chosen and of the rejected answers, (P,) each, from one flat forward pass."""
    logps = response_logps(model, chat_batch([chat for pair in pairs for chat in pair]))
    return logps[0::2], logps[1::2]


def preference_loss(model: Llama, batch: PairBatch, *, beta: float) -> LossOutput:
    """What the loop calls. Sums by name: accuracy (chosen reward above rejected), margin, both rewards; counts are pairs."""
    chosen_logp, rejected_logp = pair_logps(model, [(pair.chosen, pair.rejected) for pair in batch.pairs])
    asked = [(pair.reference_chosen_logp, pair.reference_rejected_logp) for pair in batch.pairs]
    reference = on_device([*np.array(asked, dtype=np.float32).T.copy()], chosen_logp.device)
    loss, chosen, rejected = dpo_loss(chosen_logp, rejected_logp, *reference, beta=beta)
    count = float(len(batch.pairs))
    values = ((chosen > rejected).double(), (chosen - rejected).double(), chosen.double(), rejected.double())
    sums = {name: (value.sum(), count) for name, value in zip(REPORTS, values, strict=True)}
    return LossOutput(loss_sum=loss.sum(), sums=sums)
