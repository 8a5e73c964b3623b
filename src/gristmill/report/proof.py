"""The checks of the exported model as text: which program read it, and how well it agreed."""

from __future__ import annotations

from gristmill.export.outputs import CheckedWith, Exported, GgufFile, Speed
from gristmill.report.facts import Facts
from gristmill.units import in_bytes


def parity_words(facts: Facts) -> list[tuple[str, str]]:
    """The checks of the exported folder, as text."""
    exported = facts.left("export", Exported)
    parity, speeds = exported.proof, exported.speeds
    other = parity.transformers
    if isinstance(other, CheckedWith):
        words = f"{sum(other.greedy_tokens_equal)} of {sum(other.greedy_tokens_compared)} greedy tokens equal"
        if tied := sum(other.greedy_tokens_tied):
            words += f", {tied} {'tie' if tied == 1 else 'ties'} within {other.tolerance:.1g}"
        last = (
            f"transformers {other.version}",
            f"largest difference of logits {other.max_logit_difference:.1e}; {words}",
        )
    else:
        last = ("transformers", f"{other.why}: {other.command}")
    return [
        ("read back by gristmill", f"largest difference of logits {parity.max_logit_difference_read_back:.1e}"),
        ("rounding of the weights", f"changes logits by at most {parity.max_logit_change_by_rounding:.1e}"),
        last,
        *((f"llama.cpp, {file.form}", _llama_cpp_words(file, speeds.get(file.form))) for file in parity.gguf),
    ]


def _llama_cpp_words(file: GgufFile, speed: Speed | None) -> str:
    """The check of one GGUF file by llama.cpp."""
    size, proof = in_bytes(file.num_bytes), file.llama_cpp
    if not proof.checked:
        return f"{size}; {proof.why}: {proof.command}"
    words = (
        f"{size}; {proof.texts_split_equally:,} texts split equally; {proof.greedy_tokens_equal} of "
        f"{proof.greedy_tokens_compared} greedy tokens equal; largest difference of log-probabilities "
        f"{proof.max_logp_difference:.1e}"
    )
    if speed is not None:
        words += f"; {speed.tokens_per_second:,.0f} tokens/s and {in_bytes(speed.memory_bytes)} of memory on one thread"
    return words
