"""What `gristmill verify` says of files beside those of an artefact, and that they are no damage."""

from __future__ import annotations

import io
import json
from pathlib import Path

import pytest
from rich.console import Console

from gristmill.commands.verify import verify
from gristmill.store.artifact import commit


@pytest.mark.parametrize("is_damaged", [False, True])
def test_a_file_that_no_manifest_names_is_told_and_only_damage_fails(tmp_path: Path, is_damaged: bool) -> None:
    (tmp_path / "x.partial").mkdir()
    (tmp_path / "x.partial" / "a").write_text("a")
    commit(tmp_path / "x.partial", tmp_path / "x", {})
    out = io.StringIO()
    assert verify(tmp_path, runs_dir=tmp_path, console=Console(file=out)) == 0
    assert "no manifest" not in out.getvalue()
    stray = tmp_path / "x" / "b"
    stray.write_text("b")
    if is_damaged:
        (tmp_path / "x" / "a").write_text("b")
    out = io.StringIO()
    assert verify(tmp_path, runs_dir=tmp_path, console=Console(file=out)) == int(is_damaged)
    said = out.getvalue().split("\n")
    assert said[said.index("1 file that no manifest names") + 1 :][0] == f"  {stray}"
    assert ("every file is what was written" in out.getvalue()) is not is_damaged
    out = io.StringIO()
    assert verify(tmp_path, runs_dir=tmp_path, console=Console(file=out), as_json=True) == int(is_damaged)
    assert json.loads(out.getvalue())["not_listed"] == [str(stray)]
