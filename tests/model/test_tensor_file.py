"""Files of tensors: the bytes of safetensors' own writer, read back by its reader, with the hash of what is on the disk."""

from __future__ import annotations

from pathlib import Path

import pytest
import safetensors.torch
import torch
from hypothesis import given
from hypothesis import strategies as st

from gristmill.model.tensor_file import DTYPES, write_tensors
from gristmill.store.durable import file_sha256

NAMES = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=12)
SHAPES = st.lists(st.integers(0, 5), max_size=3)
DESCRIBED = st.dictionaries(NAMES, st.tuples(SHAPES, st.sampled_from(list(DTYPES))), max_size=8)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("tensors")


@given(described=DESCRIBED, metadata=st.none() | st.just({"format": "pt"}))
def test_the_bytes_are_those_of_the_librarys_writer(
    folder: Path, described: dict[str, tuple[list[int], torch.dtype]], metadata: dict[str, str] | None
) -> None:
    tensors = {name: torch.randn(shape, dtype=torch.float64).to(dtype) for name, (shape, dtype) in described.items()}
    path = folder / "tensors.safetensors"
    digest = write_tensors(path, tensors, metadata)
    assert path.read_bytes() == safetensors.torch.save(tensors, metadata)
    assert digest == file_sha256(path)
    for name, value in safetensors.torch.load_file(path).items():
        assert value.dtype == tensors[name].dtype
        assert value.shape == tensors[name].shape
        assert torch.equal(value, tensors[name])


def test_a_tensor_that_does_not_lie_in_one_piece_is_written_as_it_reads(tmp_path: Path) -> None:
    whole = torch.arange(24.0).view(4, 6)
    tensors = {"turned": whole.T, "every other": whole[:, ::2], "needs a gradient": torch.ones(2, requires_grad=True)}
    write_tensors(tmp_path / "tensors.safetensors", tensors)
    for name, value in safetensors.torch.load_file(tmp_path / "tensors.safetensors").items():
        assert torch.equal(value, tensors[name])


def test_whole_numbers_are_not_asked_for(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="int64"):
        write_tensors(tmp_path / "tensors.safetensors", {"ids": torch.arange(3)})
