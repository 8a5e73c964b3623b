"""No token is used before its block was checked: wherever a byte changed, reading stops before it and says where."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import xxhash
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gristmill.errors import ArtifactError
from gristmill.tokens import blocks
from gristmill.tokens.blocks import BLOCK_BYTES, BlockHasher, CheckedFile, DamagedShard
from gristmill.tokens.shards import ShardWriter, TokenShard
from gristmill.tokens.stream import Draw, Stream, StreamStage

SUFFIXES = ("bin", "index", "json", "blocks")
SEQ_LEN, STEP = 512, 8 * 512
NUM_TOKENS = 3 * BLOCK_BYTES // 2 + 1000  # of 2 bytes: three whole blocks and a short one


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a shard of four blocks of tokens."""
    folder = tmp_path_factory.mktemp("sound")
    generator = np.random.default_rng(0)
    with ShardWriter(folder / "train", tokenizer_sha256="a" * 64, vocab_size=1000, eos_id=0) as writer:
        while writer.num_tokens < NUM_TOKENS:
            writer.add(generator.integers(1, 1000, size=int(generator.integers(5, 4000))), num_bytes=1)
    return folder


@pytest.fixture(scope="module")
def batches(sound: Path) -> list[bytes]:
    """What training reads in one epoch, step by step."""
    return list(read_all(sound, limit=None))


