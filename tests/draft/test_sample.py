"""What is read of a folder where the limits leave no time for more."""

from __future__ import annotations

import gzip
import json
import random
import time
from pathlib import Path

import pytest

from gristmill.draft.ahead import Ahead
from gristmill.draft.sample import MIN_UNIT_BYTES, Limits, read_sample
from gristmill.graph.machine import Machine
from gristmill.recipe.schema.curation import Source


def unsaid() -> Ahead:
    return Ahead(lambda _words, _left: None, {}, text_bytes=0, reading_seconds=1e6)


def test_of_each_source_something_is_read_though_the_limits_are_used_up(tmp_path: Path) -> None:
    words = random.Random(4)
    lines = [json.dumps({"text": "".join(words.choices("abcdefgh ", k=1000))}) for _ in range(1000)]
    (tmp_path / "large.jsonl.gz").write_bytes(gzip.compress("\n".join(lines).encode()))
    (tmp_path / "small.txt").write_text("a few words of text\n" * 500, encoding="utf-8")
    sources = {
        "small": Source.model_validate({"read": {"format": "text", "paths": ["small.txt"]}, "license": "none"}),
        "large": Source.model_validate({"read": {"format": "jsonl", "paths": ["large.jsonl.gz"]}, "license": "none"}),
    }
    samples = read_sample(
        sources, recipe_dir=tmp_path, out=tmp_path / "out", machine=Machine(runs_dir=tmp_path / "runs", processes=1),
        limits=Limits(seconds=1e6, max_bytes=1), seed=1, ahead=unsaid(),
    )  # fmt: skip
    assert samples["small"].is_whole
    packed = (tmp_path / "large.jsonl.gz").stat().st_size
    assert 0 < samples["large"].share < 1
    assert samples["large"].share * packed >= 0.9 * MIN_UNIT_BYTES
    assert samples["large"].text_bytes > MIN_UNIT_BYTES, "packed text is longer than its file"


def test_when_reading_is_interrupted_nothing_is_at_work_in_its_folder_any_more(tmp_path: Path) -> None:
    words = random.Random(5)
    for number in range(12):
        text = "".join(words.choices("abcdefgh ", k=400_000))
        (tmp_path / f"{number}.txt").write_text(text, encoding="utf-8")
    source = Source.model_validate({"read": {"format": "text", "paths": ["*.txt"]}, "license": "none"})
    said: list[str] = []

    def say(line: str, _left: float) -> None:
        said.append(line)
        if len(said) == 3:  # other units are at work by then
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        read_sample(
            {"text": source}, recipe_dir=tmp_path, out=tmp_path / "out", machine=Machine(runs_dir=tmp_path, processes=2),
            limits=Limits(seconds=1e6), seed=1, ahead=Ahead(say, {}, text_bytes=0, reading_seconds=1e6),
        )  # fmt: skip
    left = {path: path.stat().st_mtime_ns for path in (tmp_path / "out").rglob("*")}
    time.sleep(1)
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "out").rglob("*")} == left


@pytest.mark.parametrize("num_lines", [400, 1100, 2600, pytest.param(6000, marks=pytest.mark.slow)])
@pytest.mark.parametrize("name", ["a.jsonl", "a.jsonl.gz", "a.csv"])
def test_as_many_documents_come_in_as_lie_in_a_file_of_any_size(tmp_path: Path, name: str, num_lines: int) -> None:
    """Files of more than a megabyte are cut; their pieces may be sampled together."""
    words = random.Random(num_lines)
    texts = ["".join(words.choices("abcdefgh ", k=700)) for _ in range(num_lines)]
    lines = ["text", *texts] if name.endswith(".csv") else [json.dumps({"text": text}) for text in texts]
    data = "\n".join(lines).encode()
    (tmp_path / name).write_bytes(gzip.compress(data) if name.endswith(".gz") else data)
    kind = name.split(".")[1]
    source = Source.model_validate({"read": {"format": kind, "paths": [name]}, "license": "none"})
    (sample,) = read_sample(
        {"lines": source}, recipe_dir=tmp_path, out=tmp_path / "out", machine=Machine(runs_dir=tmp_path, processes=1),
        limits=Limits(seconds=1e6), seed=1, ahead=unsaid(),
    ).values()  # fmt: skip
    account = sample.ledger.source("lines")
    assert account.came_in.documents == account.total("kept").documents == num_lines
