"""Several processes that train one model: the same data, the same loss, the same gradient, exact and elastic resume, and who is named
when one of them ends. Each run is a real one, over gloo between processes of this machine."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import socket
import subprocess
import sys
import textwrap
import time
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import psutil
import pytest
import tiny_pretraining as tiny
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file

from gristmill.errors import Interrupted, RecipeError, ResourceError
from gristmill.graph.machine import Machine, usable_cpus
from gristmill.graph.rank_place import read_ranks
from gristmill.graph.ranks import ONE_RANK, OneRank, any_rank, cut, is_first
from gristmill.planning.ranks import check_ranks
from gristmill.tokens.shards import TokenShard
from gristmill.tokens.stream import Stream
from gristmill.train.course import course_of
from gristmill.train.ranks import service
from gristmill.train.ranks.launch import Other, Others, RankFailed, run_on_ranks
from gristmill.train.ranks.service import leading
from gristmill.train.ranks.slow_rank import SlowRank

HERE = Path(__file__).parent


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("ranks")
    tiny.write_inputs(folder)
    return folder


@pytest.fixture(scope="module")
def one(inputs: Path) -> Path:
    """A training by one process."""
    tiny.train(tiny.context(inputs, "one"))
    return inputs / "one"


@pytest.fixture(scope="module")
def two(inputs: Path) -> Path:
    """The same by two, never stopped."""
    tiny.train(tiny.context(inputs, "two", ranks=2))
    return inputs / "two"


def weights(out: Path) -> dict[str, torch.Tensor]:
    return load_file(out / "model" / "model.safetensors")


def assert_identical(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> None:
    assert a.keys() == b.keys()
    assert not [name for name in a if not torch.equal(a[name], b[name])]


def assert_close(lines: list[dict[str, Any]], others: list[dict[str, Any]]) -> None:
    """Every number of the logs within 1e-5 relative, and steps, tokens and names the same."""
    assert len(lines) == len(others) > 0
    for line, other in zip(lines, others, strict=True):
        assert line.keys() == other.keys()
        assert (line["step"], line["tokens"], line["kind"]) == (other["step"], other["tokens"], other["kind"])
        numbers = [name for name, value in line.items() if isinstance(value, float)]
        assert [line[name] for name in numbers] == pytest.approx([other[name] for name in numbers], rel=1e-5)


# ── one rank, and the cut ────────────────────────────────────────────────────────────────────────────────────────────


def test_one_rank_changes_nothing() -> None:
    assert ONE_RANK.sum([0.1, float("inf")]) == [0.1, float("inf")]
    assert ONE_RANK.from_first(lambda: 3) == ONE_RANK.first_before_others(lambda: 3) == 3
    assert is_first(ONE_RANK)
    assert any_rank(ONE_RANK, True)
    assert not any_rank(ONE_RANK, False)


@given(count=st.integers(0, 300), size=st.integers(1, 70))
def test_the_cuts_of_all_ranks_in_order_are_everything_and_differ_by_one_at_most(count: int, size: int) -> None:
    things = list(range(count))
    parts = [things[cut(count, OneRank(rank=rank, size=size))] for rank in range(size)]
    assert [thing for part in parts for thing in part] == things
    assert max(map(len, parts)) - min(map(len, parts)) <= 1


def module_in(folder: Path, monkeypatch: pytest.MonkeyPatch, *, name: str, text: str) -> None:
    """A module that this process and the ranks that it starts can import."""
    (folder / f"{name}.py").write_text(textwrap.dedent(text))
    monkeypatch.syspath_prepend(str(folder))
    monkeypatch.setenv("PYTHONPATH", str(folder), prepend=os.pathsep)


def test_sums_are_the_same_bits_on_every_rank_and_what_the_first_says_reaches_all(
    inputs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Numbers of very different size, whose sum depends on the order in which it is made."""
    module_in(
        tmp_path,
        monkeypatch,
        name="sums",
        text="""
            import random
            from gristmill.graph.ranks import any_rank
            def run(ctx):
                numbers = random.Random(ctx.ranks.rank)
                values = [numbers.uniform(-1, 1) * 10 ** numbers.randint(-9, 9) for _ in range(101)]
                found = [value.hex() for value in ctx.ranks.sum(values)]
                first = ctx.ranks.from_first(lambda: {"of": ctx.ranks.rank, "found": found})
                note = ctx.out / "note"
                ctx.ranks.first_before_others(lambda: note.exists() or note.write_text(str(ctx.ranks.rank)))
                return {
                    "differs": any_rank(ctx.ranks, found != first["found"] or first["of"] != 0),
                    "one is true": any_rank(ctx.ranks, ctx.ranks.rank == 2),
                    "sums": [float.fromhex(value) for value in found],
                    "seconds": ctx.ranks.own_seconds(),
                }
        """,
    )
    ctx = tiny.context(inputs, "sums", ranks=3)
    ctx.out.mkdir()
    found = run_on_ranks("sums", ctx)
    assert not found["differs"]
    assert found["one is true"]
    assert (ctx.out / "note").read_text() == "0", "the first rank was there before the others"
    generators = [random.Random(rank) for rank in range(3)]
    expected = [sum(one.uniform(-1, 1) * 10 ** one.randint(-9, 9) for one in generators) for _ in range(101)]
    assert found["sums"] == pytest.approx(expected, rel=1e-12)
    assert found["seconds"] == [0.0, 0.0, 0.0]


