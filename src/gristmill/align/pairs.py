"""Preference pairs without a judge model: answers drawn from the policy itself, judged by arithmetic, matched by length.

    prompt ─→ k sampled answers ─→ right | wrong | unusable ─→ pairs of one right and one wrong answer of like length

Only kinds of prompt whose answers can be verified by a rule have a place here. An answer is a function of (seed, prompt id,
sample index): neither the other prompts nor the size of a batch changes it.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from gristmill.align.outputs import PairReport
from gristmill.errors import DataError
from gristmill.model.generate import generate
from gristmill.model.transformer import Llama
from gristmill.store.fingerprint import derive_seed
from gristmill.tokens.chat import encode_chat
from gristmill.tokens.tokenizer import Tokenizer

Verdict = Literal["right", "wrong", "unfinished", "empty", "special_token"]
VERDICTS: tuple[Verdict, ...] = ("right", "wrong", "unfinished", "empty", "special_token")

_NUMBER = re.compile(r"-?[0-9]+(?:[.,][0-9]+)*")


class NoUsablePairs(DataError):
    """Not one prompt had both a right and a wrong answer, so there is nothing to prefer."""


@dataclass(frozen=True, kw_only=True)
class Prompt:
    """A question with a verifiable answer: for kind "sum", the two numbers."""

    id: str
    kind: str
    messages: tuple[Mapping[str, str], ...]
    a: int
    b: int


@dataclass(frozen=True, kw_only=True)
class Sample:
    """One drawn answer. num_tokens counts the end-of-turn token of a finished answer."""

    prompt_id: str
    index: int
    text: str
    num_tokens: int
    verdict: Verdict


@dataclass(frozen=True, kw_only=True)
class Pair:
    """A right and a wrong answer to one prompt."""

    prompt: Prompt
    chosen: Sample
    rejected: Sample

    @property
    def id(self) -> str:
        return f"{self.prompt.id}#{self.chosen.index}>{self.rejected.index}"


def judge_sum(a: int, b: int, answer: str) -> bool:
    """True when the answer names a + b and nothing else but the terms.

    The last number must be the sum, and every number must be a, b or the sum: "3 + 4 = 7" is right, "7 or 8" is not, nor is
    "7.5", nor an answer without digits.
    """
    numbers = _NUMBER.findall(answer)
    if not numbers or numbers[-1] != str(a + b):
        return False
    return set(numbers) <= {str(a), str(b), str(a + b)}


def draw_answers(
    model: Llama,
    tokenizer: Tokenizer,
    prompt: Prompt,
    *,
    seed: int,
    num_samples: int,
    temperature: float,
    max_new_tokens: int,
) -> list[Sample]:
    """`num_samples` answers of the model to one prompt, each with its verdict."""
    ids, _ = encode_chat(tokenizer, prompt.messages, add_generation_prompt=True, conversation_id=prompt.id)
    drawn = generate(
        model,
        [ids] * num_samples,
        max_new_tokens=max_new_tokens,
        stop_ids=[tokenizer.im_end_id, tokenizer.eos_id],
        temperature=temperature,
        seeds=[derive_seed(seed, prompt.id, index) for index in range(num_samples)],
    )
    return [judged(tokenizer, prompt, index, new_ids) for index, new_ids in enumerate(drawn)]


def judged(tokenizer: Tokenizer, prompt: Prompt, index: int, new_ids: Sequence[int]) -> Sample:
    """The sample of these new ids. An answer that was cut off, is blank or holds a special token is neither right nor wrong."""
    is_finished = bool(new_ids) and new_ids[-1] == tokenizer.im_end_id
    content = list(new_ids[:-1] if is_finished else new_ids)
    text = tokenizer.decode(content).strip()
    verdict: Verdict
    if any(token in tokenizer.special_ids for token in content):
        verdict = "special_token"
    elif not is_finished:
        verdict = "unfinished"
    elif not text:
        verdict = "empty"
    else:
        verdict = "right" if judge_sum(prompt.a, prompt.b, text) else "wrong"
    return Sample(prompt_id=prompt.id, index=index, text=text, num_tokens=len(new_ids), verdict=verdict)


def match_pairs(prompt: Prompt, samples: Sequence[Sample], *, max_pairs: int) -> list[Pair]:
    """Up to `max_pairs` pairs of a right and a wrong sample, those closest in length first; no text is used twice.

    Like lengths keep the loss from learning "shorter" or "longer" instead of "right". Ties go to the lower sample index.
    """
    right = _first_of_each_text(samples, "right")
    wrong = _first_of_each_text(samples, "wrong")
    candidates = sorted(
        ((abs(good.num_tokens - bad.num_tokens), good.index, bad.index, good, bad) for good in right for bad in wrong),
        key=lambda candidate: candidate[:3],
    )
    pairs: list[Pair] = []
    used: set[int] = set()
    for _, good_index, bad_index, good, bad in candidates:
        if len(pairs) < max_pairs and good_index not in used and bad_index not in used:
            pairs.append(Pair(prompt=prompt, chosen=good, rejected=bad))
            used |= {good_index, bad_index}
    return pairs


def _first_of_each_text(samples: Sequence[Sample], verdict: Verdict) -> list[Sample]:
    first: dict[str, Sample] = {}
    for sample in samples:
        if sample.verdict == verdict:
            first.setdefault(sample.text, sample)
    return list(first.values())


Outcome = tuple[Sequence[Sample], Sequence[Pair]]  # of one prompt


def count(outcomes: Sequence[Outcome]) -> PairReport:
    """What became of the prompts, and of all samples by verdict."""
    fates = Counter(_fate(samples, pairs) for samples, pairs in outcomes)
    verdicts = Counter(sample.verdict for samples, _ in outcomes for sample in samples)
    return PairReport(
        prompts=len(outcomes),
        prompts_with_pairs=fates["with pairs"],
        prompts_all_right=fates["all right"],
        prompts_all_wrong=fates["all wrong"],
        prompts_other=fates["other"],
        pairs=sum(len(pairs) for _, pairs in outcomes),
        samples={verdict: verdicts[verdict] for verdict in VERDICTS},
    )


def _fate(samples: Sequence[Sample], pairs: Sequence[Pair]) -> Literal["with pairs", "all right", "all wrong", "other"]:
    verdicts = {sample.verdict for sample in samples}
    if pairs:
        return "with pairs"
    return "all right" if verdicts == {"right"} else "all wrong" if verdicts == {"wrong"} else "other"


def require_pairs(counts: PairReport) -> None:
    """Raises NoUsablePairs, with what was seen, when there is no pair."""
    if counts.pairs:
        return
    raise NoUsablePairs(
        f"none of {counts.prompts:,} prompts gave a preference pair: {counts.why_none}; answers: {counts.answers}.\n"
        "  All right: raise pairs.temperature or ask harder prompts. All wrong: train SFT longer, or ask easier ones. "
        "Unfinished: raise pairs.max_new_tokens."
    )
