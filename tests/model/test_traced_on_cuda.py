"""What of a CUDA device can be shown without one: types, places and shapes of a whole forward pass and loss, and what is given to the
attention kernel. That the kernels compute what they should is left to the tests marked `gpu`."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from shutil import which
from typing import Any

import pytest
import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode

from gristmill.model import attention
from gristmill.model.attention import Documents, check_variable_length

PROGRAM = Path(__file__).parent / "traced_on_cuda.py"
needs_compiler = pytest.mark.skipif(which("g++") is None, reason="needs g++ for the device guard")
needs_kernel = pytest.mark.skipif(
    attention._variable_length_attention() is None, reason="this torch has no variable-length attention"
)


@pytest.fixture(scope="module")
def traced(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    command = [sys.executable, PROGRAM, tmp_path_factory.mktemp("guard")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=170, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    return dict(json.loads(done.stdout))


@needs_compiler
@needs_kernel
def test_forward_and_loss_stay_on_the_device_in_bfloat16_over_float32_weights(traced: dict[str, Any]) -> None:
    found = traced["as trained"]
    assert found["autocast"] == [True, "torch.bfloat16"]
    assert found["weights"] == ["torch.float32"]
    assert found["products"] == ["torch.bfloat16"]
    assert found["left"] == []
    assert found["loss"] == ["torch.float32", "cuda:0", []]
    assert found["sums"] == {
        "loss": ["torch.float64", "cuda:0", 23.0],
        "loss/web": ["torch.float64", "cuda:0", 5.0],
        "loss/code": ["torch.float64", "cuda:0", 18.0],
    }


@needs_compiler
@needs_kernel
def test_each_layer_attends_to_all_documents_by_one_call(traced: dict[str, Any]) -> None:
    calls = traced["as trained"]["calls"]
    assert len(calls) == 2
    for call in calls:
        assert call["q"] == ["torch.bfloat16", "cuda:0", [35, 4, 8]]
        assert call["k"] == call["v"] == ["torch.bfloat16", "cuda:0", [35, 2, 8]]
        assert call["offsets"] == ["torch.int32", "cuda:0", [5]]


@needs_compiler
@needs_kernel
def test_what_the_kernel_cannot_take_goes_by_a_call_a_document(traced: dict[str, Any]) -> None:
    """Float32, which is what autocast that is silently off leaves; and heads of 12."""
    assert traced["without autocast"]["autocast"][0] is False
    assert traced["without autocast"]["products"] == ["torch.float32"]
    assert traced["without autocast"]["calls"] == traced["odd heads"]["calls"] == []
    assert traced["odd heads"]["left"] == []


# ── the arguments of the kernel ──────────────────────────────────────────────────────────────────────────────────────

LENGTHS = [3, 5]


def arguments(*, head: int = 8, dtype: torch.dtype = torch.bfloat16, heads: int = 4) -> list[Tensor]:
    return [torch.zeros(8, count, head, dtype=dtype) for count in (heads, 2, 2)]


def documents(offsets: Tensor | None) -> Documents:
    return Documents(lengths=LENGTHS, offsets=offsets)


def offsets(dtype: torch.dtype = torch.int32) -> Tensor:
    return torch.tensor([0, 3, 8], dtype=dtype)


def test_right_arguments_pass() -> None:
    check_variable_length(*arguments(), documents(offsets()))  # type: ignore[call-arg]


WRONG: dict[str, tuple[list[Tensor], Documents]] = {
    "there are no offsets": (arguments(), documents(None)),
    "offsets are torch.int64": (arguments(), documents(offsets(torch.int64))),
    r"\(2,\) offsets, 2 documents": (arguments(), documents(offsets()[:2])),
    "offsets are not contiguous": (arguments(), documents(torch.zeros(6, dtype=torch.int32)[::2])),
    "tensors lie on": (arguments(), documents(offsets().to("meta"))),
    "queries are torch.float32;": (arguments(dtype=torch.float32), documents(offsets())),
    "values torch.float16": (
        [*arguments()[:2], arguments(dtype=torch.float16)[2]],
        documents(offsets()),
    ),
    "head size is 36": (arguments(head=36), documents(offsets())),
    "head size is 264": (arguments(head=264), documents(offsets())),
    "another shape": ([*arguments()[:2], arguments(head=16)[2]], documents(offsets())),
    "3 query heads": (arguments(heads=3), documents(offsets())),
    "heads are not contiguous": (
        [torch.zeros(8, 8, 4, dtype=torch.bfloat16).transpose(1, 2), *arguments()[1:]],
        documents(offsets()),
    ),
    "do not add up": (arguments(), replace(documents(offsets()), lengths=[3, 4])),
}


@pytest.mark.parametrize("words", WRONG)
def test_wrong_arguments_are_refused_with_what_is_wrong(words: str) -> None:
    tensors, where = WRONG[words]
    with pytest.raises(AssertionError, match=words):
        check_variable_length(*tensors, where)  # type: ignore[call-arg]


@needs_kernel
@pytest.mark.parametrize("words", ["offsets are torch.int64", "queries are torch.float32;", "head size is 36"])
def test_the_stand_in_of_torch_accepts_what_the_kernel_does_not(words: str) -> None:
    """Why the check is there: a trace alone would show nothing."""
    tensors, where = WRONG[words]
    attend = attention._variable_length_attention()
    with FakeTensorMode(allow_non_fake_inputs=True) as mode:
        q, k, v, at = (mode.from_tensor(x) for x in (*tensors, where.offsets))
        out = attend(q, k, v, at, at, 5, 5, window_size=(-1, 0), enable_gqa=True)
    assert out.shape == q.shape
