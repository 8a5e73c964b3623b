"""The verbs from Python, as the documentation writes them."""

from __future__ import annotations

import re
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest
from whole_runs import forget

import gristmill

DOCUMENTED = (Path(__file__).parent.parent / "docs" / "steps" / "README.md").read_text(encoding="utf-8")


def test_the_example_of_the_documentation_runs(done_project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    forget(done_project, "tokenize")
    example = re.search(r"## From Python\n\n```python\n(.*?)```", DOCUMENTED, re.DOTALL)
    assert example is not None
    found: dict[str, Any] = {}
    exec(example[1], found)
    assert found["folder"] == Path("runs/tiny")
    assert (done_project / "runs" / "tiny" / "tokenize").is_dir()
    printed = capsys.readouterr().out
    assert float(printed.partition("\n")[0]) > 0
    assert "made     tokenize" in printed


def test_a_recipe_may_be_named_by_text_or_path(small_file: Path) -> None:
    assert gristmill.load_recipe(str(small_file)) == gristmill.load_recipe(small_file)


def test_all_names_are_there_and_the_version_is_that_of_the_package() -> None:
    assert all(getattr(gristmill, name) is not None for name in gristmill.__all__)
    assert set(gristmill.__all__) <= set(dir(gristmill))
    assert gristmill.__version__ == version("gristmill")
    with pytest.raises(AttributeError, match="no attribute 'trian'"):
        _ = gristmill.trian
    assert (Path(gristmill.__file__).parent / "py.typed").is_file()


def test_a_path_is_enough_to_plan_and_to_run(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert gristmill.plan("recipe.yaml").budget == gristmill.plan(gristmill.load_recipe("recipe.yaml")).budget
    assert gristmill.plan(project).recipe.name == "tiny"
    with pytest.raises(gristmill.GristmillError, match="--until 'nothing' is not a step"):
        gristmill.run(Path("recipe.yaml"), until="nothing")
