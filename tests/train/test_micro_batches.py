"""A device with too little memory: the step is taken again in smaller micro-batches, all ranks agree, and the run remembers."""

from __future__ import annotations

import importlib.util
import os
import textwrap
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import nn
from torch._subclasses.fake_tensor import DataDependentOutputException, FakeTensorMode

from gristmill.align.losses import PairBatch, preference_loss
from gristmill.errors import RecipeError
from gristmill.graph.ranks import ONE_RANK
from gristmill.store.jsonl import read_jsonl
from gristmill.tokens.batch import Batch
from gristmill.train.events import EVENTS, CutSmallerEvent, read_events
from gristmill.train.loss import LossOutput
from gristmill.train.micro_batches import _passes
from gristmill.train.optimizer_step import StepOutcome, take_step
from gristmill.train.ranks.launch import RankFailed
from gristmill.train.ranks.sharding import put_together
from gristmill.train.ranks.torch_ranks import Meeting, joined

HERE = Path(__file__).parent
LIMIT = 20  # tokens of a micro-batch that the planted device has memory for


def load(path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


tiny = load(HERE / "tiny_run.py")
tiny_pretraining = load(HERE / "tiny_pretraining.py")
pairs = load(HERE.parent / "align" / "test_losses.py")


def out_of_memory(*_: Any) -> None:
    raise torch.OutOfMemoryError("planted")


def in_forward(model: Any, batch: Batch) -> LossOutput:
    """After the pass, so that what it left is there when the step begins again."""
    output: LossOutput = tiny.LOSS(model, batch)
    if batch.num_tokens > LIMIT:
        out_of_memory()
    return output


def in_backward(model: Any, batch: Batch) -> LossOutput:
    """At the embedding, so that nearly all gradients are there when the step begins again."""
    output: LossOutput = tiny.LOSS(model, batch)
    if batch.num_tokens > LIMIT:
        node = output.loss_sum.grad_fn
        while "Embedding" not in node.name():
            node = node.next_functions[0][0]
        node.register_prehook(out_of_memory)
    return output


def step(loss_fn: Callable[..., LossOutput], micro_batch_tokens: int) -> tuple[StepOutcome, dict[str, torch.Tensor]]:
    model = tiny.tiny_model()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.0)
    outcome = take_step(
        model,
        optimizer,
        tiny.batch_at(0),
        loss_fn,
        lr=0.3,
        micro_batch_tokens=micro_batch_tokens,
        max_grad_norm=1e9,
    )
    assert all(parameter.grad is None for parameter in model.parameters())
    return outcome, model.state_dict()


@pytest.mark.parametrize("loss_fn", [in_forward, in_backward])
def test_a_step_without_memory_is_the_same_step_in_smaller_micro_batches(loss_fn: Callable[..., LossOutput]) -> None:
    assert tiny.batch_at(0).num_tokens > 2 * LIMIT
    found, weights = step(loss_fn, 1000)
    plain, plain_weights = step(tiny.LOSS, found.micro_batch_tokens)
    assert LIMIT / 2 < found.micro_batch_tokens <= LIMIT
    assert found == plain
    assert all(torch.equal(weights[name], plain_weights[name]) for name in plain_weights)
    whole, whole_weights = step(tiny.LOSS, 1000)
    assert (whole.tokens, whole.units, whole.micro_batch_tokens) == (found.tokens, found.units, 1000)
    assert found.loss == pytest.approx(whole.loss, rel=1e-6)
    assert found.grad_norm == pytest.approx(whole.grad_norm, rel=1e-5)
    for name, weight in whole_weights.items():
        torch.testing.assert_close(weights[name], weight, rtol=1e-5, atol=1e-6)


def test_no_cut_helps_when_single_documents_are_too_large() -> None:
    def always(model: Any, batch: Batch) -> LossOutput:
        raise torch.OutOfMemoryError("planted")

    longest = int(tiny.batch_at(0).document_lengths.max())
    with pytest.raises(RecipeError, match=r"no smaller ones can be cut.*--recompute.*--ranks") as found:
        step(always, 1000)
    tokens = int(str(found.value).split("micro-batches of ")[1].split()[0])
    assert longest <= tokens < 2 * longest  # it was cut as far as documents allow


