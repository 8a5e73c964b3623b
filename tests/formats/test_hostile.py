"""Every hostile set: no error, bytes that add up, and what was sound in it is read."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

import pytest

import gristmill
from accounting import read_whole, reasons
from gristmill.data.record import RawDocument, Record
from gristmill.formats.format import format_named, size_of
from hostile.sets import SETS

SCALE = 0.01
TESTS = Path(__file__).parents[1]
# What pyarrow and Python take, and 17 MB a few times; a page of Parquet, and what it unpacks to; a text of 256 MB, which may take
# four bytes a character.
LIMITS_KB = {"parquet": 700_000, "text": 1_500_000}
LIMIT_KB = 400_000


def documents(records: Iterable[Record]) -> int:
    return sum(isinstance(record, RawDocument) for record in records)


@pytest.mark.parametrize("name", SETS)
def test_a_hostile_set_is_read_and_accounted_for(name: str, tmp_path: Path) -> None:
    made = SETS[name](tmp_path, SCALE)
    found = read_whole(made.kind, made.path, **made.keys)
    assert made.documents in (None, documents(found))
    told = reasons(found)
    assert {reason: told[reason] for reason in made.reasons} == made.reasons
    spans = format_named(made.kind).spans(made.path, name="x", limit=max(1, size_of(made.path) // 7))
    if len(spans) > 1:
        assert documents(read_whole(made.kind, made.path, spans=spans, **made.keys)) == documents(found)


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("name", SETS)
def test_a_hostile_set_of_full_size_is_read_in_bounded_memory(name: str, tmp_path: Path) -> None:
    source = Path(gristmill.__file__ or "").parents[1]
    environment = {**os.environ, "PYTHONPATH": f"{source}{os.pathsep}{TESTS}", "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "hostile", name, str(tmp_path), "1"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    wanted = found["wanted"]
    assert wanted["documents"] in (None, found["documents"])
    assert {reason: found["reasons"].get(reason) for reason in wanted["reasons"]} == wanted["reasons"]
    assert found["num_bytes"] == found["content"]
    assert found["peak_kb"] < LIMITS_KB.get(name.partition("_")[0], LIMIT_KB)
