"""How many times as fast ranks train, by what was measured of two; the plan's hours follow."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from gristmill.graph.machine import Machine
from gristmill.graph.rank_place import RankPlace
from gristmill.planning.ranks import rank_note, speedup_of_ranks
from gristmill.planning.speed import Profile, write_profile


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Machine:
    """Four idle cores."""
    monkeypatch.setattr("gristmill.planning.ranks.usable_cpus", lambda: 4)
    monkeypatch.setattr("gristmill.graph.machine.usable_cpus", lambda: 4)
    return Machine(runs_dir=tmp_path, processes=1, device="cpu")


def test_two_ranks_on_two_cores_are_as_much_faster_as_was_measured(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gristmill.planning.ranks.usable_cpus", lambda: 2)
    monkeypatch.setattr("gristmill.graph.machine.usable_cpus", lambda: 2)
    between = (0.95 + 1.15) / 2  # at 2,048 and at 8,192 tokens a step: docs/log.md
    assert speedup_of_ranks(replace(machine, ranks=2)) == pytest.approx(between, abs=0.02)
    assert speedup_of_ranks(machine) == 1


def test_more_ranks_gain_more_up_to_the_cores_and_two_machines_twice_as_much(machine: Machine) -> None:
    found = [speedup_of_ranks(replace(machine, ranks=ranks)) for ranks in (1, 2, 4)]
    assert found == sorted(found)
    assert speedup_of_ranks(replace(machine, ranks=16)) == found[-1]
    here = RankPlace(rank=0, size=8, local_rank=0, local_size=4, host="a", port=1, is_hosted=False)
    assert speedup_of_ranks(replace(machine, ranks=8, place=here)) == pytest.approx(2 * found[-1])


def test_gpus_are_counted_at_best_and_the_note_says_so(machine: Machine) -> None:
    on_gpus = replace(machine, ranks=8, device="cuda")
    assert speedup_of_ranks(on_gpus) == 8
    assert "8 ranks, 8.00 times as fast as one process (at best" in rank_note(on_gpus)
    assert "(an estimate by two ranks on two idle cores" in rank_note(replace(machine, ranks=2))
    profile = Profile(hardware="a GPU", device="cuda", threads=1, matmul_flops=1e9, points=())
    write_profile(machine.runs_dir, profile)
    assert speedup_of_ranks(replace(machine, ranks=8, device="auto")) == 8
