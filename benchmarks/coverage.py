"""How often the 95 % interval of bits per byte holds the truth, and how often two equal models are told apart, by simulation.

    python benchmarks/coverage.py [--quick] [--draws 20000] [--seed 0]

Documents have log-normal sizes (`spread` is the standard deviation of the logarithm; 0 is equal sizes). Linear: the textbook's
linearised ratio with Student's t of n - 1 degrees. Jackknife: `statistics.ratio_of_sums`. Noise of the bits:

    own       every byte of a document is off by the same amount, normal: a book is as uncertain as a note
    tokens    every token is off on its own, normal: relative noise falls with the root of the size
    mixed     both
    skewed    own, but exponential: a few documents are very hard
    by size   mixed, and bits per byte fall by 0.05 each time the size grows by a factor e

The last two break what the interval rests on, and show what is left. "false" is the share of comparisons of two equal models
on the same documents that end in a verdict at the 5 % level, at noise "mixed". Prints a table and a JSON line at the end.
"""

from __future__ import annotations

import argparse
import json
import math

import numpy as np
from numpy.typing import NDArray
from scipy.special import stdtrit

from gristmill.statistics import paired_difference, ratio_of_sums

FloatArray = NDArray[np.float64]
NOISES = ("own", "tokens", "mixed", "skewed", "by size")
SPREADS = (0.0, 1.0, 1.5)
COUNTS = (7, 13, 15, 100)
MEDIAN_BYTES = 1000.0
SLOPE = 0.05


def draw(rng: np.random.Generator, count: int, spread: float, noise: str) -> tuple[FloatArray, FloatArray]:
    """Bits and bytes of documents."""
    sizes = np.round(MEDIAN_BYTES * rng.lognormal(0, spread, size=count)) + 1
    own, tokens = rng.normal(size=count), rng.normal(size=count) * np.sqrt(MEDIAN_BYTES / sizes)
    off = {
        "own": 0.3 * own,
        "tokens": 0.3 * tokens,
        "mixed": 0.2 * own + 0.3 * tokens,
        "skewed": 0.3 * (rng.exponential(size=count) - 1),
        "by size": 0.2 * own + 0.3 * tokens - SLOPE * np.log(sizes / MEDIAN_BYTES),
    }[noise]
    return sizes * (2 + off), sizes


def truth(spread: float, noise: str) -> float:
    """Expected bits over expected bytes. With log-normal sizes the mean of log size, weighed by size, is `spread` squared."""
    return 2 - SLOPE * spread**2 if noise == "by size" else 2.0


def linear(amounts: FloatArray, sizes: FloatArray) -> tuple[float, float]:
    """The interval by linearisation, n - 1 degrees."""
    n, total = len(sizes), sizes.sum()
    value = amounts.sum() / total
    error = math.sqrt(n / (n - 1) * ((amounts - value * sizes) ** 2).sum()) / total
    half = stdtrit(n - 1, 0.975) * error
    return value - half, value + half


def jackknife(amounts: FloatArray, sizes: FloatArray) -> tuple[float, float]:
    found = ratio_of_sums(amounts, sizes)
    return found.low, found.high


def coverages(rng: np.random.Generator, *, count: int, spread: float, noise: str, draws: int) -> tuple[float, float]:
    """Shares of corpora whose interval holds the truth: linear, jackknife."""
    held = np.zeros(2)
    for _ in range(draws):
        amounts, sizes = draw(rng, count, spread, noise)
        held += [
            low <= truth(spread, noise) <= high for low, high in (linear(amounts, sizes), jackknife(amounts, sizes))
        ]
    return float(held[0] / draws), float(held[1] / draws)


def false_verdicts(rng: np.random.Generator, *, count: int, spread: float, draws: int) -> tuple[float, float]:
    """Shares of comparisons of equals that end in a verdict: by the linear interval, and by `paired_difference`."""
    wrong = np.zeros(2)
    for _ in range(draws):
        bits, sizes = draw(rng, count, spread, "mixed")
        low, high = linear(bits - 2 * sizes, sizes)
        wrong += [not low <= 0 <= high, paired_difference(bits, 2 * sizes, sizes=sizes).p_value < 0.05]
    return float(wrong[0] / draws), float(wrong[1] / draws)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="500 draws: a check that it runs")
    parser.add_argument("--draws", type=int, default=20_000)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    draws = 500 if args.quick else args.draws
    print(f"{'spread':>6} {'n':>4}", *(f"{noise:>15}" for noise in NOISES), f"{'false':>15}   (linear → jackknife)")
    rows = []
    for spread in SPREADS:
        for count in COUNTS:
            rng = np.random.default_rng([args.seed, count])
            found = {noise: coverages(rng, count=count, spread=spread, noise=noise, draws=draws) for noise in NOISES}
            found["false"] = false_verdicts(rng, count=count, spread=spread, draws=draws)
            print(f"{spread:>6} {count:>4}", *(f"{old:>6.3f} → {new:.3f} " for old, new in found.values()), flush=True)
            rows.append({"spread": spread, "documents": count, **found})
    deviation = math.sqrt(0.95 * 0.05 / draws)
    print(json.dumps({"benchmark": "coverage", "draws": draws, "binomial_deviation": deviation, "rows": rows}))


if __name__ == "__main__":
    main()
