"""Checks that llama.cpp computes the same from a GGUF file as the exported model.

Any text must give the same token ids. Then, after each prefix of our own greedy text, the five tokens that are most likely for
llama.cpp are compared with ours: how far their log-probabilities differ, and whether the first is the same. f32 and f16 fail
beyond a limit; for q8_0 and q4_0 the difference is measured and reported.
"""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from gristmill.errors import ArtifactError
from gristmill.export.ask_llama_cpp import XLLAMACPP
from gristmill.export.gguf import write_gguf
from gristmill.export.outputs import GgufFile, LlamaCpp, NotChecked, Speed
from gristmill.export.probes import greedy_text, logits_of, prompts_of, texts_to_split
from gristmill.model.weights import load_model
from gristmill.recipe.schema.evaluation import GgufForm
from gristmill.tokens.tokenizer import Tokenizer
from gristmill.units import in_bytes

NUM_TEXTS = 1000
LIMITS: dict[GgufForm, float] = {"f32": 1e-3, "f16": 0.25}
"""Largest difference of log-probabilities, nats. To multiply float16 matrices, llama.cpp also rounds activations."""
SPEED_TOKENS = 200

MODELFILE = """# For Ollama: ollama create {name} -f Modelfile. Written by gristmill; not tried with Ollama itself.
FROM ./{file}
PARAMETER num_ctx {context}
{template}"""
CHAT = '''PARAMETER stop <|im_end|>
TEMPLATE """{{ range .Messages }}<|im_start|>{{ .Role }}
{{ .Content }}<|im_end|>
{{ end }}<|im_start|>assistant
"""
'''
BASE = 'TEMPLATE """{{ .Prompt }}"""\n'


def export_gguf(
    source: Path, folder: Path, forms: Sequence[GgufForm], *, name: str
) -> list[tuple[GgufFile, Speed | None]]:
    """Write NAME-FORM.gguf for each form and a Modelfile into `folder`; return the check of each and its speed.

    Raises ArtifactError when llama.cpp, where it is installed, cannot read a file or gives different results.
    """
    folder.mkdir(parents=True, exist_ok=True)
    found = []
    for form in forms:
        path = folder / f"{name}-{form}.gguf"
        others = write_gguf(source, path, form=form, name=name)
        proof, speed = check_gguf(source, path, form)
        found.append(
            (
                GgufFile(
                    file=path.name,
                    form=form,
                    num_bytes=path.stat().st_size,
                    stored_otherwise=tuple(others),
                    llama_cpp=proof,
                ),
                speed,
            )
        )
    config, tokenizer = load_model(source).config, Tokenizer.load(source)
    (folder / "Modelfile").write_text(
        MODELFILE.format(
            name=name,
            file=found[0][0].file,
            context=config.max_position_embeddings,
            template=CHAT if config.ends_at(tokenizer.im_end_id) else BASE,
        ),
        encoding="utf-8",
    )
    return found


def words_of(file: GgufFile) -> str:
    """A file in one line: its size and whether llama.cpp agrees."""
    words = f"{file.file}, {in_bytes(file.num_bytes)}"
    if file.stored_otherwise:
        words += f", {len(file.stored_otherwise)} of its matrices in a larger form"
    proof = file.llama_cpp
    if not proof.checked:
        return f"{words}; {proof.why} ({proof.command})"
    return (
        f"{words}; llama.cpp: {proof.greedy_tokens_equal} of {proof.greedy_tokens_compared} greedy tokens equal, "
        f"log-probabilities differ by at most {proof.max_logp_difference:.2g} nats"
    )


