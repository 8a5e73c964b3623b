"""`gristmill export` writes all of a new folder or nothing of it, and says what is wrong with what it was asked."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from gristmill.export import llama_cpp, probes
from gristmill.export.outputs import GgufFile
from gristmill.store.durable import read_json


@pytest.fixture(autouse=True)
def short_proof(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(llama_cpp, "NUM_TEXTS", 40)
    monkeypatch.setattr(probes, "GREEDY_TOKENS", 4)


def test_forms_that_were_asked_for_are_written_with_their_proof(source: Path, tmp_path: Path, gristmill: Any) -> None:
    answer = gristmill("export", source, "--to", "gguf", "--type", "q8_0", "--type", "f32", "--out", tmp_path / "out")
    assert answer.code == 0, answer.err
    names = {f"{source.name}-f32.gguf", f"{source.name}-q8_0.gguf", "Modelfile", "parity.json"}
    assert {path.name for path in (tmp_path / "out").iterdir()} == names
    proofs = read_json(tmp_path / "out" / "parity.json")["gguf"]
    files = [GgufFile.from_json(proof, where="parity.json") for proof in proofs]
    assert [(file.form, file.llama_cpp.checked) for file in files] == [("f32", True), ("q8_0", True)]
    assert "greedy tokens equal" in answer.out


def test_a_failed_export_leaves_nothing(
    source: Path, tmp_path: Path, gristmill: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(llama_cpp.LIMITS, "f16", 0.0)
    answer = gristmill("export", source, "--to", "gguf", "--out", tmp_path / "out")
    assert (answer.code, list(tmp_path.iterdir())) == (1, [])
    assert "gives different results" in answer.err


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ((), "nothing to do. Add --to gguf"),
        (("--to", "gguf", "--type", "q5"), "--type is 'q5'; known are f32, f16, q8_0, q4_0."),
        (("--to", "gguf", "--out", "."), ". is there already; nothing was changed."),
        (("--push", "quickstart"), "expected OWNER/NAME"),
    ],
)
def test_what_cannot_be_asked_is_bad_usage(source: Path, gristmill: Any, options: tuple[str, ...], said: str) -> None:
    answer = gristmill("export", source, *options)
    assert answer.code == 2
    assert said in answer.err
