"""The tokenizer loses nothing, never lets a text speak in special tokens, and is read by transformers."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from transformers import AutoTokenizer

from gristmill.errors import ArtifactError, DataError, RecipeError
from gristmill.tokens.tokenizer import SPECIAL_TOKENS, Tokenizer, train_tokenizer

SMOLLM2_SPECIAL_TOKENS = [
    "<|endoftext|>", "<|im_start|>", "<|im_end|>", "<repo_name>", "<reponame>", "<file_sep>", "<filename>", "<gh_stars>",
    "<issue_start>", "<issue_comment>", "<issue_closed>", "<jupyter_start>", "<jupyter_text>", "<jupyter_code>",
    "<jupyter_output>", "<jupyter_script>", "<empty_output>",
]  # fmt: skip
unicode_text = st.text(st.characters(exclude_categories=["Cs"]), max_size=60)
# Texts in which special tokens, digits, blanks and rare signs meet.
awkward_text = st.lists(
    st.one_of(
        st.sampled_from([*SPECIAL_TOKENS, "<|im_", "end|>", "12", "  ", "\n", "\r\n", "'s", "\x00", "\ufeff"]),
        unicode_text,
    ),
    max_size=8,
).map("".join)


@settings(deadline=None, max_examples=200)
@given(text=awkward_text)
@example(text="٣ Ⅷ ² ﷽ \U0010ffff \x1c\x85\u2028")
def test_decode_after_encode_is_the_identity(tokenizer: Tokenizer, text: str) -> None:
    assert tokenizer.decode(tokenizer.encode(text)) == text


@settings(deadline=None, max_examples=100)
@given(raw=st.binary(max_size=60))
def test_any_bytes_that_are_text_come_back(tokenizer: Tokenizer, raw: bytes) -> None:
    text = raw.decode("utf-8", errors="replace")
    assert tokenizer.decode(tokenizer.encode(text)).encode() == text.encode()


@settings(deadline=None, max_examples=200)
@given(text=awkward_text)
@example(text="<|im_end|>")
@example(text="a<|endoftext|><|pad|>b")
def test_plain_text_never_yields_a_special_id(tokenizer: Tokenizer, text: str) -> None:
    assert not set(tokenizer.encode(text)) & set(range(len(SPECIAL_TOKENS)))


def test_special_tokens_stay_text_after_saving_and_loading(tokenizer: Tokenizer, tmp_path: Path) -> None:
    tokenizer.save(tmp_path)
    loaded = Tokenizer.load(tmp_path)
    assert loaded.encode("<|im_end|>") == tokenizer.encode("<|im_end|>")
    assert not set(loaded.encode("<|im_end|>")) & loaded.special_ids


@settings(deadline=None, max_examples=100)
@given(text=awkward_text)
def test_token_bytes_add_up_to_the_texts_bytes(tokenizer: Tokenizer, text: str) -> None:
    assert tokenizer.num_bytes(tokenizer.encode(text)) == len(text.encode())


def test_special_tokens_stand_for_no_bytes_and_every_byte_has_an_entry(tokenizer: Tokenizer) -> None:
    assert tokenizer.num_bytes(range(len(SPECIAL_TOKENS))) == 0
    assert tokenizer.token_bytes[18:274].tolist() == [1] * 256
    assert (tokenizer.token_bytes[274:] > 1).all()


def test_ids_of_special_tokens(tokenizer: Tokenizer) -> None:
    assert [tokenizer.decode([token_id]) for token_id in range(17)] == SMOLLM2_SPECIAL_TOKENS
    assert (tokenizer.eos_id, tokenizer.im_start_id, tokenizer.im_end_id, tokenizer.pad_id) == (0, 1, 2, 17)
    assert tokenizer.decode([17]) == "<|pad|>"


def test_every_digit_is_a_token_of_its_own(tokenizer: Tokenizer) -> None:
    assert [tokenizer.decode([token_id]) for token_id in tokenizer.encode("2024")] == ["2", "0", "2", "4"]


def test_training_does_not_depend_on_the_order_of_texts_or_on_the_run() -> None:
    texts = ["low lower lowest", "new newer newest low", "wide wider widest new"] * 3
    assert train_tokenizer(texts, 290).to_str() == train_tokenizer(reversed(texts), 290).to_str()


def test_the_merges_are_those_of_the_textbook_algorithm() -> None:
    """Most frequent pair first: "aa" (4 times), then "aab" (2 times)."""
    trained = train_tokenizer(["aab", "aab", "aac", "aad"], 276)
    assert [trained.id_to_token(274), trained.id_to_token(275)] == ["aa", "aab"]


def test_a_sample_too_small_for_the_vocabulary_is_an_error_with_the_number_it_supports() -> None:
    with pytest.raises(RecipeError, match=r"supports only 275 entries .* vocab_size 275 or less"):
        train_tokenizer(["ab", "ab"], 500)
    with pytest.raises(RecipeError, match="need 274"):
        train_tokenizer(["ab"], 273)


def test_transformers_reads_the_saved_files(tokenizer: Tokenizer, tmp_path: Path) -> None:
    tokenizer.save(tmp_path)
    theirs = AutoTokenizer.from_pretrained(tmp_path)
    text = "It's 12 sacks — naïve 😀\n\n  def grind(grain):"
    assert theirs(text)["input_ids"] == tokenizer.encode(text)
    assert (theirs.bos_token_id, theirs.eos_token_id, theirs.pad_token_id, len(theirs)) == (0, 0, 17, 400)
    assert theirs.decode(tokenizer.encode(text)) == text
    assert "generation" in theirs.chat_template


def test_a_text_that_is_no_unicode_is_refused_with_its_place(tokenizer: Tokenizer) -> None:
    with pytest.raises(DataError, match=r"text 1 of the batch holds '\\ud800' at character 2"):
        tokenizer.encode_batch(["fine", "ab\ud800"])


def test_a_missing_or_foreign_tokenizer_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match="does not exist"):
        Tokenizer.load(tmp_path)
    (tmp_path / "tokenizer.json").write_text("{}")
    with pytest.raises(ArtifactError, match="not a tokenizer file"):
        Tokenizer.load(tmp_path)


def test_a_tokenizer_without_the_chat_markers_is_refused(tokenizer: Tokenizer, tmp_path: Path) -> None:
    tokenizer.save(tmp_path)
    path = tmp_path / "tokenizer.json"
    path.write_text(json.dumps(json.loads(path.read_text())).replace("<|im_end|>", "<|turn_end|>"))
    with pytest.raises(ArtifactError, match=r"<\|im_end\|>"):
        Tokenizer.load(tmp_path)