# ── the same training ────────────────────────────────────────────────────────────────────────────────────────────────


def test_two_ranks_train_as_one_process_does(one: Path, two: Path) -> None:
    for kind in ("train", "eval"):
        assert_close(tiny.metrics(one.parent, "one", kind), tiny.metrics(two.parent, "two", kind))
    different = max(float((a - b).abs().max()) for a, b in zip(weights(one).values(), weights(two).values()))
    assert different < 1e-4


def test_samples_of_two_ranks_are_those_of_one(one: Path, two: Path) -> None:
    assert (one / "samples.jsonl").read_text() == (two / "samples.jsonl").read_text() != ""


@pytest.mark.slow
@pytest.mark.parametrize(("ranks", "replicas"), [(4, 1), (4, 2), (2, 2)])
def test_four_ranks_and_replicas_train_as_one_process_does(inputs: Path, one: Path, ranks: int, replicas: int) -> None:
    out = f"{ranks} in {replicas}"
    tiny.train(tiny.context(inputs, out, ranks=ranks, replicas=replicas))
    for kind in ("train", "eval"):
        assert_close(tiny.metrics(inputs, "one", kind), tiny.metrics(inputs, out, kind))


@pytest.mark.parametrize("size", [1, 2, 4])
def test_the_ranks_together_read_in_each_step_what_one_process_reads(inputs: Path, size: int) -> None:
    recipe = tiny.recipe()
    course = course_of(recipe.pretrain, rope_theta=recipe.model.rope_theta)
    shards = {name: TokenShard(inputs / "tokenize" / name / "train") for name in ("web", "code")}
    stream = Stream(shards, course.stream_stages(), seed=5)
    for step in range(course.num_steps):
        sample = course.sample_of_step(step)
        parts = [stream.batch_at(sample, 128, rank=rank, world_size=size) for rank in range(size)]
        whole = stream.batch_at(sample, 128)
        assert np.concatenate([part.tokens_N for part in parts]).tolist() == whole.tokens_N.tolist()
        assert sum(part.num_units for part in parts) == whole.num_units


@pytest.mark.parametrize(
    ("ranks", "out"), [(1, "one"), pytest.param(2, "two", marks=pytest.mark.slow)], ids=["one process", "two ranks"]
)
def test_activations_that_are_computed_twice_change_no_bit(
    inputs: Path, ranks: int, out: str, request: pytest.FixtureRequest
) -> None:
    kept: Path = request.getfixturevalue(out)
    tiny.train(tiny.context(inputs, f"recomputed by {ranks}", ranks=ranks, recompute=True))
    assert_identical(weights(inputs / f"recomputed by {ranks}"), weights(kept))
    assert tiny.metrics(inputs, f"recomputed by {ranks}") == tiny.metrics(inputs, out)


# ── resume ───────────────────────────────────────────────────────────────────────────────────────────────────────────


def stopped_at(inputs: Path, out: str, step: int, *, ranks: int) -> None:
    """Trains up to a step and is asked to stop there."""
    asked: list[bool] = []
    ctx = tiny.context(
        inputs,
        out,
        ranks=ranks,
        progress=tiny.at_step(step, lambda: asked.append(True)),
        should_stop=lambda: bool(asked),
    )
    with pytest.raises(Interrupted, match=f"stopped after step {step}"):
        tiny.train(ctx)


def test_two_ranks_of_which_the_first_is_killed_leave_and_resumed_end_bit_equal_to_two_that_were_never_stopped(
    inputs: Path, two: Path
) -> None:
    children: list[psutil.Process] = []
    with subprocess.Popen(
        [sys.executable, str(HERE / "tiny_pretraining.py"), str(inputs), "killed", "2", "23"]
    ) as first:
        while first.poll() is None:
            with contextlib.suppress(psutil.NoSuchProcess):
                children = psutil.Process(first.pid).children() or children
            time.sleep(0.05)
    assert first.returncode == -signal.SIGKILL
    _, alive = psutil.wait_procs(children, timeout=10)
    assert children
    assert not alive
    said: list[str] = []
    tiny.train(tiny.context(inputs, "killed", ranks=2, say=said.append))
    assert any("Resuming from step 20" in line for line in said)
    assert_identical(weights(inputs / "killed"), weights(two))
    for kind in ("train", "eval", "sample"):
        assert tiny.metrics(inputs, "killed", kind) == tiny.metrics(inputs, "two", kind)


