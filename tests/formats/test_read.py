"""What holds for every reader: any bytes give records that add up, each once, and never an exception."""

from __future__ import annotations

import gzip

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from accounting import read_whole
from gristmill.data.record import Skip
from gristmill.recipe.schema.formats import READERS


@pytest.mark.parametrize("kind", READERS)
@pytest.mark.parametrize("form", ["plain", "called .gz", "gzip", "gzip in members"])
@given(data=st.binary(max_size=300), cut=st.integers(0, 300), limit=st.sampled_from([1 << 40, 40]))
@settings(deadline=None, max_examples=30)
def test_any_bytes_give_records_that_add_up_and_never_an_exception(
    tmp_path_factory: pytest.TempPathFactory, kind: str, form: str, data: bytes, cut: int, limit: int
) -> None:
    path = tmp_path_factory.mktemp("any") / f"x{'.any' if form == 'plain' else '.gz'}"
    members = [data[:cut], data[cut:]] if form == "gzip in members" else [data]
    path.write_bytes(b"".join(map(gzip.compress, members)) if form.startswith("gzip") else data)
    records = [record for record in read_whole(kind, path, limit=limit) if not isinstance(record, Skip)]
    assert all(record.bytes_in >= 0 for record in records)
    assert len({record.id for record in records}) == len(records)