def test_an_update_without_memory_ends_the_run_with_advice(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.optim.SGD, "step", out_of_memory)
    with pytest.raises(RecipeError, match=r"whatever the micro-batch is.*--ranks"):
        step(tiny.LOSS, 1000)


def test_another_error_of_a_step_is_not_taken_for_one_of_memory() -> None:
    def broken(model: Any, batch: Batch) -> LossOutput:
        raise RuntimeError("something else")

    with pytest.raises(RuntimeError, match="something else"):
        step(broken, 1000)


# ── the run ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def open_scarce(folder: Path, lines: list[str], **circumstances: Any) -> Any:
    return tiny.open_run(folder, lines.append, **circumstances)


def train_on(session: Any, *, end: int) -> None:
    """Trains with the callbacks that pretraining gives."""
    method = tiny.Method(
        batch_at=lambda progress: (tiny.batch_at(progress.step), progress.sample + tiny.DOCUMENTS),
        loss_fn=in_forward,
        reports=("loss", "loss/web", "loss/code"),
        lr_at=lambda progress: 1e-2,
        max_grad_norm=0.5,
    )
    watch = tiny.Watch(
        log_every=1,
        log=session.log,
        save=tiny.Hook(at=lambda step: step == 4, run=session.save),
        cut_smaller=session.cut_smaller,
    )
    tiny.train(session, method, watch, end_step=end, runtime=session.runtime)


def test_the_run_notes_it_once_keeps_the_size_and_resumes_with_it_bit_for_bit(tmp_path: Path) -> None:
    said: list[str] = []
    unbroken = open_scarce(tmp_path / "unbroken", said)
    train_on(unbroken, end=8)
    [event] = read_events(unbroken.out / EVENTS)
    assert isinstance(event, CutSmallerEvent)
    assert (event.step, event.before) == (1, tiny.MICRO_BATCH_TOKENS)
    assert event.micro_batch_tokens == unbroken.runtime.micro_batch_tokens <= LIMIT
    assert [line for line in said if "Out of memory at step 1 with micro-batches of 24 tokens" in line]
    assert [start["environment"]["micro_batch_tokens"] for start in unbroken.progress.lineage] == [
        24,
        event.micro_batch_tokens,
    ]
    first = open_scarce(tmp_path / "stopped", [])
    train_on(first, end=4)
    again: list[str] = []
    resumed = open_scarce(tmp_path / "stopped", again)
    assert resumed.progress.step == 4
    assert resumed.runtime.micro_batch_tokens == event.micro_batch_tokens
    assert not [line for line in again if "bit-identical" in line]
    train_on(resumed, end=8)
    tiny.assert_identical(tiny.state_of(resumed), tiny.state_of(unbroken))
    assert len(read_jsonl(resumed.out / EVENTS)) == 1


def test_another_size_that_is_asked_for_is_taken_again(tmp_path: Path) -> None:
    train_on(open_scarce(tmp_path, []), end=4)
    resumed = tiny.open_session(
        tmp_path / "out",
        fresh_model=tiny.tiny_model,
        optimizer_options={"lr": 0.0},
        tokenizer_dir=tmp_path / "tokenizer",
        checkpoints=tiny.checkpoints_in(tmp_path),
        runtime=tiny.Runtime(device="cpu", threads=1, micro_batch_tokens=30),
    )
    assert (resumed.progress.step, resumed.runtime.micro_batch_tokens) == (4, 30)


# ── several ranks ────────────────────────────────────────────────────────────────────────────────────────────────────


def fails_once(where: str) -> Callable[..., LossOutput]:
    """The second micro-batch: its first layer done, its loss made, or half of its backward pass done."""
    calls = iter(range(10**6))

    def loss_fn(model: Any, batch: Batch) -> LossOutput:
        fails = next(calls) == 1
        hooks = []
        if fails and where == "forward":
            hooks.append(model.model.layers[1].mlp.register_forward_pre_hook(out_of_memory))
        try:
            output: LossOutput = tiny.LOSS(model, batch)
        finally:
            for hook in hooks:
                hook.remove()
        if fails and where == "loss":
            out_of_memory()
        if fails and where == "backward":
            node = output.loss_sum.grad_fn
            while "Embedding" not in node.name():
                node = node.next_functions[0][0]
            node.register_prehook(out_of_memory)
        return output

    return loss_fn