def read_all(folder: Path, *, limit: int | None) -> Iterator[bytes]:
    shard = TokenShard(folder / "train")
    num_samples = (shard.num_tokens - 1) // SEQ_LEN // 8 * 8
    draw = Draw(source="web", weight=1, min_document_tokens=limit)
    stream = Stream(
        {"web": shard}, [StreamStage(name="s", num_samples=num_samples, seq_len=SEQ_LEN, draws=(draw,))], seed=1
    )
    for step in range(num_samples * SEQ_LEN // STEP):
        batch = stream.batch(step, STEP)
        yield b"".join(array.tobytes() for array in (batch.tokens_N, batch.targets_N, batch.document_lengths))


def copy_with(sound: Path, to: Path, suffix: str, change: Callable[[bytearray], object]) -> Path:
    shutil.rmtree(to, ignore_errors=True)
    shutil.copytree(sound, to)
    content = bytearray((to / f"train.{suffix}").read_bytes())
    change(content)
    (to / f"train.{suffix}").write_bytes(content)
    return to


def flip(place: int, bit: int) -> Callable[[bytearray], None]:
    def change(content: bytearray) -> None:
        content[place % len(content)] ^= 1 << bit

    return change


@settings(deadline=None, max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(suffix=st.sampled_from(["bin", "json", "blocks"]), place=st.integers(0, 1 << 40), bit=st.integers(0, 7))
def test_training_stops_before_a_token_of_a_damaged_block_wherever_a_bit_flipped(
    sound: Path, batches: list[bytes], tmp_path: Path, suffix: str, place: int, bit: int
) -> None:
    damaged = copy_with(sound, tmp_path / "damaged", suffix, flip(place, bit))
    read: list[bytes] = []
    with pytest.raises(ArtifactError, match=r"train\.(bin|json|blocks)"):  # noqa: PT012
        for batch in read_all(damaged, limit=None):
            read.append(batch)
    assert read == batches[: len(read)], "what was read before is what was written"


@settings(deadline=None, max_examples=15, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(place=st.integers(0, 1 << 40), bit=st.integers(0, 7))
def test_a_selection_by_length_is_not_made_of_a_damaged_index(
    sound: Path, tmp_path: Path, place: int, bit: int
) -> None:
    damaged = copy_with(sound, tmp_path / "damaged", "index", flip(place, bit))
    with pytest.raises(DamagedShard, match=r"train\.index was damaged"):
        next(read_all(damaged, limit=100))


@settings(deadline=None, max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(place=st.integers(0, 1 << 40), bit=st.integers(0, 7), token=st.integers(0, NUM_TOKENS - 1))
def test_a_document_is_found_by_the_true_index_or_not_at_all(
    sound: Path, tmp_path: Path, place: int, bit: int, token: int
) -> None:
    damaged = copy_with(sound, tmp_path / "damaged", "index", flip(place, bit))
    with pytest.raises(DamagedShard, match=r"train\.index was damaged"):  # the index is one block
        TokenShard(damaged / "train").document(TokenShard(damaged / "train").document_at(token))


def test_where_a_document_begins_is_checked_too_when_it_stands_in_the_block_before(tmp_path: Path) -> None:
    first = BLOCK_BYTES // 8  # the first document of the second block of the index
    with ShardWriter(tmp_path / "train", tokenizer_sha256="a" * 64, vocab_size=1000, eos_id=0) as writer:
        writer.add_many([[1]] * (first + 2), num_bytes=first + 2)
    path = tmp_path / "train.index"
    content = bytearray(path.read_bytes())
    content[(first - 1) * 8] ^= 1
    path.write_bytes(content)
    with pytest.raises(DamagedShard, match=r"train\.index was damaged"):
        TokenShard(tmp_path / "train").place(first)
    assert TokenShard(tmp_path / "train").place(first + 1) == (2 * first + 2, 2 * first + 4)


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize(
    ("what", "change"),
    [("cut", lambda content: content.__delitem__(slice(-1, None))),
     ("emptied", lambda content: content.clear()),
     ("longer", lambda content: content.append(0)),
     ("a page of zeros", lambda content: content.__setitem__(slice(0, 4096), bytes(min(4096, len(content))))),
     ("a page of zeros in the middle", lambda content: content.__setitem__(
         slice(len(content) // 2, len(content) // 2 + 4096), bytes(min(4096, len(content) - len(content) // 2))))],
    ids=lambda value: value if isinstance(value, str) else "",
)  # fmt: skip
def test_a_file_that_was_cut_or_zeroed_is_named(
    sound: Path, tmp_path: Path, suffix: str, what: str, change: Callable[[bytearray], object]
) -> None:
    damaged = copy_with(sound, tmp_path / "damaged", suffix, change)
    with pytest.raises(ArtifactError, match=rf"train\.{suffix}"):
        for _ in read_all(damaged, limit=10):
            pass


def test_the_message_names_file_block_bytes_and_what_to_do(sound: Path, tmp_path: Path) -> None:
    damaged = copy_with(sound, tmp_path / "damaged", "bin", flip(BLOCK_BYTES + 5, 3))
    shard = TokenShard(damaged / "train")
    assert len(shard.read(0, BLOCK_BYTES // 2)) == BLOCK_BYTES, "the block before is sound"
    with pytest.raises(DamagedShard) as raised:
        shard.read(BLOCK_BYTES // 2 - 1, BLOCK_BYTES // 2 + 1)
    text = str(raised.value)
    assert f"{damaged / 'train.bin'} was damaged or exchanged: bytes 1,048,576 to 2,097,152 (block 2 of 4)" in text
    assert f"or remove {damaged} and run the same command" in text
    assert raised.value.exit_code == 1
    assert shard.damaged() == {damaged / "train.bin": [range(BLOCK_BYTES, 2 * BLOCK_BYTES)]}


def test_each_block_is_hashed_once(sound: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    hashed: list[int] = []

    def counting(block: memoryview) -> int:
        hashed.append(len(block))
        return xxhash.xxh3_64_intdigest(block)

    shard = TokenShard(sound / "train")
    monkeypatch.setattr(shard._token_file, "_hash_of", counting)
    for _ in range(2):
        for begin in range(0, shard.num_tokens - 700, 700):
            shard.read(begin, begin + 701)
    shard.read(0, shard.num_tokens)
    assert hashed == [BLOCK_BYTES] * 3 + [2 * shard.num_tokens - 3 * BLOCK_BYTES]
    assert shard._token_file.is_checked


def test_a_shard_without_hashes_of_blocks_is_checked_as_a_whole_by_its_sidecar(sound: Path, tmp_path: Path) -> None:
    old = copy_with(sound, tmp_path / "old", "bin", lambda content: None)
    (old / "train.blocks").unlink()
    assert list(read_all(old, limit=None)) == list(read_all(sound, limit=None))
    copy_with(old, tmp_path / "damaged", "bin", flip(-1, 7))
    with pytest.raises(DamagedShard, match=r"bytes 0 to 3,\d+,\d+ \(block 1 of 1\)"):
        next(read_all(tmp_path / "damaged", limit=None))


@settings(deadline=None, max_examples=60)
@given(pieces=st.lists(st.binary(max_size=50), max_size=12), block=st.integers(1, 40))
def test_hashes_of_a_file_do_not_depend_on_how_it_was_written(pieces: list[bytes], block: int) -> None:
    content = b"".join(pieces)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(blocks, "BLOCK_BYTES", block)
        hasher = BlockHasher()
        for piece in pieces:
            hasher.update(piece)
        hashes = hasher.hashes
    cut = [content[at : at + block] for at in range(0, len(content), block)]
    assert hashes == [xxhash.xxh3_64_intdigest(part) for part in cut]
    CheckedFile(Path("x"), memoryview(content), hashes, block_bytes=block).check_all()
