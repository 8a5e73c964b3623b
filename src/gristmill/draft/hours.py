"""How long a run over a drafted recipe takes, by what `plan` says of its steps: a time that was asked for is kept by all of them.

The time is linear in the tokens of pretraining, so two plans tell how many fit.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import yaml

from gristmill.amounts import find_amounts, present_files
from gristmill.draft.conversations import ChatPlan
from gristmill.draft.folder import FolderSource
from gristmill.draft.size import SHAPES, Shape, Wish
from gristmill.draft.write import chat_text, draft_recipe, validation_for
from gristmill.durations import StepForecast, step_forecasts
from gristmill.graph.machine import Machine
from gristmill.planning.cost import count_parameters
from gristmill.planning.speed import Speed
from gristmill.recipe.load import LoadedRecipe
from gristmill.recipe.schema.recipe import Recipe
from gristmill.store.store import RunLinks, Store
from gristmill.units import scale

MANY_STEPS = 1000
CURATION = ("extract", "signatures", "contamination", "duplicates", "select", "tokenizer", "tokenize")


class PlannedTime:
    """What plan would say of a recipe over these sources. speed: of training, by parameters; text_bytes: by source, where they are
    counted: they decide how much is held out."""

    def __init__(
        self,
        sources: Sequence[FolderSource],
        *,
        folder: Path,
        machine: Machine,
        speed: Callable[[int], Speed],
        chat: ChatPlan | None,
        text_bytes: Mapping[str, float] | None = None,
    ) -> None:
        self._sources, self._folder, self._machine, self.speed, self._chat = sources, folder, machine, speed, chat
        self._validation = validation_for(text_bytes or {})

    def tokens_within(self, shape: Shape, seconds: float) -> float:
        """Tokens of pretraining with which all steps together take so long; 0 where the others take longer alone."""
        few, many = shape.global_batch_tokens, MANY_STEPS * shape.global_batch_tokens
        at_least, more = (self._seconds(shape, tokens) for tokens in (few, many))
        return max(0.0, few + (seconds - at_least) * (many - few) / (more - at_least))

    def of_curation(self) -> tuple[dict[str, float], float]:
        """Seconds of each step up to tokenize, and the bytes of all text by the sizes of files; nothing where there are no sources."""
        if not self._sources:
            return {}, 0.0
        loaded = self._loaded(draft_recipe(self._sources, self._names, SHAPES[0].vocab_size, self._validation))
        links = RunLinks(Store(self._machine.runs_dir), loaded.recipe.name)
        text = find_amounts(loaded, self._files, links, None).amounts.all_text
        return {step.step: step.seconds for step in self.of(loaded) if step.step.partition("/")[0] in CURATION}, text

    def of(self, loaded: LoadedRecipe) -> tuple[StepForecast, ...]:
        """The forecast of every step of a recipe over these sources, or some of them."""
        recipe = loaded.recipe
        links = RunLinks(Store(self._machine.runs_dir), recipe.name)
        files = {name: self._files[name] for name in recipe.sources}
        amounts = find_amounts(loaded, files, links, None).amounts
        speed = self.speed(count_parameters(recipe.model, recipe.tokenizer.vocab_size))
        return step_forecasts(recipe, amounts, self._machine, speed, None, links)

    def _seconds(self, shape: Shape, tokens: int) -> float:
        return sum(step.seconds for step in self.of(self._loaded(self._recipe(shape, tokens))))

    def _recipe(self, shape: Shape, tokens: int) -> Recipe:
        draft = draft_recipe(self._sources, self._names, shape.vocab_size, self._validation)
        data: dict[str, Any] = draft.model_dump(mode="json")
        data["model"] = shape.model.model_dump(mode="json")
        stage = {**data["pretrain"]["stages"][0], "tokens": tokens, "seq_len": shape.seq_len}
        data["pretrain"] |= {
            "stages": [stage],
            "global_batch_tokens": shape.global_batch_tokens,
            "decay_tokens": tokens,
        }
        if self._chat is not None:
            data |= yaml.safe_load(chat_text(self._chat, shape))
        return Recipe.model_validate(data)

    @cached_property
    def _files(self) -> dict[str, list[Path]]:
        drafted = draft_recipe(self._sources, self._names, SHAPES[0].vocab_size, self._validation)
        return present_files(self._loaded(drafted))

    @property
    def _names(self) -> list[str]:
        return [source.name for source in self._sources]

    def _loaded(self, recipe: Recipe) -> LoadedRecipe:
        return LoadedRecipe(recipe=recipe, path=self._folder / "recipe.yaml", origins={})


@dataclass(frozen=True, kw_only=True)
class Asked:
    """What the person asked for."""

    minutes: float | None
    parameters: int | None
    chat: bool

    def wish(self, planned: PlannedTime) -> Wish:
        """With the tokens that fit into the time, where there is one to keep."""
        if self.minutes is None:
            return Wish(parameters=self.parameters)
        return Wish(
            parameters=self.parameters, tokens_in_time=partial(planned.tokens_within, seconds=60 * self.minutes)
        )

    def in_words(self) -> str:
        """What pretraining was sized to."""
        words = [f"{self.minutes:g} minutes on the machine it was made on"] if self.minutes is not None else []
        words += [f"{scale(self.parameters)} parameters"] if self.parameters is not None else []
        return f"Sized to {' and '.join(words) or 'the text'}"
