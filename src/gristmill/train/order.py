"""The order of a pretraining, by its recipe and its token shards: which sequences each step reads, worked out and not logged."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from gristmill.recipe.schema.recipe import Recipe
from gristmill.store.fingerprint import derive_seed
from gristmill.tokens.outputs import Tokenized
from gristmill.tokens.shards import TokenShard
from gristmill.tokens.stream import Stream
from gristmill.train.course import Course, course_of
from gristmill.train.prefix import stream_seed


@dataclass(frozen=True, kw_only=True)
class Order:
    """recipe: as it became, interventions included. tokens: the folder that tokenize left. No text of a model and no tensor is read."""

    recipe: Recipe
    tokens: Path

    @cached_property
    def course(self) -> Course:
        return course_of(self.recipe.pretrain, rope_theta=self.recipe.model.rope_theta)

    @cached_property
    def shards(self) -> dict[str, TokenShard]:
        """Of every source that a stage draws."""
        drawn = dict.fromkeys(draw.source for segment in self.course.segments for draw in segment.draws)
        return {name: TokenShard(Tokenized(self.tokens).of(name).train) for name in drawn}

    @cached_property
    def stream(self) -> Stream:
        seed = stream_seed(derive_seed(self.recipe.pretraining_seed, "pretrain"))
        return Stream(self.shards, self.course.stream_stages(), seed=seed)

    def stage_name(self, step: int) -> str:
        """What the recipe calls the stage of a step, which counts from 0."""
        return self.recipe.pretrain.stages[self.course.segments.index(self.course.segment_at(step))].name
