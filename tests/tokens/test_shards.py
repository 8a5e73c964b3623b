"""Shards hold what was written, and say so when they no longer do."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gristmill.errors import ArtifactError, DataError
from gristmill.tokens.shards import ShardWriter, TokenShard, token_dtype, unique_tokens

ids = st.integers(1, 69_999)
documents = st.lists(st.lists(ids, max_size=8), max_size=8)


def write(path: Path, texts: list[list[int]], vocab_size: int = 70_000) -> TokenShard:
    with ShardWriter(path, tokenizer_sha256="f" * 64, vocab_size=vocab_size, eos_id=0) as writer:
        for text in texts:
            writer.add(text, num_bytes=10)
    return TokenShard(path)


@settings(deadline=None, max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(texts=documents)
def test_documents_come_back_in_order_with_eos_at_each_end(tmp_path: Path, texts: list[list[int]]) -> None:
    shard = write(tmp_path / "train", texts)
    assert [shard.document(number).tolist() for number in range(shard.num_documents)] == [[*text, 0] for text in texts]
    assert shard.num_tokens == sum(map(len, texts)) + len(texts)
    assert shard.num_bytes == 10 * len(texts)
    assert shard.document_lengths().tolist() == [len(text) + 1 for text in texts]
    shard.verify()


def test_the_files_are_plain_little_endian_arrays(tmp_path: Path) -> None:
    write(tmp_path / "train", [[5, 258], [7]], vocab_size=1000)
    assert (tmp_path / "train.bin").read_bytes() == b"\x05\x00\x02\x01\x00\x00\x07\x00\x00\x00"
    assert (tmp_path / "train.index").read_bytes() == (3).to_bytes(8, "little") + (5).to_bytes(8, "little")
    sidecar = json.loads((tmp_path / "train.json").read_text())
    assert sidecar == {
        "format_version": 1,
        "tokenizer_sha256": "f" * 64,
        "vocab_size": 1000,
        "eos_id": 0,
        "dtype": "<u2",
        "num_tokens": 5,
        "num_documents": 2,
        "num_bytes": 20,
        "tokens_sha256": hashlib.sha256((tmp_path / "train.bin").read_bytes()).hexdigest(),
        "index_sha256": hashlib.sha256((tmp_path / "train.index").read_bytes()).hexdigest(),
    }


@pytest.mark.parametrize(("vocab_size", "size"), [(49_152, 2), (65_536, 2), (65_537, 4)])
def test_ids_take_two_bytes_where_the_vocabulary_fits(vocab_size: int, size: int) -> None:
    assert token_dtype(vocab_size).itemsize == size


def test_the_largest_id_of_each_width_survives(tmp_path: Path) -> None:
    assert write(tmp_path / "a", [[65_535]], vocab_size=65_536).tokens.tolist() == [65_535, 0]
    assert write(tmp_path / "b", [[65_536]], vocab_size=65_537).tokens.tolist() == [65_536, 0]


@settings(deadline=None, max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(texts=st.lists(st.lists(ids, max_size=8), min_size=1, max_size=8), data=st.data())
def test_a_flipped_bit_is_found(tmp_path: Path, texts: list[list[int]], data: st.DataObject) -> None:
    shard = write(tmp_path / "train", texts)
    path = tmp_path / data.draw(st.sampled_from(["train.bin", "train.index"]))
    content = bytearray(path.read_bytes())
    place = data.draw(st.integers(0, len(content) - 1))
    content[place] ^= 1 << data.draw(st.integers(0, 7))
    del shard
    path.write_bytes(content)
    with pytest.raises(ArtifactError, match="damaged or exchanged"):
        TokenShard(tmp_path / "train").verify()


def test_a_cut_file_is_found_when_it_is_opened(tmp_path: Path) -> None:
    write(tmp_path / "train", [[5, 6, 7]])
    path = tmp_path / "train.bin"
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(ArtifactError, match=r"15 bytes, its sidecar promises 4 x 4"):
        TokenShard(tmp_path / "train")


def test_an_unfinished_shard_is_no_shard(tmp_path: Path) -> None:
    write(tmp_path / "train", [[5]])
    writer = ShardWriter(tmp_path / "train", tokenizer_sha256="f" * 64, vocab_size=100, eos_id=0)
    writer.add([5], num_bytes=1)
    writer.__exit__(KeyboardInterrupt, KeyboardInterrupt(), None)
    with pytest.raises(ArtifactError, match="does not exist"):
        TokenShard(tmp_path / "train")


@pytest.mark.parametrize("bad", [100, -1])
def test_an_id_outside_the_vocabulary_is_refused(tmp_path: Path, bad: int) -> None:
    with (
        pytest.raises(DataError, match=rf"token id {bad} .* expected 0 to 99"),
        ShardWriter(tmp_path / "train", tokenizer_sha256="f" * 64, vocab_size=100, eos_id=0) as writer,
    ):
        writer.add([1, bad], num_bytes=2)


def test_unique_tokens_of_long_documents_alone(make_shard: Callable[..., TokenShard]) -> None:
    shard = make_shard("web", [[5], [5, 6, 7], [5, 6]])
    assert unique_tokens(shard) == 9
    assert unique_tokens(shard, min_document_tokens=3) == 7
    assert unique_tokens(shard, min_document_tokens=5) == 0


def test_many_documents_at_once_equal_one_by_one(tmp_path: Path) -> None:
    texts = [[5, 6], [], [7]]
    one = write(tmp_path / "one", texts)
    with ShardWriter(tmp_path / "many", tokenizer_sha256="f" * 64, vocab_size=70_000, eos_id=0) as writer:
        writer.add_many([np.array(text, dtype=np.int64) for text in texts], num_bytes=30)
    assert TokenShard(tmp_path / "many").facts == one.facts
