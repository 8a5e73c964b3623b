"""The pieces of an evaluation, one after the other: where it is, whether it was asked to stop, how many threads it computes with."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from gristmill.data.packs import Pack
from gristmill.errors import Interrupted
from gristmill.graph.machine import Machine
from gristmill.graph.progress import Position
from gristmill.graph.step import StepContext
from gristmill.model.config import CONFIG, LlamaConfig
from gristmill.planning.cost import count_parameters, flops_per_token
from gristmill.planning.estimate import bytes_per_token
from gristmill.planning.speed import measured_speed
from gristmill.planning.steps import ANSWER_STEP, ASKED, CHAT_TOKENS, FORWARD, ITEM_READINGS, MB, XZ, XZ_MOST
from gristmill.recipe.schema.training import ModelSection
from gristmill.store.durable import read_json
from gristmill.train.runtime import ThreadsByLoad

DEMO_SPEED = 5e10  # operations of training a second, where no training has measured them


@dataclass(frozen=True, kw_only=True)
class PieceTimes:
    """Seconds of a piece on idle cores, by the ratios that `plan` uses.

    byte_seconds: a model reads a byte of text. xz_bytes: of training text, that xz reads with each text.
    """

    byte_seconds: float
    xz_bytes: int

    @classmethod
    def of(cls, model_dir: Path, machine: Machine, *, window: int, training_bytes: int = 0) -> PieceTimes:
        """Those of models of the shape in that folder. window: the longest input."""
        config = LlamaConfig.from_dict(read_json(model_dir / CONFIG), where=str(model_dir / CONFIG))
        model = ModelSection(**{key: getattr(config, key) for key in ModelSection.model_fields})
        speed = measured_speed(count_parameters(model, config.vocab_size), machine)
        flops = flops_per_token(model, config.vocab_size, window) * FORWARD / bytes_per_token(config.vocab_size)
        return cls(
            byte_seconds=flops / (DEMO_SPEED if speed is None else speed.flops_per_second),
            xz_bytes=min(training_bytes, XZ_MOST),
        )

    def of_model(self, packs: Iterable[Pack], texts: Iterable[int], *, chat: bool) -> list[float]:
        """A model on each pack, on each text of so many bytes, and asked in chat."""
        items = [sum(len(item.prompt) + sum(map(len, item.choices)) for item in pack.items) for pack in packs]
        asked = [ASKED * CHAT_TOKENS / 2 * ANSWER_STEP] if chat else []
        return [self.byte_seconds * size for size in (*(size * ITEM_READINGS for size in items), *texts)] + asked

    def of_xz(self, texts: Iterable[int]) -> list[float]:
        """xz on the training text, and on that together with each text of so many bytes."""
        return [(self.xz_bytes + size) / MB * XZ for size in (0, *texts)]


class Pieces:
    """A piece is one model on one pack or source, or on what it was asked in chat."""

    def __init__(self, ctx: StepContext, *, seconds: Sequence[float]) -> None:
        """seconds: what each takes on idle cores; how they compare counts, for the pace is measured."""
        self._ctx, self._seconds = ctx, seconds
        self._begun = 0
        self._threads = ThreadsByLoad(ctx.machine)

    def begin(self, what: str) -> None:
        """Before each piece. Raises Interrupted where the run was asked to stop."""
        self.leave_if_asked()
        self._ctx.progress(
            Position(
                done=self._begun,
                total=len(self._seconds),
                unit="piece",
                part=what,
                work=(sum(self._seconds[: self._begun]), sum(self._seconds)),
            )
        )
        self._begun += 1
        self._threads.next_piece()

    def leave_if_asked(self) -> None:
        """Within a piece."""
        if self._ctx.should_stop():
            raise Interrupted(
                "stopped while evaluating; models that were finished are kept. Run the same command to resume."
            )

    def skip(self, number: int) -> None:
        """So many were done before."""
        self._begun += number