@pytest.mark.slow
def test_two_ranks_then_one_then_two_train_as_one_process_does_and_the_record_tells(inputs: Path, one: Path) -> None:
    stopped_at(inputs, "elastic", 13, ranks=2)
    stopped_at(inputs, "elastic", 31, ranks=1)
    said: list[str] = []
    counts = tiny.train(tiny.context(inputs, "elastic", ranks=2, say=said.append))
    assert said[0] == "Resuming with different ranks: 1 → 2; the result will not be bit-identical to an unbroken run."
    assert_close(tiny.metrics(inputs, "elastic"), tiny.metrics(inputs, "one"))
    starts = [(start["from_step"], start["environment"].get("ranks", 1)) for start in counts["lineage"]]
    assert starts == [(0, 2), (13, 1), (31, 2)]
    assert counts["mixed_environments"]


# ── a rank that ends ─────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_rank_of_four_that_is_killed_is_named_the_others_leave_and_the_training_resumes(
    inputs: Path, one: Path
) -> None:
    children: list[psutil.Process] = []

    def kill_the_third() -> None:
        ranks = [child for child in psutil.Process().children() if "gristmill.train.ranks.process" in child.cmdline()]
        children.extend(sorted(ranks, key=lambda child: child.pid))
        children[2].kill()

    ctx = tiny.context(inputs, "lost", ranks=4, progress=tiny.at_step(23, kill_the_third))
    with pytest.raises(ResourceError, match=r"^rank 3 of 4 \(last heard of: .*\) was ended by SIGKILL") as lost:
        tiny.train(ctx)
    assert lost.value.exit_code == 75
    assert not [child for child in children if child.is_running()]
    tiny.train(tiny.context(inputs, "lost"))
    assert_close(tiny.metrics(inputs, "lost"), tiny.metrics(inputs, "one"))


