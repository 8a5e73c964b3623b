"""The exported folder is the trained model, in stock transformers too, and a folder that is not is refused."""

from __future__ import annotations

import importlib.util
import json
import socket
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray
from safetensors.torch import load_file, save_file

from gristmill.errors import ArtifactError
from gristmill.export import probes
from gristmill.export.huggingface import LOGIT_TOLERANCE, check_parity, compare_greedy, export_model
from gristmill.export.outputs import CheckedWith
from gristmill.export.probes import GREEDY_TOKENS, PROMPTS
from gristmill.model.generate import generate
from gristmill.model.transformer import Llama
from gristmill.model.weights import load_model, save_model
from gristmill.tokens.tokenizer import Tokenizer


def without_transformers(monkeypatch: pytest.MonkeyPatch) -> None:
    """As on a machine where the optional package is not installed."""
    real = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name, *more: None if name == "transformers" else real(name, *more)
    )


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("is_chat", [True, False])
def test_transformers_reads_the_folder_with_the_same_logits_and_64_greedy_tokens(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, dtype: str, is_chat: bool
) -> None:
    pytest.importorskip("transformers")

    def refuse(*arguments: object) -> None:
        raise AssertionError(f"a socket was used: {arguments}")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    trained = export_model(source, tmp_path, dtype=dtype, is_chat=is_chat)
    found = check_parity(trained, tmp_path, is_chat=is_chat)
    theirs = found.transformers
    assert isinstance(theirs, CheckedWith)
    assert theirs.max_logit_difference < 1e-4
    assert theirs.greedy_tokens_equal == (GREEDY_TOKENS,) * (len(PROMPTS) + is_chat)
    assert (found.max_logit_change_by_rounding == 0) == (dtype == "float32")
    assert found.stored_dtype == dtype
    json.dumps(found.to_json(), allow_nan=False)


def test_folder_holds_what_stock_software_looks_for_and_no_pickle(source: Path, tmp_path: Path) -> None:
    export_model(source, tmp_path, dtype="bfloat16", is_chat=True)
    assert {path.name for path in tmp_path.iterdir()} == {
        "config.json",
        "generation_config.json",
        "model.safetensors",
        "tokenizer.json",
        "tokenizer_config.json",
        "chat_template.jinja",
    }
    assert {tensor.dtype for tensor in load_file(tmp_path / "model.safetensors").values()} == {torch.bfloat16}
    assert "lm_head.weight" not in load_file(tmp_path / "model.safetensors")


@pytest.mark.parametrize(("is_chat", "end", "stops"), [(True, 2, [2, 0]), (False, 0, 0)])
def test_chat_model_ends_its_turn_and_base_model_its_text(
    source: Path, tmp_path: Path, is_chat: bool, end: int, stops: Any
) -> None:
    export_model(source, tmp_path, dtype="float32", is_chat=is_chat)
    assert json.loads((tmp_path / "config.json").read_text())["eos_token_id"] == end
    assert json.loads((tmp_path / "generation_config.json").read_text())["eos_token_id"] == stops
    assert json.loads((source / "config.json").read_text())["eos_token_id"] == 0


