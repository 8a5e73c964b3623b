"""Packs of a user's own: judged like others, in the identity, refused clearly, and a rule that fails costs one document."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from gristmill.data.outside import FileHashes, absolute, find_step_files
from gristmill.errors import RecipeError
from gristmill.extract import extract
from gristmill.extract.judge import check_rules, judge
from gristmill.extract.outputs import Extracted
from gristmill.extract.own_packs import load_own_packs, read_own_packs
from gristmill.pipeline import steps_of
from gristmill.recipe.schema.curation import Rules

HERE = Path(__file__).parent
PAGE = HERE.parents[1] / "docs" / "rules.md"
HEAD = "from gristmill.extract.rules import Rule\n"
MINE = (
    HEAD
    + """
def measure(text):
    if "raise" in text.text:
        raise ValueError("not this one")
    if "hang" in text.text:
        while True:
            pass
    if "nothing" in text.text:
        return None
    return text.text.count("!")

MINE = [Rule(reason="shouts", kind="max", limit=1, measure=measure)]
"""
)


@pytest.fixture
def run_extract(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(str(HERE))
    import run_extract

    return run_extract


def run(run_extract: Any, folder: Path, texts: dict[str, str], **rules: Any) -> tuple[dict[str, Any], Extracted]:
    lines = [json.dumps({"id": name, "text": text}) for name, text in texts.items()]
    (folder / "x.jsonl").write_text("\n".join(lines))
    source = {
        "read": {"format": "jsonl", "paths": ["x.jsonl"], "id_field": "id"},
        "rules": {"packs": ["./my_rules.py:MINE"], **rules},
        "max_failed": 1.0,
    }
    out = folder / "out"
    return extract.run(run_extract.context(folder, out, source)), Extracted(out)


def load(folder: Path, code: str, listed: str = "my_rules.py:MINE") -> Any:
    (folder / "my_rules.py").write_text(code)
    return load_own_packs(read_own_packs(Rules(packs=[listed]), lambda path: absolute(folder, path)))


def test_a_rule_drops_or_fails_one_document_and_the_rest_stays(tmp_path: Path, run_extract: Any) -> None:
    (tmp_path / "my_rules.py").write_text(MINE)
    texts = {"calm": "All is well.", "loud": "Oh! Oh! Oh!", "bad": "raise", "none": "nothing"}
    counts, out = run(run_extract, tmp_path, texts)
    assert (counts["documents_in"], counts["documents"]) == (4, 1)
    assert counts["dropped"] == {"shouts": 1}
    assert counts["failed"] == {"rule_error:./my_rules.py:shouts": 2}
    rows = {row["id"]: row for path in out.rejected for row in _rows(path)}
    assert (rows["loud"]["value"], rows["loud"]["limit"]) == (3.0, 1.0)
    assert rows["bad"]["detail"] == "./my_rules.py, line 5: ValueError: not this one"
    assert "expected a number, got None" in rows["none"]["detail"]


def _rows(path: Path) -> list[dict[str, Any]]:
    import pyarrow.parquet as pq

    return list(pq.read_table(path).to_pylist())


def test_a_rule_that_hangs_costs_its_document(tmp_path: Path, run_extract: Any) -> None:
    (tmp_path / "my_rules.py").write_text(MINE)
    (tmp_path / "a.html").write_text("<p>hang</p>" * 30)
    (tmp_path / "b.html").write_text("<p>All is well here, and it will be so tomorrow, said the miller.</p>" * 9)
    source = {
        "read": {"format": "html", "paths": ["*.html"]},
        "main_text": {"deadline_seconds": 1.0},
        "rules": {"packs": ["my_rules.py:MINE"]},
        "max_failed": 1.0,
    }
    counts = extract.run(run_extract.context(tmp_path, tmp_path / "out", source))
    assert (counts["documents"], counts["failed"]) == (1, {"timeout": 1})


def test_off_and_limits_know_its_reasons(tmp_path: Path, run_extract: Any) -> None:
    (tmp_path / "my_rules.py").write_text(MINE)
    texts = {"loud": "Oh! Oh! Oh!"}
    (tmp_path / "off").mkdir()
    assert run(run_extract, tmp_path, texts, limits={"shouts": 3.0})[0]["documents"] == 1
    (tmp_path / "off" / "my_rules.py").write_text(MINE)
    assert run(run_extract, tmp_path / "off", texts, off=["shouts"])[0]["would_drop"] == {"shouts": 1}
    own = load(tmp_path, MINE)
    with pytest.raises(RecipeError, match="off names 'murmurs'"):
        check_rules(["my_rules.py:MINE"], ["murmurs"], {}, where="sources.web.rules", own=own)


def test_the_content_of_the_file_is_in_the_identity(tmp_path: Path, run_extract: Any) -> None:
    (tmp_path / "x.txt").write_text("text")
    source = {
        "license": "MIT",
        "read": {"format": "text", "paths": ["x.txt"]},
        "rules": {"packs": ["my_rules.py:MINE"]},
    }
    step = next(iter(steps_of(run_extract.recipe({"web": source}))))
    hashes = []
    for code in (MINE, MINE + "# another\n"):
        (tmp_path / "my_rules.py").write_text(code)
        found = find_step_files(step.given, tmp_path, step.name)
        remembered = FileHashes(tmp_path / "none" / "hashes.json", threads=1, say=lambda line: None)
        hashes.append({label: remembered.of(files) for label, files in found.items()})
    assert hashes[0]["source"] == hashes[1]["source"]
    assert hashes[0]["rules my_rules.py"] != hashes[1]["rules my_rules.py"]


def test_a_source_that_is_fetched_has_its_rules_here(run_extract: Any) -> None:
    source = {
        "license": "MIT",
        "fetch": {"kind": "hub", "dataset": "owner/name", "revision": "0" * 40, "files": ["x.txt"]},
        "read": {"format": "text", "paths": ["x.txt"]},
        "rules": {"packs": ["my_rules.py:MINE"]},
    }
    (step,) = (one for one in steps_of(run_extract.recipe({"web": source})) if one.name == "extract/web")
    assert step.given.files == {"rules my_rules.py": ("my_rules.py",)}


@pytest.mark.parametrize(
    ("code", "words"),
    [
        (
            HEAD + "1 / 0\n",
            "my_rules.py:MINE cannot be loaded: my_rules.py, line 2: ZeroDivisionError: division by zero",
        ),
        ("x = (\n", "cannot be loaded: my_rules.py, line 1: SyntaxError"),
        ("raise SystemExit(3)\n", "cannot be loaded: my_rules.py, line 1: SystemExit: 3"),
        (MINE.replace("MINE =", "OTHER ="), "has no pack 'MINE'; it has OTHER"),
        ("MINE = 7\n", "my_rules.py:MINE is 7; expected a list of"),
        ("MINE = []\n", r"my_rules.py:MINE is \[\]; expected"),
        (MINE.replace('"shouts"', '"too_few_words"'), "'too_few_words', which is one of gopher_quality@1"),
        (MINE.replace('"shouts"', '"Shouts!"'), "the reason 'Shouts!'; expected lower-case"),
    ],
)
def test_what_is_no_pack_is_refused(tmp_path: Path, code: str, words: str) -> None:
    with pytest.raises(RecipeError, match=words):
        load(tmp_path, code)


def test_a_missing_file_and_a_file_without_a_name_are_refused(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match=r"'gone.py:MINE' cannot be read from .*: No such file"):
        read_own_packs(Rules(packs=["gone.py:MINE"]), lambda path: absolute(tmp_path, path))
    with pytest.raises(RecipeError, match=r"names 'my_rules.py'; there are .*, and your own as FILE.py:NAME"):
        check_rules(["my_rules.py"], [], {}, where="sources.web.rules")


def test_the_example_of_the_page_judges(tmp_path: Path) -> None:
    (code,) = re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), flags=re.DOTALL)
    own = load(tmp_path, code, "my_rules.py:SHOP")
    for text, reason in (("€ € €?", "too_many_prices"), ("Well.", "no_question"), ("Is it?", None)):
        drop = judge(text, ["my_rules.py:SHOP"], own=own).drop
        assert (drop and drop.reason) == reason