def test_a_rank_that_fails_by_itself_says_why(inputs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """While the first one waits for it."""
    module_in(
        tmp_path,
        monkeypatch,
        name="fails_on_one",
        text="""
            from gristmill.errors import DataError
            def run(ctx):
                if ctx.ranks.rank == 1:
                    raise DataError('shard 7 is damaged')
                return ctx.ranks.sum([1.0])
        """,
    )
    with pytest.raises(
        RankFailed, match=r"^rank 1 of 2 \(last heard of: .*\) failed \(exit code 1\):\nDataError: shard 7 is damaged$"
    ):
        run_on_ranks("fails_on_one", tiny.context(inputs, "failed", ranks=2))


@pytest.mark.slow
def test_a_rank_that_something_else_started_runs_the_first_ones_steps_and_leaves_at_its_end(
    inputs: Path, two: Path
) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    first, asked = tiny.place(0, port), list[bool]()
    stopped = tiny.context(
        inputs,
        "elsewhere",
        ranks=2,
        progress=tiny.at_step(13, lambda: asked.append(True)),
        should_stop=lambda: bool(asked),
    )
    resumed = tiny.context(inputs, "elsewhere", ranks=2)
    resumed.run.folder.mkdir(parents=True)
    program = [sys.executable, str(HERE / "tiny_pretraining.py"), str(inputs), "elsewhere", "serve", str(port)]
    with subprocess.Popen(program, stdout=subprocess.PIPE, text=True) as other:
        with leading(first):
            with pytest.raises(Interrupted):
                tiny.train(replace(stopped, machine=replace(stopped.machine, place=first)))
            tiny.train(replace(resumed, machine=replace(resumed.machine, place=first)))
        said = other.communicate(timeout=20)[0].splitlines()
    who = "rank 1 of 2: "
    assert said == [f"{who}pretrain", f"{who}stopped after step 13; its state is saved", f"{who}pretrain"]
    assert other.returncode == 0
    assert_identical(weights(inputs / "elsewhere"), weights(two))
    assert not list(resumed.run.folder.glob(".task-*"))


def test_a_rank_elsewhere_is_gone_when_it_has_been_silent_for_long() -> None:
    silent, heard = (Other(rank=rank, size=3, told=(0.0, "step 5 of 9 on node-2")) for rank in (1, 2))
    silent.heard_at -= 60.0
    why = Others(ranks=[heard, silent]).why()
    assert isinstance(why, ResourceError)
    assert str(why).startswith("rank 1 of 3 (last heard of: step 5 of 9 on node-2) is gone, and the training with it.")


TORCHRUN = {"RANK": "3", "WORLD_SIZE": "16", "LOCAL_RANK": "1", "MASTER_ADDR": "node-1", "MASTER_PORT": "29500"}


def test_the_place_of_a_rank_is_what_torchrun_says() -> None:
    assert read_ranks("4", {}) == (4, None)
    size, place = read_ranks("torchrun", {**TORCHRUN, "LOCAL_WORLD_SIZE": "8"})
    assert place is not None
    assert (size, place.rank, place.local_rank, place.local_size) == (16, 3, 1, 8)
    assert (place.host, place.port, place.is_hosted) == ("node-1", 29500, False)
    with pytest.raises(RecipeError, match=r"RANK=3, WORLD_SIZE=16, LOCAL_RANK=\(not set\)"):
        read_ranks("torchrun", {name: value for name, value in TORCHRUN.items() if name != "LOCAL_RANK"})


def test_a_rank_that_gives_no_sign_of_life_is_named_once() -> None:
    told = {1: (1.0, "step 5 of 9"), 2: (1.0, "step 5 of 9")}
    meeting = SimpleNamespace(told=lambda rank: told[rank])
    others = Others(ranks=[Other(rank=rank, size=3) for rank in told])
    said: list[str] = []
    for turn in range(4):
        told[1] = (float(turn), "step 6 of 9")
        others.listen(meeting, said.append, silent_seconds=0.05 if turn else 60.0)  # type: ignore[arg-type]
        time.sleep(0.06)
    assert len(said) == 1
    assert said[0].startswith("No sign of life for ")
    assert said[0].endswith(" from rank 2 of 3 (last heard of: step 5 of 9). All ranks wait for it.")


def test_a_slow_rank_is_named_once_and_again_when_it_recovers() -> None:
    slow_rank = SlowRank()
    said = [slow_rank.after_step([1.0, 1.0, 1.7, 1.1] if step < 50 else [1.0, 1.0, 1.2, 1.1]) for step in range(100)]
    assert [line for line in said if line] == [
        "Rank 2 of 4 is slow: 1.7 s a step in forward passes, where the median is 1.05 s. All ranks wait for it.",
        "Rank 2 is as fast as the others again.",
    ]
    assert SlowRank().after_step([]) is None


# ── numbers of ranks ─────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(("ranks", "nearest"), [(3, "2 or 4"), (8, "4"), (5, "4")])
def test_ranks_that_cannot_share_every_stage_evenly_are_refused_with_the_nearest_numbers(
    ranks: int, nearest: str
) -> None:
    """8 sequences a step in one stage, 4 in the other."""
    with pytest.raises(RecipeError, match=f"Use {nearest} ranks"):
        check_ranks(tiny.recipe().pretrain, ranks)
    for possible in (1, 2, 4):
        check_ranks(tiny.recipe().pretrain, possible)


@pytest.mark.parametrize(("ranks", "replicas"), [(0, 1), (4, 3), (2, 0)])
def test_replicas_that_do_not_divide_the_ranks_are_refused(ranks: int, replicas: int) -> None:
    with pytest.raises(RecipeError, match=f"--ranks is {ranks} and --replicas {replicas}"):
        Machine(ranks=ranks, replicas=replicas)


def test_more_ranks_than_gpus_are_refused_before_any_is_started(inputs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    ctx = tiny.context(inputs, "no GPUs", ranks=4)
    with pytest.raises(RecipeError, match="--ranks is 4, and this machine has 2 GPUs"):
        tiny.train(replace(ctx, machine=replace(ctx.machine, device="auto")))


def test_ranks_share_the_cores_evenly_unless_a_number_is_asked_for() -> None:
    assert Machine(ranks=1000).threads_of_a_rank == 1
    assert Machine(ranks=4, threads=3).threads_of_a_rank == 3
    assert Machine().threads_of_a_rank == "auto"
    _, place = read_ranks("torchrun", TORCHRUN)
    assert Machine(ranks=16, place=place).threads_of_a_rank == usable_cpus(), "srun binds the cores of each"


def test_a_task_that_another_user_wrote_is_refused_before_it_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / ".task-0-x"
    path.write_bytes(b"no pickle, so reading it would be another error")
    own = os.getuid()
    monkeypatch.setattr(os, "getuid", lambda: own + 1)
    with pytest.raises(ResourceError, match="is no task of this run: another user wrote it"):
        service._read(path)
