"""A released model that the drafted recipe continues: what its folder says, how it is trained further, and what the recipe says of it.

The figures are argued in recipes/domain.yaml.
"""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

from pydantic import ValidationError

from gristmill.draft.folder import relative_to_recipe
from gristmill.draft.size import REPLAY_SHARE, Budget, Shape, Wish, passes_over
from gristmill.draft.yaml_values import as_yaml
from gristmill.errors import ArtifactError, RecipeError
from gristmill.model.released import check_released, read_released_config
from gristmill.planning.estimate import bytes_per_token
from gristmill.recipe.load import named_nearly
from gristmill.recipe.schema.training import ModelSection, Watch
from gristmill.units import passes

PEAK_LR = "5.0e-5"
WARMUP_SHARE, DECAY_SHARE = Fraction(1, 10), Fraction(1, 2)
BATCH_TOKENS = 131_072  # where there is text for it
SEQ_LENS = (2048, 1024, 512)
LEAST_SEQUENCES = 400  # that are drawn, or the next shorter length is taken: 200 steps of two
EVALUATED_BYTES = 20_000  # of each source, by each of two models
WATCHED_SHARE: float = Watch.model_fields["max_share"].default  # of the time of training, at most
AT_ENDS = 3  # measurements that no lack of time prevents: before the first step and after each stage; they have half of the share
WATCHED_BYTES = (2_000, 50_000)  # of each source
FORWARD = 1 / 3  # of the operations of a training step


@dataclass(frozen=True, kw_only=True)
class Released:
    """path: of its folder, from the recipe."""

    path: str
    model: ModelSection
    vocab_size: int


def read_released(folder: Path, recipe_dir: Path) -> Released:
    """What is in the folder. Raises RecipeError where it is no released Llama that training can continue from."""
    if not folder.exists():
        raise RecipeError(
            f"--from: {folder} does not exist. {named_nearly(folder)}Name the folder of a released Llama, with config.json, "
            "tokenizer.json and its weights. For a model of the Hugging Face Hub:\n"
            "  hf download HuggingFaceTB/SmolLM2-135M --local-dir models/SmolLM2-135M"
        )
    if not folder.is_dir():
        raise RecipeError(f"--from: {folder} is a file. Name the folder that it lies in.")
    try:
        config = read_released_config(folder)
        given = {name: getattr(config, name) for name in ModelSection.model_fields}
        model = ModelSection.model_validate(given)
        check_released(folder, model=model, vocab_size=config.vocab_size)
    except (ArtifactError, RecipeError) as error:
        raise RecipeError(f"--from: {error}") from error
    except ValidationError as error:
        problems = "; ".join(f"{'.'.join(map(str, one['loc'])) or 'shape'}: {one['msg']}" for one in error.errors())
        raise RecipeError(f"--from: the config.json in {folder} has a shape that no recipe has: {problems}.") from error
    return Released(path=relative_to_recipe(folder, recipe_dir), model=model, vocab_size=config.vocab_size)


def released_shape(released: Released, tokens: float, wish: Wish) -> Shape:
    """How it is trained further. tokens: unique ones of one's own text; the more are drawn, the longer the sequences."""
    most = 2 ** (released.model.max_position_embeddings.bit_length() - 1)
    drawn = passes_over(wish) * tokens / (1 - REPLAY_SHARE)
    for seq_len in SEQ_LENS:
        shape = Shape(
            model=released.model,
            vocab_size=released.vocab_size,
            seq_len=min(seq_len, most),
            global_batch_tokens=BATCH_TOKENS,
            peak_lr=PEAK_LR,
            warmup_share=WARMUP_SHARE,
            decay_share=DECAY_SHARE,
        )
        if min(drawn, wish.most_tokens(shape)) >= LEAST_SEQUENCES * shape.seq_len:
            break
    return shape


# ── what the recipe says ─────────────────────────────────────────────────────────────────────────────────────────────


def model_text(released: Released, parameters: int) -> str:
    """The section of the model."""
    keys = released.model.model_dump(mode="json")
    lines = [f"  {name}: {as_yaml(value)}" for name, value in keys.items()]
    return (
        f"# As in the released config.json; what differs is refused. {parameters:,} parameters.\nmodel:\n"
        + "\n".join([*lines, ""])
    )


def replay_lines(name: str) -> str:
    """What to add to the sources to replay general text, as a comment. name: of a source of one's own text."""
    share = REPLAY_SHARE
    return f"""  # Without general text some of what the model knows is forgotten. To replay text like that which it was trained on, add it here
  # and give it a share of both mixtures below, as {{{name}: {1 - share:g}, replay: {share:g}}} would:
  # replay:
  #   read: {{format: text, paths: [../general/**/*.txt], passage_chars: 20000}}
  #   license: unknown
"""


def pretrain_text(released: Released, budget: Budget, *, mixture: str, sources: int, asked: str, prompts: str) -> str:
    """The sections of training and of the measurements. mixture: the shares; sources: how many there are."""
    shape, batch, steps = budget.shape, budget.shape.global_batch_tokens, budget.steps
    measured = 2 if steps < 200 else 10
    replayed = f", {budget.replay_share:.0%} of what is read is replayed" if budget.replay_share else ""
    return f"""# A released model was trained until its rate was zero. To learn more the rate rises again, over a tenth of the steps, to a peak far
# below that of training from scratch, and falls to zero over the last half; each rise costs some of what was known before. A higher
# peak learns the new text faster and forgets more (Ibrahim et al. 2024, arXiv 2403.08763).
# {asked}: {passes(budget.epochs)} over your own text{replayed}; `plan` shows the epochs per source, warns above 4 and refuses above 5.
# For a quick try, lower both `tokens` and `decay_tokens`; whole multiples of global_batch_tokens.
pretrain:
  init_from: {as_yaml(released.path)}
  stages:
    - {{name: stable, tokens: {budget.stable_tokens}, seq_len: {shape.seq_len}, mixture: {mixture}}}
    - {{name: decay, tokens: {budget.decay_tokens}, seq_len: {shape.seq_len}, mixture: {mixture}}}
  global_batch_tokens: {batch}
  warmup_tokens: {budget.warmup_tokens}
  decay_tokens: {budget.decay_tokens}
  optimizer: {{peak_lr: {shape.peak_lr}}}
  watch: {{every_tokens: {max(1, steps // measured) * batch}, validation_bytes: {_watched_bytes(budget, measured, sources)}}}
  checkpoint_every_tokens: {max(1, steps // 5) * batch}
  sample_prompts: {prompts}

# The released model and what came of it, on the same held-out text; more bytes make the intervals narrower.
evaluate:
  validation_bytes: {EVALUATED_BYTES}
  xz_yardstick: false
"""


def _watched_bytes(budget: Budget, measured: int, sources: int) -> int:
    """Of each source, so that all measurements take no more than their share of the time."""
    tokens = WATCHED_SHARE * budget.total_tokens / FORWARD / max(measured + 1, 2 * AT_ENDS) / sources
    least, most = WATCHED_BYTES
    return int(min(max(tokens * bytes_per_token(budget.shape.vocab_size), least), most)) // 1000 * 1000