@pytest.mark.parametrize("where", ["forward", "loss", "backward"])
def test_a_model_that_is_spread_over_ranks_begins_a_step_again_as_if_nothing_had_been(where: str) -> None:
    """One rank over gloo, which spreads and gathers as several do; the first micro-batch has left gradients of whole parameters."""
    outcomes, weights = [], []
    with joined(Meeting.opened(), rank=0, size=1, local_rank=0, device="cpu", replicas=1) as ranks:
        for loss_fn, of in ((fails_once(where), ranks), (tiny.LOSS, ONE_RANK)):
            model = tiny.tiny_model()
            if of is ranks:
                ranks.shard(model)
            size = 24 if of is ranks else outcomes[0].micro_batch_tokens
            optimizer = torch.optim.SGD(model.parameters(), lr=0.0)
            for number in range(2):  # the step after it is sound, too
                outcome = take_step(
                    model,
                    optimizer,
                    tiny.batch_at(number),
                    tiny.LOSS if number else loss_fn,
                    lr=0.3,
                    micro_batch_tokens=size,
                    max_grad_norm=1e9,
                    ranks=of,
                    reports=("loss", "loss/web", "loss/code"),
                )
                outcomes.append(outcome)
                size = outcome.micro_batch_tokens
            weights.append(put_together(model.state_dict(), keep=True))
    assert outcomes[0].micro_batch_tokens < 24
    for found, expected in zip(outcomes[:2], outcomes[2:], strict=True):
        assert found.loss == pytest.approx(expected.loss, rel=1e-6)
        assert found.grad_norm == pytest.approx(expected.grad_norm, rel=1e-5)
    for name, weight in weights[1].items():
        torch.testing.assert_close(weights[0][name], weight, rtol=1e-5, atol=1e-6)


SHORT = {
    "stages": [{"name": "stable", "tokens": 4 * 128, "seq_len": 16, "mixture": {"web": 0.75, "code": 0.25}}],
    "decay_tokens": 128,
}
SCARCE = """
    import torch
    from gristmill.train import pretrain
    from gristmill.train.loss import next_token_loss

    def run(ctx):
        failed = []
        def scarce(model, batch, **options):
            fails = ctx.ranks.rank == 1 and batch.num_tokens > {limit} and not failed
            if fails and not {in_backward}:
                failed.append(model.model.layers[1].mlp.register_forward_pre_hook(out_of_memory))
            output = next_token_loss(model, batch, **options)
            if fails:
                failed.append(output.loss_sum.register_hook(out_of_memory))
            return output
        def out_of_memory(*_):
            failed[0].remove()
            raise torch.OutOfMemoryError("planted")
        pretrain.next_token_loss = scarce
        return pretrain.run(ctx)
"""


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("micro batches")
    tiny_pretraining.write_inputs(folder)
    return folder


def train_two(
    inputs: Path,
    out: str,
    monkeypatch: pytest.MonkeyPatch,
    *,
    in_backward: bool,
    micro_batch_tokens: int,
) -> dict[str, Any]:
    """By two ranks, of which the second runs out of memory once, with more than 20 tokens."""
    folder = inputs / f"module of {out}"
    folder.mkdir()
    (folder / f"{out}.py").write_text(textwrap.dedent(SCARCE).format(limit=LIMIT, in_backward=in_backward))
    monkeypatch.syspath_prepend(str(folder))
    monkeypatch.setenv("PYTHONPATH", str(folder), prepend=os.pathsep)
    ctx = tiny_pretraining.context(inputs, out, ranks=2, **SHORT)
    ctx = replace(ctx, machine=replace(ctx.machine, micro_batch_tokens=micro_batch_tokens))
    found: dict[str, Any] = tiny_pretraining.run_on_ranks(out, ctx)
    return found


