"""The model and the tokens that an amount of text, a time or a wish is enough for.

The rule of thumb: no more parameters than tokens drawn. Text is drawn EPOCHS times, for a time up to MAX_EPOCHS times; repeating
is worth little beyond four (Muennighoff et al. 2023). A released model that is continued keeps its shape, and replays general text.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, replace
from decimal import ROUND_DOWN, ROUND_UP, Decimal
from fractions import Fraction

from gristmill.draft.interval import Estimate
from gristmill.errors import DataError, RecipeError
from gristmill.planning.budget import num_windows
from gristmill.planning.cost import count_parameters, flops_per_token
from gristmill.planning.estimate import bytes_per_token
from gristmill.recipe.schema.training import ModelSection
from gristmill.units import scale

EPOCHS = 2.5
MAX_EPOCHS = 3.8
MAX_EPOCHS_AT_WORST = 4.5  # where the text is at the lower end of its interval; the recipe's cap is 5
MIN_TOKENS = 20_000
MIN_STEPS = 20
MAX_PARAMETERS_PER_TOKEN = 20
MIN_LAYERS, MAX_LAYERS = 2, 96
REPLAY_SHARE = 0.25  # of what a released model that is continued reads
WEIGHT_DECIMALS = 6


@dataclass(frozen=True, kw_only=True)
class Shape:
    """A model and how it is trained. warmup_share, decay_share: of the steps."""

    model: ModelSection
    vocab_size: int
    seq_len: int
    global_batch_tokens: int
    peak_lr: str
    warmup_share: Fraction = Fraction(1, 50)
    decay_share: Fraction = Fraction(1, 5)

    @property
    def layers(self) -> int:
        """Of the model."""
        return self.model.num_hidden_layers

    def with_layers(self, layers: int) -> Shape:
        """With another number of layers."""
        return replace(self, model=self.model.model_copy(update={"num_hidden_layers": layers}))

    def with_context(self, tokens: int) -> Shape:
        """With at least so long a context; a batch holds at least one window of it."""
        seq_len = max(self.seq_len, tokens)
        return replace(
            self,
            model=self.model.model_copy(update={"max_position_embeddings": seq_len}),
            seq_len=seq_len,
            global_batch_tokens=max(self.global_batch_tokens, seq_len),
        )

    @property
    def parameters(self) -> int:
        """Of the model, embeddings included."""
        return count_parameters(self.model, self.vocab_size)

    @property
    def flops_per_token(self) -> float:
        """Of training."""
        return flops_per_token(self.model, self.vocab_size, self.seq_len)


def _shape(
    vocab: int, hidden: int, inner: int, layers: int, heads: tuple[int, int], seq: int, batch: int, lr: str
) -> Shape:
    model = ModelSection(
        hidden_size=hidden,
        intermediate_size=inner,
        num_hidden_layers=layers,
        num_attention_heads=heads[0],
        num_key_value_heads=heads[1],
        initializer_range=round(hidden**-0.5, 4),
        max_position_embeddings=seq,
    )
    return Shape(model=model, vocab_size=vocab, seq_len=seq, global_batch_tokens=batch, peak_lr=lr)


SHAPES = (
    _shape(1024, 64, 176, 4, (2, 1), 128, 1024, "4.0e-3"),
    _shape(2048, 96, 256, 5, (3, 1), 256, 2048, "4.0e-3"),
    _shape(4096, 128, 352, 6, (4, 2), 256, 2048, "4.0e-3"),
    _shape(4096, 192, 512, 8, (6, 2), 256, 4096, "3.0e-3"),
    _shape(8192, 256, 704, 8, (4, 2), 512, 8192, "3.0e-3"),
    _shape(16_384, 384, 1024, 12, (6, 2), 1024, 32_768, "3.0e-3"),
    _shape(32_768, 512, 1408, 16, (8, 2), 1024, 65_536, "3.0e-3"),
    _shape(49_152, 576, 1536, 30, (9, 3), 2048, 131_072, "3.0e-3"),  # SmolLM2-135M
)


@dataclass(frozen=True, kw_only=True)
class Wish:
    """What the person asked for. tokens_in_time: those that a model of a shape can be trained on in the time that was asked for;
    None where none was."""

    parameters: int | None = None
    tokens_in_time: Callable[[Shape], float] | None = None

    def most_tokens(self, shape: Shape) -> float:
        """Without limit where no time was asked for."""
        return math.inf if self.tokens_in_time is None else self.tokens_in_time(shape)


def shape_for(text_bytes: float, wish: Wish) -> Shape:
    """The shape for so many bytes of unique text. Raises RecipeError where they are too few for the size that was asked for."""
    if wish.parameters is not None:
        return _of_size(wish.parameters, text_bytes)
    epochs = passes_over(wish)
    fitting = [
        shape
        for shape in SHAPES
        if min(epochs * text_bytes / bytes_per_token(shape.vocab_size), wish.most_tokens(shape)) >= shape.parameters
    ]
    return fitting[-1] if fitting else SHAPES[0]


def deepened(shape: Shape, tokens: float, wish: Wish) -> Shape:
    """With up to twice the layers, as long as all passes over so many unique tokens fit into the time that was asked for, and there
    are no more parameters than tokens."""
    if wish.parameters is not None or wish.tokens_in_time is None:
        return shape
    drawn = MAX_EPOCHS * tokens
    for layers in range(shape.layers + 1, 2 * shape.layers + 1):
        deeper = shape.with_layers(layers)
        if deeper.parameters > drawn or wish.most_tokens(deeper) < drawn:
            break
        shape = deeper
    return shape


def _of_size(parameters: int, text_bytes: float) -> Shape:
    fitted = [shape.with_layers(_layers_for(shape, parameters)) for shape in SHAPES]
    shape, _ = min(
        zip(fitted, SHAPES),
        key=lambda pair: (
            round(abs(math.log(pair[0].parameters / parameters)), 1),
            abs(math.log(pair[0].layers / pair[1].layers)),
        ),
    )
    tokens = text_bytes / bytes_per_token(shape.vocab_size)
    if parameters > MAX_PARAMETERS_PER_TOKEN * MAX_EPOCHS * tokens:
        fits = shape_for(text_bytes, Wish())
        raise RecipeError(
            f"--size {scale(parameters)}: your text has about {scale(tokens)} tokens; a model of that size wants "
            f"{scale(parameters / EPOCHS)}, and at least {scale(parameters / MAX_PARAMETERS_PER_TOKEN / MAX_EPOCHS)}.\n"
            f"  Add text, or leave --size out: {scale(fits.parameters)} parameters fit."
        )
    return shape


def check_size(parameters: int) -> None:
    """Raises RecipeError where no shape comes near so many parameters."""
    smallest = SHAPES[0].with_layers(MIN_LAYERS).parameters
    largest = SHAPES[-1].with_layers(MAX_LAYERS).parameters
    if not 0.95 * smallest <= parameters <= 1.05 * largest:
        other = "Ask for more, or leave --size out: the text then decides."
        if parameters > largest:
            other = "Take a shipped recipe such as smollm2-1.7b.yaml for larger ones."
        raise RecipeError(
            f"--size {scale(parameters)}: init makes models of {scale(smallest)} to {scale(largest)} parameters.\n  {other}"
        )


def _layers_for(shape: Shape, parameters: int) -> int:
    one, two = (shape.with_layers(layers).parameters for layers in (1, 2))
    return min(max(MIN_LAYERS, round((parameters - one) / (two - one)) + 1), MAX_LAYERS)


@dataclass(frozen=True, kw_only=True)
class Budget:
    """Tokens of pretraining, in whole steps, and the share of each source. epochs: over all text, that which is replayed left out;
    replay_share: of that. too_small: sources without a share, since one sequence of them in each stage would be too much."""

    shape: Shape
    stable_tokens: int
    decay_tokens: int
    weights: Mapping[str, float]
    epochs: float
    replay_share: float = 0.0
    too_small: tuple[str, ...] = ()

    @property
    def total_tokens(self) -> int:
        """Of both stages."""
        return self.stable_tokens + self.decay_tokens

    @property
    def steps(self) -> int:
        """Of the optimizer."""
        return self.total_tokens // self.shape.global_batch_tokens

    @property
    def warmup_tokens(self) -> int:
        """Over which the rate rises, in whole steps."""
        return max(1, math.floor(self.steps * self.shape.warmup_share)) * self.shape.global_batch_tokens

    @property
    def flops(self) -> float:
        """Of pretraining."""
        return self.total_tokens * self.shape.flops_per_token


def passes_over(wish: Wish) -> float:
    """How often text is drawn."""
    return EPOCHS if wish.tokens_in_time is None else MAX_EPOCHS


def budget_for(
    shape: Shape, tokens: Mapping[str, Estimate], wish: Wish, *, replayed: Collection[str] = frozenset()
) -> Budget:
    """Steps and shares over unique training tokens by source; a source counts by the whole windows that it has, and by less than
    was estimated where it may have much less. Each share draws a sequence in each stage. replayed: sources of general text, which get
    REPLAY_SHARE together, or what MAX_EPOCHS of them are. Raises DataError where nothing is sure."""

    def sure(name: str, found: Estimate) -> float:
        epochs = MAX_EPOCHS if name in replayed else passes_over(wish)
        return min(found.value, MAX_EPOCHS_AT_WORST / epochs * found.low)

    once = {name: size for name, found in tokens.items() if (size := _in_windows(sure(name, found), shape))}
    if not {*once} - {*replayed}:
        raise DataError(
            "too little of the text was read to say how much there is. Read longer with --max-seconds, or name a part of it."
        )
    budget, shares = _budget(shape, once, replayed, wish)
    too_small = [name for name, found in tokens.items() if not _in_windows(found.high, shape)]
    while (name := _too_small(budget, once, tokens, shares)) is not None:
        too_small.append(name)
        del once[name]
        budget, shares = _budget(shape, once, replayed, wish)
    return replace(budget, too_small=tuple(too_small))


def _budget(
    shape: Shape, once: Mapping[str, int], replayed: Collection[str], wish: Wish
) -> tuple[Budget, dict[str, float]]:
    """The budget, and the share of each source by its size alone."""
    own = sum(size for name, size in once.items() if name not in replayed)
    general = sum(once.values()) - own
    most = passes_over(wish) * own
    most = most + min(most * REPLAY_SHARE / (1 - REPLAY_SHARE), MAX_EPOCHS * general)
    asked = min(most, wish.most_tokens(shape))
    batch = _batch_for(shape, asked)
    steps = int(max(asked, MIN_STEPS * batch) // batch)
    decay = max(1, round(shape.decay_share * steps))
    replay = min(REPLAY_SHARE, MAX_EPOCHS * general / (steps * batch))
    shares = {
        name: replay * size / general if name in replayed else (1 - replay) * size / own for name, size in once.items()
    }
    weights = _rounded(shares, least=shape.seq_len / (decay * batch))
    budget = Budget(
        shape=replace(shape, global_batch_tokens=batch),
        stable_tokens=(steps - decay) * batch,
        decay_tokens=decay * batch,
        weights=weights,
        epochs=(1 - replay) * steps * batch / own,
        replay_share=sum(weight for name, weight in weights.items() if name in replayed),
    )
    return budget, shares


def _too_small(
    budget: Budget, once: Mapping[str, int], tokens: Mapping[str, Estimate], shares: Mapping[str, float]
) -> str | None:
    """The smallest source for which one sequence in each stage is too much: it would be read too often at worst, or the largest
    source would lose more than half of its share; None where there is none."""
    shape, largest = budget.shape, max(shares, key=lambda name: shares[name])
    least = shape.seq_len / budget.decay_tokens
    raised = sorted((name for name, share in shares.items() if share < least), key=lambda name: once[name])
    if raised and budget.weights[largest] < max(least, shares[largest] / 2):
        return raised[0]
    drawn = least * budget.total_tokens
    return next(
        (name for name in raised if drawn > MAX_EPOCHS_AT_WORST * _in_windows(tokens[name].low, shape)),
        None,
    )


def _in_windows(tokens: float, shape: Shape) -> int:
    """Of so many tokens, those that lie in whole windows."""
    return num_windows(int(tokens), shape.seq_len) * shape.seq_len


def _batch_for(shape: Shape, tokens: float) -> int:
    """The shape's batch, or a smaller one where fewer than 200 steps would be left; whole windows."""
    batch = shape.global_batch_tokens
    while batch >= 2 * max(shape.seq_len, 1024) and tokens / batch < 200:
        batch //= 2
    return batch


def _rounded(shares: Mapping[str, float], *, least: float) -> dict[str, float]:
    """Shares that sum to one in WEIGHT_DECIMALS digits: rounded down, or raised to the least; the largest takes what is left."""
    unit = Decimal(1).scaleb(-WEIGHT_DECIMALS)
    floor = Decimal(least).quantize(unit, ROUND_UP)
    found = {name: max(floor, Decimal(share).quantize(unit, ROUND_DOWN)) for name, share in shares.items()}
    largest = max(shares, key=lambda name: shares[name])
    found[largest] = 1 - sum((share for name, share in found.items() if name != largest), Decimal(0))
    return {name: float(share) for name, share in found.items()}
