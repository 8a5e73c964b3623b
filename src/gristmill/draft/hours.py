"""How long a run over a drafted recipe takes, by what `plan` says of its steps: a time that was asked for is kept by all of them.

The time is linear in the tokens of pretraining, so two plans tell how many fit.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import yaml

from gristmill.amounts import find_amounts, present_files
from gristmill.draft.conversations import ChatPlan
from gristmill.draft.count import SourceCount
from gristmill.draft.folder import FolderSource
from gristmill.draft.held_out import validation_for
from gristmill.draft.released import Released
from gristmill.draft.size import SHAPES, Shape, Wish
from gristmill.draft.write import chat_text, draft_recipe
from gristmill.durations import StepForecast, step_forecasts
from gristmill.graph.machine import Machine
from gristmill.planning.cost import count_parameters
from gristmill.planning.speed import Speed
from gristmill.planning.steps import STARTS, Amounts, Work, works
from gristmill.recipe.load import LoadedRecipe
from gristmill.recipe.schema.recipe import Recipe
from gristmill.store.store import RunLinks, Store
from gristmill.units import scale

MANY_STEPS = 1000
UNIT_SECONDS = 0.1  # that a unit of reading costs beside its content: a process starts
LEAST_SECONDS = 2.0  # of reading, that tell a ratio
CURATION = ("extract", "signatures", "contamination", "duplicates", "select", "tokenizer", "tokenize")


class PlannedTime:
    """What plan would say of a recipe over these sources. speed: of training, by parameters; text_bytes, documents: by source, where they are
    counted: they decide how much is held out."""

    def __init__(
        self,
        sources: Sequence[FolderSource],
        *,
        folder: Path,
        machine: Machine,
        speed: Callable[[int], Speed],
        chat: ChatPlan | None,
        released: Released | None = None,
        text_bytes: Mapping[str, float] | None = None,
        documents: Mapping[str, float] | None = None,
    ) -> None:
        self._sources, self._folder, self._machine, self.speed, self._chat = sources, folder, machine, speed, chat
        self._released, self._validation = (
            released,
            validation_for(
                {source.name: (text_bytes or {}).get(source.name, 0.0) for source in sources if not source.is_replayed},
                documents or {},
            ),
        )

    def tokens_within(self, shape: Shape, seconds: float) -> float:
        """Tokens of pretraining with which all steps together take so long; 0 where the others take longer alone."""
        few, many = shape.global_batch_tokens, MANY_STEPS * shape.global_batch_tokens
        at_least, more = (self._seconds(shape, tokens) for tokens in (few, many))
        return max(0.0, few + (seconds - at_least) * (many - few) / (more - at_least))

    def of_curation(self) -> tuple[dict[str, float], Mapping[str, float]]:
        """Seconds of each step up to tokenize, and bytes of text by source, by the sizes of files; nothing where there are no sources."""
        if not self._sources:
            return {}, {}
        curation = [step for step in self.of(self._drafted) if step.step.partition("/")[0] in CURATION]
        return {step.step: step.seconds for step in curation}, self._amounts(self._drafted).text_bytes

    def of_reading(self, found: Mapping[str, SourceCount]) -> dict[str, tuple[Work, float]]:
        """(work, seconds) of what was read of sources, by ratio, in the seconds of one process."""
        by_ratio: dict[str, tuple[Work, float]] = {}
        all_work = works(self._drafted.recipe, self._amounts(self._drafted), Machine(processes=1))
        for name, one in found.items():
            work = all_work[f"extract/{name}"]
            before = by_ratio.get(work.ratio, (replace(work, cpu_seconds=0.0), 0.0))
            done = one.share_read * (work.cpu_seconds - STARTS["extract"]) + one.units_read * UNIT_SECONDS
            by_ratio[work.ratio] = (
                replace(work, cpu_seconds=before[0].cpu_seconds + done),
                before[1] + one.read_seconds,
            )
        return {ratio: read for ratio, read in by_ratio.items() if read[1] >= LEAST_SECONDS}

    def of(self, loaded: LoadedRecipe) -> tuple[StepForecast, ...]:
        """The forecast of every step of a recipe over these sources, or some of them."""
        recipe = loaded.recipe
        links = RunLinks(Store(self._machine.runs_dir), recipe.name)
        speed = self.speed(count_parameters(recipe.model, recipe.tokenizer.vocab_size))
        return step_forecasts(recipe, self._amounts(loaded), self._machine, speed, None, links)

    def _seconds(self, shape: Shape, tokens: int) -> float:
        return sum(step.seconds for step in self.of(self._loaded(self._recipe(shape, tokens))))

    def _recipe(self, shape: Shape, tokens: int) -> Recipe:
        draft = self._draft(shape.vocab_size)
        data: dict[str, Any] = draft.model_dump(mode="json", exclude_unset=True)
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
        return present_files(self._drafted)

    @cached_property
    def _drafted(self) -> LoadedRecipe:
        return self._loaded(self._draft(SHAPES[0].vocab_size))

    def _draft(self, vocab_size: int) -> Recipe:
        return draft_recipe(self._sources, self._names, vocab_size, self._validation, released=self._released)

    def _amounts(self, loaded: LoadedRecipe) -> Amounts:
        links = RunLinks(Store(self._machine.runs_dir), loaded.recipe.name)
        files = {name: self._files[name] for name in loaded.recipe.sources}
        return find_amounts(loaded, files, links, None).amounts

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
    released: Released | None = None

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