@pytest.mark.parametrize("where", ["forward", pytest.param("backward", marks=pytest.mark.slow)])
def test_all_ranks_begin_the_step_again_when_one_runs_out_of_memory(
    inputs: Path, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    """Each rank has 64 tokens a step in micro-batches of 40: the first of them fails."""
    out = f"scarce_{where}"
    train_two(inputs, out, monkeypatch, in_backward=where == "backward", micro_batch_tokens=40)
    [event] = [one for one in read_events(inputs / out / EVENTS) if isinstance(one, CutSmallerEvent)]
    assert event.step == 1
    plain = inputs / "plain"
    if not plain.exists():
        ctx = tiny_pretraining.context(inputs, "plain", ranks=2, **SHORT)
        machine = replace(ctx.machine, micro_batch_tokens=event.micro_batch_tokens)
        tiny_pretraining.train(replace(ctx, machine=machine))
    assert tiny_pretraining.metrics(inputs, out) == tiny_pretraining.metrics(inputs, "plain")
    found, expected = (load_file(folder / "model" / "model.safetensors") for folder in (inputs / out, plain))
    assert all(torch.equal(found[name], expected[name]) for name in expected)


@pytest.mark.slow
def test_memory_that_ends_while_gradients_are_exchanged_ends_the_run_with_advice(
    inputs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The only micro-batch of a step is also the one that exchanges."""
    with pytest.raises(RankFailed, match=r"rank 1 ran out of memory[\s\S]*--micro-batch-tokens 32"):
        train_two(inputs, "scarce_exchange", monkeypatch, in_backward=True, micro_batch_tokens=64)


# ── nothing waits ────────────────────────────────────────────────────────────────────────────────────────────────────


def passes_without_numbers(model_of: Callable[[], nn.Module], batch: Any, loss_fn: Callable[..., LossOutput]) -> None:
    """The passes of all micro-batches on tensors that have no values: whatever would read one raises."""
    with FakeTensorMode(allow_non_fake_inputs=True) as mode:
        model = model_of()
        for module in model.modules():
            for name, parameter in list(module.named_parameters(recurse=False)):
                setattr(module, name, nn.Parameter(mode.from_tensor(parameter.detach())))
        pieces = batch.micro_batches(24)
        assert len(pieces) > 1
        found = _passes(model, pieces, loss_fn, units=1.0, counts=True, ranks=ONE_RANK, cut_to=24)
    assert found is not None
    assert all(parameter.grad is not None for parameter in model.parameters())


@pytest.mark.parametrize("is_masked", [True, False])
def test_no_micro_batch_of_next_token_loss_reads_a_number_from_the_device(is_masked: bool) -> None:
    batch = tiny.batch_at(0)
    if not is_masked:
        batch.loss_mask_N[:] = 1
    passes_without_numbers(tiny.tiny_model, batch, partial(tiny.LOSS, z_loss=1e-4))


def test_no_micro_batch_of_preference_loss_reads_a_number_from_the_device() -> None:
    batch = PairBatch(pairs=[pairs.pair(seed) for seed in range(6)])
    passes_without_numbers(pairs.model.__wrapped__, batch, partial(preference_loss, beta=0.3))


@pytest.mark.parametrize(
    "read",
    [
        lambda x: x.item(),
        lambda x: float(x),
        lambda x: x.expand(3).nonzero(),
        lambda x: x.expand(3)[x.expand(3) > 0],
        lambda x: torch.bincount(x.expand(3).long(), weights=x.expand(3)),
        lambda x: x.expand(3).tolist(),
    ],
)
def test_a_loss_that_does_read_one_is_found_out(read: Callable[[torch.Tensor], Any]) -> None:
    def reads(model: Any, batch: Batch) -> LossOutput:
        output: LossOutput = tiny.LOSS(model, batch)
        read(output.loss_sum.detach())
        return output

    with pytest.raises(Exception, match=r"aten\.|data|storage") as found:
        passes_without_numbers(tiny.tiny_model, tiny.batch_at(0), reads)
    assert isinstance(found.value, (DataDependentOutputException, RuntimeError))