def test_exported_tokenizer_gives_transformers_the_same_ids_and_chat(source: Path, tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers")
    export_model(source, tmp_path, dtype="float32", is_chat=True)
    theirs = transformers.AutoTokenizer.from_pretrained(str(tmp_path), local_files_only=True)
    ours = Tokenizer.load(tmp_path)
    for text in PROMPTS:
        assert theirs(text)["input_ids"] == ours.encode(text)
    assert (
        theirs.apply_chat_template([{"role": "user", "content": "2 + 3?"}], add_generation_prompt=True, tokenize=False)
        == "<|im_start|>user\n2 + 3?<|im_end|>\n<|im_start|>assistant\n"
    )


def test_weights_that_changed_after_writing_are_refused(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    without_transformers(monkeypatch)
    trained = export_model(source, tmp_path, dtype="float32", is_chat=False)
    tensors = load_file(tmp_path / "model.safetensors")
    tensors["model.norm.weight"][3] *= 1.001
    save_file(tensors, tmp_path / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ArtifactError, match=r"logits differ by .* run the export again"):
        check_parity(trained, tmp_path, is_chat=False)


def test_config_that_changed_after_writing_is_refused(source: Path, tmp_path: Path) -> None:
    trained = export_model(source, tmp_path, dtype="float32", is_chat=False)
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({**config, "rms_norm_eps": 0.5}))
    with pytest.raises(ArtifactError, match="read back, its logits differ"):
        check_parity(trained, tmp_path, is_chat=False)


Change = Callable[[Any], None]


def check_with_changed_transformers(folder: Path, trained: Llama, change: Change, patch: pytest.MonkeyPatch) -> Any:
    """The parity of a folder where stock transformers reads other weights than are there."""
    transformers = pytest.importorskip("transformers")
    other = transformers.AutoModelForCausalLM.from_pretrained(str(folder), local_files_only=True)
    with torch.no_grad():
        change(other)
    patch.setattr(transformers.AutoModelForCausalLM, "from_pretrained", lambda *names, **options: other)
    return check_parity(trained, folder, is_chat=False).transformers.to_json()


def perturb_a_weight(theirs: Any) -> None:
    """Too little for another greedy token."""
    theirs.model.layers[0].mlp.down_proj.weight[3, 5] += 0.002


def pair_neighbouring_dimensions(theirs: Any) -> None:
    """Queries and keys in the order of a trainer whose rotary positions pair neighbours: shapes and lengths stay the same."""
    for layer in theirs.model.layers:
        for projection in (layer.self_attn.q_proj, layer.self_attn.k_proj):
            rows, columns = projection.weight.shape
            weight = projection.weight.view(-1, 2, 4, columns).transpose(1, 2).reshape(rows, columns)
            projection.weight.copy_(weight)


@pytest.mark.parametrize(
    ("change", "others"),
    [(perturb_a_weight, "0"), (pair_neighbouring_dimensions, r"[1-9]\d+")],
    ids=["weight", "rotary"],
)
def test_transformers_that_computes_something_else_is_an_error(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, change: Change, others: str
) -> None:
    trained = export_model(source, tmp_path, dtype="float32", is_chat=False)
    with pytest.raises(ArtifactError, match=rf"different results: .* and {others} of \d+ greedy tokens differ"):
        check_with_changed_transformers(tmp_path, trained, change, monkeypatch)


@pytest.fixture
def twins(source: Path, tmp_path: Path) -> tuple[Path, int]:
    """A model whose head holds the row of its most frequent token a second time, and the second's id, which is never read."""
    model, tokenizer = load_model(source), Tokenizer.load(source)
    prompts = [[tokenizer.eos_id, *tokenizer.encode(text)] for text in PROMPTS]
    texts = generate(model, prompts, max_new_tokens=GREEDY_TOKENS, stop_ids=())
    written = Counter(token for text in texts for token in text)
    (often, _), *_ = written.most_common()
    read = set(written).union(*prompts)
    never = next(token for token in range(often + 1, model.config.vocab_size) if token not in read)
    with torch.no_grad():
        model.model.embed_tokens.weight[never] = model.model.embed_tokens.weight[often]
    save_model(tmp_path / "twins", model, source)
    return tmp_path / "twins", never


@pytest.mark.parametrize("step", [0.0, 1e-6])
def test_another_token_is_accepted_and_counted_where_the_two_best_are_tied(
    twins: tuple[Path, int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: float
) -> None:
    folder, never = twins

    def prefer_the_second(theirs: Any) -> None:
        """By less than the tolerance; where the first wins its logit is above zero, so a longer row wins over it."""
        theirs.model.embed_tokens.weight[never] *= 1.0 + step

    trained = export_model(folder, tmp_path / "out", dtype="float32", is_chat=False)
    found = check_with_changed_transformers(tmp_path / "out", trained, prefer_the_second, monkeypatch)
    tied, equal, compared = (found[f"greedy_tokens_{kind}"] for kind in ("tied", "equal", "compared"))
    assert [a + b for a, b in zip(tied, equal, strict=True)] == compared == [GREEDY_TOKENS] * len(PROMPTS)
    assert sum(tied) > 10 if step else sum(tied) == 0


def test_a_tie_is_no_excuse_for_logits_that_differ(
    twins: tuple[Path, int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trained = export_model(twins[0], tmp_path / "out", dtype="float32", is_chat=False)
    with pytest.raises(ArtifactError, match="gives different results"):
        check_with_changed_transformers(tmp_path / "out", trained, perturb_a_weight, monkeypatch)


def test_our_own_greedy_text_is_held_against_our_own_logits(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A defect of generation alone leaves all logits equal; the text it wrote must not pass."""
    pytest.importorskip("transformers")
    trained = export_model(source, tmp_path, dtype="float32", is_chat=False)
    monkeypatch.setattr(probes, "generate", lambda model, prompts, **_: [[7] * GREEDY_TOKENS for _ in prompts])
    with pytest.raises(ArtifactError, match="differ without being tied"):
        check_parity(trained, tmp_path, is_chat=False)


LOGITS = arrays(np.float32, (6, 5), elements=st.floats(-3.0, 3.0, width=32))
CHANGES = arrays(np.float32, (6, 5), elements=st.floats(-1.0, 1.0, width=32))


@given(LOGITS, CHANGES, st.floats(1e-3, 1.0))
def test_logits_within_the_tolerance_disagree_on_ties_alone(
    logits: NDArray[np.float32], changes: NDArray[np.float32], tolerance: float
) -> None:
    ours = torch.from_numpy(logits)
    found = compare_greedy(
        ours.argmax(1).tolist(), ours, ours + torch.from_numpy(changes) * tolerance, tolerance * 1.001
    )
    assert (found.equal + found.tied, found.other) == (6, 0)


def test_equal_tied_and_other_tokens_are_told_apart() -> None:
    ours = torch.tensor([[2.0, 1.0, 0.0], [2.0, 1.0, 0.0], [1.00005, 1.0, 0.0], [2.0, 1.0, 0.0]])
    theirs = torch.tensor([[2.0, 1.0, 0.0], [1.0, 2.0, 0.0], [1.0, 2.0, 0.0], [1.99995, 2.0, 0.0]])
    found = compare_greedy([0, 0, 0, 0], ours, theirs, LOGIT_TOLERANCE)
    assert (found.equal, found.tied, found.other) == (1, 2, 1)


def test_without_transformers_it_says_so_with_the_command(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    without_transformers(monkeypatch)
    trained = export_model(source, tmp_path, dtype="float32", is_chat=False)
    assert check_parity(trained, tmp_path, is_chat=False).transformers.to_json() == {
        "checked": False,
        "why": "not checked: transformers is not installed",
        "command": 'pip install "transformers>=5.23,<6", then make the export step again',
    }
