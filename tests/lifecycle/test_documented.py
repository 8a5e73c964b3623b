"""The pages of the steps name every file that a run leaves, and no other."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

STEP_PAGES = Path(__file__).parents[2] / "docs" / "steps"
OF_ALL_STEPS = {"manifest.json", "record.json"}  # named once, in docs/steps/README.md
SUFFIXES = (
    ".bin",
    ".blocks",
    ".html",
    ".index",
    ".jinja",
    ".json",
    ".jsonl",
    ".md",
    ".npy",
    ".npz",
    ".parquet",
    ".safetensors",
    "/",
)


def patterns_of(page: Path) -> dict[str, re.Pattern[str]]:
    """The files under "Writes", up to the next bold word, as patterns: NNNNN is a number, <word> any name, a folder stands for what is in it."""
    section = page.read_text(encoding="utf-8").partition("**Writes**")[2].partition("\n**")[0]
    named = [code for code in re.findall(r"`([^`]+)`", section) if code.endswith(SUFFIXES)]
    found = {}
    for name in named:
        pattern = re.sub(r"<\w+>", "[^/]+", re.escape(name))
        pattern = re.sub("N{3,}", r"\\d+", pattern)
        found[name] = re.compile(rf"(.*/)?{pattern}{'.*' if name.endswith('/') else ''}")
    return found


PAGES = sorted(
    page for page in STEP_PAGES.glob("[a-z]*.md") if page.stem not in ("fetch", "start")
)  # the demo's sources are all at hand, and it begins with new weights


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_each_page_names_the_files_of_its_step(page: Path, finished_run: Path) -> None:
    records = finished_run.glob(f"{page.stem}/record.json"), finished_run.glob(f"{page.stem}/*/record.json")
    folders = [record.parent.resolve() for some in records for record in some]
    assert folders, f"the run has no step {page.stem}"
    left = {file.relative_to(folder).as_posix() for folder in folders for file in folder.rglob("*") if file.is_file()}
    patterns = patterns_of(page)
    unnamed = {name for name in left - OF_ALL_STEPS if not any(p.fullmatch(name) for p in patterns.values())}
    assert not unnamed, f"{page.name} does not name {sorted(unnamed)}"
    missing = [name for name, pattern in patterns.items() if not any(map(pattern.fullmatch, left))]
    assert not missing, f"{page.name} names {missing}, which the step did not leave"
