"""How often an ablation of nothing names an arm, and how large a difference it finds, by the noise of an ablation that was made.

    python benchmarks/ablation_noise.py RECIPE [--name NAME] [--runs-dir runs] [--simulations 1000] [--seeds 5 10]

Draws from the made ablation's runs, on its endpoint: documents with replacement; for each run what a measured run differed by from the mean
of its arm, document by document, with a random sign; for each arm what a measured arm differed by from the mean of all, likewise, less its
own total, so that no arm is better. Each drawn ablation goes through `outcome_of`. False: it names an arm. Power: one arm is better by so
much on every document, and it is named.
"""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from gristmill.ablate.design import design_of
from gristmill.ablate.outcome import DECIDED, Measured, outcome_of
from gristmill.ablate.trials import measured
from gristmill.recipe.interventions import with_interventions
from gristmill.recipe.load import load_recipe
from gristmill.store.store import RunLinks, Store

Array = NDArray[np.float64]
SHIFTS = (0.0, 0.5, 1.0, 1.5, 2.0)  # of the smallest difference that the made ablation found four times in five


@dataclass(frozen=True, kw_only=True)
class Noise:
    """Of the made ablation. mean_I: of all runs; of_run_RI: runs less their arm; of_arm_AI: arms less the mean, each without its total."""

    mean_I: Array
    sizes_I: Array
    of_run_RI: Array
    of_arm_AI: Array


def main() -> None:
    """Draw, judge, count."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("recipe", type=Path)
    parser.add_argument("--name")
    parser.add_argument("--runs-dir", type=Path, default=Path("runs"))
    parser.add_argument("--simulations", type=int, default=1000)
    parser.add_argument("--seeds", type=int, nargs="+", default=[5, 10])
    options = parser.parse_args()
    loaded = load_recipe(options.recipe, [])
    store = Store(options.runs_dir)
    loaded = with_interventions(loaded, RunLinks(store, loaded.recipe.name).folder)
    design = design_of(loaded, options.name)
    [judged] = [one for one in measured(design, store) if one.task == design.ablation.endpoint]
    made = outcome_of([arm.name for arm in design.arms], [judged], endpoint=judged.task)
    smallest = max(row.smallest or math.nan for row in made.endpoint)
    noise, arms = noise_of(judged), len(design.arms)
    print(
        f"{arms} arms, {len(noise.mean_I)} documents, seed noise {made.noise and made.noise.sd:.4f}, found {smallest:.4f}"
    )
    for seeds in options.seeds:
        for shift in SHIFTS:
            rng = np.random.default_rng([30, seeds])
            named = sum(
                drawn_names(noise, rng, arms=arms, seeds=seeds, shift=shift * smallest, times=options.simulations)
            )
            kind = "false" if shift == 0 else "found"
            row = {"seeds": seeds, "difference": round(shift * smallest, 5), kind: named / options.simulations}
            print(json.dumps(row), flush=True)


def noise_of(judged: Measured) -> Noise:
    """What runs and arms differed by, document by document."""
    scores, seeds, arms = judged.scores_ASI, judged.scores_ASI.shape[1], judged.scores_ASI.shape[0]
    arm_AI = scores.mean(axis=1)
    of_run = (scores - arm_AI[:, None]).reshape(arms * seeds, -1) * math.sqrt(seeds / (seeds - 1))
    of_arm = (arm_AI - arm_AI.mean(axis=0)) * math.sqrt(arms / (arms - 1))
    of_arm -= of_arm.sum(axis=1, keepdims=True) * judged.sizes_I / judged.sizes_I.sum()
    return Noise(mean_I=arm_AI.mean(axis=0), sizes_I=judged.sizes_I, of_run_RI=of_run, of_arm_AI=of_arm)


def drawn_names(
    noise: Noise, rng: np.random.Generator, *, arms: int, seeds: int, shift: float, times: int
) -> Iterator[bool]:
    """Whether each drawn ablation names an arm: any, where no arm is better, else the one that is."""
    names = ["control", *(f"arm-{number}" for number in range(1, arms))]
    for _ in range(times):
        items = rng.integers(len(noise.mean_I), size=len(noise.mean_I))
        sizes = noise.sizes_I[items]
        of_run = noise.of_run_RI[rng.integers(len(noise.of_run_RI), size=(arms, seeds))][:, :, items]
        of_arm = noise.of_arm_AI[rng.integers(len(noise.of_arm_AI), size=arms)][:, items]
        scores = (
            noise.mean_I[items] + _signs(rng, (arms, seeds, 1)) * of_run + (_signs(rng, (arms, 1)) * of_arm)[:, None]
        )
        scores[1] -= shift * sizes
        drawn = Measured(task="t", metric="bits_per_byte", scores_ASI=scores, sizes_I=sizes, is_at_chance=False)
        rows = outcome_of(names, [drawn], endpoint="t").endpoint
        yield any(row.verdict in DECIDED for row in rows) if shift == 0 else rows[0].verdict == "better"


def _signs(rng: np.random.Generator, shape: tuple[int, ...]) -> Array:
    return rng.choice([-1.0, 1.0], size=shape)


if __name__ == "__main__":
    main()