def check_gguf(source: Path, path: Path, form: GgufForm) -> tuple[LlamaCpp | NotChecked, Speed | None]:
    """llama.cpp on the file against the model in `source`."""
    if importlib.util.find_spec(XLLAMACPP) is None:
        return NotChecked(
            checked=False,
            why="not checked: llama.cpp is not installed",
            command=f"pip install {XLLAMACPP}, then export again",
        ), None
    model, tokenizer = load_model(source), Tokenizer.load(source)
    context = model.config.max_position_embeddings
    texts = texts_to_split(tokenizer, NUM_TEXTS)
    prompts = prompts_of(tokenizer, context, is_chat=model.config.ends_at(tokenizer.im_end_id))
    answers = [greedy_text(model, prompt) for prompt in prompts]
    said = ask(
        path,
        context=context,
        texts=texts,
        prompts=prompts,
        answers=answers,
        speed_tokens=min(SPEED_TOKENS, context // 2),
    )
    different = [
        text for text, ours, theirs in zip(texts, tokenizer.encode_batch(texts), said["ids"]) if ours != theirs
    ]
    if different:
        raise ArtifactError(
            f"{path}: llama.cpp splits {len(different)} of {len(texts)} texts into different tokens, first {different[0]!r}. "
            "Please report this."
        )
    logits = logits_of(model, [[*prompt, *answer[:-1]] for prompt, answer in zip(prompts, answers)])
    ours = [found[-len(answer) :].log_softmax(1) for found, answer in zip(logits, answers)]
    compared = compare(answers, ours, said["likely"])
    limit = LIMITS.get(form)
    if limit is not None and (compared.max_difference > limit or compared.other):
        raise ArtifactError(
            f"{path}: llama.cpp gives different results: log-probabilities differ by {compared.max_difference:.3g} "
            f"(allowed {limit:g}), and {compared.other} of {sum(map(len, answers))} greedy tokens differ without being tied. "
            "Please report this."
        )
    proof = LlamaCpp(
        checked=True,
        version=said["version"],
        texts_split_equally=len(texts),
        greedy_tokens_compared=sum(map(len, answers)),
        greedy_tokens_equal=compared.equal,
        greedy_tokens_tied=compared.tied,
        max_logp_difference=compared.max_difference,
        max_margin=compared.max_margin,
        limit=limit,
    )
    return proof, Speed(tokens_per_second=said["tokens_per_second"], memory_bytes=said["memory_bytes"])


@dataclass(frozen=True, kw_only=True)
class Compared:
    """Tokens of all answers: equal; tied; neither. max_difference, max_margin: nats. See `compare`."""

    equal: int
    tied: int
    other: int
    max_difference: float
    max_margin: float


def compare(
    answers: Sequence[Sequence[int]], ours: Sequence[Tensor], theirs: Sequence[Sequence[Sequence[tuple[int, float]]]]
) -> Compared:
    """Our greedy answers, with our log-probabilities (L, V) after each prefix, against the other program's most likely tokens.

    max_difference is over those tokens. A margin is the difference of our log-probabilities of our token and theirs, where the
    two differ; they are tied if it is at most twice max_difference, since each of the two values may be off by that much.
    """
    differences, margins, equal = [], [], 0
    for answer, logp_LV, likely in zip(answers, ours, theirs, strict=True):
        for token, logp_V, best in zip(answer, logp_LV.tolist(), likely, strict=True):
            differences += [abs(logp_V[other] - logp) for other, logp in best]
            first = best[0][0]
            equal += first == token
            if first != token:
                margins.append(logp_V[token] - logp_V[first])
    most = max(differences)
    tied = sum(margin <= 2 * most for margin in margins)
    return Compared(
        equal=equal, tied=tied, other=len(margins) - tied, max_difference=most, max_margin=max(margins, default=0.0)
    )


def ask(path: Path, **request: Any) -> dict[str, Any]:
    """What `ask_llama_cpp` answers about the file, on one thread."""
    child = subprocess.run(
        [sys.executable, "-m", "gristmill.export.ask_llama_cpp"],
        input=json.dumps({"path": str(path), "threads": 1, **request}),
        capture_output=True,
        text=True,
        check=False,
    )
    if child.returncode != 0:
        last = (child.stderr.strip() or "no message").splitlines()[-1]
        raise ArtifactError(f"{path}: llama.cpp ended with exit code {child.returncode}: {last}. Please report this.")
    answer: dict[str, Any] = json.loads(child.stdout.splitlines()[-1])
    return answer
